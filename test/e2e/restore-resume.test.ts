/** Restores that are cut off, and the same command again. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Failure, isFailure } from '../../src/base/failure.ts'
import { formatKit } from '../../src/repo/kit.ts'
import type { BlobStore } from '../../src/storage/store.ts'
import { folderSource, noise, seeded, testSeed, through } from '../harness/engine.ts'
import {
  backUpSettled,
  differences,
  dropWorld,
  makeWorld,
  restoreTo,
  type RestoreWorld,
} from '../harness/restores.ts'
import type { RestoreChildJob } from '../harness/restore-child.ts'
import { growDisk, mountDisk, unmountDisk } from '../harness/small-disk.ts'

const MIB = 1024 * 1024
const MARKER = '.backstock-restore'
const KILLS = 4
const isRoot = process.getuid?.() === 0

let world: RestoreWorld
let from = ''
let snapshot = ''
let targets = 0

before(async () => {
  world = await makeWorld()
  from = join(world.dir, 'from')
  mkdirSync(join(from, 'small'), { recursive: true })
  for (let nth = 0; nth < 1500; nth++) writeFileSync(join(from, `small/${nth}`), noise(nth, 200 + nth))
  for (let nth = 0; nth < 12; nth++) writeFileSync(join(from, `image-${nth}`), noise(-nth, 3 * MIB))
  linkSync(join(from, 'image-3'), join(from, 'other-name'))
  // Of 80 MiB, with data at both ends: restored in two parts.
  writeFileSync(join(from, 'video'), noise(77, 2 * MIB))
  execFileSync('truncate', ['-s', `${78 * MIB}`, join(from, 'video')])
  writeFileSync(join(from, 'video'), noise(78, 2 * MIB), { flag: 'a' })
  execFileSync('find', [from, '-exec', 'touch', '-d', '2020-02-02T02:02:02.020202', '{}', '+'])
  snapshot = await backUpSettled(world, folderSource(from), { kind: 'full', workers: 2 })
})
after(() => dropWorld(world))

function newTarget(): string {
  targets++
  return join(world.dir, `to-${targets}`)
}

/** Restores until `files` are done, and is cancelled then. */
async function cutOff(
  to: string,
  files: number,
  options: Parameters<typeof restoreTo>[3] = {},
): Promise<void> {
  const cut = new AbortController()
  const onProgress = (done: { files: number }): void => {
    if (done.files >= files) cut.abort()
  }
  await assert.rejects(
    restoreTo(world, snapshot, to, { ...options, signal: cut.signal, onProgress }),
    (error) => isFailure(error, 'cancelled'),
  )
  assert.ok(existsSync(join(to, MARKER)))
}

/** No file that has the times of a finished one differs from it. Returns how many have them. */
function assertNoneLooksFinished(to: string): number {
  let finished = 0
  for (const name of readdirSync(from, { recursive: true, encoding: 'latin1' })) {
    const restored = lstatSync(`${to}${from}/${name}`, { bigint: true, throwIfNoEntry: false })
    const original = lstatSync(join(from, name), { bigint: true })
    if (restored?.isFile() !== true || restored.mtimeNs !== original.mtimeNs) continue
    finished++
    assert.ok(
      readFileSync(`${to}${from}/${name}`).equals(readFileSync(join(from, name))),
      `${name} looks finished`,
    )
  }
  return finished
}

function assertFinished(to: string): void {
  assert.equal(differences(from, `${to}${from}`), '')
  assert.deepEqual(
    readdirSync(to).filter((name) => name.startsWith('.')),
    [],
  )
}

