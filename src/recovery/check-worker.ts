/** A worker thread that checks whole packs (check-threads.ts) with a store and a buffer of its own. */
import { workerData } from 'node:worker_threads'
import { serveJobs } from '../base/thread-pool.ts'
import { openStore } from '../storage/open.ts'
import { portStore } from '../storage/port.ts'
import type { PackClaim } from './check-pack.ts'
import { checkWholePack, newBytesChecker, type BytesChecker, type CheckThreadStart } from './check-threads.ts'

const { storeUrl, port, keys } = workerData as CheckThreadStart

async function openChecker(): Promise<BytesChecker> {
  const store =
    port === undefined ? await openStore(storeUrl ?? '', { blocking: true }) : await portStore(port)
  return newBytesChecker(store, keys)
}

let opening: Promise<BytesChecker> | undefined
serveJobs(async (claim: PackClaim) => {
  opening ??= openChecker()
  return await checkWholePack(await opening, claim)
})
