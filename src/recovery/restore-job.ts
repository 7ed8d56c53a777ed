/**
 * One batch of a restore: which bytes of which chunks go where, and the doing of it. Runs in a worker thread,
 * or in the main thread for small restores. Reads each pack in order and in few ranges; writes by position;
 * checks every chunk. A file is open from its first piece to its last.
 */
import { closeSync, readSync } from 'node:fs'
import { createHmac } from 'node:crypto'
import type { FileEntry } from '../base/file-entry.ts'
import { noteGarbage } from '../base/garbage.ts'
import { corrupt } from '../base/bytes.ts'
import { startWriting } from '../base/posix.ts'
import { CODECS } from '../format/pack.ts'
import {
  chunkOfFrame,
  isChunk,
  openPack,
  plainFrame,
  type OpenedPack,
  type PackPlace,
  type PackReader,
} from '../repo/pack-reader.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import type { RestoreTarget } from '../sources/files/target.ts'
import { clearTarget, finishFile, openTarget, removeTarget, writeTarget } from '../sources/files/write.ts'
import { lostTo, type LostFile } from './lost-file.ts'

/** Ranges of frames this close together are read as one. */
const GAP_BYTES_MAX = 128 * 1024
/** One read of a pack, at most; a larger frame is read whole. */
const READ_BYTES_MAX = 4 * 1024 * 1024
/** Smaller ones are with the system soon enough. */
const EARLY_BYTES_MIN = 256 * 1024
/** A file that is compared is rewritten by blocks of this size: those of most file systems. */
const DELTA_BLOCK_BYTES = 4096

/** The next `length` bytes of the file: a hole (place −1) or bytes at `offset` of the chunk `places[place]`. */
export interface FileExtent {
  readonly length: number
  readonly place: number
  readonly offset: number
}

export interface FileJob {
  /** Raw, relative to the restore root. */
  readonly path: string
  readonly entry: FileEntry
  /** Where the extents begin in the file. */
  readonly fileOffset: number
  readonly extents: readonly FileExtent[]
  readonly inline: Uint8Array | undefined
  /**
   * `whole`: the file is made and finished here. Else a part of one that was made before and is finished
   * later: a `fresh` one reads as zeros, an `old` one holds what it held.
   */
  readonly part: 'whole' | 'fresh' | 'old'
}

export interface ChunkPlaceRef {
  /** At least one; the next is read when one is damaged. `pack`: into RestoreJob.packs. */
  readonly copies: readonly { readonly pack: number; readonly number: number }[]
  readonly id: Uint8Array
  readonly bytes: number
}

export interface RestoreJob {
  readonly files: readonly FileJob[]
  readonly packs: readonly PackPlace[]
  readonly places: readonly ChunkPlaceRef[]
  /** Compare with what is there and write only what differs. */
  readonly delta: boolean
  /** Whatever is there was left by this restore when it was cut off. */
  readonly ours: boolean
}

export interface RestoreResult {
  /** Of metadata: the contents are right. */
  readonly problems: readonly FileProblem[]
  readonly lost: readonly LostFile[]
  /** Whole files that are finished, and their contents. */
  readonly files: number
  readonly bytes: number
  readonly bytesWritten: number
  readonly bytesKept: number
}

/** A file of the job. */
interface WorkFile {
  readonly job: FileJob
  readonly path: string
  /** −1 while it is not open. */
  fd: number
  /** Made by this restore: what was not written reads as zeros. */
  fresh: boolean
  /** Something was written to it. */
  touched: boolean
  /** Pieces to come. */
  left: number
  lost: boolean
}

/** A piece of a chunk and where it goes. */
interface Piece {
  readonly file: WorkFile
  readonly fileOffset: number
  readonly offset: number
  readonly length: number
}

/** Pieces by the number of their place. */
type Wanted = Map<number, Piece[]>

