/** The answering side of port.ts: calls a store for another thread. */
import type { MessagePort } from 'node:worker_threads'
import { assert, describeError, isFailure } from '../base/failure.ts'
import type { PortCall, PortReply, PortRequest, PortValue } from './port-messages.ts'
import type { BlobStat, BlobStore } from './store.ts'

/** Stats in one answer to `next`. */
const LIST_STATS_MAX = 256

interface Serving {
  readonly store: BlobStore
  readonly port: MessagePort
  /** Calls under way, by id. */
  readonly calls: Map<number, AbortController>
  readonly lists: Map<number, AsyncIterator<BlobStat>>
}

/**
 * Answers the calls of a portStore() at the other end until the port closes; then stops what is under way.
 * The store stays the caller's, who closes it. Does not keep the event loop alive: the asking thread does.
 */
export function servePort(store: BlobStore, port: MessagePort): void {
  const serving: Serving = { store, port, calls: new Map(), lists: new Map() }
  port.on('message', (request: PortRequest) => {
    if ('abort' in request) serving.calls.get(request.abort)?.abort()
    else void answer(serving, request.id, request)
  })
  port.once('close', () => void stopServing(serving))
  port.unref()
}

/** Never rejects: what goes wrong is the answer. */
async function answer(serving: Serving, id: number, call: PortCall): Promise<void> {
  const abort = new AbortController()
  serving.calls.set(id, abort)
  let reply: PortReply
  try {
    reply = { id, value: await callStore(serving, { id, call }, abort.signal) }
  } catch (error) {
    reply = isFailure(error)
      ? { id, failure: { code: error.code, message: error.message, facts: error.facts } }
      : { id, bug: describeError(error) }
  }
  serving.calls.delete(id)
  const transferred: ArrayBuffer[] = []
  if (call.call === 'put' && call.bytes.buffer instanceof ArrayBuffer) {
    reply = { ...reply, returned: call.bytes.buffer }
    transferred.push(call.bytes.buffer)
  }
  if (reply.value instanceof Uint8Array && reply.value.buffer instanceof ArrayBuffer) {
    transferred.push(reply.value.buffer)
  }
  serving.port.postMessage(reply, transferred)
}

async function callStore(
  serving: Serving,
  { id, call }: { id: number; call: PortCall },
  signal: AbortSignal,
): Promise<PortValue> {
  const { store } = serving
  switch (call.call) {
    case 'describe':
      return { location: store.location, capabilities: store.capabilities }
    case 'put':
      return store.put(call.name, call.bytes, { signal })
    case 'get':
      return wholeBuffer(await store.get(call.name, readOptions(call, signal)))
    case 'stat':
      return store.stat(call.name)
    case 'delete':
      return store.delete(call.name)
    case 'sweep':
      return store.sweep(call.olderThanMs)
    case 'list':
      serving.lists.set(id, store.list(call.prefix)[Symbol.asyncIterator]())
      return id
    case 'next':
      return nextStats(serving, call.list)
    case 'leave':
      await leaveList(serving, call.list)
      return undefined
  }
}

function readOptions(call: { offset: number | undefined; length: number | undefined }, signal: AbortSignal) {
  const { offset, length } = call
  return { signal, ...(offset === undefined ? {} : { offset }), ...(length === undefined ? {} : { length }) }
}

/** Bytes that own their buffer: one that is shared with something else must not be transferred. */
function wholeBuffer(bytes: Uint8Array): Uint8Array {
  return bytes.length === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes)
}

async function nextStats(serving: Serving, list: number): Promise<BlobStat[]> {
  const iterator = serving.lists.get(list)
  assert(iterator, `no open list ${list}`)
  const stats: BlobStat[] = []
  try {
    while (stats.length < LIST_STATS_MAX) {
      const next = await iterator.next()
      if (next.done === true) break
      stats.push(next.value)
    }
  } catch (error) {
    serving.lists.delete(list)
    throw error
  }
  // A part-filled answer is followed by an empty one: an ended iterator says so again.
  if (stats.length === 0) serving.lists.delete(list)
  return stats
}

async function leaveList(serving: Serving, list: number): Promise<void> {
  const iterator = serving.lists.get(list)
  serving.lists.delete(list)
  await iterator?.return?.()
}

async function stopServing(serving: Serving): Promise<void> {
  for (const abort of serving.calls.values()) abort.abort()
  const left = [...serving.lists.keys()].map((list) => leaveList(serving, list))
  // Nobody is left to be told how leaving a list failed.
  await Promise.allSettled(left)
}
