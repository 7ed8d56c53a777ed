/**
 * From what a person wants (a time, a name, a transaction, "before the DROP") to the one position that makes
 * PostgreSQL stop there: recovery_target_lsn, recovery_target_inclusive, recovery_target_timeline. Pure; it
 * reads notes only, and refuses what a recovery would not reach, before anything is touched.
 *
 * The rules are those of recoveryStopsBefore() and recoveryStopsAfter() in xlogrecovery.c. Inclusive, it
 * stops after the first record that begins at or behind the position; exclusive, before that. Such a record
 * has to be there: at the end of the log the server fails instead of stopping.
 */
import { Failure, type FailureFacts } from '../../base/failure.ts'
import type { DropNote, TransactionNote } from './log-notes.ts'
import { formatLsn, timelineAt, type Lsn } from './lsn.ts'
import { addNames, newNameHistory, nameAt, matchesName, type NameHistory } from './name-history.ts'
import { describeOffer, describeTarget, formatTime } from './target-words.ts'
import { isOnHistory, newLogWalk, walkLog, type LogWalk, type Stretch, type TargetLog } from './target-log.ts'

/** `at` is Unix time in microseconds. */
export type WantedTarget =
  | { readonly kind: 'latest' | 'immediate' }
  /** Inclusive: with the transactions of just this time. */
  | { readonly kind: 'time'; readonly at: bigint; readonly isInclusive: boolean }
  | { readonly kind: 'lsn'; readonly lsn: Lsn; readonly isInclusive: boolean }
  /** The first restore point of that name after the base. */
  | { readonly kind: 'name'; readonly name: string }
  /** Also that of a savepoint, or of a prepared transaction; inclusive: with it. */
  | { readonly kind: 'xid'; readonly xid: number; readonly isInclusive: boolean }
  /** Before the newest drop of a relation or database: `orders`, `public.orders`, `shop.public.orders`. */
  | { readonly kind: 'drop'; readonly name: string }

export interface ResolvedTarget {
  /** recovery_target_lsn */
  readonly lsn: Lsn
  /** recovery_target_inclusive */
  readonly isInclusive: boolean
  /** recovery_target_timeline */
  readonly timeline: number
  /** Last commit in the log that is kept; undefined: there is none behind the start of the base. */
  readonly kept: PointOffer | undefined
  /** What the rest of the log has. */
  readonly lost: LostCommits
  readonly clock: ClockFindings
  /** The nearest other choices: before it, and behind it. */
  readonly alternatives: readonly PointOffer[]
}

export interface LostCommits {
  readonly count: number
  readonly first: PointOffer | undefined
  readonly last: PointOffer | undefined
}

/** Times of commits need not ascend: clocks are set, and two commits at once may be logged the other way. */
export interface ClockFindings {
  /** How far the clock went back at most, in microseconds; 0 when times ascend. */
  readonly stepBack: bigint
  readonly steppedAt: Lsn | undefined
  /** Of the lost commits those whose time is not after the wanted one. */
  readonly lostEarlier: number
}

/** A point that can be recovered to. `at` is undefined where no time is known. */
export interface PointOffer {
  readonly what: 'base' | 'commit' | 'restore point' | 'drop' | 'end of log'
  readonly lsn: Lsn
  readonly at: bigint | undefined
  readonly name?: string
  readonly xid?: number
}

interface Stop {
  readonly lsn: Lsn
  readonly isInclusive: boolean
}

interface Resolving {
  readonly wanted: WantedTarget
  readonly log: TargetLog
  readonly walk: LogWalk
  readonly names: NameHistory
  stop: Stop | undefined
  /** The stop lies behind a gap. */
  isCutOff: boolean
  keptLast: TransactionNote | undefined
  lostCount: number
  lostFirst: TransactionNote | undefined
  lostLast: TransactionNote | undefined
  lostEarlier: number
  latestTime: bigint | undefined
  stepBack: bigint
  steppedAt: Lsn | undefined
  dropsOmitted: number
  /** Why something that was found does not do. */
  misfit: string | undefined
  /** Restore points or drops that were seen, the newest OFFERS_MAX. */
  readonly seen: PointOffer[]
}

/** With what a person can have instead: several bases may be asked in turn. */
class TargetRefusal extends Failure {
  readonly wanted: WantedTarget
  readonly is: string
  readonly offers: readonly PointOffer[]

  constructor(refusal: Pick<TargetRefusal, 'code' | 'facts' | 'wanted' | 'is' | 'offers'>) {
    const { code, facts, wanted, is, offers } = refusal
    const nearest = offers.map(describeOffer).join('; ')
    super(code, `Cannot recover to ${describeTarget(wanted)}: ${is} (nearest: ${nearest})`, { facts })
    this.wanted = wanted
    this.is = is
    this.offers = offers
  }
}

