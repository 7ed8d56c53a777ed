/**
 * Snapshots as objects and as streams: signatures, counters, predecessors, kinds, times (docs/format.md
 * section 8). Not here: whether what a snapshot promises is there.
 */
import { parseTime } from '../base/clock.ts'
import { mapConcurrent } from '../base/concurrent.ts'
import type { Failure } from '../base/failure.ts'
import type { Config } from '../format/config.ts'
import type { LineageSet } from '../format/snapshot.ts'
import { isDamage } from '../repo/damage.ts'
import { hiddenHeads, type HiddenHead } from '../repo/heads.ts'
import type { HostState } from '../repo/host-folder.ts'
import { findDomain } from '../repo/keys.ts'
import { readSnapshot, type StoredSnapshot } from '../repo/snapshots.ts'
import type { BlobStore } from '../storage/store.ts'
import { addFinding, addUnreadFinding, type FindingCode, type Findings } from './check-findings.ts'

const READS_MAX = 8
/** Clocks of hosts may differ by this much before a snapshot counts as one from the future. */
const FUTURE_MS_MAX = 86_400_000
/** A snapshot's id is made a moment before or after its `begun`. */
const ID_TIME_MS_MAX = 60_000
/** Clocks are corrected by less all the time; the backup itself trusts no stamp that is younger than this. */
const BACKWARD_MS_MAX = 2000
/** A snapshot's put may go on for so long after its `completed`: others do not see it yet. */
const PUT_MS_MAX = 60_000

/** All snapshots that can be believed, ascending by domain, source and counter. */
export async function checkSnapshots(
  findings: Findings,
  store: BlobStore,
  config: Config,
  names: readonly string[],
): Promise<StoredSnapshot[]> {
  const snapshots: StoredSnapshot[] = []
  await mapConcurrent(names, READS_MAX, async (name) => {
    const domain = findDomain(config, name.split('/')[1] ?? '')
    try {
      snapshots.push(await readSnapshot(store, config, domain, name))
    } catch (error) {
      if (!isDamage(error)) throw error
      const costs = 'this restore point is lost unless another copy holds it'
      const of = { object: name, snapshots: [idOf(name)], costs }
      addUnreadFinding(findings, badSnapshotCode(error), error, of)
    }
  })
  return snapshots.sort(
    (a, b) =>
      compare(a.domain, b.domain) ||
      compare(a.source, b.source) ||
      a.counter - b.counter ||
      compare(a.id, b.id),
  )
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b)
}

function idOf(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1)
}

function badSnapshotCode(failure: Failure): FindingCode {
  if (failure.code === 'repo.forged') return 'snapshot.forged'
  if (failure.code === 'repo.foreign') return 'snapshot.foreign'
  return failure.code === 'repo.newer' ? 'snapshot.newer' : 'snapshot.corrupt'
}

/** One source's snapshots, ascending by counter. */
type Stream = readonly StoredSnapshot[]

/**
 * Everything that snapshots say about each other. `names`: all that are listed, also those that cannot be
 * believed.
 */
export function checkStreams(
  findings: Findings,
  parts: {
    readonly config: Config
    readonly snapshots: readonly StoredSnapshot[]
    readonly names: readonly string[]
    readonly heads: HostState['heads']
    readonly now: number
  },
): void {
  const streams = streamsOf(parts.snapshots)
  for (const stream of streams.values()) {
    checkCounters(findings, stream)
    checkTimes(findings, stream, parts.now)
    checkKinds(findings, stream, new Set(parts.names))
    checkRevoked(findings, stream, parts.config)
  }
  const known = new Set(parts.config.domains.map((domain) => domain.id))
  const unread = unreadStreams(findings)
  for (const hidden of hiddenHeads(parts.heads, parts.snapshots))
    if (known.has(hidden.stream.split('/')[0] ?? '')) {
      const newest = streams.get(hidden.stream)?.at(-1)?.id ?? ''
      reportHidden(findings, hidden, takeUnread(unread.get(hidden.stream) ?? [], hidden, newest))
    }
}

/** Takes a snapshot that cannot be read now and may be the hidden one: each may be only one of them. */
function takeUnread(unread: string[], { counter, instead, newest }: HiddenHead, newestId: string): boolean {
  if (instead.length > 0) return false
  const at = unread.findIndex((id) => counter < newest || id > newestId)
  return at >= 0 && unread.splice(at, 1).length > 0
}

/** By `<domain>/<source>`: ids of snapshots that are there and cannot be read now. */
function unreadStreams({ list }: Findings): Map<string, string[]> {
  const unread = new Map<string, string[]>()
  for (const { code, object = '' } of list) {
    const [, domain, source] = /^d\/([^/]+)\/snapshots\/([^/]+)\//.exec(object) ?? []
    if (code !== 'object.unreadable' || domain === undefined) continue
    const stream = `${domain}/${source}`
    unread.set(stream, [...(unread.get(stream) ?? []), idOf(object)])
  }
  return unread
}

