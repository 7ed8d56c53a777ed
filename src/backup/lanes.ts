/**
 * The lanes that save file segments: worker threads, or this thread for a small backup. One batch is one
 * message each way.
 *
 * Threads are started with the second batch: most incremental backups have less work than a thread costs (30
 * ms, 40 MB). At most QUEUE_BATCHES_MAX batches wait a lane, which holds the walk back and bounds memory.
 */
import { Worker } from 'node:worker_threads'
import { reviveFailure, THREAD_LIMITS, type PostedFailure } from '../base/thread-pool.ts'
import { tuneAllocator } from '../base/posix.ts'
import type { SharedIndex } from '../repo/chunk-index.ts'
import { refreshIndex } from '../repo/chunk-index.ts'
import { flushSaver, type StoredPack, type WriterKeys } from '../repo/saver.ts'
import type { BlobStore } from '../storage/store.ts'
import { servePort } from '../storage/port-server.ts'
import { cancelledBackup } from './cancel.ts'
import type { Lane } from './draft.ts'
import { savePieces, type Load, type LoadBytes, type PieceResult } from './piece.ts'
import { saveSegment, type SegmentJob, type SegmentResult } from './segment.ts'
import type { LaneSettings } from './lane-setup.ts'

const QUEUE_BATCHES_MAX = 2
/** Of 1 MiB each. */
const QUEUE_LOADS_MAX = 4

/** What the main thread posts to a lane. */
export type LaneRequest =
  | { readonly type: 'batch'; readonly jobs: readonly SegmentJob[] }
  | { readonly type: 'load'; readonly load: Load }
  | { readonly type: 'refresh'; readonly shared: SharedIndex }
  | { readonly type: 'flush' }
  | { readonly type: 'close' }

/** What a lane posts back. */
export type LaneReply =
  | { readonly type: 'results'; readonly results: readonly SegmentResult[] }
  | { readonly type: 'pieces'; readonly results: readonly PieceResult[]; readonly bytes: LoadBytes }
  | { readonly type: 'stored'; readonly pack: StoredPack }
  | { readonly type: 'flushed' }
  | { readonly type: 'failed'; readonly failure: PostedFailure }

export interface LaneStart extends LaneSettings {
  readonly keys: WriterKeys
  readonly shared: SharedIndex
  readonly storeUrl: string | undefined
}

interface Thread {
  readonly worker: Worker
  queued: number
}

export interface Lanes {
  readonly count: number
  readonly inline: Lane
  readonly start: () => LaneStart
  readonly store: BlobStore
  readonly onResults: (results: readonly SegmentResult[]) => void
  readonly onStored: (pack: StoredPack) => void
  /** Called when a load is saved; its bytes may be filled anew. */
  onPieces: (results: readonly PieceResult[], bytes: LoadBytes) => void
  readonly signal: AbortSignal | undefined
  /** Listens to `signal`. */
  readonly cancel: () => void
  threads: Thread[]
  /** The first batch, kept until it is known whether there will be a second. */
  held: readonly SegmentJob[] | undefined
  flushing: number
  failure: unknown
  isClosed: boolean
  wake: (() => void) | undefined
}

export function newLanes(options: {
  readonly count: number
  readonly inline: Lane
  readonly start: () => LaneStart
  readonly store: BlobStore
  readonly onResults: (results: readonly SegmentResult[]) => void
  readonly onStored: (pack: StoredPack) => void
  readonly signal: AbortSignal | undefined
}): Lanes {
  const cancel = (): void => {
    fail(lanes, cancelledBackup())
  }
  const lanes: Lanes = {
    ...options,
    cancel,
    onPieces: () => undefined,
    threads: [],
    held: undefined,
    flushing: 0,
    failure: undefined,
    isClosed: false,
    wake: undefined,
  }
  options.signal?.addEventListener('abort', cancel, { once: true })
  return lanes
}

/** Hands a batch over; waits while the queues are full. Fails: as the store fails, also for earlier batches. */
export async function submitBatch(lanes: Lanes, jobs: readonly SegmentJob[]): Promise<void> {
  if (lanes.threads.length === 0 && lanes.count > 0) {
    if (lanes.held === undefined) {
      lanes.held = jobs
      return
    }
    startThreads(lanes)
    await postBatch(lanes, lanes.held)
    lanes.held = undefined
  }
  if (lanes.count === 0) await runInline(lanes, jobs)
  else await postBatch(lanes, jobs)
}

/** Hands a load over, whose bytes are the lane's from now on; waits while the queues are full. Fails likewise. */
export async function submitLoad(lanes: Lanes, load: Load): Promise<void> {
  if (lanes.failure !== undefined) throw lanes.failure
  if (lanes.count === 0) {
    lanes.onPieces(await savePieces(lanes.inline, load), load.bytes)
    return
  }
  if (lanes.threads.length === 0) startThreads(lanes)
  const thread = await freeThread(lanes, QUEUE_LOADS_MAX)
  thread.queued++
  post(thread.worker, { type: 'load', load }, [load.bytes.buffer])
}

