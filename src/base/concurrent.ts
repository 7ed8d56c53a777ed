/** Bounded concurrency for reads of many objects, and work that nobody waits for any more. */
import { once } from 'node:events'

/** Calls `work` for each item, at most `atOnce` at a time; the first failure ends it once the others are done. */
export async function mapConcurrent<T>(
  items: Iterable<T>,
  atOnce: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items[Symbol.iterator]()
  let failed = false
  const lane = async (): Promise<void> => {
    for (let next = queue.next(); next.done !== true && !failed; next = queue.next()) {
      try {
        await work(next.value)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  const lanes = await Promise.allSettled(Array.from({ length: atOnce }, lane))
  for (const each of lanes) if (each.status === 'rejected') throw each.reason
}

/**
 * What `work` gives; undefined once the signal comes. Then nobody waits for it, and how it ends is not told.
 * Leaves no listener behind.
 */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  work.catch(() => undefined)
  if (signal.aborted) return undefined
  const done = new AbortController()
  const aborted = once(signal, 'abort', { signal: done.signal }).then(
    () => undefined,
    () => undefined,
  )
  try {
    const result = await Promise.race([work, aborted])
    return signal.aborted ? undefined : result
  } finally {
    done.abort()
  }
}
