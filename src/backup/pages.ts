/**
 * Saves a segment of a database file by pages: all of it as 128 KiB runs, or, when the parent's page hashes
 * are at hand, only the pages that differ, packed into small delta chunks over which the extent map is
 * patched. Runs that lie in holes of the file are not read: they become holes of the map, with the hashes of
 * zero pages.
 */
import { createHmac } from 'node:crypto'
import { newReader } from '../base/bytes.ts'
import { decodeExtents, PAGE_HASH_BYTES, type ChunkRef, type Extents } from '../format/content.ts'
import { lookupChunk } from '../repo/chunk-index.ts'
import type { PageSegment } from '../repo/tree-cache.ts'
import type { DataRange } from '../sources/files/read.ts'
import { addChunk, addHole, readFully, saveRef, type Draft, type Lane } from './draft.ts'

/** Pages of a delta chunk, at most this many bytes together: what one page of it costs to read. */
const DELTA_BYTES_MAX = 128 * 1024
/** A map beyond this, or whose delta chunks are under a quarter alive, rewrites its runs. */
const EXTENTS_MAX = 1024
const DELTA_ALIVE_MIN = 0.25

interface PageFile {
  readonly fd: number
  /** Where the segment begins in the file. */
  readonly offset: number
  /** Where the segment ends in the file. */
  readonly end: number
  readonly pageBytes: number
  readonly parent: PageSegment | undefined
  /** Where the segment holds data, ascending; the rest are holes. */
  readonly ranges: readonly DataRange[]
}

export async function savePages(lane: Lane, draft: Draft, given: PageFile): Promise<void> {
  const { pageBytes } = given
  const file: RunFile = {
    ...given,
    runBytes: runBytesOf(lane, pageBytes),
    hasData: pagesWithData(given),
    zeroHash: hashPage(lane, Buffer.alloc(pageBytes)),
  }
  const parent = parentPages(file)
  const pages = Math.ceil((file.end - file.offset) / file.pageBytes)
  const hashes = Buffer.alloc(pages * PAGE_HASH_BYTES)
  if (parent === undefined) await saveRuns(lane, draft, file, hashes)
  else await savePatch(lane, draft, file, hashes, parent)
  draft.hashes = Uint8Array.from(
    hashes.subarray(0, Math.ceil(draft.bytes / file.pageBytes) * PAGE_HASH_BYTES),
  )
}

/** Runs are whole pages, whatever sizes meet. */
function runBytesOf(lane: Lane, pageBytes: number): number {
  return Math.max(1, Math.floor(lane.runBytes / pageBytes)) * pageBytes
}

interface RunFile extends PageFile {
  readonly runBytes: number
  /** By page: 0 where all of it lies in a hole. */
  readonly hasData: Uint8Array
  /** Of a whole page of zeros. */
  readonly zeroHash: Buffer
}

function pagesWithData(file: PageFile): Uint8Array {
  const hasData = new Uint8Array(Math.ceil((file.end - file.offset) / file.pageBytes))
  for (const range of file.ranges) {
    const from = range.offset - file.offset
    hasData.fill(1, Math.floor(from / file.pageBytes), Math.ceil((from + range.length) / file.pageBytes))
  }
  return hasData
}

/** A run of the file; `bytes`, a view of the window, is undefined where all of the run lies in a hole. */
interface Run {
  readonly length: number
  readonly bytes: Buffer | undefined
}

/** The parent's segment as one place a page, or undefined if it cannot be patched. */
interface ParentPages {
  readonly extents: Extents
  readonly hashes: Buffer
  /** By page: ref into extents.chunks (0 = hole), and offset in that chunk. */
  readonly ref: Int32Array
  readonly offset: Int32Array
  /** Bytes of each page that the parent has: the last one may be short. */
  readonly bytes: Int32Array
}

function parentPages(file: PageFile): ParentPages | undefined {
  const { parent } = file
  if (parent === undefined || parent.pageBytes !== file.pageBytes) return undefined
  const extents = decodeExtents(newReader(parent.extents, "the parent's extents"))
  const count = parent.hashes.length / PAGE_HASH_BYTES
  const pages = { ref: new Int32Array(count), offset: new Int32Array(count), bytes: new Int32Array(count) }
  let at = 0
  for (const extent of extents.extents) {
    if (at % file.pageBytes !== 0) return undefined
    for (let within = 0; within < extent.length; within += file.pageBytes) {
      const page = (at + within) / file.pageBytes
      pages.ref[page] = extent.ref
      pages.offset[page] = extent.offset + within
      pages.bytes[page] = Math.min(file.pageBytes, extent.length - within)
    }
    at += extent.length
  }
  return { extents, hashes: Buffer.from(parent.hashes), ...pages }
}

