/** Where restore batches are run: in threads, or in this one while there is only one batch. */
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { closePool, openPool, startJob, type ThreadPool } from '../base/thread-pool.ts'
import type { PackReader, ReaderKeys } from '../repo/pack-reader.ts'
import type { RestoreTarget } from '../sources/files/target.ts'
import { servePort } from '../storage/port-server.ts'
import type { BlobStore } from '../storage/store.ts'
import { runRestoreJob, type RestoreJob, type RestoreResult } from './restore-job.ts'
import type { RestoreThreadData } from './restore-worker.ts'

export interface RestoreLanes {
  readonly workers: number
  readonly reader: PackReader
  readonly keys: ReaderKeys
  readonly store: BlobStore
  readonly target: RestoreTarget
  readonly onResult: (result: RestoreResult) => void
  pool: ThreadPool<RestoreJob, RestoreResult> | undefined
  /** The first job, kept until there is a second: a thread costs 30 ms and 40 MB. */
  held: RestoreJob | undefined
  readonly running: Set<Promise<void>>
  failure: unknown
}

export function newRestoreLanes(options: {
  readonly workers: number
  readonly reader: PackReader
  readonly keys: ReaderKeys
  readonly store: BlobStore
  readonly target: RestoreTarget
  readonly onResult: (result: RestoreResult) => void
}): RestoreLanes {
  return { ...options, pool: undefined, held: undefined, running: new Set(), failure: undefined }
}

/** Hands a job over; waits while all threads are busy. Fails: as an earlier job failed. */
export async function submitRestore(lanes: RestoreLanes, job: RestoreJob): Promise<void> {
  if (lanes.failure !== undefined) throw lanes.failure
  if (lanes.workers === 0) {
    lanes.onResult(await runRestoreJob(lanes.reader, lanes.target, job))
    return
  }
  if (lanes.pool === undefined) {
    if (lanes.held === undefined) {
      lanes.held = job
      return
    }
    lanes.pool = openPool(workerFile(), lanes.workers, () => threadData(lanes))
    await start(lanes, lanes.pool, lanes.held)
    lanes.held = undefined
  }
  await start(lanes, lanes.pool, job)
}

/** Everything submitted is done. Fails: as a job failed. */
export async function settleRestore(lanes: RestoreLanes): Promise<void> {
  if (lanes.held !== undefined) {
    const job = lanes.held
    lanes.held = undefined
    lanes.onResult(await runRestoreJob(lanes.reader, lanes.target, job))
  }
  await Promise.all(lanes.running)
  if (lanes.failure !== undefined) throw lanes.failure
}

export async function closeRestoreLanes(lanes: RestoreLanes): Promise<void> {
  if (lanes.pool !== undefined) await closePool(lanes.pool)
}

async function start(
  lanes: RestoreLanes,
  pool: ThreadPool<RestoreJob, RestoreResult>,
  job: RestoreJob,
): Promise<void> {
  const { result } = await startJob(pool, job)
  const done = result
    .then(lanes.onResult, (error: unknown) => {
      lanes.failure ??= error
    })
    .finally(() => {
      lanes.running.delete(done)
    })
  lanes.running.add(done)
}

function threadData(lanes: RestoreLanes): { data: RestoreThreadData; transfer: MessagePort[] } {
  const { keys, target, store } = lanes
  const data = { storeUrl: store.workerUrl, keys, root: target.root, replace: target.replace }
  if (store.workerUrl !== undefined) return { data: { ...data, port: undefined }, transfer: [] }
  const { port1, port2 } = new MessageChannel()
  servePort(store, port1)
  return { data: { ...data, port: port2 }, transfer: [port2] }
}

/** The worker beside this file: .ts in development, .js when compiled. */
function workerFile(): URL {
  return new URL(
    import.meta.url.endsWith('.ts') ? './restore-worker.ts' : './restore-worker.js',
    import.meta.url,
  )
}