interface Work {
  readonly reader: PackReader
  readonly target: RestoreTarget
  readonly job: RestoreJob
  readonly open: Set<WorkFile>
  readonly problems: FileProblem[]
  readonly lost: LostFile[]
  /** Which copy of each chunk is being read. */
  copy: number
  /** Pieces of chunks whose copy is damaged, for the next copy. */
  again: Wanted
  /** By place: why a copy could not be read that may be whole. */
  readonly unreadable: Map<number, unknown>
  files: number
  bytes: number
  bytesWritten: number
  bytesKept: number
}

/**
 * Restores the files of a job. What is damaged is left out and named; nothing half-written stays of it.
 * Fails: restore.failed (disk full or broken), storage.offline; files then stay as far as they came, with
 * times that say so.
 */
export async function runRestoreJob(
  reader: PackReader,
  target: RestoreTarget,
  job: RestoreJob,
): Promise<RestoreResult> {
  const results = { problems: [], lost: [], files: 0, bytes: 0, bytesWritten: 0, bytesKept: 0 }
  const rounds = { copy: 0, again: new Map(), unreadable: new Map() }
  const work: Work = { ...results, ...rounds, reader, target, job, open: new Set() }
  try {
    let wanted = planPieces(work)
    for (; wanted.size > 0; work.copy++) {
      for (const [pack, places] of byPack(work, wanted)) await restorePack(work, pack, places, wanted)
      wanted = work.again
      work.again = new Map()
    }
  } finally {
    for (const file of work.open) closeSync(file.fd)
  }
  const { problems, lost, files, bytes, bytesWritten, bytesKept } = work
  return { problems, lost, files, bytes, bytesWritten, bytesKept }
}

/** Writes inline bytes and holes, and returns the pieces that must come from packs. */
function planPieces(work: Work): Wanted {
  const wanted: Wanted = new Map()
  for (const job of work.job.files) {
    const fresh = job.part === 'fresh'
    const file: WorkFile = { job, path: job.path, fd: -1, fresh, touched: false, left: 0, lost: false }
    // What is there is looked at before anything is read; other files are opened when their turn comes.
    if (work.job.delta && !fresh && !openFile(work, file)) continue
    planFile(work, file, wanted)
    if (file.left === 0 && (file.fd >= 0 || (job.part === 'whole' && openFile(work, file))))
      endFile(work, file)
  }
  return wanted
}

function planFile(work: Work, file: WorkFile, wanted: Wanted): void {
  const { inline, extents, fileOffset } = file.job
  if (inline !== undefined && inline.length > 0 && openFile(work, file)) keepOrWrite(work, file, inline, 0)
  let at = fileOffset
  for (const extent of extents) {
    if (extent.place < 0) {
      if (file.fd >= 0 && !file.fresh) clearTarget(file, at, extent.length)
    } else if (!isThere(work, file, extent, at)) {
      const pieces = wanted.get(extent.place)
      const piece = { file, fileOffset: at, offset: extent.offset, length: extent.length }
      if (pieces === undefined) wanted.set(extent.place, [piece])
      else pieces.push(piece)
      file.left++
    }
    at += extent.length
  }
}

/** False if it cannot be written: that is said once. */
function openFile(work: Work, file: WorkFile): boolean {
  if (file.fd >= 0) return true
  if (file.lost) return false
  const { part } = file.job
  const opened = openTarget(work.target, file.path, { update: work.job.delta || part !== 'whole' })
  if ('what' in opened) {
    loseFile(work, file, { how: 'failed', problem: opened })
    return false
  }
  file.fd = opened.fd
  work.open.add(file)
  if (part === 'whole') {
    file.fresh = opened.fresh
  } else if (opened.fresh) {
    const what = 'cannot write the file: it was taken away meanwhile'
    loseFile(work, file, { how: 'failed', problem: { path: file.path, code: 'EREPLACED', what } })
  }
  return !file.lost
}

/** Whether a whole chunk is in the file already: its keyed hash is its id. */
function isThere(work: Work, file: WorkFile, extent: FileExtent, at: number): boolean {
  const place = work.job.places[extent.place]!
  if (file.fd < 0 || file.fresh || extent.length !== place.bytes) return false
  const bytes = readExisting(file, extent.length, at)
  if (bytes === undefined) return false
  const same = createHmac('sha256', work.reader.idKey).update(bytes).digest().equals(place.id)
  if (same) work.bytesKept += extent.length
  return same
}

