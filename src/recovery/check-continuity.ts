/**
 * Whether the log goes on from every snapshot of a database without a gap, and whether a snapshot that needs
 * log has it. From headers and histories; what single objects hold is check-logs.ts.
 */
import { formatTime } from '../base/clock.ts'
import type { Access } from '../repo/keys.ts'
import { coverage, missingPositions } from '../repo/log-coverage.ts'
import { rangesOf, segmentsOf, type LogTable } from '../repo/log-table.ts'
import type { LogList } from '../repo/logs.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { formatLsn, type Lsn } from '../sources/postgres/lsn.ts'
import { parseWalBranch, systemIdOf } from '../sources/postgres/wal-branch.ts'
import { addFinding, addUnreadFinding, type Findings, type Severity } from './check-findings.ts'
import { followLog, hasLog, type LogReach } from './log-continuity.ts'
import { timelinesOf, type Timelines } from './timelines.ts'

/** A shipper puts something each minute, however quiet the server is. */
const QUIET_MS_MAX = 24 * 3600 * 1000

/** What is asked of a snapshot. */
type LoggedSnapshot = Pick<StoredSnapshot, 'id' | 'domain' | 'source' | 'counter' | 'log'>

export interface ContinuityContext {
  readonly findings: Findings
  readonly access: Access
  readonly list: LogList
  /** Milliseconds. */
  readonly now: number
}

/** Fails: storage.* when the store as a whole does not answer. */
export async function checkContinuity(
  context: ContinuityContext,
  snapshots: readonly LoggedSnapshot[],
): Promise<void> {
  const streamed = snapshots.filter(({ log }) => log !== undefined)
  for (const snapshot of streamed) checkOwnLog(context, snapshot)
  const bySource = Map.groupBy(streamed, ({ domain, source }) => `${domain}/${source}`)
  for (const its of bySource.values()) {
    const sorted = its.toSorted((a, b) => a.counter - b.counter)
    checkEnd(context, sorted)
    const byCluster = Map.groupBy(sorted, systemIdOf)
    for (const [systemId, ofCluster] of byCluster)
      if (systemId !== undefined) await checkCluster(context, systemId, ofCluster)
  }
}

/** A snapshot that does not hold the log between its beginning and its end is nothing without it. */
function checkOwnLog({ findings, list }: ContinuityContext, snapshot: LoggedSnapshot): void {
  const { id, domain, source, log } = snapshot
  if (log === undefined || log.held !== null) return
  const isIts = (table: LogTable): boolean =>
    table.domain === domain && table.source === source && table.branch === log.branch
  const stretches = coverage(list.branches.filter(isIts).flatMap((table) => [...rangesOf(table)]))
  const [missing] = missingPositions(stretches, { from: BigInt(log.from), to: BigInt(log.to) })
  if (missing === undefined) return
  const lacks = `the log from ${formatLsn(missing.from)} to ${formatLsn(missing.to)} of ${log.branch}`
  const is = `Snapshot ${id} of "${source}" needs ${lacks}, which is not there: it cannot be restored`
  addFinding(findings, 'log.lacking', is, { snapshots: [id] })
}

