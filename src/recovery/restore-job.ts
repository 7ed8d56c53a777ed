/**
 * One batch of a restore: which bytes of which chunks go where, and the doing of it. Runs in a worker thread,
 * or in the main thread for small restores. Reads each pack in order and in few ranges; writes by position;
 * checks every chunk.
 */
import { closeSync, readSync } from 'node:fs'
import { createHmac } from 'node:crypto'
import { noteGarbage } from '../base/garbage.ts'
import { isFailure } from '../base/failure.ts'
import type { TreeEntry } from '../format/tree.ts'
import {
  chunkOfFrame,
  isChunk,
  openPack,
  plainFrame,
  type OpenedPack,
  type PackPlace,
  type PackReader,
} from '../repo/pack-reader.ts'
import { corrupt } from '../base/bytes.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import type { RestoreTarget } from '../sources/files/target.ts'
import { clearTarget, finishFile, openTarget, removeTarget, writeTarget } from '../sources/files/write.ts'

/** Ranges of frames this close together are read as one. */
const GAP_BYTES_MAX = 128 * 1024
/** One read of a pack, at most. */
const READ_BYTES_MAX = 16 * 1024 * 1024

/** The next `length` bytes of the file: a hole (place −1) or bytes at `offset` of the chunk `places[place]`. */
export interface FileExtent {
  readonly length: number
  readonly place: number
  readonly offset: number
}

export interface FileJob {
  /** Raw, relative to the restore root. */
  readonly path: string
  readonly entry: TreeEntry
  /** Where the extents begin in the file. */
  readonly fileOffset: number
  readonly extents: readonly FileExtent[]
  readonly inline: Uint8Array | undefined
  /** false: a part of a file that was made before and is finished later. */
  readonly whole: boolean
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
}

export interface RestoreResult {
  readonly problems: readonly FileProblem[]
  readonly bytesWritten: number
  readonly bytesKept: number
  /** Paths of parts that failed: the file must not be finished. */
  readonly failedParts: readonly string[]
}

interface OpenFile {
  readonly job: FileJob
  readonly fd: number
  readonly path: string
  readonly fresh: boolean
  damaged: FileProblem | undefined
}

/** A piece of a chunk and where it goes. */
interface Piece {
  readonly file: OpenFile
  readonly fileOffset: number
  readonly offset: number
  readonly length: number
}

interface Work {
  readonly reader: PackReader
  readonly job: RestoreJob
  readonly problems: FileProblem[]
  readonly scratch: { buffer: Buffer }
  bytesWritten: number
  bytesKept: number
}

/** Fails: restore.failed (disk full or broken), storage.offline; damage is a problem of the files it hurts. */
export async function runRestoreJob(
  reader: PackReader,
  target: RestoreTarget,
  job: RestoreJob,
): Promise<RestoreResult> {
  const work: Work = {
    reader,
    job,
    problems: [],
    scratch: { buffer: Buffer.alloc(0) },
    bytesWritten: 0,
    bytesKept: 0,
  }
  const files = openFiles(work, target)
  try {
    const wanted = planPieces(work, files)
    for (const [pack, places] of byPack(job, wanted)) await restorePack(work, pack, places, wanted)
  } catch (error) {
    for (const file of files) closeSync(file.fd)
    throw error
  }
  const failedParts: string[] = []
  for (const file of files) {
    if (file.damaged !== undefined) {
      closeSync(file.fd)
      work.problems.push(file.damaged)
      if (file.job.whole) removeTarget(target, file.path)
      else failedParts.push(file.path)
    } else if (file.job.whole) {
      work.problems.push(...finishFile(file, file.job.entry))
    } else {
      closeSync(file.fd)
    }
  }
  const { problems, bytesWritten, bytesKept } = work
  return { problems, bytesWritten, bytesKept, failedParts }
}

function openFiles(work: Work, target: RestoreTarget): OpenFile[] {
  const files: OpenFile[] = []
  for (const job of work.job.files) {
    const opened = openTarget(target, job.path, { update: work.job.delta || !job.whole })
    if ('what' in opened) work.problems.push(opened)
    else files.push({ job, path: job.path, fd: opened.fd, fresh: opened.fresh, damaged: undefined })
  }
  return files
}

/** Writes inline bytes and holes; returns the pieces by place that must come from packs. */
function planPieces(work: Work, files: readonly OpenFile[]): Map<number, Piece[]> {
  const wanted = new Map<number, Piece[]>()
  for (const file of files) {
    const { inline, extents, fileOffset } = file.job
    if (inline !== undefined && inline.length > 0) writePiece(work, file, inline, 0)
    let at = fileOffset
    for (const extent of extents) {
      if (extent.place < 0) {
        if (!file.fresh) clearTarget(file, at, extent.length)
      } else if (!isThere(work, file, extent, at)) {
        const pieces = wanted.get(extent.place) ?? []
        pieces.push({ file, fileOffset: at, offset: extent.offset, length: extent.length })
        wanted.set(extent.place, pieces)
      }
      at += extent.length
    }
  }
  return wanted
}