let compareBuffer = Buffer.alloc(0)

function readExisting(file: WorkFile, length: number, at: number): Buffer | undefined {
  if (compareBuffer.length < length) compareBuffer = Buffer.allocUnsafeSlow(length)
  for (let got = 0; got < length;) {
    const read = readSync(file.fd, compareBuffer, got, length - got, at + got)
    if (read === 0) return undefined
    got += read
  }
  return compareBuffer.subarray(0, length)
}

/** Places by pack, in the order of their chunk numbers. */
function byPack(work: Work, wanted: Wanted): Map<number, number[]> {
  const packs = new Map<number, number[]>()
  for (const place of wanted.keys()) {
    const { pack } = copyOf(work, place)
    const places = packs.get(pack)
    if (places === undefined) packs.set(pack, [place])
    else places.push(place)
  }
  for (const places of packs.values()) places.sort((a, b) => copyOf(work, a).number - copyOf(work, b).number)
  return packs
}

/** Where a chunk is read in this round. */
function copyOf({ job, copy }: Work, place: number): ChunkPlaceRef['copies'][number] {
  return job.places[place]!.copies[copy]!
}

async function restorePack(
  work: Work,
  packAt: number,
  places: readonly number[],
  wanted: Wanted,
): Promise<void> {
  let pack: OpenedPack
  try {
    pack = await openPack(work.reader, work.job.packs[packAt]!)
  } catch (error) {
    blame(work, places, wanted, error)
    return
  }
  const listed = places.filter((place) => {
    const { id } = work.job.places[place]!
    const { number } = copyOf(work, place)
    if (number < pack.opener.header.chunkBytes.length && isChunk(pack.opener.header, number, id)) return true
    blame(
      work,
      [place],
      wanted,
      corrupt(pack.name, `does not hold chunk ${number} that the index says it has`),
    )
    return false
  })
  for (const range of planReads(work, pack, listed)) await restoreRange(work, pack, range, wanted)
}

interface ReadRange {
  readonly offset: number
  end: number
  readonly places: number[]
}

/** Joins neighbouring frames into ranges. */
function planReads(work: Work, pack: OpenedPack, places: readonly number[]): ReadRange[] {
  const { header } = pack.opener
  const ranges: ReadRange[] = []
  for (const place of places) {
    const frame = header.chunkFrame[copyOf(work, place).number]!
    const offset = header.frameOffset[frame]!
    const end = offset + header.frameStored[frame]!
    const last = ranges.at(-1)
    if (last !== undefined && offset - last.end <= GAP_BYTES_MAX && end - last.offset <= READ_BYTES_MAX) {
      last.end = Math.max(last.end, end)
      last.places.push(place)
    } else {
      ranges.push({ offset, end, places: [place] })
    }
  }
  return ranges
}

async function restoreRange(work: Work, pack: OpenedPack, range: ReadRange, wanted: Wanted): Promise<void> {
  const { header } = pack.opener
  const { offset, end, places } = range
  const length = end - offset
  let bytes: Uint8Array
  try {
    bytes = await work.reader.store.get(pack.name, { offset, length, into: rangeBuffer(length) })
  } catch (error) {
    blame(work, places, wanted, error)
    return
  }
  let frame = -1
  let plain = bytes
  for (const place of places) {
    const { bytes: chunkBytes } = work.job.places[place]!
    const { number } = copyOf(work, place)
    let chunk: Uint8Array
    try {
      if (header.chunkFrame[number] !== frame) {
        frame = header.chunkFrame[number]!
        const at = header.frameOffset[frame]! - offset
        noteGarbage(header.frameStored[frame]!)
        if (header.frameCodec[frame] !== CODECS.raw) noteGarbage(header.framePlain[frame]!)
        plain = plainFrame(pack, frame, bytes.subarray(at, at + header.frameStored[frame]!))
      }
      chunk = chunkOfFrame(work.reader, pack, number, plain)
      if (chunk.length !== chunkBytes)
        throw corrupt(pack.name, `holds a chunk ${number} of ${chunk.length} bytes (must be ${chunkBytes})`)
    } catch (error) {
      frame = -1
      blame(work, [place], wanted, error)
      continue
    }
    for (const piece of wanted.get(place) ?? []) restorePiece(work, piece, chunk)
  }
}

