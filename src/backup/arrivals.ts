/**
 * Takes files as a source's server sends them: their bytes go to the lanes in loads of 1 MiB, and what the
 * lanes answer, in any order, becomes tree entries that wait, sorted, for the walk of save-delivery.ts.
 * Memory is bounded by the loads under way; a slow store or slow lanes hold the source back.
 */
import type { FileEntry } from '../base/file-entry.ts'
import { assert } from '../base/failure.ts'
import { noteWork } from '../base/garbage.ts'
import { NODE_SPAN_BYTES, type ChunkRef } from '../format/content.ts'
import type { TreeEntry } from '../format/tree.ts'
import type { Saver } from '../repo/saver.ts'
import type { DamagedPages, PageFormat } from '../sources/source.ts'
import { throwIfCancelled } from './cancel.ts'
import { encodeDraft } from './draft.ts'
import { sortEntry, type EntrySorter } from './entry-sorter.ts'
import { finishFile } from './file-item.ts'
import { nextResults, submitLoad, type Lanes } from './lanes.ts'
import { markPairs, type Marks } from './marks.ts'
import { PIECE_BYTES, type Load, type LoadBytes, type PieceJob, type PieceResult } from './piece.ts'
import { NO_SEGMENT, type SegmentResult } from './segment.ts'
import type { TreeTotals } from './tree-saver.ts'

const LOAD_BYTES = PIECE_BYTES
const LOAD_PIECES_MAX = 256
/** Loads and files that wait in this thread before the source is held back; one read of the source adds to it. */
const LOADS_WAITING_MAX = 2
const FILES_WAITING_MAX = 512
/** Files up to this size are one chunk and carry no page hashes: those would be a chunk more for each. */
const WHOLE_BYTES_MAX = 32 * 1024
const NO_BYTES = new Uint8Array(0)
/** Damaged pages remembered; more are as bad. */
const DAMAGED_PAGES_MAX = 100_000

interface ArrivingFile {
  readonly path: string
  readonly entry: FileEntry
  readonly format: PageFormat | undefined
  readonly checksums: PageFormat['checksums']
  readonly pieces: Piece[]
  bytes: number
  missing: number
  isWhole: boolean
  inline: Uint8Array | undefined
}

interface Piece {
  readonly length: number
  result: PieceResult | undefined
}

export interface Arrivals {
  readonly lanes: Lanes
  readonly saver: Saver
  readonly sorter: EntrySorter
  readonly marks: Marks
  readonly totals: TreeTotals
  /** Called between loads: the engine's housekeeping. */
  readonly tend: () => Promise<void>
  readonly onProgress: (totals: TreeTotals, path: string) => void
  readonly signal: AbortSignal | undefined
  readonly damaged: Map<string, { readonly pages: number[]; more: number }>
  damagedCount: number
  /** Buffers of loads that came back. */
  readonly free: LoadBytes[]
  load: { bytes: LoadBytes; filled: number; pieces: PieceJob[] }
  /** Where the piece under way begins in the load; −1: there is none. */
  pieceAt: number
  file: ArrivingFile | undefined
  readonly waiting: Map<number, { readonly file: ArrivingFile; readonly piece: Piece }>
  nextPiece: number
  readonly loads: Load[]
  readonly ready: ArrivingFile[]
  working: Promise<void> | undefined
  failure: unknown
}

export function newArrivals(
  options: Pick<
    Arrivals,
    'lanes' | 'saver' | 'sorter' | 'marks' | 'totals' | 'tend' | 'onProgress' | 'signal'
  >,
): Arrivals {
  const arrivals: Arrivals = {
    ...options,
    damaged: new Map(),
    damagedCount: 0,
    free: [],
    load: { bytes: NO_BYTES, filled: 0, pieces: [] },
    pieceAt: -1,
    file: undefined,
    waiting: new Map(),
    nextPiece: 0,
    loads: [],
    ready: [],
    working: undefined,
    failure: undefined,
  }
  options.lanes.onPieces = (results, bytes) => {
    arrivals.free.push(bytes)
    for (const result of results) takeResult(arrivals, result)
  }
  return arrivals
}

/** Anything but a file. Fails: host.file. */
export function takeOther(arrivals: Arrivals, path: string, entry: FileEntry): void {
  if (entry.type === 'directory') arrivals.totals.directories++
  else arrivals.totals.others++
  if (path === '/') return
  const whole: TreeEntry = { ...entry, flags: 0, content: NO_BYTES, node: undefined }
  const kind = entry.type === 'directory' ? 'enter' : 'entry'
  sortEntry(arrivals.sorter, { path, record: { kind, entry: whole, marks: [], pages: [] } })
}

/** The file whose bytes come next. */
export function beginFile(
  arrivals: Arrivals,
  path: string,
  entry: FileEntry,
  format: PageFormat | undefined,
): void {
  assert(arrivals.file === undefined, 'one file comes after the other')
  throwIfOver(arrivals)
  const used = entry.size > WHOLE_BYTES_MAX ? format : undefined
  const file = { path, entry, pieces: [], bytes: 0, missing: 0, isWhole: false, inline: undefined }
  arrivals.file = { ...file, format: used, checksums: format?.checksums }
  arrivals.totals.files++
  arrivals.totals.filesNew++
  arrivals.onProgress(arrivals.totals, path)
}

