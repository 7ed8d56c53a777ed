/** Jobs whose places are wrong, as a wrong index would make them. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Failure } from '../base/failure.ts'
import { closeSnapshot, openSnapshot, walkTree, type SnapshotReader } from '../repo/tree-reader.ts'
import { closeRestoreTarget, openRestoreTarget, type RestoreTarget } from '../sources/files/target.ts'
import type { BlobStore } from '../storage/store.ts'
import {
  backUp,
  dropRepository,
  folderSource,
  makeRepository,
  noise,
  snapshotOf,
} from '../../test/harness/engine.ts'
import type { TestRepository } from '../../test/harness/engine.ts'
import { addFile, flushBatch, newBatcher } from './restore-batch.ts'
import { runRestoreJob, type ChunkPlaceRef, type RestoreJob, type RestoreResult } from './restore-job.ts'
import { newRestoreLanes } from './restore-lanes.ts'

const NAMES = ['a', 'b', 'c', 'd']

let repository: TestRepository
let reader: SnapshotReader
let target: RestoreTarget
let from = ''
let to = ''
let job: RestoreJob

before(async () => {
  repository = await makeRepository()
  from = join(repository.folder, 'from')
  to = mkdtempSync(join(tmpdir(), 'backstock-job-'))
  mkdirSync(from)
  for (const [nth, name] of NAMES.entries()) writeFileSync(join(from, name), noise(nth, 9000 + nth))
  const { snapshot } = await backUp(repository, folderSource(from))
  reader = await openSnapshot(repository.access, repository.host, await snapshotOf(repository, snapshot))
  target = openRestoreTarget(to, { replace: true })
  job = await jobOf()
})
after(() => {
  closeRestoreTarget(target)
  closeSnapshot(reader)
  dropRepository(repository)
  rmSync(to, { recursive: true })
})

/** The one job that all files make: with a thread to come, the first is held back. */
async function jobOf(): Promise<RestoreJob> {
  const { keys, packs } = reader
  const { store } = repository.access
  const lanes = newRestoreLanes({
    workers: 1,
    reader: packs,
    keys,
    store,
    target,
    onResult: () => assert.fail(),
  })
  const batcher = newBatcher(reader, lanes, { delta: false, ours: true })
  for await (const { kind, entry } of walkTree(reader))
    if (kind === 'entry') assert.equal(await addFile(batcher, entry.name, entry), undefined)
  await flushBatch(batcher)
  assert(lanes.held !== undefined && lanes.held.places.length >= NAMES.length)
  return lanes.held
}

/** Runs the job with another place for the first chunk of `b`. */
async function runWith(place: Partial<ChunkPlaceRef>): Promise<RestoreResult> {
  const changed = job.files[1]?.extents[0]?.place ?? -1
  const places = job.places.map((each, at) => (at === changed ? { ...each, ...place } : each))
  return await runRestoreJob(reader.packs, target, { ...job, places })
}

test('`runRestoreJob()` writes all files of a job that is right', async () => {
  const done = await runRestoreJob(reader.packs, target, job)
  assert.deepEqual([done.lost, done.problems, done.files, done.bytes], [[], [], 4, 36_006])
  for (const name of NAMES) assert.deepEqual(readFileSync(join(to, name)), readFileSync(join(from, name)))
})

test('`runRestoreJob()` loses only the file whose place is wrong, and nothing of it stays', async () => {
  const other = job.files[0]?.extents[0]?.place ?? -1
  const wrong: [Partial<ChunkPlaceRef>, RegExp][] = [
    [{ copies: [{ pack: 0, number: 1_000_000 }] }, /does not hold chunk 1000000/],
    [{ copies: job.places[other]?.copies ?? [] }, /does not hold chunk/],
    [{ id: new Uint8Array(32) }, /does not hold chunk/],
    [{ bytes: 1 }, /holds a chunk \d+ of \d+ bytes \(must be 1\)/],
  ]
  for (const [place, words] of wrong) {
    const done = await runWith(place)
    assert.deepEqual([done.problems, done.files], [[], 3])
    assert.deepEqual(
      done.lost.map(({ how, problem }) => [how, problem.path]),
      [['damaged', 'b']],
    )
    assert.match(done.lost[0]?.problem.what ?? '', words)
    assert.deepEqual(readdirSync(to).sort(), ['a', 'c', 'd'])
  }
})

test('`runRestoreJob()` takes a chunk from its other copies when the first ones are damaged', async () => {
  const at = job.files[1]?.extents[0]?.place ?? -1
  const right = job.places[at]?.copies ?? []
  const wrong = { pack: 0, number: 1_000_000 }
  const done = await runWith({ copies: [wrong, wrong, ...right] })
  assert.deepEqual([done.lost, done.problems, done.files], [[], [], 4])
  for (const name of NAMES) assert.deepEqual(readFileSync(join(to, name)), readFileSync(join(from, name)))
  const lost = await runWith({ copies: [wrong, wrong] })
  assert.deepEqual([lost.lost.length, lost.files], [1, 3])
})

test('`runRestoreJob()` calls a chunk unreadable, not damaged, while a copy may be whole', async () => {
  const { store } = reader.packs
  const id = 'ab'.repeat(32)
  const get: BlobStore['get'] = (name, options) =>
    name.endsWith(id)
      ? Promise.reject(new Failure('storage.offline', 'Its disk fails', { facts: { errno: 'EIO' } }))
      : store.get(name, options)
  const packs = [...job.packs, { kind: 'data', bytes: 9000, id } as const]
  const copies = [
    { pack: packs.length - 1, number: 0 },
    { pack: 0, number: 1_000_000 },
  ]
  const changed = job.files[1]?.extents[0]?.place ?? -1
  for (const order of [copies, copies.toReversed()]) {
    const places = job.places.map((each, at) => (at === changed ? { ...each, copies: order } : each))
    const failing = { ...reader.packs, store: { ...store, get } }
    const { lost } = await runRestoreJob(failing, target, { ...job, packs, places })
    assert.deepEqual(
      lost.map(({ how, problem }) => [how, problem.path, problem.code]),
      [['unreadable', 'b', 'EUNREADABLE']],
    )
  }
})

test('`runRestoreJob()` rewrites only the blocks of a chunk that differ', async () => {
  await runRestoreJob(reader.packs, target, job)
  const there = readFileSync(join(to, 'a'))
  there.writeUInt8(there.readUInt8(100) ^ 1, 100)
  writeFileSync(join(to, 'a'), there)
  const done = await runRestoreJob(reader.packs, target, { ...job, delta: true })
  assert.deepEqual([done.lost, done.files], [[], 4])
  assert.ok(done.bytesWritten > 0 && done.bytesWritten <= 4096, `${done.bytesWritten} written`)
  assert.equal(done.bytesWritten + done.bytesKept, 36_006)
  assert.deepEqual(readFileSync(join(to, 'a')), readFileSync(join(from, 'a')))
})

test('`runRestoreJob()` compares and writes nothing that is there', async () => {
  await runRestoreJob(reader.packs, target, job)
  const done = await runRestoreJob(reader.packs, target, { ...job, delta: true })
  assert.deepEqual([done.bytesWritten, done.bytesKept, done.files], [0, 36_006, 4])
})
