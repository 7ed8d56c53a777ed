/** The store as one run of a backup uses it: calls stop when the run is cancelled; a dry run keeps nothing. */
import type { BlobStore } from '../storage/store.ts'

/** Puts and gets end with `cancelled` as soon as `signal` says so, also those that are under way. */
export function cancellableStore(store: BlobStore, signal: AbortSignal | undefined): BlobStore {
  if (signal === undefined) return store
  const either = (given: AbortSignal | undefined): AbortSignal =>
    given === undefined ? signal : AbortSignal.any([signal, given])
  return {
    ...store,
    put: (name, bytes, options) => store.put(name, bytes, { signal: either(options?.signal) }),
    get: (name, options) => store.get(name, { ...options, signal: either(options?.signal) }),
  }
}

/** For dry runs: says yes to every put and keeps nothing. */
export function discardingStore(store: BlobStore): BlobStore {
  return {
    ...store,
    workerUrl: undefined,
    put: () => Promise.resolve('created'),
    delete: () => Promise.resolve('absent'),
  }
}
