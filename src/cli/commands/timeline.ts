/** `backstock timeline`: from when to when a database can be restored, and what happened meanwhile. */
import { Failure } from '../../base/failure.ts'
import { parseNamedSource, snapshotsOfSource } from '../../repo/select-snapshot.ts'
import { formatLsn } from '../../sources/postgres/lsn.ts'
import { formatTime } from '../../sources/postgres/target-words.ts'
import type { LogEvent } from '../../recovery/timeline-events.ts'
import { readTimeline, type ClusterTimeline, type TimelineReport } from '../../recovery/timeline.ts'
import { knownSnapshots, requireStoredSource, type KnownSnapshots } from '../choose-snapshot.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { formatCount, formatCounted } from '../human.ts'
import { type OpenedRepository, withRepository } from '../open-repository.ts'
import { note, printEvent, printLine, printSummary, printTable, showMoment, warn } from '../print.ts'
import { snapshotFacts } from '../snapshot-facts.ts'
import type { Column } from '../table.ts'

/** Shown to people; --json gives all. */
const ROWS_SHOWN_MAX = 60
const RELATIONS_SHOWN_MAX = 10
const NAMES_SHOWN_MAX = 3
const BAD_SHOWN_MAX = 10

const columns: readonly Column[] = [
  { title: 'TIME' },
  { title: 'POSITION' },
  { title: 'TIMELINE', align: 'right' },
  { title: 'WHAT' },
]
const relationColumns: readonly Column[] = [
  { title: 'RELATION', flexible: true },
  { title: 'INSERTED', align: 'right' },
  { title: 'UPDATED', align: 'right' },
  { title: 'DELETED', align: 'right' },
]

export async function run(context: CommandContext, input: InputOf<'timeline'>): Promise<number> {
  const { from, to } = input
  if (from !== undefined && to !== undefined && from > to)
    throw new Failure('usage.invalid', 'Cannot use --from and --to: the first is later than the second')
  return withRepository(context, async (repository) => {
    const { printer, signal } = context
    const { domain, source, snapshots } = await chooseSource(context, repository, input.source)
    const { access, host } = repository
    const report = await readTimeline(access, host, snapshots, { domain, source, from, to, signal })
    for (const { name, message } of report.bad.slice(0, BAD_SHOWN_MAX)) warn(printer, `${name}: ${message}`)
    if (!report.areNotesRead)
      note(printer, 'This credential may not read what the log says of itself: events are not shown')
    for (const cluster of report.clusters) {
      printEvents(context, source, cluster)
      showCluster(context, cluster, report.clusters.length > 1)
    }
    printResult(context, source, report)
    return 0
  })
}

/** Whose source it is, and its snapshots. Fails: usage.invalid, repo.nosnapshot. */
async function chooseSource(
  context: CommandContext,
  repository: OpenedRepository,
  typed: string,
): Promise<Pick<KnownSnapshots, 'snapshots'> & { readonly domain: string; readonly source: string }> {
  const known = await knownSnapshots(context, repository)
  const { writers } = known
  const named = parseNamedSource(typed)
  const among = snapshotsOfSource(known.snapshots, named, writers)
  requireStoredSource(repository.loaded, known, typed)
  const domains = [...new Set(among.map(({ domain }) => domain))]
  const own = domains.find((domain) => domain === writers.own)
  const domain = own ?? domains[0]
  if (domain === undefined)
    throw new Failure('repo.nosnapshot', `Cannot show the timeline of "${typed}": it was never backed up`)
  if (own === undefined && domains.length > 1) {
    const labels = domains.map((id) => `${writers.names.get(id) ?? id}:${named.source}`).join(', ')
    throw new Failure(
      'usage.invalid',
      `Cannot show "${typed}": several writers have it (name one: ${labels})`,
    )
  }
  const snapshots = among.filter((one) => one.domain === domain)
  if (snapshots.every(({ log }) => log === undefined))
    throw new Failure('usage.invalid', `Cannot show the timeline of "${typed}": files and dumps have no log`)
  return { domain, source: named.source, snapshots }
}

function printEvents(
  { printer }: CommandContext,
  source: string,
  { systemId, bases, covers, gaps, switches, events, relations }: ClusterTimeline,
): void {
  const of = { type: 'timeline', source, systemId } as const
  for (const base of bases)
    printEvent(printer, { ...of, event: 'base', ...baseFacts(base), snapshot: snapshotFacts(base) })
  for (const { timeline, from, to, begun, until } of covers)
    printEvent(printer, {
      ...of,
      event: 'log',
      timeline,
      from: formatLsn(from),
      to: formatLsn(to),
      begun: new Date(begun).toISOString(),
      until: new Date(until).toISOString(),
    })
  for (const { timeline, from, to } of gaps)
    printEvent(printer, { ...of, event: 'gap', timeline, from: formatLsn(from), to: formatLsn(to) })
  for (const { timeline, to, lsn, reason } of switches)
    printEvent(printer, { ...of, event: 'switch', timeline, newTimeline: to, lsn: formatLsn(lsn), reason })
  for (const { kind, timeline, lsn, at, xid, names, unnamed, count } of events)
    printEvent(printer, {
      ...of,
      event: kind,
      timeline,
      lsn: formatLsn(lsn),
      at: at === undefined ? null : formatTime(at),
      xid,
      names,
      unnamed,
      count,
    })
  for (const { name, inserted, updated, deleted } of relations)
    printEvent(printer, { ...of, event: 'relation', name, inserted, updated, deleted })
}

function baseFacts({ log }: ClusterTimeline['bases'][number]): object {
  if (log === undefined) return {}
  const [from, to] = [formatLsn(BigInt(log.from)), formatLsn(BigInt(log.to))]
  return { timeline: timelineOf(log.branch), from, to }
}

