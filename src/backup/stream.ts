/**
 * Saves a stream of unknown length, such as a pipe: cut, hashed and sealed in segments of 64 MiB like a file,
 * in this thread's lane, since its bytes come in order. Holds one window and the segments' extents in memory,
 * no more. A stream that fails fails the backup: half a dump is none.
 */
import { displayName, type FileEntry } from '../base/file-entry.ts'
import { describeError, Failure, isFailure } from '../base/failure.ts'
import { NODE_SPAN_BYTES } from '../format/content.ts'
import { cutPoint } from '../repo/chunker.ts'
import type { StreamEvent } from '../sources/source.ts'
import { addChunk, encodeDraft, newDraft, type Draft, type Lane } from './draft.ts'
import { NO_SEGMENT, type SegmentResult } from './segment.ts'

export interface StreamHooks {
  /** Told how many more bytes are in chunks; throws to end the backup. */
  readonly onBytes: (bytes: number) => void
  /** Runs between segments: the engine's housekeeping. */
  readonly onSegment: () => Promise<void>
}

interface Stream {
  readonly lane: Lane
  readonly entry: FileEntry
  readonly results: SegmentResult[]
  readonly hooks: StreamHooks
  draft: Draft
  /** Bytes in the lane's window, none of them in a chunk yet. */
  filled: number
}

/**
 * All segments of the stream in order, each but the last of 64 MiB; at least one. Nothing is durable yet.
 * Fails: source.failed (the stream), and as the store fails.
 */
export async function saveStream(
  lane: Lane,
  event: StreamEvent,
  hooks: StreamHooks,
): Promise<SegmentResult[]> {
  const stream: Stream = { lane, entry: event.entry, results: [], hooks, draft: newDraft(), filled: 0 }
  for await (const bytes of failingAs(event)) await takeBytes(stream, bytes)
  if (stream.filled > 0 || stream.draft.bytes > 0 || stream.results.length === 0) await endSegment(stream)
  return stream.results
}

/** The content, its errors named as the source's. */
async function* failingAs(event: StreamEvent): AsyncGenerator<Uint8Array> {
  const content = event.content[Symbol.asyncIterator]()
  for (;;) {
    let next: IteratorResult<Uint8Array>
    try {
      next = await content.next()
    } catch (error) {
      if (isFailure(error)) throw error
      const is = `the stream broke off (${describeError(error)})`
      const message = `Cannot read "${displayName(event.path)}": ${is}`
      throw new Failure('source.failed', message, { cause: error })
    }
    if (next.done === true) return
    yield next.value
  }
}

async function takeBytes(stream: Stream, bytes: Uint8Array): Promise<void> {
  const { window } = stream.lane
  for (let at = 0; at < bytes.length;) {
    const room = Math.min(window.length, NODE_SPAN_BYTES - stream.draft.bytes) - stream.filled
    const part = bytes.subarray(at, at + room)
    window.set(part, stream.filled)
    stream.filled += part.length
    at += part.length
    if (stream.draft.bytes + stream.filled === NODE_SPAN_BYTES) await endSegment(stream)
    else if (stream.filled === window.length) await cutWindow(stream, false)
  }
}

/**
 * Makes chunks of what is in the window; what may go on behind it stays unless this is the `last` of a
 * segment.
 */
async function cutWindow(stream: Stream, last: boolean): Promise<void> {
  const { lane, draft, filled } = stream
  let start = 0
  while (start < filled) {
    const cut = cutPoint(lane.window, start, filled, lane.sizes, lane.table)
    if (cut === filled && !last && cut - start < lane.sizes.maxBytes) break
    await addChunk(lane, draft, 'data', lane.window.subarray(start, cut))
    start = cut
  }
  lane.window.copyWithin(0, start, filled)
  stream.filled = filled - start
  stream.hooks.onBytes(start)
}

async function endSegment(stream: Stream): Promise<void> {
  const { lane, draft, results, entry } = stream
  const isSmall = results.length === 0 && draft.bytes === 0 && stream.filled <= lane.inlineBytesMax
  let inline: Uint8Array | undefined
  if (isSmall) {
    inline = Uint8Array.from(lane.window.subarray(0, stream.filled))
    draft.bytes = stream.filled
    stream.filled = 0
    stream.hooks.onBytes(draft.bytes)
  } else {
    await cutWindow(stream, true)
  }
  results.push({
    // Its next run is another stream: nothing may take this one for it.
    ...NO_SEGMENT,
    entry,
    bytes: draft.bytes,
    inline,
    extents: inline === undefined && draft.bytes > 0 ? encodeDraft(draft) : undefined,
    marks: draft.marks,
    bytesRead: draft.bytes,
    bytesFresh: draft.bytesFresh,
  })
  stream.draft = newDraft()
  await stream.hooks.onSegment()
}
