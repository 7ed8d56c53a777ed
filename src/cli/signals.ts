/** Signals of the operating system as an AbortSignal. */

/** The first signal asks the command to end; the second ends the process at once. */
export function cancelOnSignals(exit: number): AbortSignal {
  const cancelling = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (cancelling.signal.aborted) process.exit(exit)
      cancelling.abort(new DOMException(`Cancelled by ${name}`, 'AbortError'))
    })
  }
  return cancelling.signal
}