const OFFERS_MAX = 5
const HINT = 'Choose one of the points that are offered, or an older or newer base.'
const TIME_HINT =
  'Leave the time away for the end of the log. Streamed log is known until a moment about a minute after it.'

/**
 * Reads the notes to their end, since what is lost is part of the answer. `names` is what is known from
 * before the pieces. Fails: restore.refused with the nearest points, source.gap.
 */
export async function resolveTarget(
  log: TargetLog,
  wanted: WantedTarget,
  names: NameHistory = newNameHistory(),
): Promise<ResolvedTarget> {
  if (!isOnHistory(log))
    throw new Failure(
      'restore.refused',
      `Cannot recover to timeline ${log.timeline}: the base of timeline ${log.base.timeline} ` +
        `ends at ${formatLsn(log.base.end)} and is not on its history`,
      { facts: { hint: 'Choose a base that was made before the timeline was left.' } },
    )
  const state = newResolving(log, wanted, names)
  for await (const stretch of walkLog(state.walk)) {
    addNames(names, stretch.names)
    state.dropsOmitted += stretch.dropsOmitted
    if (stretch.isReplayed) {
      findStop(state, stretch)
      countEnds(state, stretch)
    } else lookBefore(state, stretch)
  }
  return finish(state)
}

/**
 * The first of the refusals of one target, those of resolveTarget() with what is like the wanted one along
 * the logs of all: the newest OFFERS_MAX.
 */
export function joinRefusals([first, ...others]: readonly [Failure, ...Failure[]]): Failure {
  if (!(first instanceof TargetRefusal)) return first
  const own = new Set(first.offers.map(describeOffer))
  const more = new Map(
    others
      .flatMap((each) => (each instanceof TargetRefusal ? each.offers : []))
      .filter((each) => each.name !== undefined && !own.has(describeOffer(each)))
      .map((each) => [describeOffer(each), each]),
  )
  const { code, facts, wanted, is } = first
  const named = [...more.values()].toSorted((a, b) => Number(a.lsn - b.lsn)).slice(-OFFERS_MAX)
  return new TargetRefusal({ code, facts, wanted, is, offers: [...first.offers, ...named] })
}

function newResolving(log: TargetLog, wanted: WantedTarget, names: NameHistory): Resolving {
  return {
    wanted,
    log,
    walk: newLogWalk(log),
    names,
    stop: undefined,
    isCutOff: false,
    keptLast: undefined,
    lostCount: 0,
    lostFirst: undefined,
    lostLast: undefined,
    lostEarlier: 0,
    latestTime: undefined,
    stepBack: 0n,
    steppedAt: undefined,
    dropsOmitted: 0,
    misfit: undefined,
    seen: [],
  }
}

function findStop(state: Resolving, stretch: Stretch): void {
  const { wanted, log } = state
  if (wanted.kind === 'drop') {
    findDrop(state, stretch, wanted.name)
    return
  }
  if (state.stop !== undefined) return
  const { end } = log.base
  switch (wanted.kind) {
    case 'latest':
      return
    case 'immediate': {
      // A standby's backup has no such record; it is consistent where its end says.
      const record = stretch.backupEnds.find((each) => each.end === end)
      if (record !== undefined) setStop(state, stretch, { lsn: record.lsn, isInclusive: true })
      return
    }
    case 'lsn':
      setStop(state, stretch, wanted)
      return
    case 'name':
      findPoint(state, stretch, wanted.name)
      return
    case 'time': {
      const { at, isInclusive } = wanted
      const first = stretch.ends.find((each) => (isInclusive ? each.at > at : each.at >= at))
      if (first === undefined) return
      if (first.lsn < end) throw tooEarly(state, `a transaction of ${formatTime(first.at)} lies before that`)
      setStop(state, stretch, { lsn: first.lsn, isInclusive: false })
      return
    }
    case 'xid': {
      const { xid, isInclusive } = wanted
      const found = findTransaction(state, stretch.ends, xid)
      if (found === undefined) return
      const reached = isInclusive ? found.end : found.lsn
      if (reached < end) throw tooEarly(state, `transaction ${xid} ended at ${formatLsn(found.lsn)}`)
      setStop(state, stretch, { lsn: found.lsn, isInclusive })
    }
  }
}

