/** The port through which time enters. Everything else takes a Clock, so that tests own time. */
export interface Clock {
  /** Wall clock, milliseconds since 1970. May jump back: never compare two of them to decide on data's life. */
  now(): number
  /** Monotonic milliseconds, for durations. */
  elapsed(): number
}

export const systemClock: Clock = { now: () => Date.now(), elapsed: () => performance.now() }

/** `2026-11-22T14:33:23.120Z` */
export function formatTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString()
}

/** Milliseconds of an ISO 8601 time, or undefined if it is none. */
export function parseTime(text: string): number | undefined {
  const milliseconds = Date.parse(text)
  return Number.isNaN(milliseconds) ? undefined : milliseconds
}
