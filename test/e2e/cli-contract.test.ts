/** The program as a user or a script meets it: a child process, its exit status, its two streams. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const main = join(root, 'src/cli/main.ts')
let dir = ''

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'backstock-cli-'))
})
after(() => rm(dir, { recursive: true }))

interface Outcome {
  readonly exit: number | null
  readonly stdout: string
  readonly stderr: string
}

function backstock(...argv: string[]): Outcome {
  const env = { PATH: process.env['PATH'], XDG_CACHE_HOME: dir }
  const child = spawnSync(process.execPath, [main, ...argv], {
    cwd: dir,
    env,
    encoding: 'utf8',
    timeout: 60_000,
  })
  return { exit: child.status, stdout: child.stdout, stderr: child.stderr }
}

function eventsOf(outcome: Outcome): Record<string, unknown>[] {
  return outcome.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}

const sound = `shop: acme
repository: { store: file:///var/backups/acme, identity: identity.age }
sources:
  media: { kind: files, paths: [/srv/media] }
  orders: { kind: mariadb, url: mysql://backup@db/orders }
`

test('--version and --help answer on stdout with 0', async () => {
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
  assert.deepEqual(backstock('--version'), { exit: 0, stdout: `${version}\n`, stderr: '' })
  assert.deepEqual(backstock('--quiet', '--version'), { exit: 0, stdout: `${version}\n`, stderr: '' })
  const help = backstock('--help')
  assert.equal(help.exit, 0)
  assert.match(help.stdout, /^Usage: backstock [^]*Set up:[^]*Every day:[^]*Bring back:[^]*First steps:/)
  assert.match(backstock('help', 'restore').stdout, /--delta[^]*Examples:/)
})

test('wrong usage exits 20, says what was meant, and prints nothing on stdout', () => {
  const outcome = backstock('bakup')
  assert.equal(outcome.exit, 20)
  assert.equal(outcome.stdout, '')
  assert.match(outcome.stderr, /^backstock: .*unknown command 'bakup' \(did you mean backup\?\)\n {2}Run /)
  const json = backstock('--json', 'backup', '--kind', 'hourly')
  assert.equal(json.exit, 20)
  assert.equal(json.stderr, '')
  const [event] = eventsOf(json)
  assert.deepEqual(Object.keys(event ?? {}), ['type', 'code', 'message', 'hint', 'exit', 'facts'])
  assert.equal(event?.['code'], 'usage.invalid')
})

test('without a configuration: 20, and where it was looked for', () => {
  const outcome = backstock('config', 'check')
  assert.equal(outcome.exit, 20)
  assert.match(outcome.stderr, /there is no ".*\/backstock\.yaml" and "\/etc\/backstock\/backstock\.yaml"/)
})

test('config check shows every error with file, line, column and a caret', async () => {
  const file = join(dir, 'wrong.yaml')
  await writeFile(file, sound.replace('media: {', 'media: { exlude: [x],').replace('shop: acme', 'shop: 5'))
  const outcome = backstock('--config', 'wrong.yaml', 'config', 'check')
  assert.equal(outcome.exit, 20)
  assert.equal(
    outcome.stdout,
    [
      `${file}:1:7: shop is 5; it must be text`,
      '   1 | shop: 5',
      '             ^',
      `${file}:4:12: there is no key "exlude" in sources.media (did you mean "exclude"?)`,
      '   4 |   media: { exlude: [x], kind: files, paths: [/srv/media] }',
      '                  ^^^^^^',
      '',
      '2 errors',
      '',
    ].join('\n'),
  )
  const events = eventsOf(backstock('--json', '--config', 'wrong.yaml', 'config', 'check'))
  assert.deepEqual(
    events.map((event) => event['type']),
    ['finding', 'finding', 'summary'],
  )
  assert.deepEqual(events[0]?.['facts'], { file, line: 1, column: 7 })
})

test('config check of a sound file exits 0 and warns of what this version cannot use', async () => {
  await writeFile(join(dir, 'sound.yaml'), sound)
  const outcome = backstock('-c', 'sound.yaml', 'config', 'check')
  assert.equal(outcome.exit, 0)
  assert.match(
    outcome.stdout,
    /^warning: the source "orders".*mariadb is not available[^]*is sound: shop acme, 2 sources\n$/,
  )
})

test('config schema prints the committed schema', async () => {
  const outcome = backstock('config', 'schema')
  assert.equal(outcome.exit, 0)
  assert.equal(outcome.stdout, await readFile(join(root, 'backstock.schema.json'), 'utf8'))
})

test('completion needs a shell that it knows', () => {
  assert.equal(backstock('completion').exit, 20)
  assert.equal(backstock('completion', 'tcsh').exit, 20)
  assert.match(backstock('completion', 'bash').stdout, /complete -F _backstock backstock\n$/)
})

test(
  'a reader that goes away early ends a listing quietly',
  { skip: spawnSync('bash', ['-c', '']).status !== 0 },
  () => {
    // `true` has gone long before the program writes: its write fails with EPIPE.
    const line = `"$0" "$1" config schema | true; echo "\${PIPESTATUS[0]}"`
    const shell = spawnSync('bash', ['-c', line, process.execPath, main], { cwd: dir, encoding: 'utf8' })
    assert.equal(shell.stdout, '0\n')
    assert.equal(shell.stderr, '')
  },
)

test('a full disk behind stdout is a failure', { skip: !existsSync('/dev/full') }, () => {
  for (const argv of ['config schema', '--help', '--version', '--json config check', '--json no-command']) {
    const line = `"$0" "$1" ${argv} > /dev/full`
    const shell = spawnSync('/bin/sh', ['-c', line, process.execPath, main], { cwd: dir, encoding: 'utf8' })
    assert.ok(shell.status !== 0, argv)
    assert.match(shell.stderr, /^backstock: Cannot /, argv)
  }
})

/** A program with one command, which waits until it is told to stop; a stubborn one does not stop even then. */
async function waitingChild(options: { stubborn?: boolean } = {}): Promise<ChildProcess> {
  const program = `
    import { runProgram, cancelledExit } from ${JSON.stringify(join(root, 'src/cli/run.ts'))}
    import { cancelOnSignals } from ${JSON.stringify(join(root, 'src/cli/signals.ts'))}
    import { systemClock } from ${JSON.stringify(join(root, 'src/base/clock.ts'))}
    const waiting = { run: ({ signal }) => new Promise((_, reject) => {
      const alive = setInterval(() => {}, 1000)
      signal.addEventListener('abort', () => {
        process.stdout.write('stopping\\n')
        if (process.argv.includes('stubborn')) return
        clearInterval(alive)
        reject(signal.reason)
      })
      process.stdout.write('ready\\n')
    }) }
    const { stdin, stdout, stderr, env } = process
    process.exitCode = await runProgram(
      {
        argv: ['backup'], cwd: '/', version: '1', env, stdin, stdout, stderr,
        // A thousand times as fast: what comes within half a second only repeats a signal.
        clock: systemClock, signal: cancelOnSignals({
          exit: cancelledExit, env, clock: { ...systemClock, elapsed: () => 1000 * systemClock.elapsed() },
        }),
      },
      { backup: async () => waiting },
    )`
  await writeFile(join(dir, 'waiting.mts'), program)
  return spawn(process.execPath, [join(dir, 'waiting.mts'), options.stubborn === true ? 'stubborn' : ''], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

test('a signal lets the command end and exits 130', async () => {
  const child = await waitingChild()
  assert.ok(child.stdout !== null)
  await once(child.stdout, 'data')
  child.kill('SIGTERM')
  const [exit] = (await once(child, 'exit')) as [number | null]
  assert.equal(exit, 130)
})

test('a second signal ends a command that does not listen', async () => {
  const child = await waitingChild({ stubborn: true })
  assert.ok(child.stdout !== null)
  await once(child.stdout, 'data')
  child.kill('SIGINT')
  await once(child.stdout, 'data')
  child.kill('SIGINT')
  const [exit] = (await once(child, 'exit')) as [number | null]
  assert.equal(exit, 130)
})