/** Whether a whole chunk is in the file already: its keyed hash is its id. */
function isThere(work: Work, file: OpenFile, extent: FileExtent, at: number): boolean {
  const place = work.job.places[extent.place]!
  if (!work.job.delta || file.fresh || extent.length !== place.bytes) return false
  const bytes = readExisting(work, file, extent.length, at)
  if (bytes === undefined) return false
  const same = createHmac('sha256', work.reader.idKey).update(bytes).digest().equals(place.id)
  if (same) work.bytesKept += extent.length
  return same
}

function readExisting(work: Work, file: OpenFile, length: number, at: number): Buffer | undefined {
  if (work.scratch.buffer.length < length) work.scratch.buffer = Buffer.allocUnsafeSlow(length)
  const { buffer } = work.scratch
  for (let got = 0; got < length;) {
    const read = readSync(file.fd, buffer, got, length - got, at + got)
    if (read === 0) return undefined
    got += read
  }
  return buffer.subarray(0, length)
}

/** Places by pack, in the order of their chunk numbers. */
function byPack(job: RestoreJob, wanted: Map<number, Piece[]>): Map<number, number[]> {
  const packs = new Map<number, number[]>()
  for (const place of wanted.keys()) {
    const { pack } = job.places[place]!
    const places = packs.get(pack) ?? []
    places.push(place)
    packs.set(pack, places)
  }
  for (const places of packs.values()) places.sort((a, b) => job.places[a]!.number - job.places[b]!.number)
  return packs
}

async function restorePack(
  work: Work,
  packAt: number,
  places: readonly number[],
  wanted: Map<number, Piece[]>,
): Promise<void> {
  try {
    const pack = await openPack(work.reader, work.job.packs[packAt]!)
    for (const range of planReads(work, pack, places)) await restoreRange(work, pack, range, wanted)
  } catch (error) {
    blame(work, places, wanted, error)
  }
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
    const { number, id } = work.job.places[place]!
    if (number >= header.chunkBytes.length || !isChunk(header, number, id))
      throw corrupt(pack.name, `does not hold chunk ${number} that the index says it has`)
    const frame = header.chunkFrame[number]!
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

async function restoreRange(
  work: Work,
  pack: OpenedPack,
  range: ReadRange,
  wanted: Map<number, Piece[]>,
): Promise<void> {
  const { header } = pack.opener
  const length = range.end - range.offset
  const bytes = await work.reader.store.get(pack.name, {
    offset: range.offset,
    length,
    into: rangeBuffer(length),
  })
  let frame = -1
  let plain: Uint8Array = bytes
  for (const place of range.places) {
    const { number } = work.job.places[place]!
    try {
      if (header.chunkFrame[number] !== frame) {
        frame = header.chunkFrame[number]!
        const at = header.frameOffset[frame]! - range.offset
        noteGarbage(2 * header.framePlain[frame]!)
        plain = plainFrame(pack, frame, bytes.subarray(at, at + header.frameStored[frame]!))
      }
      const chunk = chunkOfFrame(work.reader, pack, number, plain)
      for (const piece of wanted.get(place) ?? []) restorePiece(work, piece, chunk)
    } catch (error) {
      frame = -1
      blame(work, [place], wanted, error)
    }
  }
}

let readBuffer = Buffer.alloc(0)

/** One buffer a thread: a job reads one range at a time. */
function rangeBuffer(length: number): Buffer {
  if (readBuffer.length < length) readBuffer = Buffer.allocUnsafeSlow(Math.max(length, 4 * 1024 * 1024))
  return readBuffer
}

function restorePiece(work: Work, piece: Piece, chunk: Uint8Array): void {
  const { file, fileOffset, offset, length } = piece
  const bytes = chunk.subarray(offset, offset + length)
  if (work.job.delta && !file.fresh) {
    const existing = readExisting(work, file, length, fileOffset)
    if (existing?.equals(bytes) === true) {
      work.bytesKept += length
      return
    }
  }
  writePiece(work, file, bytes, fileOffset)
}

function writePiece(work: Work, file: OpenFile, bytes: Uint8Array, offset: number): void {
  writeTarget(file, bytes, offset)
  work.bytesWritten += bytes.length
}

/** Damage is a problem of the files that need it; anything else stops the restore. */
function blame(work: Work, places: readonly number[], wanted: Map<number, Piece[]>, error: unknown): void {
  const isDamage =
    isFailure(error, 'repo.corrupt') ||
    isFailure(error, 'storage.missing') ||
    isFailure(error, 'storage.short')
  if (!isDamage) throw error
  for (const place of places)
    for (const { file } of wanted.get(place) ?? [])
      file.damaged ??= { path: file.path, code: 'EDAMAGED', what: `cannot be restored: ${error.message}` }
}
