/**
 * Checks whole packs in threads, one pack a job: read into the thread's own buffer, hashed, every frame
 * opened, every chunk compared with its id. With no threads the work is done here.
 */
import { extname } from 'node:path'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { Failure } from '../base/failure.ts'
import { closePool, openPool, startJob, type ThreadPool } from '../base/thread-pool.ts'
import { isDamage } from '../repo/damage.ts'
import { servePort } from '../storage/port-server.ts'
import type { BlobStore } from '../storage/store.ts'
import { checkPackBytes, failedPack, type PackClaim, type PackKeys, type PackResult } from './check-pack.ts'

/** Of a thread's buffer at first; grows to the largest pack. */
const BUFFER_BYTES = 16 * 1024 * 1024

export interface CheckThreadStart {
  readonly storeUrl: string | undefined
  /** The serving side of the store when there is no URL. */
  readonly port: MessagePort | undefined
  readonly keys: ReadonlyMap<string, PackKeys>
}

/** The reader of one thread. */
export interface BytesChecker {
  readonly store: BlobStore
  readonly keys: ReadonlyMap<string, PackKeys>
  /** Made for the first pack. */
  buffer: Uint8Array | undefined
}

export function newBytesChecker(store: BlobStore, keys: ReadonlyMap<string, PackKeys>): BytesChecker {
  return { store, keys, buffer: undefined }
}

/** Reads a whole pack and checks it. Damage is in the result. Fails: storage.* that ends the check. */
export async function checkWholePack(checker: BytesChecker, claim: PackClaim): Promise<PackResult> {
  const keys = checker.keys.get(claim.domain)
  if (keys === undefined) throw new Error(`Bug: no keys of domain ${claim.domain}`)
  if (checker.buffer === undefined || claim.bytes > checker.buffer.length)
    checker.buffer = Buffer.allocUnsafeSlow(Math.max(claim.bytes, BUFFER_BYTES))
  try {
    const into = checker.buffer
    const bytes = await checker.store.get(claim.name, { offset: 0, length: claim.bytes, into })
    return checkPackBytes(keys, claim, bytes)
  } catch (error) {
    if (isDamage(error)) return failedPack(error, false)
    throw error
  }
}

export interface CheckThreads {
  readonly store: BlobStore
  readonly keys: ReadonlyMap<string, PackKeys>
  readonly count: number
  readonly packs: readonly PackClaim[]
  readonly signal: AbortSignal | undefined
  readonly onResult: (claim: PackClaim, result: PackResult) => void
}

/**
 * Checks `packs` in `count` threads; `onResult` gets them in no certain order. Fails: storage.* that ends the
 * check, cancelled. Threads have ended when it settles.
 */
export async function checkInThreads(options: CheckThreads): Promise<void> {
  const { store, keys, count, packs, signal, onResult } = options
  if (count === 0 || packs.length < 2) {
    const checker = newBytesChecker(store, keys)
    for (const claim of packs) {
      throwIfCancelled(signal)
      onResult(claim, await checkWholePack(checker, claim))
    }
    return
  }
  // The file beside this one: .ts in development, .js when compiled.
  const file = new URL(`./check-worker${extname(import.meta.url)}`, import.meta.url)
  const pool: ThreadPool<PackClaim, PackResult> = openPool(file, Math.min(count, packs.length), () =>
    threadStart(store, keys),
  )
  try {
    await runJobs(pool, options)
  } finally {
    await closePool(pool)
  }
}

export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new Failure('cancelled', 'Cannot finish the check: it was cancelled')
}

function threadStart(
  store: BlobStore,
  keys: ReadonlyMap<string, PackKeys>,
): { data: CheckThreadStart; transfer: MessagePort[] } {
  if (store.workerUrl !== undefined)
    return { data: { storeUrl: store.workerUrl, port: undefined, keys }, transfer: [] }
  const { port1, port2 } = new MessageChannel()
  servePort(store, port1)
  return { data: { storeUrl: undefined, port: port2, keys }, transfer: [port2] }
}

/** A failed job or a cancellation ends it at once: closing the pool stops what is under way. */
async function runJobs(pool: ThreadPool<PackClaim, PackResult>, options: CheckThreads): Promise<void> {
  const { packs, signal, onResult } = options
  const { promise: ended, reject } = Promise.withResolvers<never>()
  ended.catch(() => undefined)
  const cancel = (): void => {
    reject(new Failure('cancelled', 'Cannot finish the check: it was cancelled'))
  }
  signal?.addEventListener('abort', cancel, { once: true })
  const running = new Set<Promise<void>>()
  try {
    throwIfCancelled(signal)
    for (const claim of packs) {
      const { result } = await Promise.race([startJob(pool, claim), ended])
      const done = result
        .then((found) => {
          onResult(claim, found)
        }, reject)
        .finally(() => running.delete(done))
      running.add(done)
    }
    await Promise.race([Promise.all(running), ended])
  } finally {
    signal?.removeEventListener('abort', cancel)
  }
}