/** Of a source: that it has no log at all, none of the cluster it is now, or none since long ago. */
function checkEnd({ findings, list, now }: ContinuityContext, snapshots: readonly LoggedSnapshot[]): void {
  const [{ domain, source } = { domain: '', source: '' }] = snapshots
  const latest = snapshots.at(-1)
  const cluster = latest && systemIdOf(latest)
  let newest: number | undefined
  let hasOther = false
  for (const table of list.branches) {
    if (table.domain !== domain || table.source !== source) continue
    if (parseWalBranch(table.branch)?.systemId !== cluster) {
      hasOther = true
      continue
    }
    for (const { completed } of segmentsOf(table)) newest = Math.max(newest ?? completed, completed)
  }
  if (newest === undefined && hasOther) {
    const ids = snapshots.filter((one) => systemIdOf(one) === cluster).map(({ id }) => id)
    const is = `"${source}" is system ${cluster} since ${ids[0]}, and all log of it is of another`
    const message = `${is}: of ${cluster} only the moments of its snapshots can be restored`
    addFinding(findings, 'log.none', message, { snapshots: ids, severity: 'warning' })
  } else if (newest === undefined) {
    const is = `"${source}" has no log in the repository: only the moments of its snapshots can be restored`
    addFinding(findings, 'log.none', is, { snapshots: snapshots.map(({ id }) => id) })
  } else if (now - newest > QUIET_MS_MAX) {
    const is = `The log of "${source}" ends at ${formatTime(newest)}: nothing later was shipped`
    addFinding(findings, 'log.ended', `${is} (does \`backstock ship\` run?)`)
  }
}

async function checkCluster(
  context: ContinuityContext,
  systemId: string,
  snapshots: readonly LoggedSnapshot[],
): Promise<void> {
  const { findings, access, list } = context
  const [{ domain, source } = { domain: '', source: '' }] = snapshots
  const of = { domain, source, systemId }
  const known = await timelinesOf(access, list, of, ({ name }, failure) => {
    const isTold = findings.list.some(({ object }) => object === name)
    if (failure.code !== 'key.role' && !isTold)
      addUnreadFinding(findings, 'log.corrupt', failure, { object: name })
  })
  if (!hasLog(known)) return
  for (const broken of brokenReaches(known, snapshots)) report(findings, source, broken)
}

interface Broken {
  readonly gap: NonNullable<LogReach['gap']>
  readonly isBefore: boolean
  readonly isNewest: boolean
  readonly snapshots: LoggedSnapshot[]
}

/** By gap, each once with the snapshots that end at it. */
function brokenReaches(known: Timelines, snapshots: readonly LoggedSnapshot[]): Iterable<Broken> {
  const broken = new Map<string, Broken>()
  for (const snapshot of snapshots) {
    const timeline = parseWalBranch(snapshot.log?.branch ?? '')?.timeline ?? 0
    const { gap, isBefore } = followLog(known, { timeline, ...endOf(snapshot) })
    if (gap === undefined) continue
    const isNewest = snapshot === snapshots.at(-1)
    // Before the first log each snapshot has an end of its own; that is one thing to be told.
    const key = `${gap.timeline} ${isBefore ? '' : gap.from} ${gap.to}`
    const same = broken.get(key)
    broken.set(key, { gap, isBefore, isNewest, snapshots: [...(same?.snapshots ?? []), snapshot] })
  }
  return broken.values()
}

function endOf({ log }: LoggedSnapshot): { lsn: Lsn; held: Lsn } {
  const lsn = BigInt(log?.to ?? 0)
  return { lsn, held: BigInt(log?.held ?? lsn) }
}

/** Where there never was log nothing is lost; but a newest snapshot of no use to later log is. */
function report(findings: Findings, source: string, { gap, isBefore, isNewest, snapshots }: Broken): void {
  const severity: Severity = isBefore ? (isNewest ? 'warning' : 'info') : 'error'
  const ids = snapshots.map(({ id }) => id)
  const [from, to] = [formatLsn(gap.from), formatLsn(gap.to)]
  const is = isBefore
    ? `The log of "${source}" begins at ${to}, behind the end of its snapshots ${ids.join(', ')}`
    : `The log of "${source}" has a gap from ${from} to ${to} on timeline ${gap.timeline}`
  const costs = isBefore ? 'no moment after them' : `nothing behind ${from}`
  const mend = isNewest ? ': make a new backup' : ''
  const which = isBefore ? '' : ` from ${ids.join(', ')}`
  const message = `${is}: ${costs} can be recovered${which}${mend}`
  addFinding(findings, 'log.broken', message, { snapshots: ids, severity })
}
