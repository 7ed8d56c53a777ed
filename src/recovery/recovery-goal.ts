/**
 * From what a person wants (a time, a restore point, "before the DROP") to a snapshot and a position of the
 * log, by the notes that were shipped with it. Nothing is written.
 */
import { Failure, isFailure } from '../base/failure.ts'
import type { Access } from '../repo/keys.ts'
import { coverage } from '../repo/log-coverage.ts'
import { rangesOf } from '../repo/log-table.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import type { Lsn } from '../sources/postgres/lsn.ts'
import {
  joinRefusals,
  resolveTarget,
  type ResolvedTarget,
  type WantedTarget,
} from '../sources/postgres/recovery-target.ts'
import type { TargetLog } from '../sources/postgres/target-log.ts'
import { parseWalBranch } from '../sources/postgres/wal-branch.ts'
import { goalNotes, newNotesCache, type NotesCache } from './goal-notes.ts'
import { GOAL_HINT } from './cluster-log.ts'
import { againWhenMerged } from './merged.ts'
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
  wanted: WantedGoal,
): Promise<ResolvedGoal> {
  const cache = newNotesCache(access)
  return await againWhenMerged(() => resolveOnce(cache, snapshots, wanted))
}

interface WantedGoal {
  readonly target: WantedTarget
  readonly timeline: number | undefined
}

async function resolveOnce(
  cache: NotesCache,
  snapshots: readonly StoredSnapshot[],
  wanted: WantedGoal,
): Promise<ResolvedGoal> {
  const { access } = cache
  const known = new Map<string, Timelines>()
  const refusals: Failure[] = []
  for (const snapshot of snapshots.toSorted((a, b) => b.counter - a.counter)) {
    const base = snapshot.log && parseWalBranch(snapshot.log.branch)
    if (snapshot.log === undefined || base === undefined) continue
    const { target } = wanted
    // The notes may begin behind a commit that came after the moment and before the backup.
    if (target.kind === 'time' && BigInt(Date.parse(snapshot.completed)) * 1000n > target.at) {
      refusals.push(tooEarly(snapshot))
      continue
    }
    const { domain, source } = snapshot
    const timelines =
      known.get(base.systemId) ?? (await readTimelines(access, { domain, source, systemId: base.systemId }))
    known.set(base.systemId, timelines)
    try {
      const log = targetLog(cache, timelines, { snapshot, base: base.timeline, wanted })
      return { snapshot, target: await resolveTarget(log, wanted.target) }
    } catch (error) {
      // An older backup may lie before the target; if none does, the newest one's answer says most.
      if (!isFailure(error, 'restore.refused') && !isFailure(error, 'source.gap')) throw error
      refusals.push(error)
    }
  }
  const [newest, ...older] = refusals
  if (newest !== undefined) throw joinRefusals([newest, ...older])
  throw new Failure('repo.nosnapshot', 'Cannot recover: no snapshot says where its log is')
}

const NAMED: readonly WantedTarget['kind'][] = ['drop', 'name', 'xid']

function tooEarly({ id, completed }: StoredSnapshot): Failure {
  const is = `the moment lies before the end of each backup with log; ${id} was completed at ${completed}`
  return new Failure('restore.refused', `Cannot recover the cluster: ${is}`, { facts: { hint: GOAL_HINT } })
}

function targetLog(
  cache: NotesCache,
  timelines: Timelines,
  of: { readonly snapshot: StoredSnapshot; readonly base: number; readonly wanted: WantedGoal },
): TargetLog {
  const { snapshot, base, wanted } = of
  const [start, end] = [BigInt(snapshot.log?.from ?? 0), BigInt(snapshot.log?.to ?? 0)]
  const timeline = wanted.timeline ?? newestTimeline(timelines, base, end)
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
    // Before the backup there are names, and better answers than "unknown".
    pieces: goalNotes(cache, timelines, { chain, from: NAMED.includes(wanted.target.kind) ? 0n : start }),
  }
}

function firstCovered(covered: readonly { from: Lsn; to: Lsn }[], start: Lsn, end: Lsn): Lsn {
  return covered.find(({ from, to }) => to > end && from >= start)?.from ?? start
}
