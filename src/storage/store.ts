/**
 * The port of stores: named, write-once blobs. Knows names and bytes only; no keys, packs or snapshots.
 *
 * Names match STORE_NAME (lower-case, `/` between parts). What every driver promises is proven by
 * test/contract/store-contract.ts; what only some can do is a value in `capabilities`, never an optional
 * method.
 */

/** Names of blobs: parts of [a-z0-9._-] (no leading dot) joined by `/`; at most 512 bytes. */
export const STORE_NAME = /^(?!.{513})[a-z0-9_-][a-z0-9._-]*(\/[a-z0-9_-][a-z0-9._-]*)*$/

export interface BlobStat {
  readonly name: string
  readonly bytes: number
  /** Store's own clock, milliseconds since 1970. */
  readonly modified: number
}

export interface StoreCapabilities {
  /** `atomic`: of many concurrent puts of one name exactly one creates it. */
  readonly createOnly: 'atomic' | 'check-then-put' | 'none'
  /** A list started after put() resolved shows the blob. */
  readonly listAfterPut: boolean
  /** Old versions survive overwrite and delete. */
  readonly versions: boolean
  /** Blobs can be locked against deletion until a time. */
  readonly lock: boolean
}

export interface ReadOptions {
  readonly offset?: number
  readonly length?: number
  /** Reads into this buffer (it must be large enough) and returns a view of it; else a fresh buffer. */
  readonly into?: Uint8Array
  readonly signal?: AbortSignal
}

/** What is no blob but lies at a name that one could have. */
export interface Stray {
  readonly name: string
  /** `folder`: also one that blobs lie in, as they should. */
  readonly is: 'folder' | 'link' | 'pipe' | 'socket' | 'device'
}

export interface ListOptions {
  /** Hears of each stray below the prefix, where the driver's place can hold such; not through a port. */
  readonly onStray?: (stray: Stray) => void
}

export interface BlobStore {
  /** For messages: the place without secrets, such as `file:///var/backups/acme`. */
  readonly location: string
  /**
   * A URL from which a worker thread can open the same store by itself, or undefined if only this thread can
   * use it.
   */
  readonly workerUrl: string | undefined
  readonly capabilities: StoreCapabilities

  /**
   * Creates the blob if the name is free. Durable (data and name) when it resolves.
   * The buffer is the caller's again only after the promise settles.
   * `identical`: the name already holds exactly these bytes, so retries are safe.
   * Fails: storage.exists (other bytes or a stray there), storage.full, storage.readonly, storage.denied,
   * storage.offline. After a failure no reader ever sees a part of the blob.
   */
  put(name: string, bytes: Uint8Array, options?: { signal?: AbortSignal }): Promise<'created' | 'identical'>

  /**
   * Exactly the asked bytes (default: the whole blob). Never waits for a stray or follows one. Fails:
   * storage.missing (also for a stray), storage.denied (a link: the bytes may be elsewhere), storage.short,
   * storage.offline.
   */
  get(name: string, options?: ReadOptions): Promise<Uint8Array>

  /** undefined if there is none. */
  stat(name: string): Promise<BlobStat | undefined>

  /**
   * All blobs whose name starts with `prefix` (which ends in `/` or is empty), in ascending byte order of
   * name; no strays.
   */
  list(prefix: string, options?: ListOptions): AsyncIterable<BlobStat>

  /** Durable when it resolves. */
  delete(name: string): Promise<'deleted' | 'absent'>

  /** Removes leftovers of puts that died (temporary files older than `olderThanMs`); returns how many. */
  sweep(olderThanMs: number): Promise<number>

  /** Ends connections; later calls fail. */
  close(): Promise<void>
}
