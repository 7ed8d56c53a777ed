/**
 * A store at the other end of a MessagePort: for worker threads, when a store cannot be opened in each of
 * them. This is the asking side; port-server.ts answers. Both run in one process and trust each other.
 *
 * Bytes cross without a copy by the clone algorithm: a put's bytes are copied once into a buffer that is
 * transferred, comes back with the answer and is used again (the caller keeps its own, as put() promises);
 * bytes in a SharedArrayBuffer are not copied at all; what get() returns is transferred.
 */
import type { MessagePort } from 'node:worker_threads'
import { Failure } from '../base/failure.ts'
import { assertGet, assertPut, closedStore, readBuffer, throwIfAborted } from './blob-failures.ts'
import { assertName, assertPrefix } from './names.ts'
import type { PortCall, PortDescription, PortReply, PortValue } from './port-messages.ts'
import type { BlobStat, BlobStore, ReadOptions } from './store.ts'

export interface PortStoreOptions {
  /** Calls sent and not yet answered; more wait. Bounds memory: each may carry a blob. Default 4. */
  readonly inFlightMax?: number
}

interface Waiting {
  readonly settled: PromiseWithResolvers<PortValue>
  /** Where the answer's returned put buffer goes. */
  readonly takeBack: boolean
}

interface PortState {
  readonly port: MessagePort
  readonly inFlightMax: number
  readonly waiting: Map<number, Waiting>
  /** Calls that wait for one in flight to end. */
  readonly queue: (() => void)[]
  /** Put buffers to use again; at most inFlightMax. */
  readonly buffers: ArrayBuffer[]
  inFlight: number
  nextId: number
  /** Why no call can be made any more. */
  ended: Failure | undefined
  location: string
}

/**
 * The store that the other side of `port` serves with servePort(). Takes the port over: close() closes it,
 * and leaves the served store open. Keeps the event loop alive only while calls are under way. When the
 * serving side ends, all calls fail with storage.offline.
 */
export async function portStore(port: MessagePort, options: PortStoreOptions = {}): Promise<BlobStore> {
  const state: PortState = {
    port,
    inFlightMax: options.inFlightMax ?? 4,
    waiting: new Map(),
    queue: [],
    buffers: [],
    inFlight: 0,
    nextId: 1,
    ended: undefined,
    location: 'port:',
  }
  port.on('message', (reply: PortReply) => takeReply(state, reply))
  port.once('close', () => {
    const is = 'the thread that serves it has ended'
    endPort(
      state,
      new Failure('storage.offline', `Cannot use ${state.location}: ${is} (start the run again)`),
    )
  })
  port.unref()
  const { location, capabilities } = await ask<PortDescription>(state, { call: 'describe' })
  state.location = location
  return {
    location,
    workerUrl: undefined,
    capabilities,
    put: (name, bytes, { signal } = {}) => putOverPort(state, { name, bytes }, signal),
    get: (name, given = {}) => getOverPort(state, name, given),
    async stat(name) {
      assertName(name)
      return ask<BlobStat | undefined>(state, { call: 'stat', name })
    },
    list(prefix) {
      assertPrefix(prefix)
      return listOverPort(state, prefix)
    },
    async delete(name) {
      assertName(name)
      return ask<'deleted' | 'absent'>(state, { call: 'delete', name })
    },
    sweep: (olderThanMs) => ask<number>(state, { call: 'sweep', olderThanMs }),
    close() {
      endPort(state, closedStore(location))
      port.close()
      return Promise.resolve()
    },
  }
}

async function putOverPort(
  state: PortState,
  blob: { name: string; bytes: Uint8Array },
  signal: AbortSignal | undefined,
): Promise<'created' | 'identical'> {
  const { name, bytes } = blob
  assertPut(name, bytes)
  if (bytes.buffer instanceof SharedArrayBuffer) return ask(state, { call: 'put', name, bytes }, { signal })
  return ask(state, () => ({ call: 'put', name, bytes: copyToSend(state, bytes) }), {
    signal,
    isTransferred: true,
  })
}

