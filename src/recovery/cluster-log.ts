/**
 * The log that takes a restored cluster from its backup to a target: which of it is needed, whether all of it
 * is there, and writing it where the server looks for it. Everything is decided before anything is written;
 * while it is written each record's checksum is looked at, so that no recovery ends early at a damaged place.
 *
 * The files go into `pg_wal` itself: the server reads them there at once, and removes what it has used.
 */
import { chownSync, closeSync, fchownSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { pathBytes } from '../base/file-entry.ts'
import { describeError, errnoOf, Failure, isFailure } from '../base/failure.ts'
import { startWriting } from '../base/posix.ts'
import type { Access } from '../repo/keys.ts'
import { coverage, missingPositions, type PositionRange } from '../repo/log-coverage.ts'
import { readLog } from '../repo/log-reader.ts'
import { rangesOf, type LogTable } from '../repo/log-table.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import {
  formatLsn,
  historyName,
  nextSegment,
  segmentName,
  segmentStart,
  type Lsn,
} from '../sources/postgres/lsn.ts'
import type { ReplayLimits } from '../sources/postgres/control-file.ts'
import { parseWalBranch, walBranch } from '../sources/postgres/wal-branch.ts'
import { feedWal, newWalReader, recordLsn, type OnRecord } from '../sources/postgres/wal-reader.ts'
import { newTablespaceFinder, type MadeTablespace } from './made-tablespaces.ts'
import { newLimitsFinder } from './replay-limits.ts'
import { newestTimeline, readTimelines, type Timelines } from './timelines.ts'

export const GOAL_HINT = 'Choose a moment, or a timeline, that `backstock timeline` shows.'

/** A position to recover to. */
export type RecoveryGoal =
  | { readonly kind: 'latest' }
  /** Exclusive: what is at the position stays out. */
  | { readonly kind: 'lsn'; readonly lsn: Lsn; readonly isExclusive: boolean }

export interface RecoveryPlan {
  readonly segmentBytes: number
  readonly goal: RecoveryGoal
  readonly timeline: number
  /**
   * Of all timelines behind the backup's, also beside the way: the server takes the next free number for its
   * own, and one that is taken would put two logs under one name.
   */
  readonly histories: readonly { readonly timeline: number; readonly text: string }[]
  /** In the order of the log; each begins at a WAL segment. */
  readonly stretches: readonly PlannedStretch[]
  /** Of all stretches. */
  readonly bytes: number
}

interface PlannedStretch extends PositionRange {
  /** Up to where the repository goes on with it; only where that is further. */
  readonly more?: Lsn
  readonly timeline: number
  readonly table: LogTable
}

/** What a server is told. */
export interface RecoveryTarget {
  /** The record at which it stops. */
  readonly lsn: Lsn
  readonly isInclusive: boolean
  readonly timeline: number
}

/**
 * What is to be done to bring `snapshot` to the goal; undefined when the log of the repository does not reach
 * beyond the backup and nothing more is wanted. Fails: restore.refused (the goal lies before the backup's
 * end, or where no log is; the message offers what can be had), storage.*.
 */
export async function planRecovery(
  access: Access,
  snapshot: StoredSnapshot,
  wanted: {
    readonly goal: RecoveryGoal
    readonly timeline: number | undefined
    readonly segmentBytes: number
  },
): Promise<RecoveryPlan | undefined> {
  const { log } = snapshot
  const base = log && parseWalBranch(log.branch)
  if (log === undefined || base === undefined)
    throw refused(`snapshot ${snapshot.id} does not say where its log is`)
  const { domain, source } = snapshot
  const known = await readTimelines(access, { domain, source, systemId: base.systemId })
  const { goal, segmentBytes } = wanted
  const end = BigInt(log.to)
  if (goal.kind === 'lsn' && goal.lsn < end)
    throw refused(
      `${formatLsn(goal.lsn)} lies before the end of the backup ${snapshot.id}, ${formatLsn(end)}`,
    )
  const held = BigInt(log.held ?? log.to)
  const begin = {
    timeline: base.timeline,
    lsn: beginOf(known, base.timeline, { end, held, segmentBytes }),
    end,
  }
  const timeline = wanted.timeline ?? newestTimeline(known, base.timeline, end)
  const { stretches, last } = planStretches(known, begin, { ...wanted, timeline })
  const bytes = stretches.reduce((sum, { from, to }) => sum + Number(to - from), 0)
  if (bytes === 0 && goal.kind === 'latest') return undefined
  const histories = historiesAbove(known, base.timeline)
  return { segmentBytes, goal, timeline: last, histories, stretches, bytes }
}

