/**
 * Saves one segment (up to 64 MiB) of one file: read, cut, hash, look up, compress, seal. Runs in a lane: a
 * worker thread, or the main thread for small backups. Synchronous I/O on purpose: 3–4.7 times cheaper than
 * fs.promises here.
 */
import { closeSync, fstatSync } from 'node:fs'
import type { FileEntry } from '../base/file-entry.ts'
import { NODE_SPAN_BYTES } from '../format/content.ts'
import { cutPoint } from '../repo/chunker.ts'
import { detectPageBytes } from '../sources/files/pages.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import { problemOf } from '../sources/files/problem.ts'
import { dataRanges, openSourceFile, type DataRange } from '../sources/files/read.ts'
import { entryFromStats, isTrusted, sameStat } from '../sources/files/stat.ts'
import type { PageSegment } from '../repo/tree-cache.ts'
import { addChunk, addHole, encodeDraft, newDraft, readFully, type Draft, type Lane } from './draft.ts'
import { savePages } from './pages.ts'

/** Read at once: stays in the processor's cache, and most of the window is never touched. */
const READ_BYTES = 4 * 1024 * 1024

/** Decided by looking at the file. */
const DETECT_PAGES = -1

export interface SegmentJob {
  /** The caller's number, given back in the result. */
  readonly index: number
  readonly path: string
  readonly offset: number
  /** Whether the file is this one segment; else it covers `offset` to `offset` + 64 MiB. */
  readonly whole: boolean
  /** Whether the file ended in this segment when it was walked. */
  readonly last: boolean
  /** Page bytes of a database file, 0 for none, DETECT_PAGES. */
  readonly pageBytes: number
  /** The parent's segment, if its content is of class pages. */
  readonly parent: PageSegment | undefined
}

export interface SegmentResult {
  readonly index: number
  /** Why nothing was saved; the rest is then empty. */
  readonly problem: FileProblem | undefined
  /** The file at its opening. */
  readonly entry: FileEntry | undefined
  readonly trusted: boolean
  /** The file was not the same at the end, or ended early. */
  readonly changed: boolean
  /** Bytes of the file that were covered from `offset` on. */
  readonly bytes: number
  readonly inline: Uint8Array | undefined
  /** encodeExtents() of what was saved. */
  readonly extents: Uint8Array | undefined
  readonly pageBytes: number
  readonly hashes: Uint8Array | undefined
  /** Pairs of pack number and chunk number. */
  readonly marks: readonly number[]
  readonly bytesRead: number
  readonly bytesFresh: number
}

/** Fails only as the store fails; what is wrong with the file is a result. */
export async function saveSegment(lane: Lane, job: SegmentJob): Promise<SegmentResult> {
  const readStart = BigInt(Math.floor(lane.clock.now())) * 1_000_000n
  const open = openSourceFile(job.path)
  if ('what' in open) return failedSegment(job, open)
  try {
    return await saveOpenSegment(lane, job, open, readStart)
  } catch (error) {
    if (!isReadError(error)) throw error
    return failedSegment(job, problemOf(job.path, 'cannot read the file', error))
  } finally {
    closeSync(open.fd)
  }
}