/** By `<domain>/<source>`. */
export function streamsOf(snapshots: readonly StoredSnapshot[]): Map<string, StoredSnapshot[]> {
  const streams = new Map<string, StoredSnapshot[]>()
  for (const snapshot of snapshots) {
    const key = `${snapshot.domain}/${snapshot.source}`
    const stream = streams.get(key)
    if (stream === undefined) streams.set(key, [snapshot])
    else stream.push(snapshot)
  }
  return streams
}

/** `isUnread`: it may be one that cannot be read now, of which that is said; then nobody need have hidden it. */
function reportHidden(
  findings: Findings,
  { source, counter, instead, newest }: HiddenHead,
  isUnread: boolean,
): void {
  const is =
    instead.length > 0
      ? `snapshot ${counter} of "${source}" is another one than this host has seen`
      : `this host has seen snapshot ${counter} of "${source}", the store shows ${
          newest === 0 ? 'none' : `${newest} as the latest`
        }`
  const message = isUnread
    ? `Snapshots may be hidden: ${is}, unless it is one that cannot be read now: mend that, check again`
    : `Someone hid, lost or replaced snapshots: ${is}`
  const snapshots = instead.map((snapshot) => snapshot.id)
  addFinding(findings, 'stream.hidden', message, { snapshots, ...(isUnread ? { severity: 'warning' } : {}) })
}

function checkCounters(findings: Findings, stream: Stream): void {
  let [expected, before] = [1, undefined as StoredSnapshot | undefined]
  /** Those of this number so far, and all of the number before. */
  let twins: StoredSnapshot[] = []
  let earlier: StoredSnapshot[] = []
  for (const snapshot of stream) {
    const { counter, name: object, id } = snapshot
    if (before?.counter !== counter) {
      earlier = before?.counter === counter - 1 ? twins : []
      twins = []
    }
    twins.push(snapshot)
    if (earlier.length > 0 && !earlier.some((each) => each.sha256 === snapshot.previous)) {
      const message = `${object} does not follow ${earlier.at(-1)?.id}: one of them was replaced`
      addFinding(findings, 'stream.previous', message, { object, snapshots: [id] })
    }
    if (before?.counter === counter) {
      addForkFinding(findings, before, snapshot)
      continue
    }
    if (counter > expected) {
      const gap = counter - 1 === expected ? `number ${expected}` : `numbers ${expected} to ${counter - 1}`
      const message = `${gap} of "${snapshot.source}" is not there: expired, forgotten or lost`
      addFinding(findings, 'stream.gap', message, { object })
    }
    expected = counter + 1
    before = snapshot
  }
}

/** Two snapshots of one number. */
function addForkFinding(findings: Findings, before: StoredSnapshot, snapshot: StoredSnapshot): void {
  const { name: object, id, counter, source } = snapshot
  const both = `${object} and ${before.id} both are number ${counter} of "${source}": `
  const of = { object, snapshots: [before.id, id] }
  if (isRace(before, snapshot))
    addFinding(findings, 'stream.race', `${both}their backups ran at the same time, and both are whole`, of)
  else {
    const is = 'two writers share one credential, or an old state of the store was brought back'
    addFinding(findings, 'stream.fork', `${both}${is}`, of)
  }
}

/**
 * Whether neither run could see the other's snapshot: a run looks at the stream right before it is completed
 * and puts its snapshot, so both were completed within the time that a put may last. Whoever looked later
 * would have seen the other, unless the store hid it; and a store that shows two hosts two branches is seen
 * at their second snapshots, which follow different ones.
 */
function isRace(one: StoredSnapshot, other: StoredSnapshot): boolean {
  return one.previous === other.previous && Math.abs(endOf(one) - endOf(other)) <= PUT_MS_MAX
}

function checkTimes(findings: Findings, stream: Stream, now: number): void {
  const byId = new Map(stream.map((snapshot) => [snapshot.id, snapshot]))
  let before: StoredSnapshot | undefined
  for (const snapshot of stream) {
    const { name: object, id, completed } = snapshot
    const of = { object, snapshots: [id] }
    const earlier = before !== undefined && before.counter < snapshot.counter ? before : undefined
    const contradiction = contradictionOf(snapshot, earlier, byId.get(snapshot.parent ?? ''))
    if (contradiction !== undefined) addFinding(findings, 'clock.backward', `${object} ${contradiction}`, of)
    if (endOf(snapshot) > now + FUTURE_MS_MAX)
      addFinding(
        findings,
        'clock.future',
        `${object} lies in the future (${completed}): a clock is wrong`,
        of,
      )
    before = snapshot
  }
}

