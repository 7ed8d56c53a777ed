/**
 * A sorted run: index entries in a local file, searched through a Bloom filter and a fence key a page in
 * shared memory. It costs about 1.34 bytes of memory a chunk, shared by all threads; packs and entries stay
 * in the file. A run is a cache: made from index runs of the repository, checked when opened, made again when
 * damaged.
 *
 * | bytes        |                                                                                                |
 * | ------------ | ---------------------------------------------------------------------------------------------- |
 * | pages × 4096 | 102 entries of 40 bytes (format/index-run.ts), u32 count, 8 zeros, u32 CRC-32 of these         |
 * | pages × 8    | fences: first 8 bytes of the first id of each page, as two u32 (high, low)                     |
 * | blocks × 64  | Bloom filter: 512 bits a block; an id sets 6 bits of one block                                 |
 * | packs × 44   | pack table                                                                                     |
 * | 128          | footer: "BKSTSRUN", u32 version, u32 pages, u32 blocks, u32 packs, u64 entries, name 32 bytes, |
 * |              | u32 CRC-32 of fences, of Bloom filter, of packs, zeros, u32 CRC-32 of bytes 0–123              |
 *
 * Building is run-builder.ts. The filter after Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient
 * Bloom Filters.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { assert, describeError, errnoOf, Failure } from '../base/failure.ts'
import { INDEX_ENTRY_BYTES, INDEX_PACK_BYTES, indexPackAt, type IndexPack } from '../format/index-run.ts'

export const PAGE_BYTES = 4096
export const PAGE_ENTRIES = 102
export const BLOOM_BLOCK_BYTES = 64
export const RUN_FOOTER_BYTES = 128
export const RUN_VERSION = 1
export const RUN_MAGIC = Buffer.from('BKSTSRUN')
/** Offset of a page's CRC-32; the count of its entries lies 12 bytes before it. */
export const PAGE_CRC_AT = PAGE_BYTES - 4
export const PAGE_COUNT_AT = PAGE_ENTRIES * INDEX_ENTRY_BYTES

const ID_BYTES = 32
/** Copies of one chunk that are looked for: threads make a few, a forged run could list millions. */
const COPIES_MAX = 16
const BLOOM_KEY_BITS = 10
/** Pages read at once when a run is checked or scanned. */
const SCAN_PAGES = 64

/** An opened run. Plain records and shared memory: may be posted to worker threads, which attachRun() it. */
export interface SortedRun {
  readonly path: string
  /** Hex, 64 digits; tells what the run was made from. */
  readonly name: string
  readonly entryCount: number
  readonly pageCount: number
  readonly packCount: number
  readonly packsOffset: number
  readonly fences: Uint32Array<SharedArrayBuffer>
  readonly bloom: Uint32Array<SharedArrayBuffer>
}

/** A run as one thread reads it: its own descriptor and page. */
export interface RunReader {
  readonly run: SortedRun
  readonly descriptor: number
  readonly page: Buffer
  /** Number of the page held in `page`, or -1. */
  pageNumber: number
}

export interface RunPlace {
  /** Place in the run's pack table. */
  readonly pack: number
  readonly chunk: number
  readonly class: number
}

/**
 * Opens a run and checks every byte of it (2 GB/s from the page cache). undefined if there is no file.
 * Fails: repo.corrupt if the file is damaged or holds another run than `name`: remove it and build it again.
 */
export function openRun(path: string, name: string): SortedRun | undefined {
  const descriptor = openIfThere(path)
  if (descriptor === undefined) return undefined
  try {
    return openRunParts(descriptor, path, name)
  } finally {
    closeSync(descriptor)
  }
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, 'r')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw new Failure('host.file', `Cannot open the index cache "${path}"`, { cause: error })
  }
}