for (const workers of [0, 2])
  test(`a cancelled restore is resumed by the same call, ${workers} workers`, async () => {
    const to = newTarget()
    await cutOff(to, 200, { workers })
    const finished = assertNoneLooksFinished(to)
    const times = new Map(
      readdirSync(`${to}${from}`).map((name) => [name, statSync(`${to}${from}/${name}`).ctimeMs]),
    )
    const done = await restoreTo(world, snapshot, to, { workers })
    assert.ok(done.resumed > 0 && done.resumed <= finished, `${done.resumed} of ${finished}`)
    assert.equal(done.bytesWritten + done.bytesKept, done.bytes - 3 * MIB - 76 * MIB)
    assertFinished(to)
    const touched = [...times].filter(([name, ctime]) => statSync(`${to}${from}/${name}`).ctimeMs !== ctime)
    assert.ok(touched.length < times.size, 'finished files are left alone')
  })

test('half of a restore takes no other snapshot, paths or owners unless told', async () => {
  const to = newTarget()
  await cutOff(to, 200)
  const other = await backUpSettled(world, folderSource(from), { kind: 'full' })
  const refused = (promise: Promise<unknown>): Promise<void> =>
    assert.rejects(
      promise,
      (error) => isFailure(error, 'restore.refused') && /an unfinished restore of/.test(error.message),
    )
  await refused(restoreTo(world, other, to))
  await refused(restoreTo(world, snapshot, to, { paths: ['small'] }))
  await refused(restoreTo(world, snapshot, to, { noOwner: true }))
  await refused(restoreTo(world, other, to, { dryRun: true }))
  const done = await restoreTo(world, other, to, { delta: true })
  assert.ok(done.bytesKept > 0 && done.resumed === 0)
  assertFinished(to)
})

test('after a reboot contents are compared, however often the restore is cut off again', async () => {
  const to = newTarget()
  await cutOff(to, 400)
  const marker = JSON.parse(readFileSync(join(to, MARKER), 'utf8')) as Record<string, unknown>
  writeFileSync(join(to, MARKER), JSON.stringify({ ...marker, boot: 'the one before' }))
  const [lost = ''] = readdirSync(`${to}${from}`).filter((name) => name.startsWith('image'))
  loseContent(`${to}${from}/${lost}`)
  await cutOff(to, 1)
  const done = await restoreTo(world, snapshot, to)
  assert.equal(done.resumed, 0)
  assert.ok(done.bytesKept > 0)
  assertFinished(to)
})

test('`--overwrite` that was cut off trusts no file by its times', async () => {
  const to = newTarget()
  await restoreTo(world, snapshot, to)
  loseContent(`${to}${from}/small/1499`)
  loseContent(`${to}${from}/video`)
  await cutOff(to, 20, { overwrite: true })
  await restoreTo(world, snapshot, to)
  assertFinished(to)
})

/** What a crash of the system may leave: length and times are right, the content is not there. */
function loseContent(path: string): void {
  const { size, mtimeMs } = statSync(path)
  rmSync(path)
  execFileSync('truncate', ['-s', String(size), path])
  execFileSync('touch', ['-r', join(from, path.slice(path.lastIndexOf(from) + from.length)), path])
  assert.deepEqual([statSync(path).size, statSync(path).mtimeMs], [size, mtimeMs])
}

test('a restore that is killed at any moment is finished by the same command', async (t) => {
  const seed = testSeed()
  t.diagnostic(`SEED=${seed}`)
  const random = seeded(seed)
  let resumed = 0
  for (let nth = 0; nth < KILLS; nth++) {
    const to = newTarget()
    const workers = nth % 3
    // Each kill comes a little later, until a restore gets through.
    for (let wait = 20 + random() * 100; ; wait *= 2) {
      if (await killedAfter({ to, workers }, wait)) assertNoneLooksFinished(to)
      else break
      if (wait > 150) break
    }
    const done = await restoreTo(world, snapshot, to, {
      workers: 2,
      delta: !existsSync(join(to, MARKER)) && existsSync(to),
    })
    assert.deepEqual([done.damaged, done.failed, done.problems], [[], [], []], `SEED=${seed}`)
    resumed += done.resumed
    assertFinished(to)
    rmSync(to, { recursive: true })
  }
  t.diagnostic(`${resumed} files were taken over`)
})

