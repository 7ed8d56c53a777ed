/** The failures that every driver raises in the same words, and the arithmetic of ranges. */
import { assert, Failure } from '../base/failure.ts'
import { assertName } from './names.ts'
import type { ReadOptions, Stray } from './store.ts'

/** Whole blobs are bounded: packs have 16 MiB, the largest blobs of the format 64 MiB. */
export const BLOB_BYTES_MAX = 1024 ** 3

export function missingBlob(location: string, name: string, cause?: unknown): Failure {
  return new Failure('storage.missing', `Cannot read "${name}": ${location} has no such blob`, {
    facts: { location, name },
    cause,
  })
}

/** The failure of a read where something else than a blob lies. */
export function strayBlob(location: string, { name, is }: Stray, cause?: unknown): Failure {
  const message = `Cannot read "${name}" in ${location}: a ${is} lies in its place (must be a file)`
  return new Failure('storage.missing', message, { facts: { location, name, is }, cause })
}

export function existingBlob(location: string, name: string, is = 'the name holds other bytes'): Failure {
  return new Failure(
    'storage.exists',
    `Cannot write "${name}" in ${location}: ${is} (blobs are written once)`,
    {
      facts: { location, name },
    },
  )
}

/** `end`: up to where bytes were asked; `bytes`: how many there are. */
export function shortBlob(location: string, name: string, range: { end: number; bytes: number }): Failure {
  const is = `it ends at byte ${range.bytes} (bytes up to ${range.end} were asked)`
  return new Failure('storage.short', `Cannot read "${name}" in ${location}: ${is}`, {
    facts: { location, name, ...range },
  })
}

/** The failure of a whole read that would fill memory: nothing of ours is that large. */
export function hugeBlob(location: string, name: string, bytes: number): Failure {
  const is = `it has ${bytes} bytes (a blob has at most ${BLOB_BYTES_MAX})`
  return new Failure('repo.foreign', `Cannot read "${name}" in ${location}: ${is}`, {
    facts: { location, name, bytes },
  })
}

export function closedStore(location: string): Failure {
  return new Failure('storage.offline', `Cannot use ${location}: this program has closed it`, {
    facts: { location },
  })
}

/** Throws `cancelled` once the signal is raised. */
export function throwIfAborted(signal: AbortSignal | undefined, doing: string): void {
  if (signal?.aborted !== true) return
  throw new Failure('cancelled', `Stopped ${doing}`, { cause: signal.reason })
}

export function assertPut(name: string, bytes: Uint8Array): void {
  assertName(name)
  assert(bytes.length <= BLOB_BYTES_MAX, `a blob of ${bytes.length} bytes (at most ${BLOB_BYTES_MAX})`)
}

export function assertGet(name: string, options: ReadOptions): void {
  assertName(name)
  const { offset = 0, length = 0, into } = options
  assert(Number.isSafeInteger(offset) && offset >= 0, `read offset ${offset}`)
  assert(Number.isSafeInteger(length) && length >= 0, `read length ${length}`)
  if (into === undefined) assert(length <= BLOB_BYTES_MAX, `read length ${length} without a buffer`)
}

/** Where a read of a blob of `bytes` begins and ends. Fails: storage.short when the blob ends before. */
export function rangeOf(
  blob: { location: string; name: string; bytes: number },
  options: ReadOptions,
): { start: number; end: number } {
  const start = options.offset ?? 0
  const end = options.length === undefined ? Math.max(start, blob.bytes) : start + options.length
  if (end > blob.bytes) throw shortBlob(blob.location, blob.name, { end, bytes: blob.bytes })
  return { start, end }
}

/** The buffer of a read: the first `length` bytes of `into`, else a fresh one that nothing else shares. */
export function readBuffer(into: Uint8Array | undefined, length: number): Uint8Array {
  if (into === undefined) return Buffer.allocUnsafeSlow(length)
  assert(into.length >= length, `a buffer of ${into.length} bytes for a read of ${length}`)
  return into.subarray(0, length)
}