/**
 * A recovered server takes the number behind the first one without a history: also where only log is known,
 * or nothing, there has to be one.
 */
function historiesAbove(known: Timelines, timeline: number): { timeline: number; text: string }[] {
  const newest = Math.max(timeline, ...known.tables.keys(), ...known.histories.keys())
  return Array.from({ length: newest - timeline }, (_, nth) => {
    const id = timeline + 1 + nth
    return { timeline: id, text: known.histories.get(id)?.text ?? UNKNOWN_HISTORY }
  })
}

/** Never read by a server, which only looks whether there is one. */
const UNKNOWN_HISTORY = '# in use; its history is not known\n'

/**
 * Writes the log and its histories into `folder`, a cluster's `pg_wal`; not synced. Returns the record to
 * stop at, and what the log demands of the server. Fails: restore.failed (a record is damaged, the disk is
 * full), repo.corrupt, storage.*, cancelled.
 */
export async function writeRecoveryLog(
  access: Access,
  plan: RecoveryPlan,
  to: {
    readonly folder: string
    /** Of the server. */
    readonly major: number
    readonly owner: { readonly uid: number; readonly gid: number } | undefined
    readonly signal?: AbortSignal | undefined
    readonly onBytes?: ((bytes: number) => void) | undefined
  },
): Promise<WrittenLog> {
  const { goal, timeline } = plan
  const finder = newTablespaceFinder(to.major, plan.stretches[0]?.from ?? 0n)
  const limitsFinder = newLimitsFinder(to.major)
  const seen: SeenRecords = {
    goal: goal.kind === 'lsn' ? goal.lsn : undefined,
    last: undefined,
    hit: undefined,
    look: (...record) => {
      finder.look(...record)
      limitsFinder.look(...record)
    },
  }
  for (const stretch of plan.stretches) await writeStretch(access, plan, { stretch, seen }, to)
  for (const { timeline: id, text } of plan.histories) {
    const path = pathBytes(join(to.folder, historyName(id)))
    onDisk(to.folder, () => writeFileSync(path, text, { mode: 0o600 }))
    if (to.owner !== undefined) chownSync(path, to.owner.uid, to.owner.gid)
  }
  const demands = { made: finder.made, limits: limitsFinder.limits }
  // A server that finds no record at the position or behind it does not stop there: it fails.
  if (goal.kind === 'lsn' && seen.hit !== undefined)
    return { target: { lsn: seen.hit, isInclusive: !goal.isExclusive, timeline }, ...demands }
  // There is no whole record behind the backup: it is as far as the log goes.
  if (seen.last === undefined) return { target: undefined, ...demands }
  return { target: { lsn: seen.last, isInclusive: true, timeline }, ...demands }
}

export interface WrittenLog {
  readonly target: RecoveryTarget | undefined
  readonly made: readonly MadeTablespace[]
  readonly limits: readonly ReplayLimits[]
}

/** Of the records that were written. */
interface SeenRecords {
  /** Also looks at each. */
  readonly look: OnRecord
  readonly goal: Lsn | undefined
  last: Lsn | undefined
  /** The first one at the goal or behind it, of the newest timeline. */
  hit: Lsn | undefined
}

