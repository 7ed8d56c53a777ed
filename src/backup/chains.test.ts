/**
 * Chains of full, differential and incremental backups over a folder that changes: each gives back its own
 * moment.
 */
import { strict as assert } from 'node:assert'
import { mkdirSync, rmSync, truncateSync, writeFileSync, openSync, writeSync, closeSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  aheadClock,
  backUp,
  dropRepository,
  folderSource,
  folderState,
  forgetCache,
  makeRepository,
  noise,
  readBack,
  seeded,
  snapshotOf,
  testSeed,
  type EntryState,
  type TestRepository,
} from '../../test/harness/engine.ts'
import { ALL_KINDS } from '../../test/harness/lost-files.ts'
import { mutateFolder, seedFolder } from '../../test/harness/mutate.ts'
import { verifyRepository } from '../../test/harness/verify.ts'
import { DEFAULT_CHUNKING } from '../format/config.ts'
import type { WantedKind } from './parent.ts'

const MIB = 1024 * 1024
const ROUNDS = Number(process.env['BACKSTOCK_CHAIN_ROUNDS'] ?? 12)
const settled = aheadClock(10_000)

interface Settings {
  readonly workers: number
  readonly cache: boolean
  readonly ignoreInode: boolean
}

async function runChain(
  repository: TestRepository,
  seed: number,
  rounds: number,
  { workers, cache, ignoreInode }: Settings,
): Promise<void> {
  const path = join(repository.folder, 'data')
  mkdirSync(path)
  seedFolder(path)
  const random = seeded(seed)
  const states = new Map<string, Map<string, EntryState>>()
  const kinds: readonly WantedKind[] = [
    'full',
    'incremental',
    'incremental',
    'differential',
    'incremental',
    'auto',
  ]
  const source = folderSource(path, { ignoreInode })
  let done: string[] = []
  for (let round = 0; round < rounds; round++) {
    const kind = kinds[round % kinds.length]!
    const what = `round ${round} (${kind}) after ${done.join(', ')}`
    const now = folderState(path)
    const summary = await backUp(repository, source, { kind, workers, clock: settled })
    assert.deepEqual(summary.problems, [], what)
    assert.equal(summary.because, undefined, what)
    const snapshot = await snapshotOf(repository, summary.snapshot)
    assert.deepEqual(await readBack(repository, snapshot, path), now, what)
    states.set(snapshot.id, now)
    if (!cache) forgetCache(repository)
    done = mutateFolder(path, random, round)
  }
  assert.deepEqual(await verifyRepository(repository.access), [])
  for (const [id, state] of states)
    assert.deepEqual(
      await readBack(repository, await snapshotOf(repository, id), path),
      state,
      `${id} at the end`,
    )
}

for (const settings of [
  { workers: 0, cache: true, ignoreInode: false },
  { workers: 0, cache: false, ignoreInode: false },
  { workers: 2, cache: true, ignoreInode: true },
]) {
  const seed = testSeed()
  test(`chains of backups give back every moment: ${JSON.stringify(settings)} (SEED=${seed})`, async () => {
    const repository = await makeRepository()
    try {
      await runChain(repository, seed, ROUNDS, settings)
    } finally {
      dropRepository(repository)
    }
  })
}

test('files beyond 64 MiB are cut into segments, pages and holes alike, at every kind', async () => {
  const repository = await makeRepository({ chunking: DEFAULT_CHUNKING })
  const path = join(repository.folder, 'data')
  mkdirSync(path)
  try {
    writeFileSync(join(path, 'video'), noise(1, 70 * MIB))
    writeFileSync(join(path, 'holes'), '')
    writeFileSync(join(path, 'table'), '')
    truncateSync(join(path, 'holes'), 200 * MIB)
    patch(join(path, 'holes'), 130 * MIB, noise(2, 100_000))
    truncateSync(join(path, 'table'), 65 * MIB)
    patch(join(path, 'table'), 64 * MIB - 4096, noise(3, 8192))
    const pageBytesOf = (file: string): number => (file.endsWith('table') ? 8192 : -1)
    const source = folderSource(path, { pageBytesOf })
    for (const [round, kind] of (['full', 'incremental', 'incremental', 'differential'] as const).entries()) {
      const now = folderState(path)
      const summary = await backUp(repository, source, {
        kind,
        workers: round % 2 === 0 ? 0 : 2,
        clock: settled,
      })
      const snapshot = await snapshotOf(repository, summary.snapshot)
      assert.deepEqual(await readBack(repository, snapshot, path), now)
      if (round === 1)
        assert.ok(summary.totals.bytesFresh < 4 * MIB, `${summary.totals.bytesFresh} bytes stored`)
      patch(join(path, 'table'), (round * 30 + 3) * MIB, noise(round, 8192 * 3))
      patch(join(path, 'video'), 65 * MIB, noise(round, 50))
      if (round === 1) truncateSync(join(path, 'table'), 70 * MIB + 5)
      if (round === 2) truncateSync(join(path, 'table'), 3 * MIB)
    }
    assert.deepEqual(await verifyRepository(repository.access), [])
  } finally {
    dropRepository(repository)
  }
})

function patch(file: string, at: number, bytes: Buffer): void {
  const fd = openSync(file, 'r+')
  writeSync(fd, bytes, 0, bytes.length, at)
  closeSync(fd)
}

test('lineages: what each kind may build on', async () => {
  const repository = await makeRepository()
  const path = join(repository.folder, 'data')
  mkdirSync(path)
  try {
    const taken: Record<string, string> = {}
    for (const [i, kind] of ALL_KINDS.entries()) {
      writeFileSync(join(path, `${i}`), noise(i, 5000))
      taken[`${i}`] = (await backUp(repository, folderSource(path), { kind, clock: settled })).snapshot!
    }
    const [f0, i1, i2, d3, i4, f5, i6] = await Promise.all(
      ALL_KINDS.map((_, i) => snapshotOf(repository, taken[`${i}`])),
    )
    const sets = (snapshot: typeof f0): string[] => snapshot!.lineage.map((set) => set.packSet)
    assert.deepEqual(sets(f0), [f0!.packSet])
    assert.deepEqual(sets(i2), [f0!.packSet, i1!.packSet, i2!.packSet])
    assert.deepEqual(sets(d3), [f0!.packSet, d3!.packSet])
    assert.deepEqual(
      sets(i4),
      [f0!.packSet, d3!.packSet, i4!.packSet],
      'an incremental builds on the latest of any kind',
    )
    assert.deepEqual(sets(f5), [f5!.packSet])
    assert.deepEqual(sets(i6), [f5!.packSet, i6!.packSet])
    assert.deepEqual([d3!.parent, i4!.parent, f5!.parent], [f0!.id, d3!.id, null])
    assert.equal(new Set([f0, i1, i2, d3, i4].map((snapshot) => snapshot!.generation)).size, 1)
    rmSync(join(path, '0'))
    assert.deepEqual(await verifyRepository(repository.access), [])
  } finally {
    dropRepository(repository)
  }
})
