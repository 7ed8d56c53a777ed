/**
 * A store that sends no faster than it is told: each put waits until its bytes fit the rate, so that over any
 * time longer than a second no more than the rate goes out. Reads are not held back.
 *
 * It can be used from the thread that made it only: worker threads reach it by the port, so that all of them
 * share one limit.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Clock, systemClock } from '../base/clock.ts'
import { throwIfAborted } from './blob-failures.ts'
import type { BlobStore } from './store.ts'

export interface LimitOptions {
  readonly clock?: Clock
  /** Resolves after that many milliseconds; rejects when `signal` aborts. */
  readonly wait?: (milliseconds: number, signal: AbortSignal | undefined) => Promise<void>
  /** Ends all waiting, also of puts that brought no signal of their own. */
  readonly signal?: AbortSignal
}

/** Time that was not used is saved up to this. */
const SAVED_MS_MAX = 1000

interface Meter {
  readonly bytesPerMs: number
  readonly clock: Clock
  readonly wait: (milliseconds: number, signal: AbortSignal | undefined) => Promise<void>
  /** When everything that was let through is paid for. */
  paidAt: number
}

export function limitedStore(
  store: BlobStore,
  bytesPerSecond: number,
  options: LimitOptions = {},
): BlobStore {
  const clock = options.clock ?? systemClock
  const meter: Meter = {
    bytesPerMs: bytesPerSecond / 1000,
    clock,
    wait: options.wait ?? waitMs,
    paidAt: clock.elapsed(),
  }
  return {
    ...store,
    workerUrl: undefined,
    async put(name, bytes, put = {}) {
      const signals = [put.signal, options.signal].filter((one) => one !== undefined)
      const signal = signals.length > 1 ? AbortSignal.any(signals) : signals[0]
      throwIfAborted(signal, `writing "${name}"`)
      await takeTurn(meter, bytes.length, signal)
      throwIfAborted(signal, `writing "${name}"`)
      return store.put(name, bytes, put)
    },
  }
}

/** Books the bytes at once, in the order of the calls, and waits until they are paid for. */
async function takeTurn(meter: Meter, bytes: number, signal: AbortSignal | undefined): Promise<void> {
  const now = meter.clock.elapsed()
  meter.paidAt = Math.max(meter.paidAt, now - SAVED_MS_MAX) + bytes / meter.bytesPerMs
  const milliseconds = meter.paidAt - now
  if (milliseconds > 0) await meter.wait(milliseconds, signal)
}

async function waitMs(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(Math.ceil(milliseconds), undefined, signal === undefined ? {} : { signal })
  } catch (error) {
    // The caller looks at the signal and says it in its own words.
    if (signal?.aborted !== true) throw error
  }
}