/** Copies `bytes`. Returns whether the source should wait for room(). Fails: as earlier bytes failed. */
export function takeBytes(arrivals: Arrivals, bytes: Uint8Array): boolean {
  const { file } = arrivals
  assert(file, 'bytes belong to a file')
  throwIfOver(arrivals)
  for (let at = 0; at < bytes.length;) {
    if (arrivals.pieceAt < 0) beginPiece(arrivals, file)
    else if (arrivals.load.filled === LOAD_BYTES) movePiece(arrivals)
    const { load } = arrivals
    const room = PIECE_BYTES - (load.filled - arrivals.pieceAt)
    const part = bytes.subarray(at, at + Math.min(room, LOAD_BYTES - load.filled))
    load.bytes.set(part, load.filled)
    load.filled += part.length
    file.bytes += part.length
    at += part.length
    if (load.filled - arrivals.pieceAt === PIECE_BYTES) endPiece(arrivals, file)
  }
  arrivals.totals.bytes += bytes.length
  arrivals.totals.bytesRead += bytes.length
  return isBehind(arrivals)
}

/** What came is the whole file. */
export function endFile(arrivals: Arrivals): void {
  const { file, load, pieceAt } = arrivals
  assert(file, 'a file began')
  arrivals.file = undefined
  if (file.pieces.length === 0 && file.bytes <= arrivals.lanes.inline.inlineBytesMax) {
    if (file.bytes > 0) {
      file.inline = Uint8Array.from(load.bytes.subarray(pieceAt, load.filled))
      load.filled = pieceAt
      arrivals.pieceAt = -1
    } else file.inline = NO_BYTES
  } else if (pieceAt >= 0) endPiece(arrivals, file)
  file.isWhole = true
  if (file.missing === 0) queueReady(arrivals, file)
}

/** Resolves when the source may go on. Fails: as the store's put, cancelled. */
export async function roomForMore(arrivals: Arrivals): Promise<void> {
  while (isBehind(arrivals) && arrivals.failure === undefined) await work(arrivals)
  throwIfOver(arrivals)
}

/** Resolves when everything taken is saved and sorted. */
export async function finishArrivals(arrivals: Arrivals): Promise<DamagedPages[]> {
  assert(arrivals.file === undefined, 'the last file has ended')
  sendLoad(arrivals)
  for (;;) {
    await work(arrivals)
    throwIfOver(arrivals)
    if (arrivals.loads.length + arrivals.ready.length > 0) continue
    if (arrivals.waiting.size === 0) break
    await nextResults(arrivals.lanes)
  }
  return Array.from(arrivals.damaged, ([path, { pages, more }]) => ({
    path,
    pages: pages.sort((a, b) => a - b),
    more,
  }))
}

function throwIfOver({ failure, signal }: Arrivals): void {
  if (failure !== undefined) throw failure
  throwIfCancelled(signal)
}

function isBehind(arrivals: Arrivals): boolean {
  return arrivals.loads.length > LOADS_WAITING_MAX || arrivals.ready.length > FILES_WAITING_MAX
}

/** A piece lies in one load: where there is no room for the next, the load goes first. */
function beginPiece(arrivals: Arrivals, file: ArrivingFile): void {
  const expected = Math.min(PIECE_BYTES, Math.max(1, file.entry.size - file.bytes))
  if (arrivals.load.filled + expected > LOAD_BYTES || arrivals.load.pieces.length >= LOAD_PIECES_MAX)
    sendLoad(arrivals)
  if (arrivals.load.bytes.length === 0) openLoad(arrivals)
  arrivals.pieceAt = arrivals.load.filled
}

function openLoad(arrivals: Arrivals): void {
  const bytes = arrivals.free.pop() ?? new Uint8Array(LOAD_BYTES)
  arrivals.load = { bytes, filled: 0, pieces: [] }
}

/** The file is longer than was said: only the last piece of a file may be shorter than the others. */
function movePiece(arrivals: Arrivals): void {
  const { load, pieceAt } = arrivals
  const begun = load.bytes.slice(pieceAt, load.filled)
  load.filled = pieceAt
  sendLoad(arrivals)
  openLoad(arrivals)
  arrivals.load.bytes.set(begun)
  arrivals.load.filled = begun.length
  arrivals.pieceAt = 0
}

function endPiece(arrivals: Arrivals, file: ArrivingFile): void {
  const { load, pieceAt } = arrivals
  const length = load.filled - pieceAt
  const index = arrivals.nextPiece++
  const piece: Piece = { length, result: undefined }
  load.pieces.push({ index, at: pieceAt, length, offset: file.bytes - length, ...kindOf(file) })
  file.pieces.push(piece)
  file.missing++
  arrivals.waiting.set(index, { file, piece })
  arrivals.pieceAt = -1
  if (load.filled === LOAD_BYTES) sendLoad(arrivals)
}

