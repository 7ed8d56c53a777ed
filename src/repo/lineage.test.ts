/** Index runs as a writer leaves them and as a lineage is opened: what is listed, and what is refused. */
import { strict as assert } from 'node:assert'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { noise } from '../../test/harness/engine.ts'
import { hostileStore } from '../../test/harness/hostile-store.ts'
import { isFailure } from '../base/failure.ts'
import { CHUNK_CLASSES } from '../format/pack.ts'
import type { LineageSet } from '../format/snapshot.ts'
import { memoryStore, type MemoryDisk } from '../storage/memory.ts'
import { attachIndex, detachIndex, lookupChunk, packInRuns } from './chunk-index.ts'
import { openHostFolder } from './host-folder.ts'
import type { DomainKeys } from './keys.ts'
import { openLineage } from './lineage.ts'
import { buildSessionRun, lineageSet, newRunWriter, writeRun } from './run-writer.ts'
import type { StoredPack, WriterKeys } from './saver.ts'

const folder = mkdtempSync(join(tmpdir(), 'backstock-lineage-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const repository = '01'.repeat(16)
const domain = '02'.repeat(8)
const keys: WriterKeys = {
  repository: Buffer.from(repository, 'hex'),
  domain: Buffer.from(domain, 'hex'),
  packSet: Buffer.alloc(16, 3),
  epoch: 1,
  idKey: Buffer.alloc(32, 4),
  indexKey: Buffer.alloc(32, 5),
  dataPublic: Buffer.alloc(32, 6),
  metaPublic: Buffer.alloc(32, 7),
}
const domainKeys: DomainKeys = {
  domain,
  epochs: [],
  idKey: Buffer.from(keys.idKey),
  indexKey: Buffer.from(keys.indexKey),
  signingSeed: undefined,
  signingPublic: Buffer.alloc(32),
  frameBytesMax: 65_536,
}

function packOf(seed: number, chunks: number): StoredPack {
  return {
    number: seed,
    id: noise(seed + 1000, 32).toString('hex'),
    kind: 'data',
    bytes: 1000 + seed,
    chunkIds: noise(seed, chunks * 32),
    chunkClasses: new Uint8Array(chunks).fill(CHUNK_CLASSES.data),
  }
}

/** Writes the packs in runs of the given lengths. */
async function writeRuns(disk: MemoryDisk, runs: readonly (readonly StoredPack[])[]): Promise<LineageSet> {
  const writer = newRunWriter(memoryStore({ disk }), keys, undefined)
  for (const packs of runs) {
    writer.pending.push(...packs)
    await writeRun(writer)
    await writeRun(writer) // nothing is pending: no empty run
  }
  return lineageSet(writer)!
}

test('every chunk of every run is found in its pack, with few runs and with many', async () => {
  for (const count of [1, 3, 25]) {
    const disk: MemoryDisk = new Map()
    const packs = Array.from({ length: count }, (_, i) => [packOf(i * 2, 5 + i), packOf(i * 2 + 1, 1)])
    const set = await writeRuns(disk, packs)
    assert.deepEqual([set.runs.length, set.packs], [count, count * 2])
    assert.equal(
      set.bytes,
      packs.flat().reduce((sum, pack) => sum + pack.bytes, 0),
    )
    assert.deepEqual(
      set.runs.map((run) => run.n),
      Array.from({ length: count }, (_, i) => i + 1),
    )
    const host = openHostFolder(folder, `${count}`)
    for (let opening = 0; opening < 2; opening++) {
      const place = { store: memoryStore({ disk }), repository, keys: domainKeys, host }
      const opened = await openLineage(place, [set])
      assert.deepEqual(opened.rebuilt, [])
      const index = attachIndex(opened.index)
      for (const pack of packs.flat()) {
        for (let chunk = 0; chunk < pack.chunkClasses.length; chunk++) {
          const found = lookupChunk(index, pack.chunkIds, chunk * 32)
          assert.equal(found?.number, chunk)
          assert.equal(packInRuns(index, found.pack)?.id, pack.id)
        }
      }
      assert.equal(lookupChunk(index, noise(1, 64), 32 - 7), undefined)
      detachIndex(index)
    }
  }
})

test('a run that is gone, damaged or not the one that is named is left out, which is told', async () => {
  const disk: MemoryDisk = new Map()
  const [lost, sound] = [packOf(1, 4), packOf(2, 4)]
  const set = await writeRuns(disk, [[lost], [sound]])
  const [first, second] = [...disk.keys()] as [string, string]
  const assertLost = async (changed: MemoryDisk, what: string): Promise<void> => {
    const host = openHostFolder(mkdtempSync(join(folder, 'host-')), 'x')
    const place = { store: memoryStore({ disk: changed }), repository, keys: domainKeys, host }
    const { index: shared, rebuilt } = await openLineage(place, [set])
    const found = rebuilt.map(({ packSet, packs, packsExpected, isWhole }) => ({
      packSet,
      packs,
      packsExpected,
      isWhole,
    }))
    // The store of this test holds no packs that could be asked.
    assert.deepEqual(found, [{ packSet: set.packSet, packs: [], packsExpected: 1, isWhole: false }], what)
    const index = attachIndex(shared)
    assert.equal(lookupChunk(index, lost.chunkIds, 0), undefined, what)
    assert.equal(lookupChunk(index, sound.chunkIds, 32)?.number, 1, what)
    detachIndex(index)
  }
  const without = new Map(disk)
  without.delete(first)
  await assertLost(without, 'deleted')
  await assertLost(new Map(disk).set(first, disk.get(second)!), 'swapped')
  const { bytes, modified } = disk.get(first)!
  for (const at of [0, 60, 130, bytes.length - 1]) {
    const damaged = Buffer.from(bytes)
    damaged[at]! ^= 1
    await assertLost(new Map(disk).set(first, { bytes: damaged, modified }), `byte ${at}`)
  }
})

test('a run that could not be put is not listed', async () => {
  const rules = [{ on: 'put' as const, trick: { kind: 'fail' as const, code: 'storage.full' as const } }]
  const writer = newRunWriter(hostileStore(memoryStore(), { rules }), keys, undefined)
  writer.pending.push(packOf(1, 1))
  await assert.rejects(writeRun(writer), (error) => isFailure(error, 'storage.full'))
  assert.equal(lineageSet(writer), undefined)
})

test('a session run holds what the packs hold', () => {
  const run = buildSessionRun(mkdtempSync(join(folder, 'session-')), [packOf(1, 300), packOf(2, 7)])
  assert.deepEqual([run.entryCount, run.packCount], [307, 2])
})
