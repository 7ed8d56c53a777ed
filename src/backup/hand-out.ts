/**
 * Hands the segments of files to the lanes in batches, and brings what they answer, in any order, back to
 * the file it belongs to.
 */
import type { FileEntry } from '../base/file-entry.ts'
import { noteWork } from '../base/garbage.ts'
import { NODE_SPAN_BYTES } from '../format/content.ts'
import type { PageSegment } from '../repo/tree-cache.ts'
import { submitBatch, type Lanes } from './lanes.ts'
import { saveSegment, type SegmentJob, type SegmentResult } from './segment.ts'

/** A batch is as many segments as this, or as many bytes. */
const BATCH_FILES_MAX = 128
const BATCH_BYTES_MAX = 16 * 1024 * 1024

/** A file whose segments are under way. */
export interface SegmentedFile {
  readonly path: string
  readonly entry: FileEntry
  /** By segment; undefined where the answer is still missing. */
  readonly results: (SegmentResult | undefined)[]
  missing: number
}

export interface HandOut {
  readonly lanes: Lanes
  /** Page bytes of a file by its path, DETECT_PAGES to look at it. */
  readonly pageBytesOf: (path: string) => number
  readonly waiting: Map<number, { readonly file: SegmentedFile; readonly segment: number }>
  nextJob: number
  batch: SegmentJob[]
  batchBytes: number
}

export function newHandOut(lanes: Lanes, pageBytesOf: (path: string) => number): HandOut {
  return { lanes, pageBytesOf, waiting: new Map(), nextJob: 0, batch: [], batchBytes: 0 }
}

/** An empty file has one segment too: somebody has to open it. */
export function segmentCount(entry: FileEntry): number {
  return Math.max(1, Math.ceil(entry.size / NODE_SPAN_BYTES))
}

/** Adds all segments of `file` to the batch. `parent`: by segment, what an increment knows of it. */
export function addSegments(
  out: HandOut,
  file: SegmentedFile,
  parent: readonly PageSegment[] | undefined,
): void {
  for (let segment = 0; segment < file.results.length; segment++) {
    const job = jobOf(out, file, segment)
    out.waiting.set(job.index, { file, segment })
    out.batch.push({ ...job, parent: parent?.[segment] })
    out.batchBytes += Math.min(NODE_SPAN_BYTES, file.entry.size - job.offset)
  }
}

export function isBatchFull(out: HandOut): boolean {
  return out.batch.length >= BATCH_FILES_MAX || out.batchBytes >= BATCH_BYTES_MAX
}

/** Gives the batch to a lane; resolves when one had room for it. Returns false if there was nothing to give. */
export async function handOutBatch(out: HandOut): Promise<boolean> {
  if (out.batch.length === 0) return false
  const jobs = out.batch
  noteWork(out.batchBytes)
  out.batch = []
  out.batchBytes = 0
  await submitBatch(out.lanes, jobs)
  return true
}

/** Puts answers of the lanes to their files. Answers that nobody waits for are passed over. */
export function takeAnswers(
  out: HandOut,
  results: readonly SegmentResult[],
  onResult: (result: SegmentResult) => void,
): void {
  for (const result of results) {
    const waiting = out.waiting.get(result.index)
    if (waiting === undefined) continue
    out.waiting.delete(result.index)
    waiting.file.results[waiting.segment] = result
    waiting.file.missing--
    onResult(result)
  }
}

/** Saves all segments of a file at once and in this thread. Fails: as the store's put. */
export async function saveInline(out: HandOut, file: SegmentedFile): Promise<SegmentResult[]> {
  const results: SegmentResult[] = []
  for (let segment = 0; segment < segmentCount(file.entry); segment++)
    results.push(await saveSegment(out.lanes.inline, jobOf(out, file, segment)))
  return results
}

function jobOf(out: HandOut, file: SegmentedFile, segment: number): SegmentJob {
  const segments = segmentCount(file.entry)
  return {
    index: out.nextJob++,
    path: file.path,
    offset: segment * NODE_SPAN_BYTES,
    whole: segments === 1,
    last: segment === segments - 1,
    pageBytes: out.pageBytesOf(file.path),
    parent: undefined,
  }
}
