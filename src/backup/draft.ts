/** The making of one segment's content: a lane's equipment, and the draft of chunks and extents it fills. */
import { readSync } from 'node:fs'
import { newWriter } from '../base/bytes.ts'
import type { Clock } from '../base/clock.ts'
import { encodeExtents, type ChunkRef, type Extent, type Extents } from '../format/content.ts'
import type { ChunkClass } from '../format/pack.ts'
import type { ChunkSizes } from '../repo/chunker.ts'
import { hasRoom, makeRoom, saveChunkNow, type Saver } from '../repo/saver.ts'
import type { PageHasher } from './page-hash.ts'

/** One thread's equipment. `window` is reused for every file and bounds what is in memory. */
export interface Lane {
  readonly saver: Saver
  readonly table: Int32Array
  readonly sizes: ChunkSizes
  readonly runBytes: number
  readonly inlineBytesMax: number
  readonly pageHasher: PageHasher
  readonly window: Buffer
  readonly clock: Clock
  /** Of page files in this backup: what changed pages took, and what rewriting runs did (page-patch.ts). */
  readonly rewrites: { changedBytes: number; rewrittenBytes: number }
}

/** What is being put together for one segment. */
export interface Draft {
  readonly chunks: ChunkRef[]
  readonly extents: Extent[]
  readonly marks: number[]
  bytes: number
  bytesRead: number
  bytesFresh: number
  hashes: Uint8Array | undefined
}

export function newDraft(): Draft {
  return { chunks: [], extents: [], marks: [], bytes: 0, bytesRead: 0, bytesFresh: 0, hashes: undefined }
}

/** Saves `bytes` as one chunk and appends the extent that is the whole of it. */
export async function addChunk(lane: Lane, draft: Draft, kind: ChunkClass, bytes: Uint8Array): Promise<void> {
  const ref = await saveRef(lane, draft, kind, bytes)
  draft.extents.push({ length: bytes.length, ref, offset: 0 })
  draft.bytes += bytes.length
}

/** Saves `bytes` as one chunk of the draft and returns its ref (place in `chunks`, from 1). */
export async function saveRef(
  lane: Lane,
  draft: Draft,
  kind: ChunkClass,
  bytes: Uint8Array,
): Promise<number> {
  if (!hasRoom(lane.saver, kind, bytes.length)) await makeRoom(lane.saver, kind, bytes.length)
  const saved = saveChunkNow(lane.saver, kind, bytes)
  draft.chunks.push({ id: saved.id, bytes: bytes.length })
  draft.marks.push(saved.pack, saved.number)
  if (saved.fresh) draft.bytesFresh += bytes.length
  return draft.chunks.length
}

/** Holes that follow each other are one. */
export function addHole(draft: Draft, length: number): void {
  if (length <= 0) return
  const last = draft.extents.at(-1)
  if (last?.ref === 0) draft.extents[draft.extents.length - 1] = { ...last, length: last.length + length }
  else draft.extents.push({ length, ref: 0, offset: 0 })
  draft.bytes += length
}

/** The extents as the results of segments carry them. */
export function encodeDraft(extents: Extents): Uint8Array {
  const writer = newWriter(extents.chunks.length * 40 + extents.extents.length * 6 + 16)
  encodeExtents(writer, extents)
  return Uint8Array.from(writer.bytes.subarray(0, writer.length))
}

/** Reads until `length` bytes are there or the file ends; returns how many. Throws the system's error. */
export function readFully(fd: number, into: Buffer, at: number, length: number, offset: number): number {
  let got = 0
  while (got < length) {
    const read = readSync(fd, into, at + got, length - got, offset + got)
    if (read === 0) break
    got += read
  }
  return got
}
