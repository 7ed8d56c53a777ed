import { strict as assert } from 'node:assert'
import {
  appendFileSync,
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { isFailure } from '../base/failure.ts'
import type { WalkEvent } from '../sources/files/walk.ts'
import { walkFiles } from '../sources/files/walk.ts'
import { openStore } from '../storage/open.ts'
import {
  aheadClock,
  backUp,
  countingStore,
  dropRepository,
  folderSource,
  folderState,
  makeRepository,
  noise,
  readBack,
  SMALL_CHUNKING,
  snapshotOf,
  snapshotsOf,
  through,
  type TestRepository,
} from '../../test/harness/engine.ts'
import { runLongSession, TINY_CHUNKING } from '../../test/harness/long-session.ts'
import { verifyRepository } from '../../test/harness/verify.ts'

const settled = aheadClock(10_000)

interface Scene {
  readonly repository: TestRepository
  readonly path: string
}

async function makeScene(
  t: TestContext,
  files = 10,
  options: Parameters<typeof makeRepository>[0] = {},
): Promise<Scene> {
  const repository = await makeRepository(options)
  t.after(() => dropRepository(repository))
  const path = join(repository.folder, 'data')
  mkdirSync(path)
  for (let i = 0; i < files; i++) writeFileSync(join(path, `${i}`), noise(i, 2000 + i * 10))
  return { repository, path }
}

async function assertReadsBack({ repository, path }: Scene, id: string | undefined): Promise<void> {
  const snapshot = await snapshotOf(repository, id)
  assert.deepEqual(await readBack(repository, snapshot, path), folderState(path))
}

test('an incremental reads what changed and nothing else', async (t) => {
  const scene = await makeScene(t)
  const source = folderSource(scene.path)
  await backUp(scene.repository, source, { kind: 'full', clock: settled })
  const idle = await backUp(scene.repository, source, { kind: 'incremental', clock: settled })
  assert.equal(idle.totals.bytesRead, 0)
  assert.equal(idle.totals.filesUnchanged, 10)
  writeFileSync(join(scene.path, '3'), noise(99, 4444))
  chmodSync(join(scene.path, '4'), 0o600)
  const next = await backUp(scene.repository, source, { kind: 'incremental', clock: settled })
  assert.equal(next.totals.bytesRead, 4444 + statSync(join(scene.path, '4')).size)
  assert.equal(next.totals.filesUnchanged, 8)
  assert.equal(next.totals.bytesFresh, 4444)
  await assertReadsBack(scene, next.snapshot)
  const full = await backUp(scene.repository, source, { kind: 'full', clock: settled })
  assert.equal(full.totals.bytesRead, full.totals.bytes, 'a full reads everything')
})

test('a file that changed within the time stamp of its backup is read again', async (t) => {
  const scene = await makeScene(t)
  const file = join(scene.path, '1')
  const source = folderSource(scene.path)
  const first = await backUp(scene.repository, source, { kind: 'full' })
  assert.ok(first.totals.bytesRead > 0)
  // The same size, and the walk is shown the same stamps: only that they were fresh gives it away.
  const before = new Map(
    [...walkFiles({ paths: [scene.path] })].flatMap((event) =>
      event.kind === 'entry' ? [[event.path, event.entry] as const] : [],
    ),
  )
  writeFileSync(file, noise(77, statSync(file).size))
  const sameStamps = function* (): Generator<WalkEvent> {
    for (const event of walkFiles({ paths: [scene.path] }))
      yield event.kind === 'entry' ? { ...event, entry: before.get(event.path)! } : event
  }
  const blind = folderSource(scene.path, { entries: sameStamps })
  const next = await backUp(scene.repository, blind, { kind: 'incremental' })
  assert.ok(next.totals.bytesRead > 2000 * 10, 'all were read')
  assert.deepEqual([next.totals.filesChanged, next.totals.filesUnchanged], [1, 9], 'nine are what they were')
  await assertReadsBack(scene, next.snapshot)
})

test('`ignoreInode`: a file with another inode and the same stamps is taken for the same one', async (t) => {
  const scene = await makeScene(t)
  const moved = function* (): Generator<WalkEvent> {
    for (const event of walkFiles({ paths: [scene.path] }))
      yield event.kind === 'entry'
        ? { ...event, entry: { ...event.entry, inode: event.entry.inode + 7n, dev: 99 } }
        : event
  }
  await backUp(scene.repository, folderSource(scene.path), { kind: 'full', clock: settled })
  const strict = await backUp(scene.repository, folderSource(scene.path, { entries: moved }), {
    kind: 'incremental',
    clock: settled,
  })
  assert.equal(strict.totals.filesUnchanged, 0)
  const ignoring = folderSource(scene.path, { ignoreInode: true })
  const next = await backUp(scene.repository, ignoring, { kind: 'incremental', clock: settled })
  assert.equal(next.totals.bytesRead, 0)
  assert.equal(next.totals.filesUnchanged, 10)
})

test("without the host's cache the kind stays and everything is read again, and little stored", async (t) => {
  const scene = await makeScene(t)
  await backUp(scene.repository, folderSource(scene.path), { kind: 'full', clock: settled })
  rmSync(join(scene.repository.host.path, 'trees'), { recursive: true })
  const next = await backUp(scene.repository, folderSource(scene.path), {
    kind: 'incremental',
    clock: settled,
  })
  assert.equal(next.kind, 'incremental')
  assert.equal(next.totals.bytesRead, next.totals.bytes)
  assert.equal(next.totals.bytesFresh, 0)
  await assertReadsBack(scene, next.snapshot)
})

test('a damaged tree cache means reading again, never a wrong backup', async (t) => {
  const scene = await makeScene(t, 300)
  const folder = join(scene.repository.host.path, 'trees')
  for (const at of [0, 10, 30, 1000, -5, -14]) {
    await backUp(scene.repository, folderSource(scene.path), { kind: 'full', clock: settled })
    const [cache] = readdirSync(folder)
    const bytes = readFileSync(join(folder, cache!))
    bytes[(at + bytes.length) % bytes.length]! ^= 0x10
    writeFileSync(join(folder, cache!), bytes)
    const next = await backUp(scene.repository, folderSource(scene.path), {
      kind: 'incremental',
      clock: settled,
    })
    await assertReadsBack(scene, next.snapshot)
  }
  assert.deepEqual(await verifyRepository(scene.repository.access), [])
})

test("tree caches: the latest and the full's are kept, older ones and unfinished ones go", async (t) => {
  const scene = await makeScene(t)
  const folder = join(scene.repository.host.path, 'trees')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'shop.0123456789abcdef.tmp'), 'left by a killed run')
  writeFileSync(join(folder, 'other.0123456789abcdef.tmp'), 'of another source')
  const taken: string[] = []
  for (const kind of ['full', 'incremental', 'differential', 'incremental', 'full'] as const) {
    taken.push((await backUp(scene.repository, folderSource(scene.path), { kind })).snapshot!)
    writeFileSync(join(scene.path, `${taken.length}`), 'changed')
    const names = readdirSync(folder).map((name) => name.split('.').slice(-1)[0])
    const full = taken[kind === 'full' ? taken.length - 1 : 0]!
    assert.deepEqual(new Set(names), new Set(['tmp', full, taken.at(-1)]))
  }
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.endsWith('.tmp')),
    ['other.0123456789abcdef.tmp'],
  )
})

