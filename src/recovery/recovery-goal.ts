/**
 * From what a person wants (a time, a restore point, "before the DROP") to a snapshot and a position of the
 * log, by the notes that were shipped with it. Nothing is written.
 */
import { Failure, isFailure } from '../base/failure.ts'
import type { Access } from '../repo/keys.ts'
import { coverage } from '../repo/log-coverage.ts'
import { readNotes } from '../repo/log-reader.ts'
import { rangesOf, segmentsOf, type LogSegment } from '../repo/log-table.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import type { Lsn } from '../sources/postgres/lsn.ts'
import { NO_NOTES } from '../sources/postgres/log-notes.ts'
import { decodeNotes } from '../sources/postgres/notes-codec.ts'
import { resolveTarget, type ResolvedTarget, type WantedTarget } from '../sources/postgres/recovery-target.ts'
import type { NotesPiece, TargetLog } from '../sources/postgres/target-log.ts'
import { parseWalBranch } from '../sources/postgres/wal-branch.ts'
import { newestTimeline, readTimelines, type Timelines } from './timelines.ts'

export interface ResolvedGoal {
  /** The backup that the recovery begins with. */
  readonly snapshot: StoredSnapshot
  readonly target: ResolvedTarget
}

/**
 * The newest of `snapshots` (of one source, in any order) from which the target can be reached, and where it
 * is. Fails: restore.refused with the nearest points, source.gap, repo.nosnapshot, storage.*.
 */
export async function resolveGoal(
  access: Access,
  snapshots: readonly StoredSnapshot[],
  wanted: { readonly target: WantedTarget; readonly timeline: number | undefined },
): Promise<ResolvedGoal> {
  const known = new Map<string, Timelines>()
  let refusal: Failure | undefined
  for (const snapshot of snapshots.toSorted((a, b) => b.counter - a.counter)) {
    const base = snapshot.log && parseWalBranch(snapshot.log.branch)
    if (snapshot.log === undefined || base === undefined) continue
    const { target } = wanted
    // The notes may begin behind a commit that came after the moment and before the backup.
    if (target.kind === 'time' && BigInt(Date.parse(snapshot.completed)) * 1000n > target.at) {
      refusal ??= tooEarly(snapshot)
      continue
    }
    const { domain, source } = snapshot
    const timelines =
      known.get(base.systemId) ?? (await readTimelines(access, { domain, source, systemId: base.systemId }))
    known.set(base.systemId, timelines)
    try {
      const log = targetLog(access, timelines, { snapshot, base: base.timeline, timeline: wanted.timeline })
      return { snapshot, target: await resolveTarget(log, wanted.target) }
    } catch (error) {
      // An older backup may lie before the target; if none does, the newest one's answer says most.
      if (!isFailure(error, 'restore.refused') && !isFailure(error, 'source.gap')) throw error
      refusal ??= error
    }
  }
  throw refusal ?? new Failure('repo.nosnapshot', 'Cannot recover: no snapshot says where its log is')
}

function tooEarly({ id, completed }: StoredSnapshot): Failure {
  const is = `the moment lies before the end of each backup with log; ${id} was completed at ${completed}`
  return new Failure('restore.refused', `Cannot recover the cluster: ${is}`)
}

function targetLog(
  access: Access,
  timelines: Timelines,
  of: { readonly snapshot: StoredSnapshot; readonly base: number; readonly timeline: number | undefined },
): TargetLog {
  const { snapshot, base } = of
  const [start, end] = [BigInt(snapshot.log?.from ?? 0), BigInt(snapshot.log?.to ?? 0)]
  const timeline = of.timeline ?? newestTimeline(timelines, base, end)
  const history = timelines.histories.get(timeline)?.steps ?? []
  const chain = [...history.map((step) => step.timeline), timeline].filter((id) => id >= base)
  const table = timelines.tables.get(base)
  const covered = table === undefined ? [] : coverage(rangesOf(table))
  // The backup holds its own log: what is shipped need only go on from its end.
  const hasStart = covered.some(({ from, to }) => from <= start && end <= to)
  return {
    base: { timeline: base, start: hasStart ? start : firstCovered(covered, start, end), end },
    timeline,
    history,
    pieces: notesOf(access, timelines, chain),
  }
}

function firstCovered(covered: readonly { from: Lsn; to: Lsn }[], start: Lsn, end: Lsn): Lsn {
  return covered.find(({ from, to }) => to > end && from >= start)?.from ?? start
}

/** Whole segments, and of the tails those that no segment covers. */
async function* notesOf(
  access: Access,
  timelines: Timelines,
  chain: readonly number[],
): AsyncGenerator<NotesPiece, void> {
  for (const timeline of chain) {
    const table = timelines.tables.get(timeline)
    if (table === undefined) continue
    let coveredTo = -1n
    for (const segment of segmentsOf(table)) {
      if (segment.to <= coveredTo && segment.from < segment.to) continue
      if (segment.to > coveredTo) coveredTo = segment.to
      yield await pieceOf(access, timeline, segment)
    }
  }
}

async function pieceOf(access: Access, timeline: number, segment: LogSegment): Promise<NotesPiece> {
  const bytes = await readNotes(access, segment)
  const notes = bytes.length === 0 ? NO_NOTES : decodeNotes(bytes)
  return { timeline, from: segment.from, to: segment.to, notes }
}