/** A copy in a buffer of our own that can be transferred. */
function copyToSend(state: PortState, bytes: Uint8Array): Uint8Array {
  const at = state.buffers.findIndex((buffer) => buffer.byteLength >= bytes.length)
  const [buffer = new ArrayBuffer(bytes.length)] = at < 0 ? [] : state.buffers.splice(at, 1)
  const copy = new Uint8Array(buffer, 0, bytes.length)
  copy.set(bytes)
  return copy
}

async function getOverPort(state: PortState, name: string, options: ReadOptions): Promise<Uint8Array> {
  assertGet(name, options)
  const { offset, length, into, signal } = options
  const bytes = await ask<Uint8Array>(state, { call: 'get', name, offset, length }, { signal })
  if (into === undefined) return bytes
  const view = readBuffer(into, bytes.length)
  view.set(bytes)
  return view
}

async function* listOverPort(state: PortState, prefix: string): AsyncGenerator<BlobStat> {
  const list = await ask<number>(state, { call: 'list', prefix })
  let isEnded = false
  try {
    while (!isEnded) {
      const stats = await ask<BlobStat[]>(state, { call: 'next', list })
      isEnded = stats.length === 0
      yield* stats
    }
  } finally {
    if (!isEnded && state.ended === undefined) await ask(state, { call: 'leave', list })
  }
}

interface AskOptions {
  readonly signal?: AbortSignal | undefined
  /** The put's buffer goes over and comes back. */
  readonly isTransferred?: boolean
}

/**
 * One call: waits for its turn, sends it, resolves with the answer. `call` as a function is made when its
 * turn has come.
 */
async function ask<T extends PortValue>(
  state: PortState,
  call: PortCall | (() => PortCall),
  options: AskOptions = {},
): Promise<T> {
  const { signal, isTransferred = false } = options
  await takeTurn(state)
  const id = state.nextId++
  const abort = (): void => state.port.postMessage({ abort: id })
  try {
    throwIfAborted(signal, `using ${state.location}`)
    const sent = typeof call === 'function' ? call() : call
    const settled = Promise.withResolvers<PortValue>()
    state.waiting.set(id, { settled, takeBack: isTransferred })
    state.port.ref()
    state.port.postMessage(
      { id, ...sent },
      isTransferred && sent.call === 'put' ? [sent.bytes.buffer as ArrayBuffer] : [],
    )
    signal?.addEventListener('abort', abort, { once: true })
    // The serving side answers each kind of call with its kind of value.
    return (await settled.promise) as T
  } finally {
    signal?.removeEventListener('abort', abort)
    state.waiting.delete(id)
    endTurn(state)
  }
}

async function takeTurn(state: PortState): Promise<void> {
  if (state.inFlight >= state.inFlightMax) await new Promise<void>((resolve) => state.queue.push(resolve))
  else state.inFlight += 1
  if (state.ended === undefined) return
  endTurn(state)
  throw state.ended
}

/** Hands the place to the next in the queue. */
function endTurn(state: PortState): void {
  const next = state.queue.shift()
  if (next !== undefined) return next()
  state.inFlight -= 1
  if (state.inFlight === 0) state.port.unref()
}

function takeReply(state: PortState, reply: PortReply): void {
  const waiting = state.waiting.get(reply.id)
  if (waiting === undefined) return
  if (waiting.takeBack && reply.returned !== undefined && state.buffers.length < state.inFlightMax) {
    state.buffers.push(reply.returned)
  }
  if (reply.failure !== undefined) {
    const { code, message, facts } = reply.failure
    waiting.settled.reject(new Failure(code, message, { facts }))
  } else if (reply.bug !== undefined) waiting.settled.reject(new Error(reply.bug))
  else waiting.settled.resolve(reply.value)
}

function endPort(state: PortState, why: Failure): void {
  state.ended ??= why
  for (const { settled } of state.waiting.values()) settled.reject(state.ended)
  state.buffers.length = 0
}