async function saveOpenSegment(
  lane: Lane,
  job: SegmentJob,
  open: { fd: number; entry: FileEntry },
  readStart: bigint,
): Promise<SegmentResult> {
  const { fd, entry } = open
  const end = Math.min(entry.size, job.offset + NODE_SPAN_BYTES)
  const wanted = Math.max(0, end - job.offset)
  const draft = newDraft()
  const inline = job.whole && wanted <= lane.inlineBytesMax ? readInline(lane, fd, wanted, draft) : undefined
  let pageBytes = 0
  if (inline === undefined && wanted > 0) {
    pageBytes = job.pageBytes === DETECT_PAGES ? detectPages(lane, fd, entry) : job.pageBytes
    const ranges = dataRanges(fd, end, job.offset)
    if (pageBytes > 0)
      await savePages(lane, draft, { fd, offset: job.offset, end, pageBytes, parent: job.parent, ranges })
    else await saveRanges(lane, draft, fd, job.offset, end, ranges)
  }
  const after = entryFromStats(entry.name, fstatSync(fd, { bigint: true }))
  return {
    index: job.index,
    problem: undefined,
    entry,
    trusted: isTrusted(entry, readStart),
    changed: draft.bytes < wanted || !sameStat(entry, after) || (job.last && entry.size > end),
    bytes: draft.bytes,
    inline,
    extents: inline === undefined && draft.bytes > 0 ? encodeDraft(draft) : undefined,
    pageBytes,
    hashes: draft.hashes,
    marks: draft.marks,
    bytesRead: draft.bytesRead,
    bytesFresh: draft.bytesFresh,
  }
}

function failedSegment({ index }: SegmentJob, problem: FileProblem): SegmentResult {
  return { ...NO_SEGMENT, index, problem }
}

/** Of which nothing was saved, and whose stamps prove nothing. */
export const NO_SEGMENT: SegmentResult = {
  index: -1,
  problem: undefined,
  entry: undefined,
  trusted: false,
  changed: false,
  bytes: 0,
  inline: undefined,
  extents: undefined,
  pageBytes: 0,
  hashes: undefined,
  marks: [],
  bytesRead: 0,
  bytesFresh: 0,
}

function readInline(lane: Lane, fd: number, wanted: number, draft: Draft): Uint8Array {
  draft.bytes = readFully(fd, lane.window, 0, wanted, 0)
  draft.bytesRead = draft.bytes
  return Uint8Array.from(lane.window.subarray(0, draft.bytes))
}

/** A file of one run gains nothing from pages, and looking at thousands of small ones costs. */
function detectPages(lane: Lane, fd: number, entry: FileEntry): number {
  if (entry.size <= lane.runBytes) return 0
  return detectPageBytes(entry, (offset, length) => {
    const got = readFully(fd, lane.window, 0, Math.min(length, lane.window.length), offset)
    return lane.window.subarray(0, got)
  })
}

/** Content-defined chunks of each data range; what lies between is a hole. Ends early where the file does. */
async function saveRanges(
  lane: Lane,
  draft: Draft,
  fd: number,
  from: number,
  end: number,
  ranges: readonly DataRange[],
): Promise<void> {
  let at = from
  for (const range of ranges) {
    addHole(draft, range.offset - at)
    const rangeEnd = Math.min(end, range.offset + range.length)
    at = await saveRange(lane, draft, fd, range.offset, rangeEnd)
    if (at < rangeEnd) return
  }
  addHole(draft, end - at)
}

async function saveRange(lane: Lane, draft: Draft, fd: number, from: number, end: number): Promise<number> {
  const { window, sizes, table } = lane
  let fileAt = from
  let start = 0
  let filled = 0
  for (;;) {
    const want = Math.min(window.length - filled, end - fileAt, READ_BYTES)
    const got = want > 0 ? readFully(fd, window, filled, want, fileAt) : 0
    const last = got < want || fileAt + got === end
    filled += got
    fileAt += got
    draft.bytesRead += got
    while (start < filled) {
      const cut = cutPoint(window, start, filled, sizes, table)
      if (cut === filled && !last && cut - start < sizes.maxBytes) break
      await addChunk(lane, draft, 'data', window.subarray(start, cut))
      start = cut
    }
    if (last) return fileAt
    window.copyWithin(0, start, filled)
    filled -= start
    start = 0
  }
}

/** Whether a system call on the file failed, as opposed to the store (Failure) or a bug. */
function isReadError(error: unknown): boolean {
  return (
    error instanceof Error && 'syscall' in error && (error.syscall === 'read' || error.syscall === 'lseek')
  )
}
