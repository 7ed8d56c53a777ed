/**
 * What can be restored of a database: its bases, how far the log goes, where it has gaps, which timelines it
 * went through, and what happened on the way. Reads headers and notes only, never the log itself.
 */
import { mapConcurrent } from '../base/concurrent.ts'
import { Failure, isFailure } from '../base/failure.ts'
import { logName } from '../format/log-header.ts'
import { isDamage } from '../repo/damage.ts'
import type { HostFolder } from '../repo/host-folder.ts'
import type { Access } from '../repo/keys.ts'
import { readNotes } from '../repo/log-reader.ts'
import { segmentAt, segmentsOf, type LogSegment, type LogTable } from '../repo/log-table.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { NO_NOTES, type RowCounts } from '../sources/postgres/log-notes.ts'
import type { Lsn } from '../sources/postgres/lsn.ts'
import { decodeNotes } from '../sources/postgres/notes-codec.ts'
import type { NotesPiece } from '../sources/postgres/target-log.ts'
import { parseWalBranch } from '../sources/postgres/wal-branch.ts'
import { listKnownLogs } from './known-logs.ts'
import {
  gatherPiece,
  listEvents,
  listTotals,
  newEventGathering,
  type EventGathering,
  type LogEvent,
  type RelationTotals,
} from './timeline-events.ts'
import { againWhenMerged, isMerged } from './merged.ts'
import { timelinesOf, type Timelines } from './timelines.ts'

const READS_MAX = 16
/** Notes held at once. */
const BATCH_PIECES = 256
/** Clocks of the server and of the shipper's host may differ by this much. */
const CLOCK_SLACK_US = 300_000_000n

export interface TimelineScope {
  readonly domain: string
  readonly source: string
  /** Milliseconds: events and changed rows of this time only. */
  readonly from: number | undefined
  readonly to: number | undefined
  readonly signal?: AbortSignal
}

/** A stretch of log without a gap. */
export interface LogCover {
  readonly timeline: number
  readonly from: Lsn
  readonly to: Lsn
  /** When the first of it was received and the last of it was stored: milliseconds, by the shipper's clock. */
  readonly begun: number
  readonly until: number
}

export interface LogSwitch {
  /** The timeline that was left, and the new one. */
  readonly timeline: number
  readonly to: number
  readonly lsn: Lsn
  readonly reason: string
}

/** Of one cluster: a source whose server was made anew has several. */
export interface ClusterTimeline {
  readonly systemId: string
  readonly bases: readonly StoredSnapshot[]
  readonly covers: readonly LogCover[]
  readonly gaps: readonly { readonly timeline: number; readonly from: Lsn; readonly to: Lsn }[]
  readonly switches: readonly LogSwitch[]
  readonly events: readonly LogEvent[]
  readonly relations: readonly RelationTotals[]
  /** Of relations beyond those that notes name. */
  readonly otherChanges: RowCounts
  /** Events that notes, or the bound, left out. */
  readonly omitted: number
}

export interface TimelineReport {
  /** By the newest of their bases and logs. */
  readonly clusters: readonly ClusterTimeline[]
  /** false: the credential may not read them; there are no events. */
  readonly areNotesRead: boolean
  /** Objects that could not be read, and why. */
  readonly bad: readonly { readonly name: string; readonly message: string }[]
}

/** Fails: storage.*, cancelled. */
export async function readTimeline(
  access: Access,
  host: HostFolder,
  snapshots: readonly StoredSnapshot[],
  scope: TimelineScope,
): Promise<TimelineReport> {
  return await againWhenMerged(() => readOnce(access, host, snapshots, scope))
}

interface Reading {
  readonly access: Access
  readonly scope: TimelineScope
  readonly bad: { name: string; message: string }[]
  areNotesRead: boolean
}

async function readOnce(
  access: Access,
  host: HostFolder,
  snapshots: readonly StoredSnapshot[],
  scope: TimelineScope,
): Promise<TimelineReport> {
  const { domain, source, signal } = scope
  const reading: Reading = { access, scope, bad: [], areNotesRead: true }
  const list = await listKnownLogs(access, host, { domain, source, ...(signal && { signal }) })
  for (const { object, message, code } of list.findings)
    if (object !== undefined && code !== 'log.overlap') reading.bad.push({ name: object, message })
  const bySystem = Map.groupBy(snapshots, ({ log }) => parseWalBranch(log?.branch ?? '')?.systemId)
  const ofLogs = list.branches.map(({ branch }) => parseWalBranch(branch)?.systemId)
  const ids = new Set([...bySystem.keys(), ...ofLogs].filter((id) => id !== undefined))
  const clusters: ClusterTimeline[] = []
  for (const systemId of ids) {
    const known = await timelinesOf(access, list, { domain, source, systemId }, ({ name }, failure) => {
      if (failure.code === 'key.role') reading.areNotesRead = false
      else reading.bad.push({ name, message: failure.message })
    })
    clusters.push(await readCluster(reading, known, bySystem.get(systemId) ?? []))
  }
  clusters.sort((a, b) => newestOf(a) - newestOf(b))
  return { clusters, areNotesRead: reading.areNotesRead, bad: reading.bad }
}

