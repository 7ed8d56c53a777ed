/**
 * Builds sorted runs (sorted-run.ts): from an index run of the repository, or from several sorted runs by
 * merging. A file is written beside its final name and renamed, so that a reader sees all of it or nothing;
 * what a crash of the system leaves of one is seen when it is opened, so that nothing has to be synced.
 * Memory: 256 KiB, the Bloom filter and the fences (1.34 bytes a chunk), and for a merge 256 KiB a run.
 */
import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { assert, describeError, Failure } from '../base/failure.ts'
import { randomHex } from '../base/random.ts'
import { compareIndexEntries, INDEX_ENTRY_BYTES, INDEX_PACK_BYTES } from '../format/index-run.ts'
import { beginIndexRun, decodeIndexBlocks, type ExpectedIndexRun } from '../format/index-run-decoder.ts'
import {
  addToBloom,
  attachRun,
  BLOOM_BLOCK_BYTES,
  bloomBlocks,
  detachRun,
  PAGE_BYTES,
  PAGE_COUNT_AT,
  PAGE_CRC_AT,
  PAGE_ENTRIES,
  probesOf,
  readRunPacks,
  RUN_FOOTER_BYTES,
  RUN_MAGIC,
  RUN_VERSION,
  runEntries,
  type RunReader,
  type SortedRun,
} from './sorted-run.ts'

const WRITE_PAGES = 64
const PAGES_MAX = 2 ** 32 - 1

/** A run being written. */
export interface RunBuilder {
  readonly path: string
  readonly temporary: string
  /** 64 hex digits, written into the file. */
  readonly name: string
  readonly entryCount: number
  /** -1 once it is closed. */
  descriptor: number
  readonly pages: Buffer
  readonly fences: Uint32Array
  readonly bloom: Uint32Array
  /** Entries added so far. */
  added: number
  /** Bytes written so far. */
  written: number
}

/**
 * Begins the run `name` (64 hex digits) at `path`, in an existing folder, for exactly `entryCount` entries.
 * Fails: host.file.
 */
export function beginRun(path: string, name: string, entryCount: number): RunBuilder {
  const pageCount = Math.ceil(entryCount / PAGE_ENTRIES)
  assert(pageCount <= PAGES_MAX && /^[0-9a-f]{64}$/.test(name), 'a run has a name of 64 hex digits')
  const temporary = `${path}.${randomHex(4)}.tmp`
  const descriptor = onDisk(path, () => openSync(temporary, 'wx', 0o600))
  return {
    path,
    temporary,
    name,
    entryCount,
    descriptor,
    pages: Buffer.alloc(WRITE_PAGES * PAGE_BYTES),
    fences: new Uint32Array(pageCount * 2),
    bloom: new Uint32Array((bloomBlocks(entryCount) * BLOOM_BLOCK_BYTES) / 4),
    added: 0,
    written: 0,
  }
}

/**
 * Appends whole entries, which must come in their order over all calls. Keeps no view of them. Fails:
 * host.file.
 */
export function addRunEntries(builder: RunBuilder, entries: Buffer): void {
  for (let at = 0; at < entries.length; at += INDEX_ENTRY_BYTES) addRunEntry(builder, entries, at)
}

function addRunEntry(builder: RunBuilder, entries: Buffer, at: number): void {
  assert(builder.added < builder.entryCount, 'a run gets what it was begun for')
  const slot = builder.added % (PAGE_ENTRIES * WRITE_PAGES)
  const inPage = slot % PAGE_ENTRIES
  const pageAt = ((slot - inPage) / PAGE_ENTRIES) * PAGE_BYTES
  if (inPage === 0) {
    const page = builder.added / PAGE_ENTRIES
    builder.fences[page * 2] = entries.readUInt32BE(at)
    builder.fences[page * 2 + 1] = entries.readUInt32BE(at + 4)
  }
  entries.copy(builder.pages, pageAt + inPage * INDEX_ENTRY_BYTES, at, at + INDEX_ENTRY_BYTES)
  addToBloom(builder.bloom, probesOf(entries, at))
  builder.added++
  if (inPage === PAGE_ENTRIES - 1) sealPage(builder.pages, pageAt, PAGE_ENTRIES)
  if (slot === PAGE_ENTRIES * WRITE_PAGES - 1) append(builder, builder.pages)
}

