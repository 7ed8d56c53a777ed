/**
 * Patches the parent's extent map of a page file: pages that differ are packed into small delta chunks, all
 * others stay where they lie.
 *
 * A map that became scattered has its worst runs stored whole again, so that reading a file back does not
 * take ever more chunks of ever more packs. That costs at most a tenth of what the changed pages cost, or one
 * run a lane, so that no increment suddenly is as large as a full; a map may stay scattered meanwhile.
 */
import { newReader } from '../base/bytes.ts'
import { decodeExtents, PAGE_HASH_BYTES, type ChunkRef, type Extents } from '../format/content.ts'
import { lookupChunk } from '../repo/chunk-index.ts'
import { newDraft, saveRef, type Draft, type Lane } from './draft.ts'
import { hashRun, readRun, type PageFile, type RunFile } from './page-runs.ts'

/** Pages of a delta chunk, at most this many bytes together: what one page of it costs to read. */
const DELTA_BYTES_MAX = 128 * 1024
/** A map beyond this, or whose patched chunks are under a quarter alive, has its worst runs rewritten. */
const EXTENTS_MAX = 1024
const DELTA_ALIVE_MIN = 0.25
/** Bytes of runs rewritten, as a share of the changed pages stored; one run is always allowed. */
const REWRITE_SHARE_MAX = 0.1

/** The parent's segment as one place a page. */
export interface ParentPages {
  readonly extents: Extents
  readonly hashes: Buffer
  /** By page: ref into extents.chunks (0 = hole), and offset in that chunk. */
  readonly ref: Int32Array
  readonly offset: Int32Array
  /** Bytes of each page that the parent has: the last one may be short. */
  readonly bytes: Int32Array
}

/** The parent's segment, or undefined if there is none that can be patched. */
export function parentPages(file: PageFile): ParentPages | undefined {
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

/** A new state of the file that is being put together. */
interface Patch {
  readonly file: RunFile
  readonly parent: ParentPages
  readonly hashes: Buffer
  /** Chunks stored for it, with their marks; a rewritten run may leave some without use. */
  readonly stored: Draft
  /** A place for each page. < 0: in `stored.chunks` at −ref−1; 0: a hole; else as the parent's ref. */
  readonly ref: Int32Array
  readonly offset: Int32Array
  readonly bytes: Int32Array
}

/** Changed pages that are not in a chunk yet. */
interface Delta {
  readonly bytes: Buffer
  length: number
  pages: number[]
}

/** Reads the segment and saves what differs from the parent. `hashes` are filled. Fails: as the store's put. */
export async function savePatch(
  lane: Lane,
  draft: Draft,
  given: { readonly file: RunFile; readonly hashes: Buffer; readonly parent: ParentPages },
): Promise<void> {
  const { file, hashes } = given
  const count = hashes.length / PAGE_HASH_BYTES
  const patch: Patch = {
    ...given,
    stored: newDraft(),
    ref: new Int32Array(count),
    offset: new Int32Array(count),
    bytes: new Int32Array(count),
  }
  const delta: Delta = {
    bytes: lane.window.subarray(file.runBytes, file.runBytes + DELTA_BYTES_MAX),
    length: 0,
    pages: [],
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
      if (takeFromParent(patch, page) || run.bytes === undefined || isZeroHole(patch, page)) continue
      if (delta.length + bytes > DELTA_BYTES_MAX) await saveDelta(lane, patch, delta)
      delta.pages.push(page)
      delta.bytes.set(run.bytes.subarray(start, start + bytes), delta.length)
      delta.length += bytes
    }
    at += run.length
    if (run.length < file.runBytes) break
  }
  await saveDelta(lane, patch, delta)
  lane.rewrites.changedBytes += patch.stored.bytesFresh
  const pages = Math.ceil(covered / file.pageBytes)
  if (isScattered(patch, pages)) await rewriteRuns(lane, draft, patch, pages)
  finishPatch(lane, draft, patch, pages)
}

/** Whether the page is as the parent has it; its place then is the parent's. */
function takeFromParent(patch: Patch, page: number): boolean {
  const { parent, hashes } = patch
  const at = page * PAGE_HASH_BYTES
  if (parent.bytes[page] !== patch.bytes[page]) return false
  if (parent.hashes.compare(hashes, at, at + PAGE_HASH_BYTES, at, at + PAGE_HASH_BYTES) !== 0) return false
  patch.ref[page] = parent.ref[page]!
  patch.offset[page] = parent.offset[page]!
  return true
}

/** Whether a page that was read among others lay in a hole and still was zeros when it was read. */
function isZeroHole({ file, hashes }: Patch, page: number): boolean {
  const at = page * PAGE_HASH_BYTES
  if (file.hasData[page] !== 0) return false
  return hashes.compare(file.zeroHash, 0, PAGE_HASH_BYTES, at, at + PAGE_HASH_BYTES) === 0
}

async function saveDelta(lane: Lane, patch: Patch, delta: Delta): Promise<void> {
  if (delta.length === 0) return
  const ref = await saveRef(lane, patch.stored, 'delta', delta.bytes.subarray(0, delta.length))
  let offset = 0
  for (const page of delta.pages) {
    patch.ref[page] = -ref
    patch.offset[page] = offset
    offset += patch.bytes[page]!
  }
  delta.length = 0
  delta.pages = []
}