function newestOf({ bases, covers }: ClusterTimeline): number {
  const times = [...bases.map(({ completed }) => Date.parse(completed)), ...covers.map(({ until }) => until)]
  return times.reduce((newest, each) => Math.max(newest, each), 0)
}

async function readCluster(
  reading: Reading,
  known: Timelines,
  bases: readonly StoredSnapshot[],
): Promise<ClusterTimeline> {
  const { from, to } = reading.scope
  const micros = (time: number | undefined): bigint | undefined =>
    time === undefined ? undefined : BigInt(Math.round(time * 1000))
  const gathering = newEventGathering({ from: micros(from), to: micros(to) })
  const tables = [...known.tables].toSorted(([a], [b]) => a - b)
  const covers: LogCover[] = []
  for (const [timeline, table] of tables) {
    covers.push(...coversOf(timeline, table))
    const begin = known.histories.get(timeline)?.steps.at(-1)?.end ?? 0n
    if (reading.areNotesRead) await readEvents(reading, gathering, { timeline, table, begin })
  }
  return {
    systemId: known.systemId,
    bases: bases.toSorted((a, b) => a.counter - b.counter),
    covers,
    gaps: gapsOf(covers),
    switches: switchesOf(known),
    events: listEvents(gathering),
    relations: listTotals(gathering),
    otherChanges: gathering.otherChanges,
    omitted: gathering.omitted,
  }
}

/** Rows come by position. */
function coversOf(timeline: number, table: LogTable): LogCover[] {
  const covers: { timeline: number; from: Lsn; to: Lsn; begun: number; until: number }[] = []
  for (const { from, to, begun, completed } of segmentsOf(table)) {
    const last = covers.at(-1)
    if (last === undefined || from > last.to) covers.push({ timeline, from, to, begun, until: completed })
    else {
      if (to > last.to) last.to = to
      last.begun = Math.min(last.begun, begun)
      last.until = Math.max(last.until, completed)
    }
  }
  return covers
}

function gapsOf(covers: readonly LogCover[]): ClusterTimeline['gaps'] {
  return covers.flatMap(({ timeline, from }, at) => {
    const before = covers[at - 1]
    return before?.timeline === timeline ? [{ timeline, from: before.to, to: from }] : []
  })
}

/** Each history names all switches before it: the last one is its own. */
function switchesOf({ histories }: Timelines): LogSwitch[] {
  const found = new Map<string, LogSwitch>()
  for (const [id, { steps }] of histories) {
    for (const [at, { timeline, end, reason }] of steps.entries()) {
      const to = steps[at + 1]?.timeline ?? id
      found.set(`${timeline}/${to}`, { timeline, to, lsn: end, reason })
    }
  }
  return [...found.values()].sort((a, b) => a.to - b.to)
}

interface EventsOf {
  readonly timeline: number
  readonly table: LogTable
  readonly begin: Lsn
}

/** Names are told once, when they are new: so all is read from the beginning, up to the time asked for. */
async function readEvents(
  reading: Reading,
  gathering: EventGathering,
  { timeline, table, begin }: EventsOf,
): Promise<void> {
  const rows = neededRows(table)
  const { signal } = reading.scope
  for (let at = 0; at < rows.length && reading.areNotesRead; at += BATCH_PIECES) {
    if (signal?.aborted === true) throw new Failure('cancelled', 'Stopped reading the log')
    const batch = rows.slice(at, at + BATCH_PIECES)
    const pieces: (NotesPiece | undefined)[] = []
    await mapConcurrent(batch.keys(), READS_MAX, async (index) => {
      pieces[index] = await readPiece(reading, timeline, segmentAt(table, batch[index]!))
    })
    const read = pieces.filter((piece) => piece !== undefined)
    for (const piece of read) gatherPiece(gathering, piece, begin)
    if (isBehind(read, gathering.span.to)) return
  }
}

/** Whole segments, of the tails those that none covers, and empty ones: these say how late it is. */
function neededRows(table: LogTable): number[] {
  const rows: number[] = []
  let coveredTo = -1n
  let row = 0
  for (const { from, to } of segmentsOf(table)) {
    if (to > coveredTo || from === to) rows.push(row)
    if (to > coveredTo) coveredTo = to
    row++
  }
  return rows
}

async function readPiece(
  reading: Reading,
  timeline: number,
  segment: LogSegment,
): Promise<NotesPiece | undefined> {
  const { from, to } = segment
  try {
    const bytes = await readNotes(reading.access, segment)
    return { timeline, from, to, notes: bytes.length === 0 ? NO_NOTES : decodeNotes(bytes) }
  } catch (error) {
    if (isFailure(error, 'key.role')) reading.areNotesRead = false
    else if (isDamage(error) && !isMerged(error))
      reading.bad.push({ name: logName(segment.place), message: error.message })
    else throw error
    return undefined
  }
}

/** Whether all that the pieces tell is later than the time asked for. */
function isBehind(pieces: readonly NotesPiece[], to: bigint | undefined): boolean {
  if (to === undefined) return false
  const times = pieces.flatMap(({ notes }) => notes.ends.map(({ at }) => at))
  return times.length > 0 && times.every((at) => at > to + CLOCK_SLACK_US)
}
