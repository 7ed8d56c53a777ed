/** A worker thread that checks whole packs, one after the other (check-threads.ts). */
import { parentPort, workerData } from 'node:worker_threads'
import { assert } from '../base/failure.ts'
import { openStore } from '../storage/open.ts'
import { portStore } from '../storage/port.ts'
import type { PackClaim } from './check-pack.ts'
import {
  checkWholePack,
  newBytesChecker,
  postedFailure,
  type BytesChecker,
  type CheckThreadReply,
  type CheckThreadStart,
} from './check-threads.ts'

const port = parentPort
assert(port, 'a check worker runs in a worker thread')

async function openChecker({ storeUrl, port: storePort, keys }: CheckThreadStart): Promise<BytesChecker> {
  if (storeUrl !== undefined) return newBytesChecker(await openStore(storeUrl, { blocking: true }), keys)
  assert(storePort, 'a store without a URL is served over a port')
  return newBytesChecker(await portStore(storePort), keys)
}

function reply(message: CheckThreadReply): void {
  port?.postMessage(message)
}

const opening = openChecker(workerData as CheckThreadStart)
// Who asks for a pack is told; nobody asks before.
opening.catch(() => undefined)
let last: Promise<void> = Promise.resolve()
port.on('message', (claim: PackClaim) => {
  last = last.then(async () => {
    try {
      reply({ result: await checkWholePack(await opening, claim) })
    } catch (error) {
      reply({ failure: postedFailure(error) })
    }
  })
})