/** Whether it had not ended by then. */
async function killedAfter(job: { to: string; workers: number }, wait: number): Promise<boolean> {
  const kitFile = join(world.dir, 'kit')
  if (!existsSync(kitFile)) writeFileSync(kitFile, formatKit(world.repository.kit))
  const cache = join(world.repository.host.path, '..')
  const whole: RestoreChildJob = { ...job, storeUrl: `file://${world.store}`, kitFile, cache, snapshot }
  const program = fileURLToPath(new URL('../harness/restore-child.ts', import.meta.url))
  const child = spawn(process.execPath, [program, JSON.stringify(whole)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit')
  await once(child.stdout, 'data')
  const first = await Promise.race([ended, sleep(wait)])
  child.kill('SIGKILL')
  await ended
  return first === undefined
}

for (const workers of [0, 2])
  test(`a store that goes away ends the restore, and it is resumed, ${workers} workers`, async () => {
    const { access } = world.repository
    let reads = 0
    const failing: BlobStore = {
      ...access.store,
      workerUrl: undefined,
      get: async (name, options) => {
        if (name.includes('/packs/')) reads++
        if (reads > 5) throw new Failure('storage.offline', `Cannot read "${name}": the store is gone`)
        return await access.store.get(name, options)
      },
    }
    const to = newTarget()
    const cut = { repository: through(world.repository, failing) }
    await assert.rejects(restoreTo(cut, snapshot, to, { workers }), (error) =>
      isFailure(error, 'storage.offline'),
    )
    assertNoneLooksFinished(to)
    await restoreTo(world, snapshot, to, { workers })
    assertFinished(to)
  })

test(
  'a full disk ends the restore in words, and it is resumed with more room',
  { skip: !isRoot },
  async (t) => {
    const to = newTarget()
    mkdirSync(to)
    if (!mountDisk(to, '24m')) {
      t.skip('this system lets nobody mount')
      return
    }
    t.after(() => unmountDisk(to))
    await assert.rejects(restoreTo(world, snapshot, to, { workers: 2 }), (error) => {
      assert.ok(isFailure(error, 'restore.failed'))
      assert.match(error.message, /^Cannot .* ".+": .*no space left on device/i)
      return true
    })
    const finished = assertNoneLooksFinished(to)
    growDisk(to, '200m')
    const done = await restoreTo(world, snapshot, to, { workers: 2 })
    assert.ok(done.resumed > 0 && done.resumed <= finished)
    assertFinished(to)
  },
)

test('a marker that is a symlink, cut short or of somebody else is none', async () => {
  const outside = join(world.dir, 'outside')
  writeFileSync(outside, 'precious')
  const to = newTarget()
  mkdirSync(to)
  symlinkSync(outside, join(to, MARKER))
  await assert.rejects(restoreTo(world, snapshot, to), (error) => isFailure(error, 'restore.refused'))
  await restoreTo(world, snapshot, to, { overwrite: true, paths: ['video'] })
  assert.equal(readFileSync(outside, 'utf8'), 'precious')
  await cutOff(newTarget(), 100)
  const half = join(world.dir, `to-${targets}`)
  const marker = readFileSync(join(half, MARKER))
  writeFileSync(join(half, MARKER), marker.subarray(0, 20))
  await assert.rejects(restoreTo(world, snapshot, half), (error) => isFailure(error, 'restore.refused'))
  writeFileSync(join(half, MARKER), marker)
  if (isRoot) {
    chownSync(join(half, MARKER), 1234, 1234)
    await assert.rejects(restoreTo(world, snapshot, half), (error) => isFailure(error, 'restore.refused'))
    chownSync(join(half, MARKER), 0, 0)
  }
  await restoreTo(world, snapshot, half)
  assertFinished(half)
  // The marker is written under another name first: left alone, it is as if nothing had begun.
  const draft = newTarget()
  mkdirSync(draft)
  writeFileSync(join(draft, `${MARKER}.new`), '{"snap')
  await restoreTo(world, snapshot, draft)
  assertFinished(draft)
})
