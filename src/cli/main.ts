/**
 * The program: the one place that knows the process. Imports the rest only when it is needed, since
 * `--version` should be there at once. bin/backstock starts it and keeps its compiled code.
 */
import { readFileSync } from 'node:fs'

function ownVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  const { version } = JSON.parse(text) as { version: string }
  return version
}

async function main(): Promise<void> {
  const argv = process.argv.slice(2)
  if (argv.length === 1 && (argv[0] === '--version' || argv[0] === '-V')) {
    // run.ts does this for everything else.
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(0)
      console.error(`backstock: Cannot write to standard output: ${error.message}`)
      process.exit(1)
    })
    process.stdout.write(`${ownVersion()}\n`)
    return
  }
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
    signal: cancelOnSignals({ exit: cancelledExit, env: process.env, clock: systemClock }),
    version: ownVersion(),
  })
  // A stray handle must not keep the program alive, and what is printed must arrive before it ends.
  for (const stream of [process.stdout, process.stderr]) await new Promise((done) => stream.write('', done))
  process.exit(exit)
}

await main()