/** The last part of a branch's name. */
function timelineOf(branch: string): number {
  return Number.parseInt(branch.slice(branch.lastIndexOf('-') + 1), 16)
}

interface Row {
  /** Milliseconds. */
  readonly at: number | undefined
  readonly timeline: number
  readonly lsn: bigint
  readonly what: string
}

function showCluster(context: CommandContext, cluster: ClusterTimeline, isOneOfMany: boolean): void {
  const { printer } = context
  if (printer.json) return
  if (isOneOfMany) printLine(printer, `Cluster ${cluster.systemId}`)
  const rows = rowsOf(cluster)
  const shown = rows.slice(-ROWS_SHOWN_MAX)
  if (rows.length > shown.length) {
    const more = formatCounted(rows.length - shown.length, 'earlier entry', 'earlier entries')
    printLine(printer, `… ${more}: --from, --to or --json show them`)
  }
  const moment = (at: number | undefined): string => (at === undefined ? '' : showMoment(printer, at))
  const cells = shown.map(({ at, timeline, lsn, what }) => [moment(at), formatLsn(lsn), `${timeline}`, what])
  printTable(printer, columns, cells)
  const relations = cluster.relations.slice(0, RELATIONS_SHOWN_MAX)
  if (relations.length > 0) {
    printLine(printer)
    const counts = relations.map(({ name, inserted, updated, deleted }) => [
      name,
      formatCount(inserted),
      formatCount(updated),
      formatCount(deleted),
    ])
    printTable(printer, relationColumns, counts)
    const more = cluster.relations.length - relations.length
    if (more > 0) printLine(printer, `… and ${formatCounted(more, 'more relation')}`)
  }
  printLine(printer)
}

/** By timeline and position, which is the order in which it happened. */
function rowsOf({ bases, covers, gaps, switches, events }: ClusterTimeline): Row[] {
  const rows: Row[] = []
  for (const { id, kind, partial, completed, log } of bases)
    rows.push({
      at: Date.parse(completed),
      timeline: timelineOf(log?.branch ?? ''),
      lsn: BigInt(log?.to ?? 0),
      what: `${kind} backup ${id}${partial ? ' (partial)' : ''}`,
    })
  for (const { timeline, from, to, begun, until } of covers) {
    rows.push({ at: begun, timeline, lsn: from, what: 'log begins' })
    rows.push({ at: until, timeline, lsn: to, what: 'log ends' })
  }
  for (const { timeline, from, to } of gaps)
    rows.push({ at: undefined, timeline, lsn: from, what: `GAP: no log until ${formatLsn(to)}` })
  for (const { timeline, to, lsn, reason } of switches)
    rows.push({
      at: undefined,
      timeline,
      lsn,
      what: `left for timeline ${to}${reason === '' ? '' : `: ${reason}`}`,
    })
  for (const event of events)
    if (isShown(event)) rows.push({ ...event, at: millisecondsOf(event.at), what: eventText(event) })
  const order = (a: Row, b: Row): number => (a.lsn < b.lsn ? -1 : Number(a.lsn > b.lsn))
  return rows.sort((a, b) => a.timeline - b.timeline || order(a, b))
}

/** What VACUUM cuts off, and files that nobody has named, interest nobody. */
function isShown({ kind, names, count }: LogEvent): boolean {
  return names.length > 0 && (kind !== 'shrink' || count === 0)
}

function millisecondsOf(at: bigint | undefined): number | undefined {
  return at === undefined ? undefined : Number(at / 1000n)
}

function eventText({ kind, names, unnamed, count, xid }: LogEvent): string {
  const shown = names.slice(0, NAMES_SHOWN_MAX).join(', ')
  const more = names.length + unnamed - Math.min(names.length, NAMES_SHOWN_MAX)
  const what = more > 0 ? `${shown} and ${formatCounted(more, 'more file')}` : shown
  const by = xid === undefined ? '' : ` (transaction ${xid})`
  if (kind === 'point') return `restore point ${what}`
  if (kind === 'drop') return `dropped ${what}${by}`
  if (kind === 'rewrite') return `truncated or rewritten: ${what}${by}`
  if (kind === 'shrink') return `emptied ${what}${by}`
  return `deleted up to here: ${formatCounted(count ?? 0, 'row')} of ${what}`
}

function printResult(context: CommandContext, source: string, report: TimelineReport): void {
  const { printer } = context
  const { clusters, areNotesRead, bad } = report
  const sum = (of: (cluster: ClusterTimeline) => number): number =>
    clusters.reduce((total, cluster) => total + of(cluster), 0)
  const gaps = sum((cluster) => cluster.gaps.length)
  const omitted = sum((cluster) => cluster.omitted)
  const summary = {
    type: 'summary',
    command: 'timeline',
    source,
    clusters: clusters.length,
    bases: sum(({ bases }) => bases.length),
    gaps,
    events: sum(({ events }) => events.length),
    omitted,
    bad: bad.length,
    complete: areNotesRead && bad.length === 0 && omitted === 0,
  } as const
  const last = clusters
    .at(-1)
    ?.covers.reduce<{ until: number; to: bigint; timeline: number } | undefined>(
      (newest, cover) => (newest === undefined || cover.until >= newest.until ? cover : newest),
      undefined,
    )
  const log =
    last === undefined
      ? 'There is no log: only the moments of the backups can be restored.'
      : `The log ends at ${formatLsn(last.to)} on timeline ${last.timeline}, ` +
        `stored ${showMoment(printer, last.until)}; ` +
        (gaps === 0 ? 'it has no gap.' : `it has ${formatCounted(gaps, 'gap')}.`)
  const left = omitted > 0 ? [`${formatCounted(omitted, 'event')} were not noted.`] : []
  printSummary(printer, summary, [log, ...left])
}
