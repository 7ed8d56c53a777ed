/** Arithmetic of positions: which stretches of a log are there, and which are missing. Pure. */

/** Positions [from, to). */
export interface PositionRange {
  readonly from: bigint
  readonly to: bigint
}

/** The contiguous stretches that the ranges cover together, ascending; ranges without positions count nothing. */
export function coverage(ranges: Iterable<PositionRange>): PositionRange[] {
  const sorted: PositionRange[] = []
  for (const { from, to } of ranges) if (to > from) sorted.push({ from, to })
  sorted.sort((a, b) => compare(a.from, b.from))
  const stretches: { from: bigint; to: bigint }[] = []
  for (const { from, to } of sorted) {
    const last = stretches.at(-1)
    if (last === undefined || from > last.to) stretches.push({ from, to })
    else if (to > last.to) last.to = to
  }
  return stretches
}

/** What of `wanted` none of `stretches` covers (these as coverage() gives them), ascending. */
export function missingPositions(
  stretches: readonly PositionRange[],
  wanted: PositionRange,
): PositionRange[] {
  const missing: PositionRange[] = []
  let at = wanted.from
  for (const { from, to } of stretches) {
    if (to <= at) continue
    if (from >= wanted.to) break
    if (from > at) missing.push({ from: at, to: from })
    at = to
  }
  if (at < wanted.to) missing.push({ from: at, to: wanted.to })
  return missing
}

/** For people: hex, as `from`–`to`. */
export function describeRange({ from, to }: PositionRange): string {
  return `${from.toString(16)}–${to.toString(16)}`
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : Number(a > b)
}
