/**
 * Which file of an inbox comes next: a pure function of where the spool ends and what is there. Servers hand
 * files over in the order of the log, but for several commands at once, and histories, which come first.
 */
import type { InboxSegment } from './archive-inbox.ts'
import { historyName, segmentName, segmentStart, type Lsn, type TimelineStep } from './lsn.ts'
import type { LogPosition } from './spool.ts'

export interface ArchiveView {
  /** The end of the spool; undefined: it is empty. */
  readonly position: LogPosition | undefined
  readonly segmentBytes: number
  /** Oldest first. */
  readonly segments: readonly InboxSegment[]
  /** Where a timeline comes from; undefined: its history did not come. */
  readonly historyOf: (timeline: number) => readonly TimelineStep[] | undefined
}

export type NextFile =
  /** Goes on at the end of the spool, or was stored before. */
  | { readonly kind: 'take'; readonly segment: InboxSegment }
  /** Begins its timeline, which left the spool's last one at `switchLsn`. */
  | { readonly kind: 'switch'; readonly segment: InboxSegment; readonly switchLsn: Lsn }
  /** Of a timeline that was left. */
  | { readonly kind: 'old'; readonly segment: InboxSegment }
  /** `later` is there, but nothing leads to it without the file `name`. */
  | { readonly kind: 'missing'; readonly name: string; readonly later: string }
  /** Its timeline does not come from the spool's last one. */
  | { readonly kind: 'diverged'; readonly segment: InboxSegment }

/** undefined: nothing is there. */
export function nextFile(view: ArchiveView): NextFile | undefined {
  const { position, segments, segmentBytes } = view
  const whole = segments.find(({ isPartial }) => !isPartial)
  if (position === undefined) return whole && { kind: 'take', segment: whole }
  const { timeline, lsn } = position
  const wanted = segmentStart(lsn, segmentBytes)
  const old = segments.find((segment) => segment.timeline < timeline)
  if (old !== undefined) return { kind: 'old', segment: old }
  const own = segments.find((segment) => segment.timeline === timeline && segment.start <= wanted)
  if (own !== undefined) return { kind: 'take', segment: own }
  return nextTimeline(view, position) ?? missing(view, position)
}

/** Of later timelines only the first counts: what comes from it is looked at when it is there. */
function nextTimeline(view: ArchiveView, { timeline, lsn }: LogPosition): NextFile | undefined {
  const segment = view.segments.find((one) => one.timeline > timeline)
  const history = segment && view.historyOf(segment.timeline)
  if (segment === undefined || history === undefined) return undefined
  const left = history.find((step) => step.timeline === timeline)
  if (left === undefined) return { kind: 'diverged', segment }
  const isFirst = segmentStart(left.end, view.segmentBytes) === segment.start
  return isFirst && segment.start <= lsn ? { kind: 'switch', segment, switchLsn: left.end } : undefined
}

function missing(view: ArchiveView, { timeline, lsn }: LogPosition): NextFile | undefined {
  const { segments, segmentBytes, historyOf } = view
  const [later] = segments
  if (later === undefined) return undefined
  const own = segmentName(timeline, lsn, segmentBytes)
  if (later.timeline === timeline) return { kind: 'missing', name: own, later: later.name }
  const history = historyOf(later.timeline)
  if (history === undefined) return { kind: 'missing', name: historyName(later.timeline), later: later.name }
  const end = history.find((step) => step.timeline === timeline)?.end ?? 0n
  const isReached = segmentStart(end, segmentBytes) <= lsn
  const name = isReached ? segmentName(later.timeline, end, segmentBytes) : own
  return { kind: 'missing', name, later: later.name }
}