/** The whole segment in aligned runs. */
async function saveRuns(lane: Lane, draft: Draft, file: RunFile, hashes: Buffer): Promise<void> {
  for (let at = file.offset; at < file.end;) {
    const run = readRun(lane, draft, file, at)
    if (run.length === 0) return
    hashRun(lane, file, run, hashes, at)
    if (run.bytes === undefined) addHole(draft, run.length)
    else await addChunk(lane, draft, 'run', run.bytes)
    at += run.length
    if (run.length < file.runBytes) return
  }
}

function readRun(lane: Lane, draft: Draft, file: RunFile, at: number): Run {
  const wanted = Math.min(file.runBytes, file.end - at)
  const first = (at - file.offset) / file.pageBytes
  const data = file.hasData.indexOf(1, first)
  if (data === -1 || data >= first + wanted / file.pageBytes) return { length: wanted, bytes: undefined }
  const length = readFully(file.fd, lane.window, 0, wanted, at)
  draft.bytesRead += length
  return { length, bytes: lane.window.subarray(0, length) }
}

/** `at`: where the run begins in the file. */
function hashRun(lane: Lane, file: RunFile, run: Run, hashes: Buffer, at: number): void {
  let to = ((at - file.offset) / file.pageBytes) * PAGE_HASH_BYTES
  for (let start = 0; start < run.length; start += file.pageBytes, to += PAGE_HASH_BYTES) {
    const length = Math.min(run.length - start, file.pageBytes)
    hashOfPage(lane, file, run, { start, length }).copy(hashes, to, 0, PAGE_HASH_BYTES)
  }
}

function hashOfPage(lane: Lane, file: RunFile, run: Run, page: { start: number; length: number }): Buffer {
  if (run.bytes !== undefined) return hashPage(lane, run.bytes.subarray(page.start, page.start + page.length))
  return page.length === file.pageBytes ? file.zeroHash : hashPage(lane, Buffer.alloc(page.length))
}

function hashPage(lane: Lane, page: Buffer): Buffer {
  return createHmac('sha256', lane.pageKey).update(page).digest()
}

/**
 * A place for each page of the new state. `ref` < 0: in `draft.chunks` at −ref−1; 0: a hole; else as the
 * parent's ref.
 */
interface Patch {
  readonly ref: Int32Array
  readonly offset: Int32Array
  readonly bytes: Int32Array
}

async function savePatch(
  lane: Lane,
  draft: Draft,
  file: RunFile,
  hashes: Buffer,
  parent: ParentPages,
): Promise<void> {
  const count = hashes.length / PAGE_HASH_BYTES
  const patch: Patch = {
    ref: new Int32Array(count),
    offset: new Int32Array(count),
    bytes: new Int32Array(count),
  }
  const delta = {
    bytes: lane.window.subarray(file.runBytes, file.runBytes + DELTA_BYTES_MAX),
    length: 0,
    pages: [] as number[],
  }
  let covered = 0
  for (let at = file.offset; at < file.end;) {
    const run = readRun(lane, draft, file, at)
    const first = (at - file.offset) / file.pageBytes
    hashRun(lane, file, run, hashes, at)
    covered += run.length
    for (let start = 0, page = first; start < run.length; start += file.pageBytes, page++) {
      const bytes = Math.min(file.pageBytes, run.length - start)
      patch.bytes[page] = bytes
      if (isSame(parent, hashes, page, bytes)) {
        patch.ref[page] = parent.ref[page]!
        patch.offset[page] = parent.offset[page]!
        continue
      }
      if (run.bytes === undefined || isZeroHole(file, hashes, page)) continue
      if (delta.length + bytes > DELTA_BYTES_MAX) await saveDelta(lane, draft, patch, delta)
      delta.pages.push(page)
      delta.bytes.set(run.bytes.subarray(start, start + bytes), delta.length)
      delta.length += bytes
    }
    at += run.length
    if (run.length < file.runBytes) break
  }
  await saveDelta(lane, draft, patch, delta)
  finishPatch(lane, draft, patch, parent, Math.ceil(covered / file.pageBytes))
  if (needsRewrite(draft)) await rewriteRuns(lane, draft, file, hashes)
}