let readBuffer = Buffer.alloc(0)

/** One buffer a thread: a job reads one range at a time. */
function rangeBuffer(length: number): Buffer {
  if (readBuffer.length < length) readBuffer = Buffer.allocUnsafeSlow(Math.max(length, READ_BYTES_MAX))
  return readBuffer
}

function restorePiece(work: Work, piece: Piece, chunk: Uint8Array): void {
  const { file, fileOffset, offset, length } = piece
  if (openFile(work, file)) keepOrWrite(work, file, chunk.subarray(offset, offset + length), fileOffset)
  endPiece(work, file)
}

function endPiece(work: Work, file: WorkFile): void {
  file.left--
  if (file.left === 0) endFile(work, file)
}

function keepOrWrite(work: Work, file: WorkFile, bytes: Uint8Array, offset: number): void {
  const there = work.job.delta && !file.fresh ? readExisting(file, bytes.length, offset) : undefined
  const differing = there === undefined ? [bytes] : differingBlocks(there, bytes)
  let written = 0
  for (const block of differing) {
    file.touched = true
    writeTarget(file, block, offset + (block.byteOffset - bytes.byteOffset))
    written += block.length
  }
  work.bytesWritten += written
  work.bytesKept += bytes.length - written
}

/** Views of `bytes` where they differ from what is there, block by block; neighbours are joined. */
function differingBlocks(there: Buffer, bytes: Uint8Array): Uint8Array[] {
  if (there.equals(bytes)) return []
  const ranges: { start: number; end: number }[] = []
  for (let start = 0; start < bytes.length; start += DELTA_BLOCK_BYTES) {
    const end = Math.min(start + DELTA_BLOCK_BYTES, bytes.length)
    if (there.compare(bytes, start, end, start, end) === 0) continue
    const last = ranges.at(-1)
    if (last?.end === start) last.end = end
    else ranges.push({ start, end })
  }
  return ranges.map(({ start, end }) => bytes.subarray(start, end))
}

/**
 * Damage is a problem of the files that need it, unless another copy of the chunk is to be tried; anything
 * else stops the restore. A chunk counts as damaged only if all its copies are.
 */
function blame(work: Work, places: readonly number[], wanted: Wanted, error: unknown): void {
  const { how: howHere } = lostTo('', error)
  for (const place of places) {
    if (howHere === 'unreadable') work.unreadable.set(place, error)
    const pieces = wanted.get(place) ?? []
    if (work.copy + 1 < work.job.places[place]!.copies.length) {
      work.again.set(place, pieces)
      continue
    }
    const { how, problem } = lostTo('', work.unreadable.get(place) ?? error)
    for (const { file } of pieces) {
      loseFile(work, file, { how, problem: { ...problem, path: file.path } })
      endPiece(work, file)
    }
  }
}

function loseFile(work: Work, file: WorkFile, lost: LostFile): void {
  if (!file.lost) work.lost.push(lost)
  file.lost = true
}

/** All pieces are written, or known to be lost. */
function endFile(work: Work, file: WorkFile): void {
  const { fd, job, lost } = file
  file.fd = -1
  work.open.delete(file)
  if (fd >= 0 && job.entry.size >= EARLY_BYTES_MIN) startWriting(fd)
  if (!lost && job.part === 'whole') {
    work.files++
    work.bytes += job.entry.size
    work.problems.push(...finishFile({ fd, path: file.path }, job.entry))
    return
  }
  if (fd >= 0) closeSync(fd)
  if (!lost || job.part !== 'whole') return // a part is removed by whoever made the file
  // A file that was there before the restore and that was not touched yet stays as it was.
  if (work.job.ours || (fd >= 0 && (file.fresh || file.touched)))
    for (const problem of removeTarget(work.target, file.path)) work.lost.push({ how: 'failed', problem })
}