/** What ended before the base is no target, but a better answer than "unknown". */
function lookBefore(state: Resolving, { ends, points, drops }: Stretch): void {
  const { wanted } = state
  const before = 'before this base'
  if (wanted.kind === 'xid') {
    const found = ends.find((each) => holds(each, wanted.xid) && !each.isThinned)
    if (found !== undefined) state.misfit = `it ended at ${formatLsn(found.lsn)}, ${before}`
  } else if (wanted.kind === 'name') {
    const found = points.findLast(({ name }) => name === wanted.name)
    if (found !== undefined) state.misfit = `it was made at ${formatLsn(found.lsn)}, ${before}`
  } else if (wanted.kind === 'drop') {
    const found = drops.findLast((drop) => isNamed(state, drop, wanted.name))
    if (found !== undefined) state.misfit = `it was dropped at ${formatLsn(found.lsn)}, ${before}`
  }
}

function findPoint(state: Resolving, stretch: Stretch, name: string): void {
  for (const point of stretch.points) {
    if (point.name !== name) offer(state, { what: 'restore point', ...point })
    else if (point.lsn < state.log.base.end)
      state.misfit = `it was made at ${formatLsn(point.lsn)}, while this base was made`
    else if (state.stop === undefined) setStop(state, stretch, { lsn: point.lsn, isInclusive: true })
    else offer(state, { what: 'restore point', ...point })
  }
}

/** The newest one counts: commits that were given up for an older one are kept after all. */
function findDrop(state: Resolving, stretch: Stretch, name: string): void {
  for (const drop of stretch.drops) {
    const { lsn, at, xid } = drop
    const known = nameAt(state.names, drop.files, lsn)
    if (known === undefined) continue
    if (!isNamed(state, drop, name)) {
      offer(state, { what: 'drop', lsn, at, xid, name: `${known.schema}.${known.name}` })
      continue
    }
    if (lsn < state.log.base.end) {
      state.misfit = `it was dropped at ${formatLsn(lsn)}, while this base was made`
      continue
    }
    if (state.stop !== undefined && state.stop.lsn !== lsn)
      offer(state, { what: 'drop', lsn: state.stop.lsn, at: undefined, name })
    state.keptLast = state.lostLast ?? state.keptLast
    state.lostCount = 0
    state.lostFirst = undefined
    state.lostLast = undefined
    setStop(state, stretch, { lsn, isInclusive: false })
  }
}

function isNamed({ names }: Resolving, { files, lsn }: DropNote, name: string): boolean {
  const known = nameAt(names, files, lsn)
  return known !== undefined && matchesName(names, files, { wanted: name, known, lsn })
}

function findTransaction(
  state: Resolving,
  ends: readonly TransactionNote[],
  xid: number,
): TransactionNote | undefined {
  const exact = ends.find((each) => holds(each, xid) && !(each.isThinned && each.xid !== xid))
  if (exact !== undefined) return exact
  const thinned = ends.find((each) => each.isThinned && holds(each, xid))
  if (thinned !== undefined)
    state.misfit = `it may be one of the savepoints of ${thinned.xid}, which had too many to be listed`
  return undefined
}

function holds({ xid, subtransactions }: TransactionNote, wanted: number): boolean {
  if (xid === wanted) return true
  return subtransactions.some(({ first, count }) => wanted >= first && wanted < first + count)
}

function setStop(state: Resolving, { isReachable }: Stretch, { lsn, isInclusive }: Stop): void {
  state.stop = { lsn, isInclusive }
  state.isCutOff = !isReachable
}

function offer(state: Resolving, point: PointOffer): void {
  if (point.lsn < state.log.base.end) return
  state.seen.push(point)
  if (state.seen.length > OFFERS_MAX) state.seen.shift()
}

/** Sorts the ends of a stretch into what is kept and what is lost; looks at the clock. */
function countEnds(state: Resolving, { ends, isReachable }: Stretch): void {
  const { wanted } = state
  const stop = state.stop ?? (wanted.kind === 'immediate' ? atBaseEnd(state) : undefined)
  for (const end of ends) {
    if (state.latestTime === undefined || end.at > state.latestTime) state.latestTime = end.at
    else if (state.latestTime - end.at > state.stepBack) {
      state.stepBack = state.latestTime - end.at
      state.steppedAt = end.lsn
    }
    if (end.kind === 'abort') continue
    if (stop === undefined || isKept(stop, end)) {
      if (isReachable) state.keptLast = end
      continue
    }
    state.lostCount++
    state.lostFirst ??= end
    state.lostLast = end
    if (wanted.kind === 'time' && (wanted.isInclusive ? end.at <= wanted.at : end.at < wanted.at))
      state.lostEarlier++
  }
}

/** Inclusive keeps the first record that begins at or behind the position, whichever that is. */
function isKept({ lsn, isInclusive }: Stop, end: TransactionNote): boolean {
  return end.lsn < lsn || (isInclusive && end.previous < lsn)
}

function atBaseEnd({ log }: Resolving): Stop {
  return { lsn: log.base.end, isInclusive: false }
}