function kindOf({ format, checksums }: ArrivingFile): Pick<PieceJob, 'format' | 'checksums'> {
  return { format, checksums }
}

function sendLoad(arrivals: Arrivals): void {
  const { bytes, pieces, filled } = arrivals.load
  if (pieces.length > 0) {
    noteWork(filled)
    arrivals.loads.push({ bytes, pieces })
    arrivals.load = { bytes: NO_BYTES, filled: 0, pieces: [] }
    startWork(arrivals)
  }
}

function queueReady(arrivals: Arrivals, file: ArrivingFile): void {
  arrivals.ready.push(file)
  startWork(arrivals)
}

function startWork(arrivals: Arrivals): void {
  void work(arrivals)
}

/** Works off what waits. Never fails: what goes wrong is kept for the next call of the source. */
async function work(arrivals: Arrivals): Promise<void> {
  arrivals.working ??= workOff(arrivals)
    .catch((error: unknown) => {
      arrivals.failure ??= error
    })
    .finally(() => {
      arrivals.working = undefined
    })
  await arrivals.working
}

async function workOff(arrivals: Arrivals): Promise<void> {
  // Not within the call of the source that brought the work.
  await Promise.resolve()
  while (arrivals.failure === undefined) {
    const file = arrivals.ready.shift()
    const load = file === undefined ? arrivals.loads.shift() : undefined
    if (file !== undefined) await finishArrived(arrivals, file)
    else if (load !== undefined) await submitLoad(arrivals.lanes, load)
    else return
    await arrivals.tend()
  }
}

function takeResult(arrivals: Arrivals, result: PieceResult): void {
  const waiting = arrivals.waiting.get(result.index)
  assert(waiting, 'a lane answers what it was asked')
  arrivals.waiting.delete(result.index)
  const { file, piece } = waiting
  piece.result = result
  arrivals.totals.bytesFresh += result.bytesFresh
  if (result.damaged.length > 0) noteDamaged(arrivals, file.path, result.damaged)
  file.missing--
  if (file.missing === 0 && file.isWhole) queueReady(arrivals, file)
}

function noteDamaged(arrivals: Arrivals, path: string, pages: readonly number[]): void {
  const known = arrivals.damaged.get(path) ?? { pages: [], more: 0 }
  arrivals.damaged.set(path, known)
  const listed = pages.slice(0, Math.max(0, DAMAGED_PAGES_MAX - arrivals.damagedCount))
  arrivals.damagedCount += listed.length
  known.pages.push(...listed)
  known.more += pages.length - listed.length
}

async function finishArrived(arrivals: Arrivals, file: ArrivingFile): Promise<void> {
  const { marks, sorter, saver } = arrivals
  const results = file.inline === undefined ? segmentsOf(file) : [inlineSegment(file.inline)]
  const finished = await finishFile(saver, { ...file.entry, size: file.bytes }, 0, results)
  markPairs(marks, finished.marks)
  sortEntry(sorter, { path: file.path, record: { kind: 'entry', ...finished } })
}

/** Its pieces, 64 to a segment. */
function segmentsOf(file: ArrivingFile): SegmentResult[] {
  const results: SegmentResult[] = []
  const perSegment = NODE_SPAN_BYTES / PIECE_BYTES
  const areWhole = file.pieces.slice(0, -1).every(({ length }) => length === PIECE_BYTES)
  assert(areWhole, 'only the last piece of a file is shorter')
  for (let at = 0; at < file.pieces.length; at += perSegment)
    results.push(segmentOf(file, file.pieces.slice(at, at + perSegment)))
  return results
}

function segmentOf({ format }: ArrivingFile, pieces: readonly Piece[]): SegmentResult {
  const chunks: ChunkRef[] = []
  const marks: number[] = []
  const hashes: Uint8Array[] = []
  let bytesFresh = 0
  for (const { result } of pieces) {
    assert(result, 'every piece of the segment is saved')
    const idBytes = result.ids.length / result.lengths.length
    result.lengths.forEach((bytes, nth) => {
      chunks.push({ id: result.ids.subarray(nth * idBytes, (nth + 1) * idBytes), bytes })
    })
    marks.push(...result.marks)
    if (result.hashes !== undefined) hashes.push(result.hashes)
    bytesFresh += result.bytesFresh
  }
  const extents = chunks.map(({ bytes }, nth) => ({ length: bytes, ref: nth + 1, offset: 0 }))
  const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0)
  return {
    ...NO_SEGMENT,
    bytes,
    extents: encodeDraft({ chunks, extents }),
    pageBytes: format?.pageBytes ?? 0,
    hashes: format && Uint8Array.from(Buffer.concat(hashes)),
    marks,
    bytesRead: bytes,
    bytesFresh,
  }
}

function inlineSegment(inline: Uint8Array): SegmentResult {
  return { ...NO_SEGMENT, bytes: inline.length, bytesRead: inline.length, inline }
}
