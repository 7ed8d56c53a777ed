/** Signals of the operating system as an AbortSignal; the end of the launcher is one of them. */
import { endWithParent, hasPosix } from '../base/posix.ts'

/** Names the process of bin/backstock that started this one, if there is one. */
const LAUNCHER = 'BACKSTOCK_LAUNCHER'
/** Of its own, since it may come several times and yet must not count as a second Ctrl-C. */
const LAUNCHER_ENDED = 'SIGUSR2'

/** The first signal asks the command to end; the second ends the process at once. */
export function cancelOnSignals(exit: number, env: Record<string, string | undefined>): AbortSignal {
  const cancelling = new AbortController()
  const cancel = (why: string): void =>
    cancelling.abort(new DOMException(`Cancelled by ${why}`, 'AbortError'))
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (cancelling.signal.aborted) process.exit(exit)
      cancel(name)
    })
  }
  const launcher = env[LAUNCHER]
  // For programs that this one starts it means nothing.
  delete env[LAUNCHER]
  if (launcher === undefined || !hasPosix()) return cancelling.signal
  // The launcher hands signals on, except the one that it cannot see: being killed.
  process.on(LAUNCHER_ENDED, () => cancel('the end of its launcher'))
  if (!endWithParent(Number(launcher), LAUNCHER_ENDED)) {
    const is = `its launcher, process ${launcher} by ${LAUNCHER}, has ended or did not start it`
    process.stderr.write(`backstock: Cannot run: ${is} (start bin/backstock, or unset ${LAUNCHER})\n`)
    process.exit(exit)
  }
  return cancelling.signal
}
