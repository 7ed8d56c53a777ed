/**
 * The notes along one history of a cluster, as a recovery from a base backup would read the log: only what
 * belongs to each timeline, each record once, and where something is missing in between.
 */
import type { LogNotes } from './log-notes.ts'
import type { Lsn, TimelineStep } from './lsn.ts'

/** Notes of positions [from, to) of a timeline's log. */
export interface NotesPiece {
  readonly timeline: number
  readonly from: Lsn
  readonly to: Lsn
  readonly notes: LogNotes
}

export interface BasePlace {
  readonly timeline: number
  /** Where replay begins: the redo position of its checkpoint. */
  readonly start: Lsn
  /** Where it becomes consistent: what the server said at its end. */
  readonly end: Lsn
}

export interface TargetLog {
  readonly base: BasePlace
  /** The one to be recovered to, and how it came to be. */
  readonly timeline: number
  readonly history: readonly TimelineStep[]
  /** In order of timelines, then of positions; what other timelines have is passed over. */
  readonly pieces: AsyncIterable<NotesPiece> | Iterable<NotesPiece>
}

type GivenList = 'ends' | 'points' | 'drops' | 'backupEnds'

/** What became known on the way. */
export interface LogWalk {
  readonly log: TargetLog
  /** The log is there from `base.start` up to here. */
  covered: Lsn
  /** Last whole record up to there. */
  last: { readonly lsn: Lsn; readonly end: Lsn } | undefined
  /** Log that is missing, or that could not be read when its notes were taken. */
  gap: { readonly from: Lsn; readonly to: Lsn } | undefined
  /** Latest mark of the chosen timeline; those of older ones say nothing of what came after the switch. */
  coveredTime: bigint | undefined
  /** Up to where the items of each list were given out: pieces may overlap. */
  readonly given: Record<GivenList, Lsn>
  /** Whether `last` is the last record of the piece before: then the next must follow on it. */
  isChained: boolean
}

/** What one piece adds. */
export interface Stretch extends Pick<
  LogNotes,
  'ends' | 'points' | 'drops' | 'dropsOmitted' | 'backupEnds' | 'names'
> {
  /** False after a gap: recovery does not come so far. */
  readonly isReachable: boolean
  /** False: it lies before the base; recovery does not read it. */
  readonly isReplayed: boolean
}

export function newLogWalk(log: TargetLog): LogWalk {
  return {
    log,
    covered: log.base.start,
    last: undefined,
    gap: undefined,
    coveredTime: undefined,
    given: { ends: -1n, points: -1n, drops: -1n, backupEnds: -1n },
    isChained: false,
  }
}

/** Takes the pieces in; what `walk` says of the log is true up to the stretch that was given last. */
export async function* walkLog(walk: LogWalk): AsyncGenerator<Stretch, void> {
  const { base, timeline, pieces } = walk.log
  for await (const piece of pieces) {
    const limit = endOf(walk.log, piece.timeline)
    if (limit === undefined || piece.from > limit) continue
    const { notes } = piece
    const isAfterBase = piece.to > base.start && limit > base.start
    if (isAfterBase) takePiece(walk, piece, limit)
    if (piece.timeline === timeline && walk.gap === undefined && !notes.isUnread)
      for (const { serverTime } of notes.marks)
        if (walk.coveredTime === undefined || serverTime > walk.coveredTime) walk.coveredTime = serverTime
    yield* stretchesOf(walk, notes, limit)
    // What was noted before reading failed counts; behind it there may be anything.
    if (notes.isUnread && isAfterBase) walk.gap ??= { from: walk.last?.end ?? piece.from, to: walk.covered }
  }
}

/** Whether the base lies on this history: a recovery could otherwise not begin. */
export function isOnHistory({ base, timeline, history }: TargetLog): boolean {
  const step = history.find((each) => each.timeline === base.timeline)
  return step === undefined ? base.timeline === timeline : base.end <= step.end
}

/** Where a timeline of the history was left; undefined if it is none of them. */
function endOf({ timeline, history }: TargetLog, of: number): Lsn | undefined {
  return of === timeline ? NEVER : history.find((step) => step.timeline === of)?.end
}

const NEVER = 1n << 64n

/** Notes what the piece covers, and gaps: of positions, or of records that no notes have. */
function takePiece(walk: LogWalk, { from, to, notes }: NotesPiece, limit: Lsn): void {
  if (walk.gap !== undefined) return
  if (from > walk.covered) {
    walk.gap = { from: walk.covered, to: from }
    return
  }
  const { span } = notes
  if (span !== undefined && span.first < limit) {
    const { last } = walk
    const follows =
      last === undefined
        ? span.first <= walk.log.base.start || span.previous < walk.log.base.start
        : span.first <= last.lsn || span.previous === last.lsn
    if ((last === undefined || walk.isChained) && !follows) {
      walk.gap = { from: last?.end ?? walk.log.base.start, to: span.first }
      return
    }
    noteLast(walk, notes, limit)
  }
  const end = to < limit ? to : limit
  if (end > walk.covered) walk.covered = end
}

function noteLast(walk: LogWalk, { span, ends }: LogNotes, limit: Lsn): void {
  const isWhole = span !== undefined && span.last < limit
  const last = isWhole ? { lsn: span.last, end: span.end } : ends.findLast(({ lsn }) => lsn < limit)
  walk.isChained = isWhole
  if (last !== undefined && (walk.last === undefined || last.lsn > walk.last.lsn)) walk.last = last
}

/** What of the notes is new: what lies before the base, then what recovery replays. */
function* stretchesOf(walk: LogWalk, notes: LogNotes, limit: Lsn): Generator<Stretch, void> {
  const { start } = walk.log.base
  const isReachable = walk.gap === undefined
  const ends = takeNew(walk, 'ends', notes.ends, limit)
  const points = takeNew(walk, 'points', notes.points, limit)
  const drops = takeNew(walk, 'drops', notes.drops, limit)
  const backupEnds = takeNew(walk, 'backupEnds', notes.backupEnds, limit)
  for (const isReplayed of [false, true]) {
    const pick = <T extends { readonly lsn: Lsn }>(list: readonly T[]): T[] =>
      list.filter(({ lsn }) => lsn >= start === isReplayed)
    yield {
      ends: pick(ends),
      points: pick(points),
      drops: pick(drops),
      backupEnds: pick(backupEnds),
      names: isReplayed ? [] : notes.names,
      dropsOmitted: isReplayed ? notes.dropsOmitted : 0,
      isReachable,
      isReplayed,
    }
  }
}

function takeNew<T extends { readonly lsn: Lsn }>(
  { given }: LogWalk,
  list: GivenList,
  items: readonly T[],
  limit: Lsn,
): T[] {
  const before = given[list]
  // Drops of one commit have one position, and may have come in two parts.
  const isNew = (lsn: Lsn): boolean => lsn > before || (list === 'drops' && lsn === before)
  const taken = items.filter(({ lsn }) => isNew(lsn) && lsn < limit)
  given[list] = taken.at(-1)?.lsn ?? before
  return taken
}
