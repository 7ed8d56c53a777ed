/** Jobs whose places are wrong, as a wrong index would make them. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { closeSnapshot, openSnapshot, walkTree, type SnapshotReader } from '../repo/tree-reader.ts'
import { closeRestoreTarget, openRestoreTarget, type RestoreTarget } from '../sources/files/target.ts'
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
  assert.deepEqual([done.damaged, done.failed, done.problems, done.files], [[], [], [], 4])
  for (const name of NAMES) assert.deepEqual(readFileSync(join(to, name)), readFileSync(join(from, name)))
})

test('`runRestoreJob()` loses only the file whose place is wrong, and nothing of it stays', async () => {
  const other = job.files[0]?.extents[0]?.place ?? -1
  const wrong: [Partial<ChunkPlaceRef>, RegExp][] = [
    [{ number: 1_000_000 }, /does not hold chunk 1000000/],
    [{ number: job.places[other]?.number ?? -1 }, /does not hold chunk/],
    [{ id: new Uint8Array(32) }, /does not hold chunk/],
    [{ bytes: 1 }, /holds a chunk \d+ of \d+ bytes \(must be 1\)/],
  ]
  for (const [place, words] of wrong) {
    const done = await runWith(place)
    assert.deepEqual([done.failed, done.problems, done.files], [[], [], 3])
    assert.deepEqual(
      done.damaged.map(({ path }) => path),
      ['b'],
    )
    assert.match(done.damaged[0]?.what ?? '', words)
    assert.deepEqual(readdirSync(to).sort(), ['a', 'c', 'd'])
  }
})

test('`runRestoreJob()` compares and writes nothing that is there', async () => {
  await runRestoreJob(reader.packs, target, job)
  const done = await runRestoreJob(reader.packs, target, { ...job, delta: true })
  assert.deepEqual([done.bytesWritten, done.bytesKept, done.files], [0, 36_006, 4])
})
