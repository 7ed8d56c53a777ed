/**
 * Threads that check whole packs, one pack a message: read into the thread's own buffer, hashed, every frame
 * opened, every chunk compared with its id. With no threads the work is done here.
 */
import { extname } from 'node:path'
import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads'
import { Failure, isFailure, type FailureCode } from '../base/failure.ts'
import type { BlobStore } from '../storage/store.ts'
import { servePort } from '../storage/port-server.ts'
import { isDamage } from './check-findings.ts'
import { checkPackBytes, failedPack, type PackClaim, type PackKeys, type PackResult } from './check-pack.ts'

/** Packs that wait in a thread besides the one it is at. */
const QUEUE_MAX = 2
/** Of a thread's buffer at first; grows to the largest pack. */
const BUFFER_BYTES = 16 * 1024 * 1024

export interface CheckThreadStart {
  readonly storeUrl: string | undefined
  /** The serving side of the store when there is no URL. */
  readonly port: MessagePort | undefined
  readonly keys: ReadonlyMap<string, PackKeys>
}

/** What a thread posts for each pack, in the order it was given them. */
export type CheckThreadReply =
  | { readonly result: PackResult }
  | { readonly failure: { readonly code: string | undefined; readonly message: string } }

/** The reader of one thread. */
export interface BytesChecker {
  readonly store: BlobStore
  readonly keys: ReadonlyMap<string, PackKeys>
  buffer: Uint8Array
}

export function newBytesChecker(store: BlobStore, keys: ReadonlyMap<string, PackKeys>): BytesChecker {
  return { store, keys, buffer: Buffer.allocUnsafeSlow(BUFFER_BYTES) }
}

/** Reads a whole pack and checks it. Damage is in the result. Fails: storage.* that ends the check. */
export async function checkWholePack(checker: BytesChecker, claim: PackClaim): Promise<PackResult> {
  const keys = checker.keys.get(claim.domain)
  if (keys === undefined) throw new Error(`Bug: no keys of domain ${claim.domain}`)
  if (claim.bytes > checker.buffer.length) checker.buffer = Buffer.allocUnsafeSlow(claim.bytes)
  try {
    const into = checker.buffer
    const bytes = await checker.store.get(claim.name, { offset: 0, length: claim.bytes, into })
    return checkPackBytes(keys, claim, bytes)
  } catch (error) {
    if (isDamage(error)) return failedPack(error, false)
    throw error
  }
}

interface Thread {
  readonly worker: Worker
  readonly queue: PackClaim[]
}

/**
 * Checks `packs` in `count` threads; `onResult` gets them in no certain order. Fails: storage.* that ends the
 * check, cancelled. Threads have ended when it settles.
 */
export async function checkInThreads(options: {
  readonly store: BlobStore
  readonly keys: ReadonlyMap<string, PackKeys>
  readonly count: number
  readonly packs: readonly PackClaim[]
  readonly signal: AbortSignal | undefined
  readonly onResult: (claim: PackClaim, result: PackResult) => void
}): Promise<void> {
  const { store, keys, count, packs, signal, onResult } = options
  if (count === 0 || packs.length < 2) {
    const checker = packs.length === 0 ? undefined : newBytesChecker(store, keys)
    for (const claim of packs) {
      throwIfCancelled(signal)
      if (checker !== undefined) onResult(claim, await checkWholePack(checker, claim))
    }
    return
  }
  const threads: Thread[] = []
  try {
    for (let at = 0; at < Math.min(count, packs.length); at++) threads.push(startThread(store, keys))
    await runThreads(threads, packs, signal, onResult)
  } finally {
    await Promise.all(threads.map(({ worker }) => worker.terminate()))
  }
}

export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new Failure('cancelled', 'Cannot finish the check: it was cancelled')
}

function startThread(store: BlobStore, keys: ReadonlyMap<string, PackKeys>): Thread {
  // The file beside this one: .ts in development, .js when compiled.
  const file = new URL(`./check-worker${extname(import.meta.url)}`, import.meta.url)
  let port: MessagePort | undefined
  if (store.workerUrl === undefined) {
    const channel = new MessageChannel()
    servePort(store, channel.port1)
    port = channel.port2
  }
  const start: CheckThreadStart = { storeUrl: store.workerUrl, port, keys }
  const worker = new Worker(file, {
    workerData: start,
    stdin: false,
    ...(port === undefined ? {} : { transferList: [port] }),
  })
  return { worker, queue: [] }
}

async function runThreads(
  threads: readonly Thread[],
  packs: readonly PackClaim[],
  signal: AbortSignal | undefined,
  onResult: (claim: PackClaim, result: PackResult) => void,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  let [next, done] = [0, 0]
  const feed = (thread: Thread): void => {
    while (thread.queue.length <= QUEUE_MAX && next < packs.length) {
      const claim = packs[next++]
      if (claim === undefined) return
      thread.queue.push(claim)
      thread.worker.postMessage(claim)
    }
  }
  const cancel = (): void => {
    reject(new Failure('cancelled', 'Cannot finish the check: it was cancelled'))
  }
  signal?.addEventListener('abort', cancel, { once: true })
  for (const thread of threads) {
    thread.worker.on('message', (reply: CheckThreadReply) => {
      const claim = thread.queue.shift()
      if ('failure' in reply) reject(revive(reply.failure))
      else if (claim !== undefined) {
        onResult(claim, reply.result)
        if (++done === packs.length) resolve()
        feed(thread)
      }
    })
    thread.worker.on('error', reject)
    feed(thread)
  }
  try {
    throwIfCancelled(signal)
    await promise
  } finally {
    signal?.removeEventListener('abort', cancel)
  }
}

/** A failure for posting; revive() makes it one again. */
export function postedFailure(error: unknown): { code: string | undefined; message: string } {
  if (isFailure(error)) return { code: error.code, message: error.message }
  return { code: undefined, message: error instanceof Error ? (error.stack ?? error.message) : String(error) }
}

function revive(posted: { readonly code: string | undefined; readonly message: string }): Error {
  if (posted.code === undefined) return new Error(posted.message)
  return new Failure(posted.code as FailureCode, posted.message)
}