/** Timeline by timeline from the backup's to the wanted one; the last as far as the goal asks for. */
function planStretches(
  known: Timelines,
  begin: { readonly timeline: number; readonly lsn: Lsn; readonly end: Lsn },
  wanted: { readonly goal: RecoveryGoal; readonly timeline: number; readonly segmentBytes: number },
): { stretches: PlannedStretch[]; last: number } {
  const { goal, segmentBytes } = wanted
  let { timeline } = wanted
  const steps = timeline === begin.timeline ? [] : (known.histories.get(timeline)?.steps ?? [])
  if (timeline !== begin.timeline && !steps.some((step) => step.timeline === begin.timeline))
    throw refused(`timeline ${timeline} does not come from timeline ${begin.timeline} of the backup`)
  const stretches: PlannedStretch[] = []
  let from = begin.lsn
  for (const step of steps.filter((each) => each.timeline >= begin.timeline)) {
    if (step.timeline === begin.timeline && step.end < begin.end)
      throw refused(`timeline ${timeline} left timeline ${step.timeline} before the backup ended`)
    // A goal before the switch lies on this timeline, whichever came later.
    if (goal.kind === 'lsn' && goal.lsn < step.end) {
      timeline = step.timeline
      break
    }
    // The segment in which a timeline was left is whole in the next one.
    const to = segmentStart(step.end, segmentBytes)
    if (to <= from) continue
    stretches.push(coveredStretch(known, step.timeline, { from, to }))
    from = to
  }
  const table = known.tables.get(timeline)
  const whole = table === undefined ? [] : coverage(rangesOf(table))
  const reach = whole.find((range) => range.from <= from && from <= range.to)
  const end = reach?.to ?? from
  refuseGap(whole, { from, end, goal })
  if (table === undefined || end === from) {
    if (goal.kind === 'lsn') throw tooFar(goal.lsn, from)
    return { stretches, last: timeline }
  }
  if (goal.kind === 'lsn' && goal.lsn >= end) throw tooFar(goal.lsn, end)
  // The record at the goal reaches into the next segment, seldom further: writeStretch() sees.
  const needed = goal.kind === 'lsn' ? nextSegment(goal.lsn + 1n, segmentBytes) + BigInt(segmentBytes) : end
  stretches.push({ timeline, table, from, ...(needed < end ? { to: needed, more: end } : { to: end }) })
  return { stretches, last: timeline }
}

function coveredStretch(known: Timelines, timeline: number, range: PositionRange): PlannedStretch {
  const table = known.tables.get(timeline)
  const missing = missingPositions(table === undefined ? [] : coverage(rangesOf(table)), range)
  const [first] = missing
  if (table !== undefined && first === undefined) return { ...range, timeline, table }
  const { from, to } = first ?? range
  const is = `the repository lacks the log from ${formatLsn(from)} to ${formatLsn(to)}`
  throw refused(`${is} of timeline ${timeline}, ${walBranch(known.systemId, timeline)}`)
}

/** "Latest" must not quietly mean "before the gap". */
function refuseGap(
  whole: readonly PositionRange[],
  { from, end, goal }: { readonly from: Lsn; readonly end: Lsn; readonly goal: RecoveryGoal },
): void {
  const later = whole.find((range) => range.from > end)
  if (later === undefined || (goal.kind === 'lsn' && goal.lsn < end)) return
  const gap = `the log has a gap from ${formatLsn(end)} to ${formatLsn(later.from)}`
  const offer = end > from ? `--lsn ${formatLsn(end - 1n)} goes as far as can be` : 'take a later snapshot'
  throw refused(`${gap} (${offer})`)
}

function tooFar(lsn: Lsn, end: Lsn): Failure {
  return refused(`${formatLsn(lsn)} lies beyond the log, which ends at ${formatLsn(end)}`)
}

function refused(is: string): Failure {
  return new Failure('restore.refused', `Cannot recover the cluster: ${is}`, { facts: { hint: GOAL_HINT } })
}

function failed(is: string, cause?: unknown): Failure {
  return new Failure('restore.failed', `Cannot write the log for the recovery: ${is}`, { cause })
}

/**
 * The backup's last segment is written again from the log where that has it: other sessions may have written
 * behind the backup's end, and the backup of a standby ends amid a segment. Without it a standby's backup
 * cannot go on.
 */
function beginOf(
  known: Timelines,
  timeline: number,
  { end, held, segmentBytes }: { readonly end: Lsn; readonly held: Lsn; readonly segmentBytes: number },
): Lsn {
  const table = known.tables.get(timeline)
  const start = segmentStart(end, segmentBytes)
  const whole = table === undefined ? [] : coverage(rangesOf(table))
  const isHeld = held === nextSegment(end, segmentBytes)
  return isHeld && !whole.some(({ from, to }) => from <= start && end <= to) ? held : start
}

interface OpenFile {
  readonly fd: number
  readonly start: Lsn
}