function isSame(parent: ParentPages, hashes: Buffer, page: number, bytes: number): boolean {
  const at = page * PAGE_HASH_BYTES
  if (parent.bytes[page] !== bytes) return false
  return parent.hashes.compare(hashes, at, at + PAGE_HASH_BYTES, at, at + PAGE_HASH_BYTES) === 0
}

/** Whether a page that was read among others lay in a hole and still was zeros when it was read. */
function isZeroHole(file: RunFile, hashes: Buffer, page: number): boolean {
  const at = page * PAGE_HASH_BYTES
  if (file.hasData[page] !== 0) return false
  return hashes.compare(file.zeroHash, 0, PAGE_HASH_BYTES, at, at + PAGE_HASH_BYTES) === 0
}

async function saveDelta(
  lane: Lane,
  draft: Draft,
  patch: Patch,
  delta: { bytes: Buffer; length: number; pages: number[] },
): Promise<void> {
  if (delta.length === 0) return
  const ref = await saveRef(lane, draft, 'delta', delta.bytes.subarray(0, delta.length))
  let offset = 0
  for (const page of delta.pages) {
    patch.ref[page] = -ref
    patch.offset[page] = offset
    offset += patch.bytes[page]!
  }
  delta.length = 0
  delta.pages = []
}

/**
 * Joins pages that follow each other in one chunk into extents, and takes over the parent's chunks that are
 * still used.
 */
function finishPatch(lane: Lane, draft: Draft, patch: Patch, parent: ParentPages, pages: number): void {
  const adopted = new Map<number, number>()
  for (let page = 0; page < pages; page++) {
    const length = patch.bytes[page]!
    const ref = refInDraft(lane, draft, patch.ref[page]!, parent.extents.chunks, adopted)
    const offset = ref === 0 ? 0 : patch.offset[page]!
    const last = draft.extents.at(-1)
    const follows =
      last !== undefined && last.ref === ref && (ref === 0 || last.offset + last.length === offset)
    if (follows) draft.extents[draft.extents.length - 1] = { ...last, length: last.length + length }
    else draft.extents.push({ length, ref, offset })
    draft.bytes += length
  }
}

function refInDraft(
  lane: Lane,
  draft: Draft,
  ref: number,
  chunks: readonly ChunkRef[],
  adopted: Map<number, number>,
): number {
  if (ref <= 0) return 0 - ref
  const known = adopted.get(ref)
  if (known !== undefined) return known
  const chunk = chunks[ref - 1]!
  const place = lookupChunk(lane.saver.index, Buffer.from(chunk.id), 0)
  if (place === undefined) throw new Error("Bug: the parent's chunk is outside of the lineage")
  draft.chunks.push({ id: Uint8Array.from(chunk.id), bytes: chunk.bytes })
  draft.marks.push(place.pack, place.number)
  adopted.set(ref, draft.chunks.length)
  return draft.chunks.length
}

function needsRewrite(draft: Draft): boolean {
  if (draft.extents.length > EXTENTS_MAX) return true
  const alive = new Float64Array(draft.chunks.length + 1)
  for (const extent of draft.extents) alive[extent.ref]! += extent.length
  let deltaBytes = 0
  let deltaAlive = 0
  draft.chunks.forEach((chunk, i) => {
    if (alive[i + 1]! >= chunk.bytes) return
    deltaBytes += chunk.bytes
    deltaAlive += alive[i + 1]!
  })
  return (
    deltaBytes > DELTA_BYTES_MAX &&
    draft.extents.length > EXTENTS_MAX / 4 &&
    deltaAlive < deltaBytes * DELTA_ALIVE_MIN
  )
}

/**
 * Gives up the patches: stores the segment in runs again. Runs that did not change are known and cost
 * nothing. The hashes are made anew as well: the file may have changed since, and hashes must be those of
 * what is stored.
 */
async function rewriteRuns(lane: Lane, draft: Draft, file: RunFile, hashes: Buffer): Promise<void> {
  draft.chunks.length = 0
  draft.extents.length = 0
  draft.marks.length = 0
  draft.bytes = 0
  await saveRuns(lane, draft, file, hashes)
}
