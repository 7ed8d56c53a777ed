/**
 * A store in this process's memory, for tests: the same promises as on disk, nothing shared with its callers.
 */
import { type Clock, systemClock } from '../base/clock.ts'
import {
  assertGet,
  assertPut,
  closedStore,
  existingBlob,
  missingBlob,
  rangeOf,
  readBuffer,
  throwIfAborted,
} from './blob-failures.ts'
import { assertName, assertPrefix } from './names.ts'
import type { BlobStat, BlobStore, ReadOptions } from './store.ts'

interface MemoryBlob {
  readonly bytes: Buffer
  readonly modified: number
}

/** What outlives one opened memory store: hand it to several to act as several processes. */
export type MemoryDisk = Map<string, MemoryBlob>

export interface MemoryStoreOptions {
  readonly disk?: MemoryDisk
  /** The store's own clock, for `modified`. */
  readonly clock?: Clock
}

interface MemoryState {
  readonly disk: MemoryDisk
  readonly clock: Clock
  closed: boolean
}

const LOCATION = 'memory:'

/**
 * Opens a store on `disk` (default: an empty one). Keeps no buffer of its callers and hands out none of its
 * own.
 */
export function memoryStore(options: MemoryStoreOptions = {}): BlobStore {
  const state: MemoryState = {
    disk: options.disk ?? new Map(),
    clock: options.clock ?? systemClock,
    closed: false,
  }
  return {
    location: LOCATION,
    workerUrl: undefined,
    capabilities: { createOnly: 'atomic', listAfterPut: true, versions: false, lock: false },
    async put(name, bytes, { signal } = {}) {
      assertPut(name, bytes)
      await nextTurn(state)
      throwIfAborted(signal, `writing "${name}"`)
      return putBlob(state, name, bytes)
    },
    async get(name, options = {}) {
      assertGet(name, options)
      await nextTurn(state)
      throwIfAborted(options.signal, `reading "${name}"`)
      return getBlob(state, name, options)
    },
    async stat(name) {
      assertName(name)
      await nextTurn(state)
      return statBlob(state, name)
    },
    list(prefix) {
      assertPrefix(prefix)
      return listBlobs(state, prefix)
    },
    async delete(name) {
      assertName(name)
      await nextTurn(state)
      return state.disk.delete(name) ? 'deleted' : 'absent'
    },
    async sweep() {
      await nextTurn(state)
      return 0
    },
    close() {
      state.closed = true
      return Promise.resolve()
    },
  }
}

/** Lets other callers in between, as a real store would. */
async function nextTurn(state: MemoryState): Promise<void> {
  await Promise.resolve()
  if (state.closed) throw closedStore(LOCATION)
}

function putBlob(state: MemoryState, name: string, bytes: Uint8Array): 'created' | 'identical' {
  const there = state.disk.get(name)
  if (there !== undefined) {
    if (!there.bytes.equals(bytes)) throw existingBlob(LOCATION, name)
    return 'identical'
  }
  state.disk.set(name, { bytes: Buffer.from(bytes), modified: Math.floor(state.clock.now()) })
  return 'created'
}

function getBlob(state: MemoryState, name: string, options: ReadOptions): Uint8Array {
  const blob = state.disk.get(name)
  if (blob === undefined) throw missingBlob(LOCATION, name)
  const { start, end } = rangeOf({ location: LOCATION, name, bytes: blob.bytes.length }, options)
  const bytes = readBuffer(options.into, end - start)
  blob.bytes.copy(bytes, 0, start, end)
  return bytes
}

function statBlob(state: MemoryState, name: string): BlobStat | undefined {
  const blob = state.disk.get(name)
  return blob === undefined ? undefined : { name, bytes: blob.bytes.length, modified: blob.modified }
}

async function* listBlobs(state: MemoryState, prefix: string): AsyncGenerator<BlobStat> {
  await nextTurn(state)
  const names = [...state.disk.keys()].filter((name) => name.startsWith(prefix))
  for (const name of names.sort((a, b) => (a < b ? -1 : 1))) {
    await nextTurn(state)
    const stat = statBlob(state, name)
    if (stat !== undefined) yield stat
  }
}