/** Writes whole segment files, the last one filled up with zeros. */
async function writeStretch(
  access: Access,
  { segmentBytes }: RecoveryPlan,
  { stretch, seen }: { readonly stretch: PlannedStretch; readonly seen: SeenRecords },
  to: Parameters<typeof writeRecoveryLog>[2],
): Promise<void> {
  const { timeline, from } = stretch
  seen.hit = undefined
  const onRecord: OnRecord = (bytes, recordAt, length, given) => {
    seen.last = recordLsn(given)
    seen.look(bytes, recordAt, length, given)
    if (seen.goal !== undefined && seen.last >= seen.goal) seen.hit ??= seen.last
  }
  const reader = newWalReader({ from, segmentBytes, checkCrc: true, onRecord })
  let at = from
  let file: OpenFile | undefined
  try {
    for await (const piece of readStretch(access, stretch, { seen, segmentBytes, ...signalOf(to) })) {
      const bytes = Buffer.from(piece.buffer, piece.byteOffset, piece.length)
      checkRecords(reader, bytes)
      for (let done = 0; done < bytes.length;) {
        if (file === undefined || at >= file.start + BigInt(segmentBytes)) {
          if (file !== undefined) closeWritten(file)
          file = openFile(to, segmentName(timeline, at, segmentBytes), at)
        }
        const room = Number(file.start + BigInt(segmentBytes) - at)
        const count = writeAt(to.folder, file, bytes.subarray(done, done + room), at)
        done += count
        at += BigInt(count)
      }
      to.onBytes?.(bytes.length)
    }
    if (reader.endedAt !== undefined && reader.endedAt < at)
      throw failed(`it ends at ${formatLsn(reader.endedAt)}, before ${formatLsn(at)}`)
    if (file !== undefined) fillUp(to.folder, file, { at, segmentBytes })
  } finally {
    if (file !== undefined) closeSync(file.fd)
  }
}

/** Goes on by segments beyond the stretch until the record at the goal was whole; one takes up to 1 GiB. */
async function* readStretch(
  access: Access,
  { table, from, to, more }: PlannedStretch,
  on: { readonly seen: SeenRecords; readonly segmentBytes: number; readonly signal?: AbortSignal },
): AsyncGenerator<Uint8Array, void> {
  const { seen, segmentBytes, ...signal } = on
  yield* readLog(access, table, { from, to, ...signal })
  const limit = more ?? to
  for (let at = to; at < limit && seen.hit === undefined;) {
    const next = at + BigInt(segmentBytes)
    const end = next < limit ? next : limit
    yield* readLog(access, table, { from: at, to: end, ...signal })
    at = end
  }
}

function signalOf({ signal }: { readonly signal?: AbortSignal | undefined }): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal }
}

function checkRecords(reader: Parameters<typeof feedWal>[0], bytes: Buffer): void {
  try {
    feedWal(reader, bytes)
  } catch (error) {
    if (!isFailure(error)) throw error
    throw failed(`it is damaged: ${error.message}`, error)
  }
}

function openFile(
  { folder, owner }: Parameters<typeof writeRecoveryLog>[2],
  name: string,
  start: Lsn,
): OpenFile {
  return onDisk(folder, () => {
    const fd = openSync(pathBytes(join(folder, name)), 'w', 0o600)
    if (owner !== undefined) fchownSync(fd, owner.uid, owner.gid)
    return { fd, start }
  })
}

function closeWritten({ fd }: OpenFile): void {
  startWriting(fd)
  closeSync(fd)
}

function writeAt(folder: string, { fd, start }: OpenFile, bytes: Buffer, at: Lsn): number {
  return onDisk(folder, () => writeSync(fd, bytes, 0, bytes.length, Number(at - start)))
}

/** A server takes only files of full length; behind the log are zeros, where it stops. */
function fillUp(
  folder: string,
  file: OpenFile,
  to: { readonly at: Lsn; readonly segmentBytes: number },
): void {
  const zeros = Buffer.alloc(64 * 1024)
  const end = file.start + BigInt(to.segmentBytes)
  for (let at = to.at; at < end;) {
    const rest = Number(end - at)
    at += BigInt(writeAt(folder, file, zeros.subarray(0, Math.min(zeros.length, rest)), at))
  }
}

function onDisk<T>(folder: string, call: () => T): T {
  try {
    return call()
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    throw failed(`"${folder}": ${describeError(error)}`, error)
  }
}
