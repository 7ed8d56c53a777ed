/**
 * Quantities as people write them in the configuration and on the command line: `10MiB`, `10MiB/s`, `90s`,
 * `14d`. Units are exact: KiB is 1024, kB is 1000; a bare K or M is refused because tools disagree about it.
 */

/** What the configuration's schema says of a size. */
export const sizePattern = /^\d+(\.\d+)? ?(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?$/
export const ratePattern = /^\d+(\.\d+)? ?(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)\/s$/
export const durationPattern = /^\d+(ms|s|m|h|d|w)$/

const byteUnits: Record<string, number> = {
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
}

const durationUnits: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 }

/** Whole bytes of `10MiB`, `1.5 GB` or `4096`; undefined when it is no size or does not fit in 2^53. */
export function parseBytes(text: string): number | undefined {
  if (!sizePattern.test(text)) return undefined
  const unit = /[a-z]+$/i.exec(text)?.[0] ?? 'B'
  const bytes = Math.round(Number.parseFloat(text) * (byteUnits[unit] ?? Number.NaN))
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** Bytes a second of `10MiB/s`; undefined when it is no rate or less than one byte a second. */
export function parseRate(text: string): number | undefined {
  if (!ratePattern.test(text)) return undefined
  const bytes = parseBytes(text.slice(0, -2))
  return bytes === undefined || bytes < 1 ? undefined : bytes
}

/** Seconds of `500ms`, `90s`, `10m`, `2h`, `14d`, `3w`; undefined when it is no duration. */
export function parseDuration(text: string): number | undefined {
  if (!durationPattern.test(text)) return undefined
  const unit = /[a-z]+$/.exec(text)?.[0] ?? ''
  const seconds = Number.parseInt(text, 10) * (durationUnits[unit] ?? Number.NaN)
  return Number.isFinite(seconds) ? seconds : undefined
}