/** Waits until something has come back from the lanes, or returns at once if nothing is under way. */
export async function nextResults(lanes: Lanes): Promise<void> {
  if (lanes.held !== undefined) {
    const jobs = lanes.held
    lanes.held = undefined
    await runInline(lanes, jobs)
    return
  }
  if (lanes.failure === undefined && lanes.threads.some((thread) => thread.queued > 0)) await anyReply(lanes)
  if (lanes.failure !== undefined) throw lanes.failure
}

/** Every pack that is open in a lane is stored. Batches in the queues come first. Fails: as the store's put. */
export async function flushLanes(lanes: Lanes): Promise<void> {
  if (lanes.held !== undefined) await nextResults(lanes)
  lanes.flushing = lanes.threads.length
  for (const { worker } of lanes.threads) post(worker, { type: 'flush' })
  while (lanes.flushing > 0 && lanes.failure === undefined) await anyReply(lanes)
  if (lanes.failure !== undefined) throw lanes.failure
  await flushSaver(lanes.inline.saver)
}

/** Gives the lanes a newer index. */
export function refreshLanes(lanes: Lanes, shared: SharedIndex): void {
  refreshIndex(lanes.inline.saver.index, shared)
  for (const { worker } of lanes.threads) post(worker, { type: 'refresh', shared })
}

/** Ends the threads; what they had not stored is lost. Also after a failure. */
export async function closeLanes(lanes: Lanes): Promise<void> {
  const threads = lanes.threads
  lanes.threads = []
  // What still waits to be handed over must not start them anew: they would keep the process.
  lanes.isClosed = true
  lanes.signal?.removeEventListener('abort', lanes.cancel)
  await Promise.all(threads.map(({ worker }) => worker.terminate()))
}

async function runInline(lanes: Lanes, jobs: readonly SegmentJob[]): Promise<void> {
  const results: SegmentResult[] = []
  for (const job of jobs) results.push(await saveSegment(lanes.inline, job))
  lanes.onResults(results)
}

function startThreads(lanes: Lanes): void {
  if (lanes.isClosed) throw new Error('Cannot save more: the backup has ended')
  tuneAllocator()
  for (let i = 0; i < lanes.count; i++) {
    const worker = new Worker(workerFile(), { workerData: lanes.start(), resourceLimits: THREAD_LIMITS })
    const thread: Thread = { worker, queued: 0 }
    worker.on('message', (reply: LaneReply | { type: 'port' }) => {
      receive(lanes, thread, reply)
    })
    worker.on('error', (error) => {
      fail(lanes, error)
    })
    worker.on('messageerror', (error) => {
      fail(lanes, error)
    })
    // Not one that closeLanes() ended. What it had not stored is lost, and nobody would answer for it.
    worker.on('exit', (status) => {
      if (!lanes.threads.includes(thread)) return
      fail(lanes, new Error(`Bug: a thread that saves files ended by itself with status ${status}`))
    })
    if (lanes.store.workerUrl === undefined) {
      const { port1, port2 } = new MessageChannel()
      servePort(lanes.store, port1)
      worker.postMessage({ type: 'port', port: port2 }, [port2])
    }
    lanes.threads.push(thread)
  }
}

/** The worker beside this file: .ts in development, .js when compiled. */
function workerFile(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './lane-worker.ts' : './lane-worker.js', import.meta.url)
}

async function postBatch(lanes: Lanes, jobs: readonly SegmentJob[]): Promise<void> {
  const thread = await freeThread(lanes, QUEUE_BATCHES_MAX)
  thread.queued++
  post(thread.worker, { type: 'batch', jobs })
}

/** The thread with the shortest queue, once that has room. */
async function freeThread(lanes: Lanes, queuedMax: number): Promise<Thread> {
  for (;;) {
    if (lanes.failure !== undefined) throw lanes.failure
    const thread = lanes.threads.reduce((least, other) => (other.queued < least.queued ? other : least))
    if (thread.queued < queuedMax) return thread
    await anyReply(lanes)
  }
}

function post(worker: Worker, request: LaneRequest, transfer: readonly ArrayBuffer[] = []): void {
  worker.postMessage(request, transfer)
}

function receive(lanes: Lanes, thread: Thread, reply: LaneReply | { type: 'port' }): void {
  if (reply.type === 'results') {
    thread.queued--
    lanes.onResults(reply.results)
  } else if (reply.type === 'pieces') {
    thread.queued--
    lanes.onPieces(reply.results, reply.bytes)
  } else if (reply.type === 'stored') {
    lanes.onStored({ ...reply.pack, chunkIds: asBuffer(reply.pack.chunkIds) })
  } else if (reply.type === 'flushed') {
    lanes.flushing--
  } else if (reply.type === 'failed') {
    fail(lanes, reviveFailure(reply.failure))
    return
  }
  lanes.wake?.()
}

function fail(lanes: Lanes, error: unknown): void {
  lanes.failure ??= error
  lanes.wake?.()
}

async function anyReply(lanes: Lanes): Promise<void> {
  await new Promise<void>((resolve) => {
    lanes.wake = resolve
  })
  lanes.wake = undefined
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