function finish(state: Resolving): ResolvedTarget {
  const { wanted, walk, log } = state
  const { gap, last } = walk
  if (last === undefined || last.end < log.base.end) {
    if (gap !== undefined) throw cutOff(state)
    throw refused(state, `the log ends before the base is consistent at ${formatLsn(log.base.end)}`)
  }
  const stop = settle(state, { lsn: last.lsn, end: last.end })
  const { keptLast, lostFirst, lostLast } = state
  const kept = keptLast && commitOffer(keptLast)
  const lost = {
    count: state.lostCount,
    first: lostFirst && commitOffer(lostFirst),
    last: lostLast && commitOffer(lostLast),
  }
  const { stepBack, steppedAt, lostEarlier } = state
  return {
    ...stop,
    timeline: timelineAt(log.timeline, log.history, stop.lsn),
    kept,
    lost,
    clock: { stepBack, steppedAt, lostEarlier: wanted.kind === 'time' ? lostEarlier : 0 },
    alternatives: [...(kept ? [kept] : []), ...(lost.first ? [lost.first] : []), ...state.seen],
  }
}

/** The stop, such that a record is there at which the server does stop. */
function settle(state: Resolving, last: { readonly lsn: Lsn; readonly end: Lsn }): Stop {
  const { wanted, walk, log } = state
  const atEnd = { lsn: last.lsn, isInclusive: true }
  if (state.isCutOff) throw cutOff(state)
  if (wanted.kind === 'immediate') state.stop ??= atBaseEnd(state)
  if (wanted.kind === 'lsn') {
    state.stop = { lsn: wanted.lsn, isInclusive: wanted.isInclusive }
    if (wanted.lsn < log.base.end)
      throw tooEarly(state, `the base is consistent at ${formatLsn(log.base.end)}`)
  }
  const { stop } = state
  if (stop !== undefined) {
    if (stop.lsn <= last.lsn) return stop
    if (stop.lsn <= walk.covered) return atEnd
    if (walk.gap !== undefined) throw cutOff(state)
    throw refused(state, `the log ends at ${formatLsn(walk.covered)}`)
  }
  if (walk.gap !== undefined) throw cutOff(state)
  if (wanted.kind === 'latest') return atEnd
  if (wanted.kind === 'time') {
    const known = knownUntil(state)
    if (known !== undefined && wanted.at <= known) return atEnd
    const until = known === undefined ? 'an unknown time' : formatTime(known)
    throw refused(state, `the log is complete until ${until}`, { hint: TIME_HINT })
  }
  const omitted = wanted.kind === 'drop' && state.dropsOmitted > 0
  const more = omitted ? ` among those that are noted; ${state.dropsOmitted} are not` : ''
  throw refused(state, state.misfit ?? `the log has none${more}`)
}

/** The last mark or commit: of the moment of a commit too all is there. */
function knownUntil({ walk: { coveredTime }, keptLast }: Resolving): bigint | undefined {
  if (keptLast === undefined || (coveredTime !== undefined && coveredTime > keptLast.at)) return coveredTime
  return keptLast.at
}

function commitOffer({ lsn, at, xid }: TransactionNote): PointOffer {
  return { what: 'commit', lsn, at, xid }
}

function tooEarly(state: Resolving, is: string): Failure {
  const { end } = state.log.base
  return refused(state, `this base can be recovered from ${formatLsn(end)} on, and ${is}`)
}

function cutOff(state: Resolving): Failure {
  const { gap } = state.walk
  const places = gap === undefined ? 'somewhere' : `from ${formatLsn(gap.from)} to ${formatLsn(gap.to)}`
  return refused(state, `the log is missing, or could not be read, ${places}`, { code: 'source.gap' })
}

/** With the points that can be had instead: the base, the end of the log, and what is like the wanted one. */
function refused(
  state: Resolving,
  is: string,
  {
    code = 'restore.refused',
    hint = HINT,
  }: { readonly code?: TargetRefusal['code']; readonly hint?: string } = {},
): TargetRefusal {
  const { wanted, walk, log, seen, keptLast } = state
  const offers: PointOffer[] = [{ what: 'base', lsn: log.base.end, at: undefined }, ...seen]
  if (walk.last !== undefined && walk.last.end > log.base.end)
    offers.push({ what: 'end of log', lsn: walk.last.end, at: keptLast?.at })
  const facts: FailureFacts = { hint, earliest: formatLsn(log.base.end) }
  if (walk.last !== undefined) facts['latest'] = formatLsn(walk.last.end)
  const until = knownUntil(state)
  if (until !== undefined) facts['coveredUntil'] = formatTime(until)
  return new TargetRefusal({ code, facts, wanted, is, offers })
}
