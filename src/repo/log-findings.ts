/**
 * What is wrong with a listed log: data, never exceptions. Gaps between positions, numbers that are not
 * there, headers that do not follow each other, copies that differ. Pure; what single objects are found to be
 * is added while they are listed (logs.ts).
 */
import { logName } from '../format/log-header.ts'
import { coverage, describeRange, type PositionRange } from './log-coverage.ts'
import { chainOrder, rangesOf, segmentAt, segmentsOf, type LogSegment, type LogTable } from './log-table.ts'

/** One row is one code. */
export const LOG_FINDINGS = {
  'log.gap': 'positions that no readable object holds, between some that are held',
  'log.hidden': 'a numbered segment is not there, or not the one that its successor followed',
  'log.conflict': 'two objects hold the same positions with different content',
  'log.overlap': 'two segments share some of their positions',
  'log.corrupt': 'an object is damaged',
  'log.forged': 'an object was not signed by the writer of its domain, or is another one',
  'log.foreign': 'an object of another repository',
  'log.newer': 'an object of a newer format',
  'log.revoked': 'an object that was completed after its writer was revoked',
  'log.unreadable': 'an object that the store cannot hand out now',
  'log.branch': 'a branch that is not of this source',
  'log.unknown': 'a name that is no log object',
} as const

export type LogFindingCode = keyof typeof LOG_FINDINGS

export interface LogFinding {
  readonly code: LogFindingCode
  readonly message: string
  readonly domain: string
  readonly source: string | undefined
  readonly branch: string | undefined
  /** Name of the object. */
  readonly object: string | undefined
  /** The positions it costs, where they are known. */
  readonly range: PositionRange | undefined
}

/** Everything that the headers of one branch say about each other; the table is sorted. */
export function judgeBranch(table: LogTable): LogFinding[] {
  return [...judgeCoverage(table), ...judgeChains(table), ...judgeCopies(table)]
}

function judgeCoverage(table: LogTable): LogFinding[] {
  const stretches = coverage(rangesOf(table))
  return stretches.slice(1).map((stretch, at) => {
    const range = { from: stretches[at]!.to, to: stretch.from }
    return finding(table, 'log.gap', `positions ${describeRange(range)} are missing`, { range })
  })
}

/** By shipper and kind, in the order of numbers. Tails may be deleted: of them only neighbours are compared. */
function judgeChains(table: LogTable): LogFinding[] {
  const findings: LogFinding[] = []
  let before: LogSegment | undefined
  for (const at of chainOrder(table)) {
    const segment = segmentAt(table, at)
    const { kind, shipper, seq } = segment.place
    const isSameChain = before?.place.shipper === shipper && before.place.kind === kind
    if (before !== undefined && isSameChain) {
      const object = logName(segment.place)
      const last = before.place.seq
      if (seq === last + 1 && segment.previousHalf !== before.sha256.slice(0, 32)) {
        const is = `${object} does not follow number ${last}: one of them was replaced`
        findings.push(finding(table, 'log.hidden', is, { object }))
      } else if (seq > last + 1 && kind === 'segment') {
        const numbers = seq === last + 2 ? `number ${last + 1}` : `numbers ${last + 1} to ${seq - 1}`
        const is = `${numbers} of shipper ${shipper} before ${object} are not there: lost or hidden`
        findings.push(finding(table, 'log.hidden', is, { object, range: between(before, segment) }))
      }
    }
    before = segment
  }
  return findings
}

function between(before: LogSegment, after: LogSegment): PositionRange | undefined {
  return before.to < after.from ? { from: before.to, to: after.from } : undefined
}

function judgeCopies(table: LogTable): LogFinding[] {
  const findings: LogFinding[] = []
  // Those that begin at one position, by their end.
  let twins = new Map<bigint, LogSegment>()
  let from = -1n
  let whole: LogSegment | undefined
  for (const segment of segmentsOf(table)) {
    if (segment.from !== from) twins = new Map()
    from = segment.from
    const twin = twins.get(segment.to)
    const object = logName(segment.place)
    if (twin === undefined) twins.set(segment.to, segment)
    else if (twin.contentHalf !== segment.contentHalf) {
      const is = `${object} and ${logName(twin.place)} hold the same positions and differ`
      findings.push(finding(table, 'log.conflict', is, { object, range: rangeOf(segment) }))
    }
    if (segment.place.kind === 'tail') continue
    if (whole !== undefined && segment.from < whole.to && twin === undefined) {
      const range = { from: segment.from, to: segment.to < whole.to ? segment.to : whole.to }
      const is = `${object} and ${logName(whole.place)} both hold positions ${describeRange(range)}`
      findings.push(finding(table, 'log.overlap', is, { object, range }))
    }
    if (whole === undefined || segment.to > whole.to) whole = segment
  }
  return findings
}

function rangeOf({ from, to }: PositionRange): PositionRange {
  return { from, to }
}

function finding(
  { domain, source, branch }: LogTable,
  code: LogFindingCode,
  is: string,
  of: { readonly object?: string; readonly range?: PositionRange | undefined },
): LogFinding {
  const message = `Log "${source}", branch ${branch}: ${is}`
  return { code, message, domain, source, branch, object: of.object, range: of.range }
}
