/**
 * Saves one piece of a file whose bytes come from elsewhere than a file of this host: up to 1 MiB that lie in
 * memory, beginning at a multiple of 1 MiB of the file. The counterpart of segment.ts. Runs in a lane.
 */
import { PAGE_HASH_BYTES } from '../format/content.ts'
import type { ChunkClass } from '../format/pack.ts'
import { cutPoint } from '../repo/chunker.ts'
import { hasRoom, makeRoom, saveChunkNow } from '../repo/saver.ts'
import { damagedPages } from '../sources/postgres/page-check.ts'
import type { PageFormat } from '../sources/source.ts'
import type { Lane } from './draft.ts'
import { putPageHash } from './page-hash.ts'

/** Divides a segment; a multiple of every run of pages. */
export const PIECE_BYTES = 1024 * 1024

export interface PieceJob {
  /** The caller's number, given back in the result. */
  readonly index: number
  /** Where it lies in the load. */
  readonly at: number
  readonly length: number
  /** Where it begins in the file. */
  readonly offset: number
  /** undefined: of class cdc. */
  readonly format: PageFormat | undefined
  /** Of its pages, whatever its class. */
  readonly checksums: PageFormat['checksums']
}

export type LoadBytes = Uint8Array<ArrayBuffer>

/** Several pieces, of one file or of many, that go to a lane together. */
export interface Load {
  readonly bytes: LoadBytes
  readonly pieces: readonly PieceJob[]
}

export interface PieceResult {
  readonly index: number
  /** Ids of its chunks one after the other; each is used whole. */
  readonly ids: Uint8Array
  readonly lengths: readonly number[]
  /** Pairs of pack number and chunk number. */
  readonly marks: readonly number[]
  readonly hashes: Uint8Array | undefined
  readonly bytesFresh: number
  /** Numbers of pages in the file whose checksum is not right, ascending. */
  readonly damaged: readonly number[]
}

interface Saved {
  readonly ids: Buffer[]
  readonly lengths: number[]
  readonly marks: number[]
  bytesFresh: number
}

/** The load's bytes are not needed any more when it resolves. Fails: as the store's put. */
export async function savePieces(lane: Lane, { bytes, pieces }: Load): Promise<PieceResult[]> {
  const results: PieceResult[] = []
  for (const job of pieces) results.push(await savePiece(lane, job, bytes))
  return results
}

async function savePiece(lane: Lane, job: PieceJob, load: Uint8Array): Promise<PieceResult> {
  const bytes = load.subarray(job.at, job.at + job.length)
  const saved: Saved = { ids: [], lengths: [], marks: [], bytesFresh: 0 }
  const { format, index } = job
  if (format === undefined) await saveCut(lane, saved, bytes)
  else await saveRuns(lane, saved, bytes, format)
  return {
    index,
    ids: Uint8Array.from(Buffer.concat(saved.ids)),
    lengths: saved.lengths,
    marks: saved.marks,
    bytesFresh: saved.bytesFresh,
    hashes: format && hashPages(lane, bytes, format.pageBytes),
    damaged: job.checksums === undefined ? [] : damagedPages(bytes, job.offset, job.checksums),
  }
}

async function saveCut(lane: Lane, saved: Saved, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const end = cutPoint(bytes, at, bytes.length, lane.sizes, lane.table)
    await saveOne(lane, saved, 'data', bytes.subarray(at, end))
    at = end
  }
}

async function saveRuns(lane: Lane, saved: Saved, bytes: Uint8Array, format: PageFormat): Promise<void> {
  const runBytes = Math.max(1, Math.floor(lane.runBytes / format.pageBytes)) * format.pageBytes
  for (let at = 0; at < bytes.length; at += runBytes)
    await saveOne(lane, saved, 'run', bytes.subarray(at, at + runBytes))
}

async function saveOne(lane: Lane, saved: Saved, kind: ChunkClass, bytes: Uint8Array): Promise<void> {
  if (!hasRoom(lane.saver, kind, bytes.length)) await makeRoom(lane.saver, kind, bytes.length)
  const chunk = saveChunkNow(lane.saver, kind, bytes)
  saved.ids.push(chunk.id)
  saved.lengths.push(bytes.length)
  saved.marks.push(chunk.pack, chunk.number)
  if (chunk.fresh) saved.bytesFresh += bytes.length
}

function hashPages(lane: Lane, bytes: Uint8Array, pageBytes: number): Uint8Array {
  const hashes = Buffer.allocUnsafeSlow(Math.ceil(bytes.length / pageBytes) * PAGE_HASH_BYTES)
  for (let at = 0, to = 0; at < bytes.length; at += pageBytes, to += PAGE_HASH_BYTES)
    putPageHash(lane.pageHasher, bytes.subarray(at, at + pageBytes), hashes, to)
  return hashes
}
