/**
 * A backup that is stopped in the middle: it ends soon, commits nothing, and the next one takes over its
 * work.
 */
import assert from 'node:assert/strict'
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, before, test } from 'node:test'
import {
  dropHost,
  eventOf,
  eventsOf,
  here,
  makeHost,
  program,
  putFile,
  run,
  type ShopHost,
  start,
} from '../harness/shop-host.ts'

const MIB = 1024 ** 2
let host: ShopHost

before(async () => {
  host = makeHost()
  const bytes = Buffer.alloc(72 * MIB)
  let state = 1
  for (let at = 0; at < bytes.length; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    bytes.writeUInt32LE(state, at)
  }
  for (let nth = 0; nth < 4; nth++)
    putFile(host, `media/${nth}`, bytes.subarray(nth * 18 * MIB, (nth + 1) * 18 * MIB))
  assert.equal((await here(host, ['init'])).exit, 0)
})
after(() => dropHost(host))

function packs(): string[] {
  const names = readdirSync(join(host.dir, 'repo'), { recursive: true, withFileTypes: true })
  return names
    .filter((one) => one.isFile() && one.parentPath.includes('/packs/') && !one.name.startsWith('.'))
    .map((one) => one.name)
}

/** Looks again and again until `isTrue`, at most 20 s. */
async function until(isTrue: () => boolean): Promise<void> {
  const end = Date.now() + 20_000
  while (!isTrue()) {
    assert.ok(Date.now() < end, 'it took too long')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

test('SIGINT ends a backup with 130 and no snapshot; the next one adopts what was stored', async () => {
  // The limit holds it in the middle for as long as the test needs.
  const child = start(host, ['backup', '--json', '--upload-limit', '16MiB/s'])
  let stdout = ''
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()))
  let begun = 0
  try {
    await until(() => packs().length > 0)
    begun = Date.now()
    child.kill('SIGINT')
    await once(child, 'close')
  } finally {
    child.kill('SIGKILL')
  }
  const exit = child.exitCode
  assert.equal(exit, 130, stdout)
  assert.ok(Date.now() - begun < 5000, 'it ends soon')
  assert.match(stdout, /"code":"cancelled"/)
  const left = packs().length
  assert.ok(left > 0)
  assert.equal(eventsOf(await here(host, ['snapshots', '--json'])).length, 1)

  const next = run(host, ['backup', '--json'])
  assert.equal(next.exit, 0, next.stderr)
  const summary = eventOf(next, 'summary')
  assert.ok(Number(summary['adoptedPacks']) >= left, `adopted ${String(summary['adoptedPacks'])} of ${left}`)
  assert.ok(Number(summary['bytesStored']) < 72 * MIB - (left - 1) * 8 * MIB)
  assert.equal((await here(host, ['check', '--read-data'])).exit, 0)
})

/** A child that reads standard input as the source `name`, and has begun to. */
async function startReading(
  name: string,
  begin: typeof start = start,
): Promise<ChildProcessWithoutNullStreams> {
  const child = begin(host, ['backup', name, '--stdin'])
  child.stdin.write('the first part')
  const sessions = join(host.dir, 'repo/sessions')
  await until(() =>
    readdirSync(sessions, { recursive: true }).some((one) => String(one).includes(`/${name}/`)),
  )
  return child
}

test('two backups of one source do not run at once: 11', async () => {
  const child = await startReading('twice')
  try {
    const second = await here(
      host,
      ['backup', 'twice', '--stdin', '--json'],
      Readable.from([Buffer.from('x')]),
    )
    assert.equal(second.exit, 11, second.stdout)
    assert.equal(eventOf(second, 'error')['code'], 'repo.busy')
    child.stdin.end('done\n')
    const [exit] = (await once(child, 'close')) as [number | null]
    assert.equal(exit, 0)
  } finally {
    child.kill('SIGKILL')
  }
})

test('SIGINT while waiting for standard input ends at once', async () => {
  const child = await startReading('waiting')
  try {
    const begun = Date.now()
    child.kill('SIGINT')
    const [exit] = (await once(child, 'close')) as [number | null]
    assert.equal(exit, 130)
    assert.ok(Date.now() - begun < 3000)
    assert.equal((await here(host, ['ls', 'waiting:latest'])).exit, 1)
  } finally {
    child.kill('SIGKILL')
  }
})

/** Starts the program as a Node does that is too old for it: by the bundled one, as a child of its own. */
function startByOldNode(
  { dir, env }: ShopHost,
  argv: readonly string[],
  options: { readonly detached?: boolean } = {},
): ChildProcessWithoutNullStreams {
  putFile(
    host,
    'old-node.cjs',
    `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.11.0' } })`,
  )
  return spawn(process.execPath, ['--require', './old-node.cjs', program, ...argv], {
    cwd: dir,
    env,
    ...options,
  })
}

/** In a process group of its own, as systemd and timeout(1) start it. */
function startGroup(of: ShopHost, argv: readonly string[]): ChildProcessWithoutNullStreams {
  return startByOldNode(of, argv, { detached: true })
}

test('a signal to launcher and program is one wish to end, not two', { timeout: 30_000 }, async () => {
  for (const times of [1, 2]) {
    const launcher = await startReading(`group-${times}`, startGroup)
    let stderr = ''
    launcher.stderr.on('data', (data: Buffer) => (stderr += data.toString()))
    const group = -(launcher.pid ?? assert.fail('it did not start'))
    try {
      // As timeout(1): its program first, then the group.
      if (times === 2) launcher.kill('SIGTERM')
      process.kill(group, 'SIGTERM')
      assert.deepEqual(await once(launcher, 'close'), [130, null])
      assert.match(stderr, /^backstock: Stopped reading standard input/m)
    } finally {
      if (launcher.exitCode === null) process.kill(group, 'SIGKILL')
    }
  }
})

test('a launcher that is killed takes its backup with it, cleanly', { timeout: 30_000 }, async () => {
  const launcher = await startReading('orphan', startByOldNode)
  const [child] = readFileSync(`/proc/${launcher.pid}/task/${launcher.pid}/children`, 'utf8').split(' ')
  let stderr = ''
  launcher.stderr.on('data', (data: Buffer) => (stderr += data.toString()))
  try {
    launcher.kill('SIGKILL')
    // Its pipes are those of the child: they close when that has ended too.
    await once(launcher, 'close')
    assert.match(stderr, /^backstock: Stopped reading standard input/m)
    assert.equal((await here(host, ['ls', 'orphan:latest'])).exit, 1)
  } finally {
    if (existsSync(`/proc/${child}`)) process.kill(Number(child), 'SIGKILL')
  }
})

test('the program ends by itself when its launcher has ended before it looks', () => {
  const nobody = spawnSync('true').pid
  const env = { ...host.env, BACKSTOCK_LAUNCHER: String(nobody) }
  const ended = spawnSync(process.execPath, [program, 'snapshots'], { cwd: host.dir, env, encoding: 'utf8' })
  assert.deepEqual([ended.status, ended.stdout], [130, ''])
  assert.match(
    ended.stderr,
    /^backstock: Cannot run: .*BACKSTOCK_LAUNCHER.* \(start bin\/backstock, or unset/,
  )
})
