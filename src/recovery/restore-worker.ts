/** A worker thread of a restore: it runs batches (restore-job.ts) with its own store, pack reader and target. */
import { workerData, type MessagePort } from 'node:worker_threads'
import { serveJobs } from '../base/thread-pool.ts'
import { newPackReader, type PackReader, type ReaderKeys } from '../repo/pack-reader.ts'
import { openRestoreTarget, type RestoreTarget } from '../sources/files/target.ts'
import { openStore } from '../storage/open.ts'
import { portStore } from '../storage/port.ts'
import { runRestoreJob, type RestoreJob } from './restore-job.ts'

export interface RestoreThreadData {
  readonly storeUrl: string | undefined
  readonly port: MessagePort | undefined
  readonly keys: ReaderKeys
  readonly root: string
  readonly replace: boolean
}

const data = workerData as RestoreThreadData

async function open(): Promise<{ reader: PackReader; target: RestoreTarget }> {
  const store =
    data.port === undefined
      ? await openStore(data.storeUrl ?? '', { blocking: true })
      : await portStore(data.port)
  return {
    reader: newPackReader(store, data.keys),
    target: openRestoreTarget(data.root, { replace: data.replace }),
  }
}

let opened: ReturnType<typeof open> | undefined
serveJobs(async (job: RestoreJob) => {
  opened ??= open()
  const { reader, target } = await opened
  return await runRestoreJob(reader, target, job)
})
