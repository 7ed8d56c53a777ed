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
import { CODECS } from '../format/pack.ts'
import { isDamage } from '../repo/damage.ts'
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

/** Ranges of frames this close together are read as one. */
const GAP_BYTES_MAX = 128 * 1024
/** One read of a pack, at most; a larger frame is read whole. */
const READ_BYTES_MAX = 4 * 1024 * 1024

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
  /** Into RestoreJob.packs. */
  readonly pack: number
  readonly number: number
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
  /** Files that could not be written here. */
  readonly failed: readonly FileProblem[]
  /** Files that are damaged in the repository. */
  readonly damaged: readonly FileProblem[]
  /** Whole files that are finished. */
  readonly files: number
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
  lost: 'no' | 'damaged' | 'failed'
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
  readonly failed: FileProblem[]
  readonly damaged: FileProblem[]
  files: number
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
  const results = { problems: [], failed: [], damaged: [], files: 0, bytesWritten: 0, bytesKept: 0 }
  const work: Work = { ...results, reader, target, job, open: new Set() }
  try {
    const wanted = planPieces(work)
    for (const [pack, places] of byPack(job, wanted)) await restorePack(work, pack, places, wanted)
  } finally {
    for (const file of work.open) closeSync(file.fd)
  }
  const { problems, failed, damaged, files, bytesWritten, bytesKept } = work
  return { problems, failed, damaged, files, bytesWritten, bytesKept }
}

/** Writes inline bytes and holes, and returns the pieces that must come from packs. */
function planPieces(work: Work): Wanted {
  const wanted: Wanted = new Map()
  for (const job of work.job.files) {
    const fresh = job.part === 'fresh'
    const file: WorkFile = { job, path: job.path, fd: -1, fresh, touched: false, left: 0, lost: 'no' }
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
  if (file.lost !== 'no') return false
  const { part } = file.job
  const opened = openTarget(work.target, file.path, { update: work.job.delta || part !== 'whole' })
  if ('what' in opened) {
    file.lost = 'failed'
    work.failed.push(opened)
    return false
  }
  file.fd = opened.fd
  work.open.add(file)
  if (part === 'whole') {
    file.fresh = opened.fresh
  } else if (opened.fresh) {
    const what = 'cannot write the file: it was taken away meanwhile'
    loseFile(work, file, 'failed', { path: file.path, code: 'EREPLACED', what })
  }
  return file.lost === 'no'
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
function byPack(job: RestoreJob, wanted: Wanted): Map<number, number[]> {
  const packs = new Map<number, number[]>()
  for (const place of wanted.keys()) {
    const { pack } = job.places[place]!
    const places = packs.get(pack)
    if (places === undefined) packs.set(pack, [place])
    else places.push(place)
  }
  for (const places of packs.values()) places.sort((a, b) => job.places[a]!.number - job.places[b]!.number)
  return packs
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
    const { number, id } = work.job.places[place]!
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
    const frame = header.chunkFrame[work.job.places[place]!.number]!
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
    const { number, bytes: chunkBytes } = work.job.places[place]!
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
  if (work.job.delta && !file.fresh && readExisting(file, bytes.length, offset)?.equals(bytes) === true) {
    work.bytesKept += bytes.length
    return
  }
  file.touched = true
  writeTarget(file, bytes, offset)
  work.bytesWritten += bytes.length
}

/** Damage is a problem of the files that need it; anything else stops the restore. */
function blame(work: Work, places: readonly number[], wanted: Wanted, error: unknown): void {
  if (!isDamage(error)) throw error
  for (const place of places) {
    for (const { file } of wanted.get(place) ?? []) {
      const what = `cannot be restored: ${error.message}`
      loseFile(work, file, 'damaged', { path: file.path, code: 'EDAMAGED', what })
      endPiece(work, file)
    }
  }
}

function loseFile(work: Work, file: WorkFile, how: 'damaged' | 'failed', problem: FileProblem): void {
  if (file.lost === 'no') work[how].push(problem)
  if (file.lost === 'no') file.lost = how
}

/** All pieces are written, or known to be lost. */
function endFile(work: Work, file: WorkFile): void {
  const { fd, job, lost } = file
  file.fd = -1
  work.open.delete(file)
  if (lost === 'no' && job.part === 'whole') {
    work.files++
    work.problems.push(...finishFile({ fd, path: file.path }, job.entry))
    return
  }
  if (fd >= 0) closeSync(fd)
  if (lost === 'no' || job.part !== 'whole') return // a part is removed by whoever made the file
  // A file that was there before the restore and that was not touched yet stays as it was.
  if (work.job.ours || (fd >= 0 && (file.fresh || file.touched)))
    work.failed.push(...removeTarget(work.target, file.path))
}