test('a cache that cannot be kept does not fail a backup that is committed', async (t) => {
  const scene = await makeScene(t)
  const events = function* (): Generator<WalkEvent> {
    yield* walkFiles({ paths: [scene.path] })
    rmSync(join(scene.repository.host.path, 'trees'), { recursive: true })
  }
  const done = await backUp(scene.repository, folderSource(scene.path, { entries: events }), { kind: 'full' })
  await assertReadsBack(scene, done.snapshot)
})

test('of two runs of one source at a time one gets repo.busy', async (t) => {
  const scene = await makeScene(t)
  const source = folderSource(scene.path)
  const outcomes = await Promise.allSettled([
    backUp(scene.repository, source),
    backUp(scene.repository, source),
  ])
  const failed = outcomes.flatMap((outcome) =>
    outcome.status === 'rejected' ? [outcome.reason as unknown] : [],
  )
  assert.equal(failed.length, 1)
  assert.ok(isFailure(failed[0], 'repo.busy'))
  await backUp(scene.repository, source)
  assert.equal((await snapshotsOf(scene.repository)).length, 2)
})

test('two sources may be backed up at a time, and share what is equal', async (t) => {
  const scene = await makeScene(t, 100)
  const [one, two] = await Promise.all([
    backUp(scene.repository, folderSource(scene.path, { name: 'one' }), { workers: 2 }),
    backUp(scene.repository, folderSource(scene.path, { name: 'two' }), { workers: 2 }),
  ])
  await assertReadsBack(scene, one.snapshot)
  await assertReadsBack(scene, two.snapshot)
  assert.deepEqual(await verifyRepository(scene.repository.access), [])
})

