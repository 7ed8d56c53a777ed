/**
 * How far a cluster's log goes on from a position without a gap, through the timelines that come from there.
 * Pure; needs headers only.
 */
import { coverage, type PositionRange } from '../repo/log-coverage.ts'
import { rangesOf } from '../repo/log-table.ts'
import type { Lsn } from '../sources/postgres/lsn.ts'
import { newestTimeline, type Timelines } from './timelines.ts'

const NEVER = 1n << 64n

export interface LogPosition {
  readonly timeline: number
  readonly lsn: Lsn
}

export interface LogReach {
  /** Up to where it goes on; where it was asked from, if nothing does. */
  readonly end: LogPosition
  /** What is missing behind `end` before there is log again; undefined if there is none. */
  readonly gap: (PositionRange & { readonly timeline: number }) | undefined
  /** The log begins only behind the position: nothing was shipped before. */
  readonly isBefore: boolean
}

/** `held`: up to there the log need not be stored, since the snapshot holds it. */
export function followLog(known: Timelines, from: LogPosition & { readonly held: Lsn }): LogReach {
  const newest = newestTimeline(known, from.timeline, from.lsn)
  const steps = (known.histories.get(newest)?.steps ?? []).filter((step) => step.timeline >= from.timeline)
  const chain = [...(newest === from.timeline ? [] : steps), { timeline: newest, end: NEVER }]
  let [lsn, timeline] = [from.lsn, from.timeline]
  let isBefore = true
  for (const step of chain) {
    const stretches = stretchesOf(known, step.timeline).filter((stretch) => stretch.from < step.end)
    isBefore &&= !stretches.some((stretch) => stretch.from <= from.lsn)
    const reach = lsn === from.lsn && isBefore ? from.held : lsn
    const hit = stretches.find((stretch) => stretch.from <= reach && stretch.to >= lsn)
    if (hit !== undefined) {
      lsn = hit.to < step.end ? hit.to : step.end
      timeline = step.timeline
    }
    const later = stretches.find((stretch) => stretch.from > lsn)
    if (later !== undefined) {
      const gap = { timeline: step.timeline, from: lsn, to: later.from }
      return { end: { timeline, lsn }, gap, isBefore }
    }
  }
  return { end: { timeline, lsn }, gap: undefined, isBefore }
}

/** Whether there is any log of the cluster. */
export function hasLog(known: Timelines): boolean {
  return [...known.tables.values()].some((table) => table.count > 0)
}

function stretchesOf({ tables }: Timelines, timeline: number): PositionRange[] {
  const table = tables.get(timeline)
  return table === undefined ? [] : coverage(rangesOf(table))
}