function openRunParts(descriptor: number, path: string, name: string): SortedRun {
  const { size } = fstatSync(descriptor)
  const footer = Buffer.alloc(RUN_FOOTER_BYTES)
  if (size < RUN_FOOTER_BYTES) throw damaged(path, 'it is cut')
  readWhole(descriptor, footer, size - RUN_FOOTER_BYTES, path)
  if (!footer.subarray(0, 8).equals(RUN_MAGIC) || crc32(footer.subarray(0, 124)) !== footer.readUInt32LE(124))
    throw damaged(path, 'its footer is damaged')
  if (footer.readUInt32LE(8) !== RUN_VERSION) throw damaged(path, 'it has another version')
  if (footer.toString('hex', 32, 64) !== name) throw damaged(path, 'it holds another run')
  const pageCount = footer.readUInt32LE(12)
  const blockCount = footer.readUInt32LE(16)
  const packCount = footer.readUInt32LE(20)
  const fencesOffset = pageCount * PAGE_BYTES
  const bloomOffset = fencesOffset + pageCount * 8
  const packsOffset = bloomOffset + blockCount * BLOOM_BLOCK_BYTES
  if (packsOffset + packCount * INDEX_PACK_BYTES + RUN_FOOTER_BYTES !== size) throw damaged(path, 'it is cut')
  const fences = new Uint32Array(new SharedArrayBuffer(pageCount * 8))
  const bloom = new Uint32Array(new SharedArrayBuffer(blockCount * BLOOM_BLOCK_BYTES))
  const parts = [
    fillShared(descriptor, fences, fencesOffset, path),
    fillShared(descriptor, bloom, bloomOffset, path),
  ]
  parts.push(checksumRange(descriptor, packsOffset, packCount * INDEX_PACK_BYTES, path))
  parts.forEach((crc, place) => {
    if (crc !== footer.readUInt32LE(64 + place * 4)) throw damaged(path, `part ${place} has a wrong checksum`)
  })
  const entryCount = Number(footer.readBigUInt64LE(24))
  const run = { path, name, entryCount, pageCount, packCount, packsOffset, fences, bloom }
  if (checkPages(descriptor, run) !== entryCount)
    throw damaged(path, 'its pages hold another number of entries')
  return run
}

/** Fills shared memory from the file; returns its CRC-32. */
function fillShared(descriptor: number, words: Uint32Array, offset: number, path: string): number {
  const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
  readWhole(descriptor, bytes, offset, path)
  return crc32(bytes)
}

function checksumRange(descriptor: number, offset: number, length: number, path: string): number {
  const buffer = Buffer.allocUnsafe(Math.min(length, SCAN_PAGES * PAGE_BYTES))
  let crc = 0
  for (let done = 0; done < length;) {
    const part = buffer.subarray(0, Math.min(buffer.length, length - done))
    readWhole(descriptor, part, offset + done, path)
    crc = crc32(part, crc)
    done += part.length
  }
  return crc
}

/** Checks all pages; returns how many entries they hold. */
function checkPages(descriptor: number, run: SortedRun): number {
  let entryCount = 0
  for (const entries of pagesOf(descriptor, run)) entryCount += entries.length / INDEX_ENTRY_BYTES
  return entryCount
}

/** Opens the file of a run for this thread. End with detachRun(). Fails: host.file. */
export function attachRun(run: SortedRun): RunReader {
  const descriptor = openIfThere(run.path)
  if (descriptor === undefined)
    throw new Failure('host.file', `Cannot open the index cache "${run.path}": it is gone`)
  return { run, descriptor, page: Buffer.allocUnsafeSlow(PAGE_BYTES), pageNumber: -1 }
}

export function detachRun(reader: RunReader): void {
  closeSync(reader.descriptor)
}

/**
 * The first entry with the id that begins at `at` of `id`, or undefined; reads a page of the file. Ask
 * mayHold() first. Fails: repo.corrupt if the file was damaged since it was opened, host.file.
 */
export function searchRun(reader: RunReader, id: Buffer, at: number): RunPlace | undefined {
  const { fences, pageCount } = reader.run
  const high = id.readUInt32BE(at)
  const low = id.readUInt32BE(at + 4)
  // Ids with equal fence keys may begin in the last page with a lower fence and go on over the following
  // ones.
  for (let page = firstPage(fences, pageCount, high, low); page < pageCount; page++) {
    if (isFenceAbove(fences, page, high, low)) return undefined
    loadPage(reader, page)
    const found = findInPage(reader.page, id, at)
    if (found !== undefined) return found
  }
  return undefined
}