/**
 * How its times contradict what must have been: a run begins after its parent was there, and ends after it
 * has seen its predecessor. Runs that overlap may begin in any order.
 */
function contradictionOf(
  snapshot: StoredSnapshot,
  before: StoredSnapshot | undefined,
  parent: StoredSnapshot | undefined,
): string | undefined {
  const { begun, completed } = snapshot
  const [began, ended] = [parseTime(begun) ?? 0, endOf(snapshot)]
  if (ended < began - BACKWARD_MS_MAX) return `ended (${completed}) before it began (${begun})`
  if (Math.abs(timeOfId(snapshot.id) - began) > ID_TIME_MS_MAX)
    return `began at ${begun}, which its name contradicts`
  if (parent !== undefined && began < endOf(parent) - BACKWARD_MS_MAX)
    return `(${begun}) was made against ${parent.id} (${parent.completed}): the clock was set back`
  if (before !== undefined && ended < endOf(before) - BACKWARD_MS_MAX)
    return `(${completed}) came after ${before.id} (${before.completed}): the clock was set back`
  return undefined
}

function endOf({ completed }: StoredSnapshot): number {
  return parseTime(completed) ?? 0
}

/** `20261122t143323z-…` */
function timeOfId(id: string): number {
  const [, year, month, day, hour, minute, second] =
    /^(\d{4})(\d\d)(\d\d)t(\d\d)(\d\d)(\d\d)z-/.exec(id) ?? []
  return parseTime(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`) ?? Number.NaN
}

function checkRevoked(findings: Findings, stream: Stream, config: Config): void {
  for (const { domain, completed, name: object, id } of stream) {
    const { revoked, name } = findDomain(config, domain).writer
    if (revoked === null || (parseTime(completed) ?? 0) <= (parseTime(revoked) ?? 0)) continue
    const message = `${object} was completed at ${completed}, after "${name}" was revoked (${revoked})`
    addFinding(findings, 'snapshot.revoked', message, { object, snapshots: [id] })
  }
}

function checkKinds(findings: Findings, stream: Stream, names: ReadonlySet<string>): void {
  const byId = new Map(stream.map((snapshot) => [snapshot.id, snapshot]))
  for (const snapshot of stream) {
    const { name: object, id } = snapshot
    for (const base of new Set([snapshot.kind === 'full' ? null : snapshot.full, snapshot.parent])) {
      if (base === null || byId.has(base)) continue
      const is = names.has(object.replace(id, base)) ? 'damaged' : 'gone'
      const message = `${object} was made against ${base}, which is ${is}: it is whole without it`
      addFinding(findings, 'snapshot.parent', message, { object, snapshots: [id] })
    }
    const broken = brokenRule(snapshot, byId)
    if (broken !== undefined)
      addFinding(findings, 'snapshot.rule', `${object} ${broken}`, { object, snapshots: [id] })
  }
}

/** Which rule of its kind a snapshot breaks, or undefined. */
function brokenRule(snapshot: StoredSnapshot, byId: ReadonlyMap<string, StoredSnapshot>): string | undefined {
  const { kind, packSet, lineage } = snapshot
  const others = lineage.filter((set) => set.packSet !== packSet)
  if (lineage.findIndex((set) => set.packSet === packSet) !== others.length && lineage.length > others.length)
    return 'does not list its own pack set last'
  if (kind === 'full') return others.length > 0 ? 'is a full and depends on the packs of others' : undefined
  const parent = snapshot.parent === null ? undefined : byId.get(snapshot.parent)
  if (parent !== undefined && parent.counter >= snapshot.counter) return 'comes before its parent'
  const full = byId.get(snapshot.full)
  if (full !== undefined && (full.kind !== 'full' || full.generation !== snapshot.generation))
    return `names ${full.id} as its full, which is none of its generation`
  if (kind === 'differential') {
    if (others.some((set) => set.packSet !== snapshot.generation))
      return 'is a differential and depends on more than its full'
    return full === undefined ? undefined : strangeSet(others, full)
  }
  if (parent !== undefined && parent.generation !== snapshot.generation)
    return 'is of another generation than its parent'
  return parent === undefined ? undefined : strangeSet(others, parent)
}

/** A pack set that the base does not list in the same way. */
function strangeSet(sets: readonly LineageSet[], base: StoredSnapshot): string | undefined {
  for (const set of sets) {
    const same = base.lineage.find((each) => each.packSet === set.packSet)
    if (same === undefined) return `depends on pack set ${set.packSet}, which ${base.id} does not`
    const runs = (of: LineageSet): string => of.runs.map((run) => `${run.n}:${run.sha256}`).join()
    if (runs(same) !== runs(set)) return `describes pack set ${set.packSet} otherwise than ${base.id} does`
  }
  return undefined
}
