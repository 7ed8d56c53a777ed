import { strict as assert } from 'node:assert'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { noise, testSeed } from '../../test/harness/engine.ts'
import { hostileStore } from '../../test/harness/hostile-store.ts'
import { isFailure } from '../base/failure.ts'
import { decodeFooter, openHeader, OWN_FRAME_BYTES } from '../format/pack.ts'
import { newKeyPair } from '../format/seal.ts'
import { memoryStore, type MemoryDisk } from '../storage/memory.ts'
import type { BlobStore } from '../storage/store.ts'
import { attachIndex, beginSession, openIndex } from './chunk-index.ts'
import { flushSaver, newSaver, saveChunk, type Saver, type StoredPack } from './saver.ts'
import { testWriterKeys } from '../../test/harness/writer-keys.ts'

const seed = testSeed()
const folder = mkdtempSync(join(tmpdir(), 'backstock-saver-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const epoch = newKeyPair()
const keys = testWriterKeys(epoch.publicKey)

async function open(
  store: BlobStore,
  packBytesMax = 300_000,
  packBuffers: 1 | 2 = 2,
): Promise<{ saver: Saver; stored: StoredPack[] }> {
  const index = await openIndex({ folder: join(folder, 'index'), runs: [], build: () => Promise.resolve() })
  const stored: StoredPack[] = []
  const saver = newSaver(
    { keys, store, index: attachIndex(beginSession(index)), packBytesMax, packBuffers },
    (pack) => stored.push(pack),
  )
  return { saver, stored }
}

/** Chunk ids (hex) of an object, by its own header. */
function idsOf(disk: MemoryDisk, pack: StoredPack): string[] {
  const [name, blob] = [...disk].find(([each]) => each.endsWith(pack.id))!
  const footer = decodeFooter(blob.bytes, name)
  const header = openHeader(
    footer,
    blob.bytes.subarray(footer.dataBytes, footer.dataBytes + footer.headerBytes),
    { indexKey: keys.indexKey, frameBytesMax: 1024 * 1024 },
    name,
  )
  return Array.from(header.chunkBytes, (_, i) => header.chunkIds.toString('hex', i * 32, i * 32 + 32))
}

test(`chunks of any size lie where the saver says, once, in packs of their kind (SEED=${seed})`, async () => {
  const chunk = fc.record({
    kind: fc.constantFrom<'data' | 'run' | 'delta' | 'tree' | 'extents' | 'hashes'>(
      'data',
      'run',
      'delta',
      'tree',
      'extents',
      'hashes',
    ),
    bytes: fc.oneof(
      fc.nat({ max: 3000 }),
      fc.integer({ min: OWN_FRAME_BYTES - 2, max: OWN_FRAME_BYTES + 2 }),
      fc.nat({ max: 400_000 }),
    ),
    from: fc.nat({ max: 5 }),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(chunk, { maxLength: 30 }), async (chunks) => {
      const disk: MemoryDisk = new Map()
      const { saver, stored } = await open(memoryStore({ disk }))
      const saved = []
      for (const { kind, bytes, from } of chunks) saved.push(await saveChunk(saver, kind, noise(from, bytes)))
      await flushSaver(saver)
      const byNumber = new Map(stored.map((pack) => [pack.number, idsOf(disk, pack)]))
      for (const { id, pack, number } of saved) assert.equal(byNumber.get(pack)?.[number], id.toString('hex'))
      const all = [...byNumber.values()].flat()
      assert.equal(new Set(all).size, all.length, 'no chunk is stored twice')
      assert.equal(saved.filter(({ fresh }) => fresh).length, all.length)
      for (const pack of stored) {
        const object = [...disk].find(([name]) => name.endsWith(pack.id))!
        assert.equal(object[0].includes('/packs/'), pack.kind === 'data')
        assert.deepEqual(pack.chunkIds.toString('hex'), byNumber.get(pack.number)!.join(''))
        assert.equal(object[1].bytes.length, pack.bytes)
      }
    }),
    { seed, numRuns: 60 },
  )
})

test('a frame of small chunks and a large one fill a pack to its last byte, and no further', async () => {
  for (let size = 299_000 - OWN_FRAME_BYTES - 700; size < 300_000 - OWN_FRAME_BYTES; size += 7) {
    const disk: MemoryDisk = new Map()
    const { saver, stored } = await open(memoryStore({ disk }))
    await saveChunk(saver, 'data', noise(1, OWN_FRAME_BYTES - 1))
    await saveChunk(saver, 'data', noise(2, size))
    await flushSaver(saver)
    assert.equal(stored.flatMap((pack) => idsOf(disk, pack)).length, 2)
  }
})

test('a chunk larger than a pack gets a larger one', async () => {
  const disk: MemoryDisk = new Map()
  const { saver, stored } = await open(memoryStore({ disk }), 65_536, 1)
  for (const bytes of [10, 200_000, 20, 65_536, 30]) await saveChunk(saver, 'data', noise(bytes, bytes))
  await flushSaver(saver)
  assert.equal(stored.flatMap((pack) => idsOf(disk, pack)).length, 5)
})

test('after a chunk that is larger than a pack, packs are no larger than before', async () => {
  const disk: MemoryDisk = new Map()
  const { saver, stored } = await open(memoryStore({ disk }), 65_536, 1)
  await saveChunk(saver, 'data', noise(1, 200_000))
  for (let i = 0; i < 20; i++) await saveChunk(saver, 'data', noise(100 + i, 10_000))
  await flushSaver(saver)
  const others = stored.filter((pack) => pack.chunkClasses.length > 1)
  assert.equal(others.flatMap((pack) => idsOf(disk, pack)).length, 20)
  assert.ok(
    others.every((pack) => pack.bytes <= 65_536),
    others.map((pack) => pack.bytes).join(),
  )
})

test('a failed put ends the saver, at the next chunk or at the flush', async () => {
  const store = hostileStore(memoryStore(), {
    rules: [{ on: 'put', trick: { kind: 'fail', code: 'storage.full' } }],
  })
  const { saver, stored } = await open(store)
  const isFull = (error: unknown): boolean => isFailure(error, 'storage.full')
  await saveChunk(saver, 'data', noise(1, 1000))
  await assert.rejects(flushSaver(saver), isFull)
  await assert.rejects(saveChunk(saver, 'data', noise(2, 1000)), isFull)
  await assert.rejects(flushSaver(saver), isFull)
  assert.deepEqual(stored, [])
})

test('a slow store holds the saver back: at most two packs a kind are in memory', async () => {
  const store = hostileStore(memoryStore(), { rules: [{ on: 'put', trick: { kind: 'hang' } }] })
  const { saver } = await open(store)
  let saved = 0
  const saving = (async () => {
    for (let i = 0; i < 20; i++, saved++) await saveChunk(saver, 'data', noise(i, 200_000))
  })()
  await store.untilHanging()
  await new Promise((resolve) => setImmediate(resolve))
  assert.ok(saved <= 3, `${saved} chunks of 200 KB went into packs of 300 KB`)
  store.release()
  await saving
  await flushSaver(saver)
  assert.ok(saver.buffers <= 2)
})
