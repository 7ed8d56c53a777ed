/** Recovery targets and the points that are offered instead, for people. */
import { formatLsn } from './lsn.ts'
import type { PointOffer, WantedTarget } from './recovery-target.ts'

export function describeTarget(wanted: WantedTarget): string {
  switch (wanted.kind) {
    case 'latest':
      return 'the end of the log'
    case 'immediate':
      return 'the end of the base'
    case 'time':
      return `${wanted.isInclusive ? '' : 'before '}${formatTime(wanted.at)}`
    case 'lsn':
      return `${wanted.isInclusive ? '' : 'before '}position ${formatLsn(wanted.lsn)}`
    case 'name':
      return `the restore point "${wanted.name}"`
    case 'xid':
      return `${wanted.isInclusive ? '' : 'before '}transaction ${wanted.xid}`
    case 'drop':
      return `before the drop of "${wanted.name}"`
  }
}

export function describeOffer({ what, lsn, at, name }: PointOffer): string {
  const named = name === undefined ? '' : ` "${name}"`
  const when = at === undefined ? '' : `, ${formatTime(at)}`
  return `${what}${named} at ${formatLsn(lsn)}${when}`
}

/** Unix time in microseconds -> 2026-11-22T21:47:00.123456Z */
export function formatTime(at: bigint): string {
  const milliseconds = Number(at / 1000n - (at % 1000n < 0n ? 1n : 0n))
  const date = new Date(milliseconds)
  if (Number.isNaN(date.getTime())) return `${at} µs`
  const micros = String(((at % 1000n) + 1000n) % 1000n).padStart(3, '0')
  return date.toISOString().replace('Z', `${micros}Z`)
}
