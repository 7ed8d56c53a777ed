/** Bounded concurrency for reads of many objects. */

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
