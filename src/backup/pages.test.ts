/** The extent maps of database files against a model that keeps the bytes of the file. */
import { strict as assert } from 'node:assert'
import { createHmac } from 'node:crypto'
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { noise, testSeed } from '../../test/harness/engine.ts'
import { newReader } from '../base/bytes.ts'
import { decodeExtents } from '../format/content.ts'
import {
  CHUNK_CLASSES,
  decodeFooter,
  newFrameOpener,
  openFrame,
  openHeader,
  openPackKey,
} from '../format/pack.ts'
import { hkdf, newKeyPair } from '../format/seal.ts'
import { attachIndex, beginSession, openIndex } from '../repo/chunk-index.ts'
import { decompress } from '../repo/compress.ts'
import { flushSaver, newSaver } from '../repo/saver.ts'
import type { PageSegment } from '../repo/tree-cache.ts'
import { memoryStore, type MemoryDisk } from '../storage/memory.ts'
import type { Lane } from './draft.ts'
import { newLane } from './lane-setup.ts'
import { saveSegment, type SegmentResult } from './segment.ts'
import { testWriterKeys } from '../../test/harness/writer-keys.ts'

const RUN_BYTES = 16_384
const seed = testSeed()
const folder = mkdtempSync(join(tmpdir(), 'backstock-pages-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const epoch = newKeyPair()
const keys = testWriterKeys(epoch.publicKey)

/** One file that is saved again and again, each time on top of the time before. */
interface Chain {
  readonly disk: MemoryDisk
  readonly lane: Lane
  readonly path: string
  /** Plaintext by chunk id (hex), of the packs that were read. */
  readonly plain: Map<string, Uint8Array>
  readonly packsRead: Set<string>
  /** Chunk id (hex) by `pack number:chunk number`. */
  readonly places: Map<string, string>
  /** Bytes stored by the last step, by chunk class. */
  readonly fresh: Map<number, number>
  pages: PageSegment | undefined
}

let chains = 0

async function newChain(runBytes = RUN_BYTES): Promise<Chain> {
  const disk: MemoryDisk = new Map()
  const places = new Map<string, string>()
  const index = await openIndex({ folder: join(folder, 'index'), runs: [], build: () => Promise.resolve() })
  const setup = {
    keys,
    store: memoryStore({ disk }),
    index: attachIndex(beginSession(index)),
    packBytesMax: 1024 * 1024,
    packBuffers: 2,
  } as const
  const saver = newSaver(setup, (pack) => {
    for (let i = 0; i < pack.chunkClasses.length; i++)
      places.set(`${pack.number}:${i}`, pack.chunkIds.toString('hex', i * 32, i * 32 + 32))
  })
  const sizes = { minBytes: 2048, maskBits: 11, maxBytes: 16_384 }
  const lane = newLane(saver, { sizes, runBytes, inlineBytesMax: 0, packBytesMax: setup.packBytesMax })
  const path = join(folder, `file-${chains++}`)
  return {
    disk,
    lane,
    path,
    places,
    plain: new Map(),
    packsRead: new Set(),
    fresh: new Map(),
    pages: undefined,
  }
}

/** Each 4 KiB of zeros is a hole of the file. */
function writeSparse(path: string, bytes: Buffer): void {
  const fd = openSync(path, 'w')
  ftruncateSync(fd, bytes.length)
  for (let at = 0; at < bytes.length; at += 4096) {
    const block = bytes.subarray(at, at + 4096)
    if (block.some((byte) => byte !== 0)) writeSync(fd, block, 0, block.length, at)
  }
  closeSync(fd)
}

/** Saves the file as it now is; all that must hold of the result is checked here. */
async function saveStep(chain: Chain, bytes: Buffer, pageBytes: number): Promise<SegmentResult> {
  writeSparse(chain.path, bytes)
  Object.assign(chain.lane.rewrites, { changedBytes: 0, rewrittenBytes: 0 }) // as a lane of another backup
  chain.fresh.clear()
  const isPatch = chain.pages?.pageBytes === pageBytes
  const job = {
    index: 1,
    path: chain.path,
    offset: 0,
    whole: true,
    last: true,
    pageBytes,
    parent: chain.pages,
  }
  const result = await saveSegment(chain.lane, job)
  await flushSaver(chain.lane.saver)
  assert.equal(result.problem, undefined)
  assert.equal(result.bytes, bytes.length)
  assert.equal(result.changed, false)
  if (result.extents === undefined) {
    assert.equal(bytes.length, 0)
    chain.pages = undefined
    return result
  }
  checkContent(chain, result, bytes)
  checkHashes(chain, result, bytes, pageBytes)
  const { run, delta } = freshOf(chain)
  assert.equal(run + delta, result.bytesFresh)
  const runBytes = Math.max(pageBytes, chain.lane.runBytes)
  if (isPatch) assert.ok(run <= Math.max(runBytes, delta / 10), `${run} bytes of runs for ${delta} changed`)
  chain.pages = { pageBytes, extents: result.extents, hashes: result.hashes! }
  return result
}

function freshOf({ fresh }: Chain): { run: number; delta: number } {
  return { run: fresh.get(CHUNK_CLASSES.run) ?? 0, delta: fresh.get(CHUNK_CLASSES.delta) ?? 0 }
}

function checkContent(chain: Chain, result: SegmentResult, bytes: Buffer): void {
  readPacks(chain)
  const { chunks, extents } = decodeExtents(newReader(result.extents!, 'extents'))
  const parts = extents.map(({ length, ref, offset }) => {
    if (ref === 0) return Buffer.alloc(length)
    const chunk = chain.plain.get(Buffer.from(chunks[ref - 1]!.id).toString('hex'))
    assert.ok(chunk, 'the chunk is stored')
    assert.equal(chunk.length, chunks[ref - 1]!.bytes)
    return chunk.subarray(offset, offset + length)
  })
  assert.ok(Buffer.concat(parts).equals(bytes), 'the map gives back the file')
  const used = new Set(extents.map((extent) => extent.ref).filter((ref) => ref > 0))
  assert.equal(used.size, chunks.length, 'each chunk listed is used')
  const marked = new Set<string | undefined>()
  for (let i = 0; i < result.marks.length; i += 2)
    marked.add(chain.places.get(`${result.marks[i]}:${result.marks[i + 1]}`))
  assert.deepEqual(
    marked,
    new Set(chunks.map(({ id }) => Buffer.from(id).toString('hex'))),
    'marks name the chunks',
  )
}

function checkHashes(chain: Chain, result: SegmentResult, bytes: Buffer, pageBytes: number): void {
  const hashes: Buffer[] = []
  const key = hkdf(chain.lane.saver.keys.idKey, '', 'backstock/1 page hash')
  for (let at = 0; at < bytes.length; at += pageBytes) {
    const page = bytes.subarray(at, at + pageBytes)
    hashes.push(createHmac('sha256', key).update(page).digest().subarray(0, 16))
  }
  assert.ok(Buffer.concat(hashes).equals(Buffer.from(result.hashes!)), 'hashes are those of the pages')
}

/** Opens the packs that are new in the store, by docs/format.md, and keeps their chunks. */
function readPacks(chain: Chain): void {
  for (const [name, { bytes }] of chain.disk) {
    if (chain.packsRead.has(name)) continue
    chain.packsRead.add(name)
    const footer = decodeFooter(bytes, name)
    const sealed = bytes.subarray(footer.dataBytes, footer.dataBytes + footer.headerBytes)
    const header = openHeader(footer, sealed, { indexKey: keys.indexKey, frameBytesMax: 327_680 }, name)
    const opener = newFrameOpener(footer, header, openPackKey(footer, epoch.privateKey, name))
    header.chunkBytes.forEach((length, number) => {
      const frame = header.chunkFrame[number]!
      const offset = header.frameOffset[frame]!
      const body = openFrame(opener, frame, bytes.subarray(offset, offset + header.frameStored[frame]!), name)
      const plain = decompress(header.frameCodec[frame]!, body, header.framePlain[frame]!, name)
      const start = header.chunkOffset[number]!
      const chunkClass = header.frameClass[frame]!
      chain.fresh.set(chunkClass, (chain.fresh.get(chunkClass) ?? 0) + length)
      chain.plain.set(
        header.chunkIds.toString('hex', number * 32, number * 32 + 32),
        plain.subarray(start, start + length),
      )
    })
  }
}

type Change =
  | { readonly kind: 'write'; readonly pages: readonly number[]; readonly byte: number }
  | { readonly kind: 'append' | 'truncate' | 'append hole'; readonly bytes: number }
  | { readonly kind: 'punch'; readonly from: number; readonly pages: number }
  | { readonly kind: 'copy'; readonly from: number; readonly to: number }
  | { readonly kind: 'page size'; readonly bytes: number }
  | { readonly kind: 'nothing' }

const page = fc.nat({ max: 80 })
const change: fc.Arbitrary<Change> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      pages: fc.array(page, { minLength: 1, maxLength: 20 }),
      byte: fc.nat({ max: 255 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('append' as const), bytes: fc.nat({ max: 60_000 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('truncate' as const), bytes: fc.nat({ max: 90_000 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('append hole' as const), bytes: fc.nat({ max: 90_000 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('punch' as const), from: page, pages: fc.nat({ max: 60 }) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('copy' as const), from: page, to: page }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('page size' as const),
      bytes: fc.constantFrom(4096, 8192, 16_384, 32_768, 65_536),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('nothing' as const) }) },
)

function apply(bytes: Buffer, change: Change, pageBytes: number): Buffer {
  if (change.kind === 'append') return Buffer.concat([bytes, noise(bytes.length, change.bytes)])
  if (change.kind === 'append hole') return Buffer.concat([bytes, Buffer.alloc(change.bytes)])
  if (change.kind === 'truncate')
    return Buffer.from(bytes.subarray(0, Math.max(0, bytes.length - change.bytes)))
  const next = Buffer.from(bytes)
  if (change.kind === 'write') {
    for (const at of change.pages)
      if (at * pageBytes < next.length) next[at * pageBytes + (change.byte % 7)] = change.byte
  }
  if (change.kind === 'punch')
    next
      .subarray(change.from * pageBytes)
      .subarray(0, change.pages * pageBytes)
      .fill(0)
  if (change.kind === 'copy' && change.to * pageBytes < next.length)
    next.set(
      bytes
        .subarray(change.from * pageBytes, (change.from + 1) * pageBytes)
        .subarray(0, next.length - change.to * pageBytes),
      change.to * pageBytes,
    )
  return next
}

test(`savePages() gives back every state of a file that changes by pages (SEED=${seed})`, async () => {
  const chain = fc.record({
    bytes: fc.nat({ max: 300_000 }),
    runBytes: fc.constantFrom(4096, 16_384, 20_000, 131_072),
    changes: fc.array(change, { minLength: 1, maxLength: 10 }),
  })
  await fc.assert(
    fc.asyncProperty(chain, async ({ bytes: first, runBytes, changes }) => {
      const chain = await newChain(runBytes)
      let pageBytes = 4096
      let bytes = noise(first, first)
      await saveStep(chain, bytes, pageBytes)
      for (const each of changes) {
        if (each.kind === 'page size') pageBytes = each.bytes
        const next = apply(bytes, each, pageBytes)
        const result = await saveStep(chain, next, pageBytes)
        if (each.kind === 'nothing')
          assert.equal(result.bytesFresh, 0, 'what did not change is not stored again')
        bytes = next
      }
    }),
    { seed, numRuns: Number(process.env['BACKSTOCK_PAGE_CHAINS'] ?? 150) },
  )
})

test('savePages() stores the changed pages only', async () => {
  const chain = await newChain()
  const bytes = noise(1, 4096 * 100)
  const full = await saveStep(chain, bytes, 4096)
  assert.equal(full.bytesFresh, bytes.length)
  for (const at of [3, 50, 51, 99]) bytes[at * 4096] = 1
  const next = await saveStep(chain, bytes, 4096)
  assert.equal(next.bytesFresh, 4 * 4096)
})

test('savePages() puts more changed pages than one delta chunk holds into several', async () => {
  const chain = await newChain()
  const bytes = noise(2, 4096 * 200)
  await saveStep(chain, bytes, 4096)
  for (let at = 0; at < 200; at += 2) bytes[at * 4096 + 1]! ^= 0xff
  const next = await saveStep(chain, bytes, 4096)
  assert.equal(next.bytesFresh, 100 * 4096)
})

function extentsOf(result: SegmentResult): number {
  return decodeExtents(newReader(result.extents!, 'extents')).extents.length
}

test('savePages() mends a map of more than 1024 extents for a tenth of what changed', async () => {
  const chain = await newChain()
  const bytes = noise(3, 4096 * 2100)
  await saveStep(chain, bytes, 4096)
  for (let at = 0; at < 600; at += 2) bytes[at * 4096]! ^= 0xff
  const half = await saveStep(chain, bytes, 4096)
  assert.equal(half.bytesFresh, 300 * 4096)
  assert.equal(extentsOf(half), 600 + 1500 / 4)
  for (let at = 600; at < 2100; at += 2) bytes[at * 4096]! ^= 0xff
  const all = await saveStep(chain, bytes, 4096)
  const runs = Math.floor((750 * 4096) / 10 / RUN_BYTES)
  assert.deepEqual(freshOf(chain), { delta: 750 * 4096, run: runs * RUN_BYTES })
  assert.equal(extentsOf(all), 2100 - runs * 3)
  const again = await saveStep(chain, bytes, 4096)
  assert.deepEqual(freshOf(chain), { delta: 0, run: RUN_BYTES }, 'one run is always allowed')
  assert.ok(extentsOf(again) < extentsOf(all))
})

test('a map is mended run by run, and then left alone', async () => {
  const chain = await newChain()
  const bytes = noise(9, 4096 * 1040)
  await saveStep(chain, bytes, 4096)
  for (let at = 0; at < 1040; at += 2) bytes[at * 4096]! ^= 0xff
  let extents = extentsOf(await saveStep(chain, bytes, 4096))
  let steps = 0
  for (; extents > 1024; steps++) {
    const next = extentsOf(await saveStep(chain, bytes, 4096))
    assert.ok(next < extents, `${next} extents after ${extents}`)
    extents = next
  }
  assert.equal((await saveStep(chain, bytes, 4096)).bytesFresh, 0)
  assert.ok(steps < 10)
})

test(`rewriting keeps every state, and its budget (SEED=${seed})`, async () => {
  const changes = fc.array(
    fc.record({
      from: fc.nat({ max: 1500 }),
      step: fc.integer({ min: 1, max: 5 }),
      byte: fc.nat({ max: 255 }),
    }),
    { minLength: 1, maxLength: 5 },
  )
  const first = { from: 0, step: 2, byte: 1 } // more than 1024 extents
  let mended = 0
  await fc.assert(
    fc.asyncProperty(changes, fc.constantFrom(8192, 16_384, 131_072), async (rounds, runBytes) => {
      const chain = await newChain(runBytes)
      const bytes = noise(rounds.length, 4096 * 1300 + 77)
      await saveStep(chain, bytes, 4096)
      for (const { from, step, byte } of [first, ...rounds]) {
        for (let page = from % 300; page < 1300; page += step) bytes[page * 4096 + 9]! ^= byte
        await saveStep(chain, bytes, 4096)
        mended += freshOf(chain).run
      }
    }),
    { seed, numRuns: 4 },
  )
  assert.ok(mended > 0, 'some map was mended')
})

test('savePages() gives up delta chunks of which little is alive', async () => {
  const chain = await newChain()
  const bytes = noise(4, 4096 * 600)
  await saveStep(chain, bytes, 4096)
  let extentsMax = 0
  for (let round = 0; round < 30; round++) {
    for (let at = round % 2; at < 600; at += 2) bytes[at * 4096 + round] = round
    const result = await saveStep(chain, bytes, 4096)
    const { chunks } = decodeExtents(newReader(result.extents!, 'extents'))
    const held = chunks.reduce((sum, chunk) => sum + chunk.bytes, 0)
    extentsMax = Math.max(extentsMax, held / bytes.length)
  }
  assert.ok(extentsMax < 5, `a map that holds ${extentsMax} times the file`)
})

test('a page file that is shorter than its walk said ends where it ends, and counts as changed', async () => {
  const chain = await newChain()
  const bytes = noise(5, 4096 * 10 + 100)
  await saveStep(chain, bytes, 4096)
  const grown = Buffer.concat([bytes, noise(6, 50_000)])
  await saveStep(chain, grown, 4096)
  await saveStep(chain, bytes.subarray(0, 4096 * 3 + 1), 4096)
  await saveStep(chain, Buffer.alloc(0), 4096)
  await saveStep(chain, grown, 4096)
})

test('savePages() neither reads nor stores the holes of a database file, and keeps them', async () => {
  const chain = await newChain()
  const bytes = Buffer.alloc(4096 * 1000 + 77)
  noise(7, 4096 * 8).copy(bytes, 4096 * 400)
  const full = await saveStep(chain, bytes, 4096)
  assert.equal(full.bytesRead, 4096 * 8)
  assert.equal(full.bytesFresh, 4096 * 8)
  assert.deepEqual(
    decodeExtents(newReader(full.extents!, 'extents')).extents.map(({ length, ref }) => [length, ref]),
    [
      [4096 * 400, 0],
      [RUN_BYTES, 1],
      [RUN_BYTES, 2],
      [4096 * 592 + 77, 0],
    ],
  )
  noise(8, 4096).copy(bytes, 4096 * 900)
  bytes.fill(0, 4096 * 402, 4096 * 404)
  const next = await saveStep(chain, bytes, 4096)
  assert.equal(next.bytesRead, 4096 * 12)
  assert.equal(next.bytesFresh, 4096)
  assert.deepEqual(
    decodeExtents(newReader(next.extents!, 'extents')).extents.map(({ length, ref }) => [
      length / 4096,
      ref > 0,
    ]),
    [
      [400, false],
      [2, true],
      [2, false],
      [4, true],
      [492, false],
      [1, true],
      [99 + 77 / 4096, false],
    ],
  )
})
