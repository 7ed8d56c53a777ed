/** What the long proofs share: how much of their full counts is run, and lines that say how far they are. */

/** Share of the full counts in percent; less than 100 only to try the tests themselves. */
const PERCENT = Number(process.env['LONG_PERCENT'] ?? 100)
const SAY_MS_MIN = 10_000

/** So many of `full` rounds. */
export function longCount(full: number): number {
  return Math.max(1, Math.ceil((full * PERCENT) / 100))
}

/** Every so many of a row of points that the full proof tries one by one. */
export function longStride(): number {
  return Math.max(1, Math.round(100 / PERCENT))
}

/** Prints how far a proof is, at most every ten seconds: a run that prints nothing for long is given up. */
export function newTeller(): (progress: string) => void {
  let said = 0
  return (progress) => {
    const now = performance.now()
    if (now - said < SAY_MS_MIN) return
    said = now
    process.stdout.write(`${progress}\n`)
  }
}