/** Entries with that id, in order, the first COPIES_MAX; else as searchRun(), which is faster. */
export function searchCopies(reader: RunReader, id: Buffer, at: number): RunPlace[] {
  const { fences, pageCount } = reader.run
  const high = id.readUInt32BE(at)
  const low = id.readUInt32BE(at + 4)
  const found: RunPlace[] = []
  for (let page = firstPage(fences, pageCount, high, low); page < pageCount; page++) {
    if (isFenceAbove(fences, page, high, low) || found.length === COPIES_MAX) break
    loadPage(reader, page)
    const end = reader.page.readUInt32LE(PAGE_COUNT_AT) * INDEX_ENTRY_BYTES
    for (let entry = 0; entry < end && found.length < COPIES_MAX; entry += INDEX_ENTRY_BYTES)
      if (reader.page.compare(id, at, at + ID_BYTES, entry, entry + ID_BYTES) === 0)
        found.push(placeAt(reader.page, entry))
  }
  return found
}

/** The last page whose fence is below the key, or page 0. */
function firstPage(fences: Uint32Array, pageCount: number, high: number, low: number): number {
  let below = 0
  let above = pageCount
  while (above - below > 1) {
    const middle = (below + above) >>> 1
    const fence = fences[middle * 2] as number
    if (fence < high || (fence === high && (fences[middle * 2 + 1] as number) < low)) below = middle
    else above = middle
  }
  return below
}

function isFenceAbove(fences: Uint32Array, page: number, high: number, low: number): boolean {
  const fence = fences[page * 2] as number
  return fence > high || (fence === high && (fences[page * 2 + 1] as number) > low)
}

function findInPage(page: Buffer, id: Buffer, at: number): RunPlace | undefined {
  const count = page.readUInt32LE(PAGE_COUNT_AT)
  const high = id.readUInt32BE(at)
  let begin = 0
  let end = count
  while (begin < end) {
    const middle = (begin + end) >>> 1
    if (page.readUInt32BE(middle * INDEX_ENTRY_BYTES) < high) begin = middle + 1
    else end = middle
  }
  for (let entry = begin * INDEX_ENTRY_BYTES; entry < count * INDEX_ENTRY_BYTES; entry += INDEX_ENTRY_BYTES) {
    const order = page.compare(id, at, at + ID_BYTES, entry, entry + ID_BYTES)
    if (order > 0) return undefined
    if (order === 0) return placeAt(page, entry)
  }
  return undefined
}

function placeAt(page: Buffer, entry: number): RunPlace {
  return {
    pack: page.readUInt32LE(entry + 32),
    chunk: page.readUInt16LE(entry + 36),
    class: page.readUInt8(entry + 38),
  }
}

function loadPage(reader: RunReader, page: number): void {
  if (reader.pageNumber === page) return
  reader.pageNumber = -1
  readWhole(reader.descriptor, reader.page, page * PAGE_BYTES, reader.run.path)
  checkPage(reader.page, reader.run.path, page)
  reader.pageNumber = page
}

function checkPage(page: Buffer, path: string, number: number): void {
  if (crc32(page.subarray(0, PAGE_CRC_AT)) !== page.readUInt32LE(PAGE_CRC_AT))
    throw damaged(path, `page ${number} has a wrong checksum`)
}

/** The pack at `place` of the run's table, read from the file. */
export function readRunPack(reader: RunReader, place: number): IndexPack {
  assert(place >= 0 && place < reader.run.packCount, 'a pack lies in its run')
  const record = Buffer.allocUnsafe(INDEX_PACK_BYTES)
  const offset = reader.run.packsOffset + place * INDEX_PACK_BYTES
  readWhole(reader.descriptor, record, offset, reader.run.path)
  return indexPackAt(record, 0)
}

/** The whole pack table of the run: 44 bytes a pack. */
export function readRunPacks(reader: RunReader): Buffer {
  const packs = Buffer.allocUnsafe(reader.run.packCount * INDEX_PACK_BYTES)
  readWhole(reader.descriptor, packs, reader.run.packsOffset, reader.run.path)
  return packs
}

/**
 * All entries in their order, a page (up to 102 records of 40 bytes) at a time; 256 KiB of memory.
 * A view is good until the next one is asked for. Fails: repo.corrupt.
 */
export function runEntries(reader: RunReader): Generator<Buffer, void, undefined> {
  return pagesOf(reader.descriptor, reader.run)
}

