/** What fills a spool waits: for its time, for room in the spool, for a call, or for its end. */
import type { Spool } from './spool.ts'

/** Resolves with the first of these; leaves nothing behind. Never fails. */
export async function pauseForRoom(
  spool: Spool,
  until: {
    readonly milliseconds: number
    readonly signal: AbortSignal
    /** Takes a call that ends the pause. */
    readonly wakers?: Set<() => void>
  },
): Promise<void> {
  const { milliseconds, signal, wakers } = until
  await new Promise<void>((resolve) => {
    const wake = (): void => {
      clearTimeout(timer)
      wakers?.delete(wake)
      spool.onRoom.delete(wake)
      signal.removeEventListener('abort', wake)
      resolve()
    }
    const timer = setTimeout(wake, milliseconds)
    wakers?.add(wake)
    spool.onRoom.add(wake)
    signal.addEventListener('abort', wake)
    if (signal.aborted) wake()
  })
}