/**
 * Closes the run with its pack table (44 bytes a pack). The file is in place when this returns.
 * Fails: host.file.
 */
export function finishRun(builder: RunBuilder, packs: Buffer): void {
  assert(builder.added === builder.entryCount, 'a run gets all it was begun for')
  const slot = builder.added % (PAGE_ENTRIES * WRITE_PAGES)
  const inPage = slot % PAGE_ENTRIES
  const whole = ((slot - inPage) / PAGE_ENTRIES) * PAGE_BYTES
  if (inPage > 0) {
    builder.pages.fill(0, whole + inPage * INDEX_ENTRY_BYTES, whole + PAGE_BYTES)
    sealPage(builder.pages, whole, inPage)
  }
  append(builder, builder.pages.subarray(0, inPage > 0 ? whole + PAGE_BYTES : whole))
  const fences = Buffer.from(builder.fences.buffer)
  const bloom = Buffer.from(builder.bloom.buffer)
  for (const part of [fences, bloom, packs]) append(builder, part)
  append(builder, runFooter(builder, [fences, bloom, packs]))
  onDisk(builder.path, () => {
    renameSync(builder.temporary, builder.path)
  })
  closeRun(builder)
}

function runFooter(builder: RunBuilder, parts: readonly [Buffer, Buffer, Buffer]): Buffer {
  const footer = Buffer.alloc(RUN_FOOTER_BYTES)
  RUN_MAGIC.copy(footer, 0)
  footer.writeUInt32LE(RUN_VERSION, 8)
  footer.writeUInt32LE(builder.fences.length / 2, 12)
  footer.writeUInt32LE(builder.bloom.byteLength / BLOOM_BLOCK_BYTES, 16)
  footer.writeUInt32LE(parts[2].length / INDEX_PACK_BYTES, 20)
  footer.writeBigUInt64LE(BigInt(builder.entryCount), 24)
  footer.write(builder.name, 32, 'hex')
  parts.forEach((part, place) => footer.writeUInt32LE(crc32(part), 64 + place * 4))
  footer.writeUInt32LE(crc32(footer.subarray(0, 124)), 124)
  return footer
}

/**
 * Gives up a run that may not be finished, and removes what was written of it. Does nothing to a finished
 * one.
 */
export function closeRun(builder: RunBuilder): void {
  if (builder.descriptor < 0) return
  closeSync(builder.descriptor)
  builder.descriptor = -1
  rmSync(builder.temporary, { force: true })
}

/**
 * Builds the sorted run `name` (hex SHA-256 of `object`) at `path` from an index run. Failures as
 * beginIndexRun(), host.file.
 */
export function buildRun(
  place: { path: string; name: string },
  object: Uint8Array,
  expected: ExpectedIndexRun,
  indexKey: Uint8Array,
): void {
  const decoder = beginIndexRun(object, object.length, expected, indexKey)
  const builder = beginRun(place.path, place.name, decoder.header.entryCount)
  try {
    decodeIndexBlocks(decoder, object, (entries) => addRunEntries(builder, entries))
    finishRun(builder, decoder.packs)
  } finally {
    closeRun(builder)
  }
}

/**
 * Merges runs into one at `path`. Its pack table is those of `runs` joined in their order; nothing is left
 * out, so an id that several runs hold is held as often. Takes about a microsecond an entry. Fails:
 * repo.corrupt, host.file.
 */