function* pagesOf(descriptor: number, run: SortedRun): Generator<Buffer, void, undefined> {
  const buffer = Buffer.allocUnsafe(Math.min(run.pageCount, SCAN_PAGES) * PAGE_BYTES)
  for (let first = 0; first < run.pageCount; first += SCAN_PAGES) {
    const bytes = Math.min(SCAN_PAGES, run.pageCount - first) * PAGE_BYTES
    readWhole(descriptor, buffer.subarray(0, bytes), first * PAGE_BYTES, run.path)
    for (let at = 0; at < bytes; at += PAGE_BYTES) {
      const page = buffer.subarray(at, at + PAGE_BYTES)
      checkPage(page, run.path, first + at / PAGE_BYTES)
      yield page.subarray(0, page.readUInt32LE(PAGE_COUNT_AT) * INDEX_ENTRY_BYTES)
    }
  }
}

// The Bloom filter. An id chooses its block with bytes 8–11 and six bits in it with bytes 12–19, since the
// first eight bytes are those that the entries of a page have in common.

/** Blocks of a filter for `entryCount` ids: 10 bits an id, 1.1 % false positives. */
export function bloomBlocks(entryCount: number): number {
  return Math.max(1, Math.ceil((entryCount * BLOOM_KEY_BITS) / (BLOOM_BLOCK_BYTES * 8)))
}

/** What an id asks of every filter: read once a lookup, however many runs there are. */
export interface BloomProbes {
  /** Chooses the block. */
  readonly block: number
  /** Three bits of nine bits each. */
  readonly first: number
  readonly second: number
}

/** The probes of the id that begins at `at` of `id`. */
export function probesOf(id: Buffer, at: number): BloomProbes {
  return { block: id.readUInt32LE(at + 8), first: id.readInt32LE(at + 12), second: id.readInt32LE(at + 16) }
}

/** Adds an id. */
export function addToBloom(bloom: Uint32Array, probes: BloomProbes): void {
  const base = blockAt(bloom, probes.block)
  for (const half of [probes.first, probes.second])
    for (let bits = half, probe = 0; probe < 3; probe++, bits >>>= 9) {
      const word = base + ((bits >>> 5) & 15)
      bloom[word] = (bloom[word] as number) | (1 << (bits & 31))
    }
}

/** Whether the run may hold the id: false is sure, true is wrong for 1.1 % of the ids that it does not hold. */
export function mayHold({ bloom }: SortedRun, probes: BloomProbes): boolean {
  const base = blockAt(bloom, probes.block)
  return hasThree(bloom, base, probes.first) && hasThree(bloom, base, probes.second)
}

function hasThree(bloom: Uint32Array, base: number, bits: number): boolean {
  return (
    (((bloom[base + ((bits >>> 5) & 15)] as number) >>> (bits & 31)) &
      ((bloom[base + ((bits >>> 14) & 15)] as number) >>> ((bits >>> 9) & 31)) &
      ((bloom[base + ((bits >>> 23) & 15)] as number) >>> ((bits >>> 18) & 31)) &
      1) !==
    0
  )
}

/** First word of the block that `chooser`, a u32, falls on. */
function blockAt(bloom: Uint32Array, chooser: number): number {
  const blocks = bloom.length / (BLOOM_BLOCK_BYTES / 4)
  return Math.floor((chooser * blocks) / 2 ** 32) * (BLOOM_BLOCK_BYTES / 4)
}

/** Reads exactly the length of `into`. Fails: repo.corrupt if the file ends before, host.file. */
function readWhole(descriptor: number, into: Uint8Array, offset: number, path: string): void {
  let done = 0
  while (done < into.length) {
    const bytes = readPart(descriptor, into.subarray(done), offset + done, path)
    if (bytes === 0) throw damaged(path, 'it is cut')
    done += bytes
  }
}

/** A bare errno would count as one of the source file that is being saved. */
function readPart(descriptor: number, into: Uint8Array, offset: number, path: string): number {
  try {
    return readSync(descriptor, into, 0, into.length, offset)
  } catch (cause) {
    const message = `Cannot read the index cache "${path}": ${describeError(cause)}`
    throw new Failure('host.file', message, { facts: { path }, cause })
  }
}

function damaged(path: string, is: string): Failure {
  return new Failure(
    'repo.corrupt',
    `Cannot use the index cache "${path}": ${is} (remove it to have it made again)`,
    {
      facts: { path },
    },
  )
}
