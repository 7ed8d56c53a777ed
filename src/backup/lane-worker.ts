/** A worker thread that is one lane: it takes batches, saves their segments and tells what became durable. */
import { once } from 'node:events'
import { parentPort, workerData, type MessagePort } from 'node:worker_threads'
import { assert } from '../base/failure.ts'
import { postedFailure } from '../base/thread-pool.ts'
import { attachIndex, refreshIndex } from '../repo/chunk-index.ts'
import { flushSaver, newSaver } from '../repo/saver.ts'
import { openStore } from '../storage/open.ts'
import { portStore } from '../storage/port.ts'
import type { BlobStore } from '../storage/store.ts'
import { newLane } from './lane-setup.ts'
import type { LaneReply, LaneRequest, LaneStart } from './lanes.ts'
import type { Lane } from './draft.ts'
import { savePieces } from './piece.ts'
import { saveSegment, type SegmentResult } from './segment.ts'

const port = parentPort
assert(port, 'a lane worker runs in a worker thread')

function reply(message: LaneReply, transfer: readonly ArrayBuffer[] = []): void {
  port?.postMessage(message, transfer)
}

async function openLane(start: LaneStart): Promise<Lane> {
  const store = await laneStore(start)
  const { keys, packBytesMax } = start
  const packBuffers = start.storeUrl === undefined ? 2 : 1 // a store of our own blocks in put
  const setup = { keys, store, index: attachIndex(start.shared), packBytesMax, packBuffers } as const
  const saver = newSaver(setup, (pack) => {
    reply({ type: 'stored', pack })
  })
  return newLane(saver, start)
}

async function laneStore(start: LaneStart): Promise<BlobStore> {
  if (start.storeUrl !== undefined) return await openStore(start.storeUrl, { blocking: true })
  const [message] = (await once(port!, 'message')) as [{ port: MessagePort }]
  return await portStore(message.port)
}

async function serve(lane: Lane, request: LaneRequest): Promise<void> {
  if (request.type === 'batch') {
    const results: SegmentResult[] = []
    for (const job of request.jobs) results.push(await saveSegment(lane, job))
    reply({ type: 'results', results })
  } else if (request.type === 'load') {
    const { bytes } = request.load
    reply({ type: 'pieces', results: await savePieces(lane, request.load), bytes }, [bytes.buffer])
  } else if (request.type === 'refresh') {
    refreshIndex(lane.saver.index, request.shared)
  } else if (request.type === 'flush') {
    await flushSaver(lane.saver)
    reply({ type: 'flushed' })
  }
}

function ignore(): void {
  // a lane that did not open says so through its own catch
}

/** Requests are served one after the other, in the order they came. */
let last: Promise<void>
const lane = openLane(workerData as LaneStart)
last = lane.then(ignore, ignore)
port.on('message', (request: LaneRequest | { type: 'port' }) => {
  if (request.type === 'port') return
  last = last.then(async () => {
    try {
      await serve(await lane, request)
    } catch (error) {
      reply({ type: 'failed', failure: postedFailure(error) })
    }
  })
})
lane.catch((error: unknown) => {
  reply({ type: 'failed', failure: postedFailure(error) })
})