export function mergeRuns(path: string, name: string, runs: readonly SortedRun[]): void {
  const cursors: MergeCursor[] = []
  let packBase = 0
  const builder = beginRun(
    path,
    name,
    runs.reduce((sum, run) => sum + run.entryCount, 0),
  )
  try {
    for (const run of runs) {
      cursors.push(newMergeCursor(attachRun(run), packBase))
      packBase += run.packCount
    }
    mergeEntries(builder, cursors)
    finishRun(builder, Buffer.concat(cursors.map((cursor) => readRunPacks(cursor.reader))))
  } finally {
    closeRun(builder)
    for (const cursor of cursors) detachRun(cursor.reader)
  }
}

/**
 * Where a merge stands in one of its runs: the entry at `at` of `entries` is next, if `at` is not their end.
 */
interface MergeCursor {
  readonly reader: RunReader
  readonly pages: Generator<Buffer, void, undefined>
  readonly packBase: number
  entries: Buffer
  at: number
}

function newMergeCursor(reader: RunReader, packBase: number): MergeCursor {
  const cursor = { reader, pages: runEntries(reader), packBase, entries: Buffer.alloc(0), at: 0 }
  refillCursor(cursor)
  return cursor
}

/**
 * Turns to the next page; its entries are a view, into which the pack numbers of the merged run are written.
 */
function refillCursor(cursor: MergeCursor): void {
  const next = cursor.pages.next()
  cursor.entries = next.done === true ? Buffer.alloc(0) : next.value
  cursor.at = 0
  for (let at = 32; at < cursor.entries.length; at += INDEX_ENTRY_BYTES)
    cursor.entries.writeUInt32LE(cursor.entries.readUInt32LE(at) + cursor.packBase, at)
}

function mergeEntries(builder: RunBuilder, cursors: readonly MergeCursor[]): void {
  const queue = cursors.filter((cursor) => cursor.at < cursor.entries.length)
  for (let place = (queue.length >> 1) - 1; place >= 0; place--) sink(queue, place)
  for (let top = queue[0]; top !== undefined; top = queue[0]) {
    addRunEntry(builder, top.entries, top.at)
    top.at += INDEX_ENTRY_BYTES
    if (top.at === top.entries.length) refillCursor(top)
    if (top.entries.length === 0) {
      const last = queue.pop()
      if (last !== undefined && queue.length > 0) queue[0] = last
    }
    sink(queue, 0)
  }
}

/** Restores the heap below `place`: the cursor with the least entry is first. */
function sink(queue: MergeCursor[], place: number): void {
  const moved = queue[place]
  if (moved === undefined) return
  let hole = place
  for (;;) {
    const child = leastChild(queue, hole)
    const other = queue[child]
    if (other === undefined || !isBefore(other, moved)) break
    queue[hole] = other
    hole = child
  }
  queue[hole] = moved
}

function leastChild(queue: readonly MergeCursor[], place: number): number {
  const [left, right] = [queue[place * 2 + 1], queue[place * 2 + 2]]
  return left !== undefined && right !== undefined && isBefore(right, left) ? place * 2 + 2 : place * 2 + 1
}

function isBefore(a: MergeCursor, b: MergeCursor): boolean {
  return compareIndexEntries(a.entries, a.at, b.entries, b.at) < 0
}

function sealPage(pages: Buffer, at: number, entryCount: number): void {
  pages.writeUInt32LE(entryCount, at + PAGE_COUNT_AT)
  pages.writeUInt32LE(crc32(pages.subarray(at, at + PAGE_CRC_AT)), at + PAGE_CRC_AT)
}

function append(builder: RunBuilder, bytes: Buffer): void {
  onDisk(builder.path, () => {
    for (let done = 0; done < bytes.length;)
      done += writeSync(builder.descriptor, bytes, done, bytes.length - done, builder.written + done)
  })
  builder.written += bytes.length
}

function onDisk<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    const message = `Cannot write the index cache "${path}": ${describeError(error)}`
    const hint = 'Free space there, or set repository.cache to another folder.'
    throw new Failure('host.file', message, { facts: { path, hint }, cause: error })
  }
}
