/**
 * A store whose process dies at a chosen write, for tests that try every point where a flow can be cut:
 *
 * for (let at = 0; ; at++) {
 * const disk = new Map()
 * const store = crashingStore(memoryStore({ disk }), { at })
 * const done = await endsBeforeCrash(() => flow(store))
 * … what must hold of `disk`, seen through a fresh memoryStore({ disk }) …
 * if (done) break
 * }
 */
import type { BlobStore } from '../../src/storage/store.ts'

/** What a dead process's calls end with. No Failure, so that nothing in the code under test may handle it. */
export class StoreCrash extends Error {
  override readonly name = 'StoreCrash'
}

export interface CrashPlan {
  /** Which put or delete is cut, from 0. */
  readonly at: number
  /** The cut put leaves the first half of its bytes; else nothing. Drivers promise that this cannot be. */
  readonly torn?: boolean
}

export interface CrashingStore extends BlobStore {
  /** Puts and deletes begun, the cut one included. */
  readonly operations: number
  readonly crashed: boolean
}

/** From the cut on, every call of this opening but close() throws StoreCrash; `inner` stays as it is. */
export function crashingStore(inner: BlobStore, plan: CrashPlan): CrashingStore {
  let operations = 0
  let crashed = false
  const throwIfCrashed = (): void => {
    if (crashed) throw new StoreCrash(`the process died at write ${plan.at}`)
  }
  /** Counts a write; true if it is the one that is cut. */
  const isCut = (): boolean => {
    throwIfCrashed()
    crashed = operations === plan.at
    operations += 1
    return crashed
  }
  const whileAlive = async <T>(call: Promise<T>): Promise<T> => {
    const result = await call
    throwIfCrashed()
    return result
  }
  return {
    location: inner.location,
    workerUrl: undefined,
    capabilities: inner.capabilities,
    get operations() {
      return operations
    },
    get crashed() {
      return crashed
    },
    async put(name, bytes, options) {
      if (!isCut()) return whileAlive(inner.put(name, bytes, options))
      if (plan.torn === true) await inner.put(name, bytes.subarray(0, bytes.length >> 1))
      throw new StoreCrash(`the process died writing "${name}" (write ${plan.at})`)
    },
    async delete(name) {
      if (!isCut()) return whileAlive(inner.delete(name))
      throw new StoreCrash(`the process died deleting "${name}" (write ${plan.at})`)
    },
    async get(name, options) {
      throwIfCrashed()
      return whileAlive(inner.get(name, options))
    },
    async stat(name) {
      throwIfCrashed()
      return whileAlive(inner.stat(name))
    },
    async *list(prefix) {
      throwIfCrashed()
      for await (const stat of inner.list(prefix)) {
        throwIfCrashed()
        yield stat
        throwIfCrashed()
      }
    },
    async sweep(olderThanMs) {
      throwIfCrashed()
      return whileAlive(inner.sweep(olderThanMs))
    },
    close: () => inner.close(),
  }
}

/**
 * Runs a flow; false if it ended by the crash. Every other error passes: a flow may not turn a crash into
 * one.
 */
export async function endsBeforeCrash(flow: () => Promise<unknown>): Promise<boolean> {
  try {
    await flow()
    return true
  } catch (error) {
    if (error instanceof StoreCrash) return false
    throw error
  }
}
