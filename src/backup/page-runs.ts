/**
 * A database file as the runs of pages in which it is read and hashed. Runs that lie in holes of the file are
 * not read: their hashes are those of zero pages. Not here: what is stored of it (pages.ts, page-patch.ts).
 */
import { PAGE_HASH_BYTES } from '../format/content.ts'
import type { PageSegment } from '../repo/tree-cache.ts'
import type { DataRange } from '../sources/files/read.ts'
import { readFully, type Draft, type Lane } from './draft.ts'
import { putPageHash } from './page-hash.ts'

/** One segment of a page file, open for reading. */
export interface PageFile {
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

export interface RunFile extends PageFile {
  readonly runBytes: number
  /** By page: 0 where all of it lies in a hole. */
  readonly hasData: Uint8Array
  /** Of a whole page of zeros. */
  readonly zeroHash: Buffer
}

/** A run of the file; `bytes`, a view of the window, is undefined where all of the run lies in a hole. */
export interface Run {
  readonly length: number
  readonly bytes: Buffer | undefined
}

export function runFile(lane: Lane, file: PageFile): RunFile {
  const { pageBytes } = file
  // Runs are whole pages, whatever sizes meet.
  const runBytes = Math.max(1, Math.floor(lane.runBytes / pageBytes)) * pageBytes
  return {
    ...file,
    runBytes,
    hasData: pagesWithData(file),
    zeroHash: hashOfZeros(lane, pageBytes),
  }
}

function pagesWithData(file: PageFile): Uint8Array {
  const hasData = new Uint8Array(Math.ceil((file.end - file.offset) / file.pageBytes))
  for (const range of file.ranges) {
    const from = range.offset - file.offset
    hasData.fill(1, Math.floor(from / file.pageBytes), Math.ceil((from + range.length) / file.pageBytes))
  }
  return hasData
}

/** The run at `at` of the file, read into the window; shorter than asked where the file ends early. */
export function readRun(lane: Lane, draft: Draft, file: RunFile, at: number): Run {
  const wanted = Math.min(file.runBytes, file.end - at)
  const first = (at - file.offset) / file.pageBytes
  const data = file.hasData.indexOf(1, first)
  if (data === -1 || data >= first + wanted / file.pageBytes) return { length: wanted, bytes: undefined }
  const length = readFully(file.fd, lane.window, 0, wanted, at)
  draft.bytesRead += length
  return { length, bytes: lane.window.subarray(0, length) }
}

/** Puts the hashes of the run at `at` of the file into their place in `hashes`, those of the segment. */
export function hashRun(lane: Lane, file: RunFile, run: Run, hashes: Buffer, at: number): void {
  let to = ((at - file.offset) / file.pageBytes) * PAGE_HASH_BYTES
  for (let start = 0; start < run.length; start += file.pageBytes, to += PAGE_HASH_BYTES) {
    const length = Math.min(run.length - start, file.pageBytes)
    if (run.bytes !== undefined)
      putPageHash(lane.pageHasher, run.bytes.subarray(start, start + length), hashes, to)
    else if (length === file.pageBytes) file.zeroHash.copy(hashes, to)
    else putPageHash(lane.pageHasher, Buffer.alloc(length), hashes, to)
  }
}

function hashOfZeros(lane: Lane, pageBytes: number): Buffer {
  const zeroHash = Buffer.alloc(PAGE_HASH_BYTES)
  putPageHash(lane.pageHasher, Buffer.alloc(pageBytes), zeroHash, 0)
  return zeroHash
}