test('a hard link whose first name is gone when it is read is read by its other name', async (t) => {
  const scene = await makeScene(t, 0)
  writeFileSync(join(scene.path, 'a'), noise(5, 9000))
  linkSync(join(scene.path, 'a'), join(scene.path, 'b'))
  const events = function* (): Generator<WalkEvent> {
    const walked = [...walkFiles({ paths: [scene.path] })]
    yield* walked
    rmSync(join(scene.path, 'a'))
  }
  const done = await backUp(scene.repository, folderSource(scene.path, { entries: events }), { kind: 'full' })
  assert.deepEqual(
    done.problems.map(({ path, code }) => [path, code]),
    [[join(scene.path, 'a'), 'ENOENT']],
  )
  const back = await readBack(scene.repository, await snapshotOf(scene.repository, done.snapshot), scene.path)
  assert.equal(back.get('/b')?.['sha256'], folderState(scene.path).get('/b')?.['sha256'])
  assert.equal(back.has('/a'), false)
})

test('a file that grew into a further segment while the walk went on counts as changed', async (t) => {
  const scene = await makeScene(t, 0, {
    chunking: {
      ...SMALL_CHUNKING,
      cdc: { minBytes: 524_288, maskBits: 19, maxBytes: 8_388_608 },
      packBytesMax: 16_777_216,
    },
  })
  const file = join(scene.path, 'log')
  writeFileSync(file, Buffer.alloc(65 * 1024 * 1024, 1))
  const events = function* (): Generator<WalkEvent> {
    const walked = [...walkFiles({ paths: [scene.path] })]
    appendFileSync(file, Buffer.alloc(64 * 1024 * 1024, 2))
    yield* walked
  }
  const done = await backUp(scene.repository, folderSource(scene.path, { entries: events }), {
    kind: 'full',
    clock: settled,
  })
  assert.deepEqual(
    done.problems.map(({ code }) => code),
    ['ECHANGED'],
  )
  const next = await backUp(scene.repository, folderSource(scene.path), {
    kind: 'incremental',
    clock: settled,
  })
  await assertReadsBack(scene, next.snapshot)
})

test('what cannot be read is a problem of the snapshot, and is there again when it can', async (t) => {
  const scene = await makeScene(t)
  const events = function* (): Generator<WalkEvent> {
    const walked = [...walkFiles({ paths: [scene.path] })]
    yield* walked
    renameSync(join(scene.path, '2'), join(scene.path, 'hidden'))
  }
  const done = await backUp(scene.repository, folderSource(scene.path, { entries: events }), {
    kind: 'full',
    clock: settled,
  })
  assert.equal(done.problems.length, 1)
  assert.equal((await snapshotOf(scene.repository, done.snapshot)).partial, true)
  renameSync(join(scene.path, 'hidden'), join(scene.path, '2'))
  const next = await backUp(scene.repository, folderSource(scene.path), {
    kind: 'incremental',
    clock: settled,
  })
  await assertReadsBack(scene, next.snapshot)
})

test('a dry run stores nothing and leaves the cache alone', async (t) => {
  const scene = await makeScene(t)
  await backUp(scene.repository, folderSource(scene.path), { kind: 'full', clock: settled })
  const names = [...scene.repository.disk.keys()]
  const caches = readdirSync(join(scene.repository.host.path, 'trees'))
  // Of a seed that no other file has: a beginning in common may be a chunk in common.
  writeFileSync(join(scene.path, 'new'), noise(88_888, 3000))
  for (const workers of [0, 2]) {
    const dry = await backUp(scene.repository, folderSource(scene.path), {
      kind: 'incremental',
      dryRun: true,
      workers,
      clock: settled,
    })
    assert.equal(dry.snapshot, undefined)
    assert.equal(dry.totals.bytesRead, 3000)
    assert.ok(dry.bytesStored > 3000)
  }
  assert.deepEqual([...scene.repository.disk.keys()], names)
  assert.deepEqual(readdirSync(join(scene.repository.host.path, 'trees')), caches)
})

test('bytesStored are the bytes of the packs that were written', async (t) => {
  const scene = await makeScene(t, 200)
  const counting = countingStore(scene.repository.access.store)
  const done = await backUp(through(scene.repository, counting.store), folderSource(scene.path), {
    kind: 'full',
    workers: 2,
  })
  assert.equal(done.bytesStored, counting.packBytes())
})

test('a session longer than its table turns it over, writes runs in time, loses nothing', async (t) => {
  const scene = await makeScene(t, 0, { chunking: TINY_CHUNKING })
  await runLongSession(scene, { chunksMin: 120_000, workers: 0 })
})

test('a store in a folder serves workers of its own', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-store-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const store = await openStore(`file://${folder}/repository`, { create: true })
  const scene = await makeScene(t, 400, { store })
  const done = await backUp(scene.repository, folderSource(scene.path), { kind: 'full', workers: 2 })
  await assertReadsBack(scene, done.snapshot)
  assert.deepEqual(await verifyRepository(scene.repository.access), [])
})