/** Whether the page's place goes on where that of the page before ends. */
function follows({ ref, offset, bytes }: Patch, page: number): boolean {
  if (page === 0 || ref[page] !== ref[page - 1]) return false
  return ref[page] === 0 || offset[page] === offset[page - 1]! + bytes[page - 1]!
}

function isScattered(patch: Patch, pages: number): boolean {
  let extents = 0
  const alive = new Map<number, number>()
  for (let page = 0; page < pages; page++) {
    const ref = patch.ref[page]!
    if (!follows(patch, page)) extents++
    if (ref !== 0) alive.set(ref, (alive.get(ref) ?? 0) + patch.bytes[page]!)
  }
  if (extents > EXTENTS_MAX) return true
  let patchedBytes = 0
  let patchedAlive = 0
  for (const [ref, bytes] of alive) {
    const chunk = chunkOf(patch, ref)
    if (bytes >= chunk.bytes) continue
    patchedBytes += chunk.bytes
    patchedAlive += bytes
  }
  const isDead = patchedBytes > DELTA_BYTES_MAX && patchedAlive < patchedBytes * DELTA_ALIVE_MIN
  return isDead && extents > EXTENTS_MAX / 4
}

function chunkOf({ stored, parent }: Patch, ref: number): ChunkRef {
  return ref < 0 ? stored.chunks[-ref - 1]! : parent.extents.chunks[ref - 1]!
}

/** Stores runs whole again, those in most pieces first, for as long as the budget lasts. */
async function rewriteRuns(lane: Lane, draft: Draft, patch: Patch, pages: number): Promise<void> {
  const { file, stored, hashes } = patch
  const { rewrites } = lane
  for (const first of scatteredRuns(patch, pages)) {
    const budget = Math.max(file.runBytes, rewrites.changedBytes * REWRITE_SHARE_MAX)
    if (rewrites.rewrittenBytes + file.runBytes > budget) return
    const last = Math.min(pages, first + file.runBytes / file.pageBytes)
    const length = patch.bytes.subarray(first, last).reduce((sum, bytes) => sum + bytes, 0)
    const at = file.offset + first * file.pageBytes
    const run = readRun(lane, draft, file, at)
    if (run.bytes === undefined || run.length !== length) continue
    // The file may have changed since: hashes must be those of what is stored.
    hashRun(lane, file, run, hashes, at)
    const before = stored.bytesFresh
    patch.ref.fill(-(await saveRef(lane, stored, 'run', run.bytes)), first, last)
    for (let page = first; page < last; page++) patch.offset[page] = (page - first) * file.pageBytes
    rewrites.rewrittenBytes += stored.bytesFresh - before
  }
}

/** First pages of the runs that lie in several pieces, those in most pieces first. */
function scatteredRuns(patch: Patch, pages: number): number[] {
  const runPages = patch.file.runBytes / patch.file.pageBytes
  const runs: { first: number; pieces: number }[] = []
  for (let first = 0; first < pages; first += runPages) {
    let pieces = 1
    for (let page = first + 1; page < Math.min(pages, first + runPages); page++)
      if (!follows(patch, page)) pieces++
    if (pieces > 1) runs.push({ first, pieces })
  }
  return runs.sort((a, b) => b.pieces - a.pieces || a.first - b.first).map(({ first }) => first)
}

/** Joins pages that follow each other in one chunk into extents, and lists the chunks that are used. */
function finishPatch(lane: Lane, draft: Draft, patch: Patch, pages: number): void {
  const refs = new Map<number, number>([[0, 0]])
  for (let page = 0; page < pages; page++) {
    const length = patch.bytes[page]!
    const last = draft.extents.at(-1)
    if (last !== undefined && follows(patch, page)) {
      draft.extents[draft.extents.length - 1] = { ...last, length: last.length + length }
    } else {
      const ref = refs.get(patch.ref[page]!) ?? takeChunk(lane, draft, patch, patch.ref[page]!)
      refs.set(patch.ref[page]!, ref)
      draft.extents.push({ length, ref, offset: ref === 0 ? 0 : patch.offset[page]! })
    }
    draft.bytes += length
  }
  draft.bytesFresh += patch.stored.bytesFresh
}

/** Adds a chunk of the patch to the draft; returns its ref there. */
function takeChunk(lane: Lane, draft: Draft, patch: Patch, ref: number): number {
  const { id, bytes } = chunkOf(patch, ref)
  draft.chunks.push({ id: Uint8Array.from(id), bytes })
  if (ref < 0) {
    draft.marks.push(patch.stored.marks[2 * (-ref - 1)]!, patch.stored.marks[2 * (-ref - 1) + 1]!)
  } else {
    const place = lookupChunk(lane.saver.index, Buffer.from(id), 0)
    if (place === undefined) throw new Error("Bug: the parent's chunk is outside of the lineage")
    draft.marks.push(place.pack, place.number)
  }
  return draft.chunks.length
}
