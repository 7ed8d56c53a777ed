/**
 * A pool of worker threads that take one job at a time and answer it. Results come as promises; the number of
 * jobs under way is bounded, so whoever makes jobs is held back. The other side is serveJobs().
 */
import { isMainThread, parentPort, Worker, type Transferable } from 'node:worker_threads'
import {
  assert,
  describeError,
  Failure,
  FAILURES,
  isFailure,
  type FailureCode,
  type FailureFacts,
} from './failure.ts'
import { boundHeap } from './garbage.ts'
import { tuneAllocator } from './posix.ts'

/** Jobs a thread holds: one at work and one waiting, so that it never idles between two. */
const JOBS_PER_THREAD = 2

/**
 * Heap limits of a thread. Its work lies in buffers outside of the heap (10 MB of heap are used); with V8's
 * defaults the heap grows to four times that before it is swept, which costs 40 MB a thread for nothing
 * (bench: peak memory).
 */
export const THREAD_LIMITS = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 48 } as const

interface Reply<R> {
  readonly id: number
  readonly result?: R
  readonly failure?: PostedFailure
}

/** A thrown value in a form that survives posting. */
export interface PostedFailure {
  readonly code: string | undefined
  readonly message: string
  readonly facts: FailureFacts
}

interface PoolThread {
  readonly worker: Worker
  jobs: number
}

export interface ThreadPool<J, R> {
  readonly threads: PoolThread[]
  readonly waiting: Map<
    number,
    { resolve: (result: R) => void; reject: (error: unknown) => void; thread: PoolThread }
  >
  /** Those that wait for a free place, first come first served. */
  readonly queue: (() => void)[]
  nextId: number
  broken: unknown
  readonly jobType?: J
}

/** Starts `count` threads of `file`; `dataOf` makes the workerData of each and what is transferred with it. */
export function openPool<J, R>(
  file: URL,
  count: number,
  dataOf: () => { data: unknown; transfer: Transferable[] },
): ThreadPool<J, R> {
  tuneAllocator()
  boundHeap()
  const pool: ThreadPool<J, R> = { threads: [], waiting: new Map(), queue: [], nextId: 0, broken: undefined }
  for (let i = 0; i < count; i++) {
    const { data, transfer } = dataOf()
    const worker = new Worker(file, {
      workerData: data,
      transferList: transfer,
      resourceLimits: THREAD_LIMITS,
    })
    const thread: PoolThread = { worker, jobs: 0 }
    worker.on('message', (reply: Reply<R>) => {
      settle(pool, reply)
    })
    worker.on('error', (error) => {
      breakPool(pool, error)
    })
    worker.on('messageerror', (error) => {
      breakPool(pool, error)
    })
    // Not a thread that closePool() ended: then nobody waits any more.
    worker.on('exit', (status) => {
      breakPool(pool, new Error(`Bug: a worker thread ended by itself with status ${status}`))
    })
    pool.threads.push(thread)
  }
  return pool
}

/**
 * Resolves once a thread has taken the job, to a box with the promise of its result (boxed, or awaiting the
 * place would await the result). Whoever drops the promise must have looked at its rejection.
 */
export async function startJob<J, R>(
  pool: ThreadPool<J, R>,
  job: J,
): Promise<{ readonly result: Promise<R> }> {
  for (;;) {
    if (pool.broken !== undefined) throw pool.broken
    const thread = pool.threads.reduce((least, other) => (other.jobs < least.jobs ? other : least))
    if (thread.jobs < JOBS_PER_THREAD) return { result: postJob(pool, thread, job) }
    await new Promise<void>((resolve) => pool.queue.push(resolve))
  }
}

function postJob<J, R>(pool: ThreadPool<J, R>, thread: PoolThread, job: J): Promise<R> {
  const id = pool.nextId++
  thread.jobs++
  return new Promise((resolve, reject) => {
    pool.waiting.set(id, { resolve, reject, thread })
    thread.worker.postMessage({ id, job })
  })
}

/** Ends the threads, whatever they do. The promises of jobs under way stay open. */
export async function closePool<J, R>(pool: ThreadPool<J, R>): Promise<void> {
  pool.waiting.clear()
  await Promise.all(pool.threads.map(({ worker }) => worker.terminate()))
}

function settle<J, R>(pool: ThreadPool<J, R>, reply: Reply<R>): void {
  const job = pool.waiting.get(reply.id)
  if (job === undefined) return
  pool.waiting.delete(reply.id)
  job.thread.jobs--
  if (reply.failure === undefined) job.resolve(reply.result as R)
  else job.reject(reviveFailure(reply.failure))
  pool.queue.shift()?.()
}

function breakPool<J, R>(pool: ThreadPool<J, R>, error: unknown): void {
  pool.broken ??= error
  for (const job of pool.waiting.values()) job.reject(error)
  pool.waiting.clear()
  for (const go of pool.queue.splice(0)) go()
}

/** In the thread: answers each job with what `handle` returns, one after the other in the order they came. */
export function serveJobs<J, R>(handle: (job: J) => Promise<R>): void {
  const port = parentPort
  assert(!isMainThread && port, 'jobs are served in a worker thread')
  let last = Promise.resolve()
  port.on('message', ({ id, job }: { id: number; job: J }) => {
    last = last.then(async () => {
      try {
        port.postMessage({ id, result: await handle(job) })
      } catch (error) {
        port.postMessage({ id, failure: postedFailure(error) })
      }
    })
  })
}

/** A thrown value for posting to another thread; reviveFailure() undoes it there. */
export function postedFailure(error: unknown): PostedFailure {
  if (isFailure(error)) return { code: error.code, message: error.message, facts: { ...error.facts } }
  const stack = error instanceof Error ? error.stack : undefined
  return { code: undefined, message: stack ?? describeError(error), facts: {} }
}

/** A Failure again if it was one, else an Error that carries the other thread's stack. */
export function reviveFailure(posted: PostedFailure): Error {
  if (posted.code === undefined || !(posted.code in FAILURES)) return new Error(posted.message)
  return new Failure(posted.code as FailureCode, posted.message, { facts: posted.facts })
}
