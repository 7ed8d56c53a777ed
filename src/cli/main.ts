/**
 * The program: the one place that knows the process. Keeps itself light, since `--version` and completion run
 * often: everything else is imported after the compile cache is on.
 */
import { readFileSync } from 'node:fs'
import { enableCompileCache } from 'node:module'
import { join } from 'node:path'

/**
 * Compiled code kept for the next start, in a folder that only this user can write: others must not plant
 * code.
 */
function useCompileCache(): void {
  const { XDG_CACHE_HOME, HOME } = process.env
  const folder = XDG_CACHE_HOME ?? (HOME === undefined || HOME === '' ? undefined : join(HOME, '.cache'))
  if (folder?.startsWith('/') === true) enableCompileCache(join(folder, 'backstock', 'compile'))
}

function ownVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  const { version } = JSON.parse(text) as { version: string }
  return version
}

async function main(): Promise<void> {
  const argv = process.argv.slice(2)
  if (argv.length === 1 && (argv[0] === '--version' || argv[0] === '-V')) {
    // run.ts does this for everything else.
    process.stdout.on('error', () => process.exit(0))
    process.stdout.write(`${ownVersion()}\n`)
    return
  }
  useCompileCache()
  const [{ runProgram, cancelledExit }, { cancelOnSignals }, { systemClock }] = await Promise.all([
    import('./run.ts'),
    import('./signals.ts'),
    import('../base/clock.ts'),
  ])
  const exit = await runProgram({
    argv,
    env: process.env,
    cwd: process.cwd(),
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    clock: systemClock,
    signal: cancelOnSignals(cancelledExit),
    version: ownVersion(),
  })
  // A stray handle must not keep the program alive, and what is printed must arrive before it ends.
  for (const stream of [process.stdout, process.stderr]) await new Promise((done) => stream.write('', done))
  process.exit(exit)
}

await main()
