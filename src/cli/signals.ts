/** Signals of the operating system as an AbortSignal; the end of the launcher is one of them. */
import type { Clock } from '../base/clock.ts'
import { endWithParent, hasPosix } from '../base/posix.ts'

/** Names the process of bin/backstock that started this one, if there is one. */
const LAUNCHER = 'BACKSTOCK_LAUNCHER'
/**
 * What the launcher hands on, and its end. Of its own, since it may come several times, or beside a signal to
 * all of a process group, and yet must not count as a second Ctrl-C.
 */
const BY_LAUNCHER = 'SIGUSR2'
/** What comes so soon after the first signal repeats it: timeout(1) signals its program and then the group. */
const REPEAT_MS = 500

interface SignalWorld {
  /** The exit status of a process that is ended at once. */
  readonly exit: number
  readonly env: Record<string, string | undefined>
  readonly clock: Clock
}

/** The first signal asks the command to end; a second, later one ends the process at once. */
export function cancelOnSignals({ exit, env, clock }: SignalWorld): AbortSignal {
  const cancelling = new AbortController()
  let askedAt = 0
  const cancel = (why: string): void => {
    if (cancelling.signal.aborted) return
    askedAt = clock.elapsed()
    cancelling.abort(new DOMException(`Cancelled by ${why}`, 'AbortError'))
  }
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (cancelling.signal.aborted && clock.elapsed() - askedAt >= REPEAT_MS) process.exit(exit)
      cancel(name)
    })
  }
  const launcher = env[LAUNCHER]
  // For programs that this one starts it means nothing.
  delete env[LAUNCHER]
  if (launcher === undefined) return cancelling.signal
  process.on(BY_LAUNCHER, () => cancel('a signal to its launcher, or the end of that'))
  // The launcher hands signals on, except the one that it cannot see: being killed.
  if (hasPosix() && !endWithParent(Number(launcher), BY_LAUNCHER)) {
    const is = `its launcher, process ${launcher} by ${LAUNCHER}, has ended or did not start it`
    process.stderr.write(`backstock: Cannot run: ${is} (start bin/backstock, or unset ${LAUNCHER})\n`)
    process.exit(exit)
  }
  return cancelling.signal
}
