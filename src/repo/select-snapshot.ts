/**
 * Which snapshot somebody means: an id, its unique beginning or end, `latest`, `SOURCE:latest`, `SOURCE:ID`,
 * the same behind `WRITER:`, or a time. Two writers may use one source name: they are two streams, and what
 * one of them claims never decides what the other's latest is. Pure.
 */
import { formatTime } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { StoredSnapshot } from './snapshots.ts'

const CANDIDATES_SHOWN_MAX = 8

/** Who wrote what there is, and who asks. */
export interface Writers {
  /** Names by domain. */
  readonly names: ReadonlyMap<string, string>
  /** The domain that the credential at hand writes to; undefined for one that only reads. */
  readonly own: string | undefined
}

/** A source as it is typed: `SOURCE`, or `WRITER:SOURCE` where several writers have one. */
export interface NamedSource {
  /** The name of a writer, or the id of a domain. */
  readonly writer: string | undefined
  readonly source: string
}

const NOBODY: Writers = { names: new Map(), own: undefined }

export function parseNamedSource(text: string): NamedSource {
  const colon = text.lastIndexOf(':')
  return colon < 0
    ? { writer: undefined, source: text }
    : { writer: text.slice(0, colon), source: text.slice(colon + 1) }
}

/** All of that source, of each writer or of the named one. */
export function snapshotsOfSource(
  snapshots: readonly StoredSnapshot[],
  { writer, source }: NamedSource,
  writers: Writers = NOBODY,
): StoredSnapshot[] {
  return snapshots.filter(
    (one) =>
      one.source === source &&
      (writer === undefined || one.domain === writer || writers.names.get(one.domain) === writer),
  )
}

/**
 * The one snapshot that `selector` names.
 * Fails: repo.nosnapshot (none), usage.invalid (several, or of several writers; they are listed).
 */
export function selectSnapshot(
  snapshots: readonly StoredSnapshot[],
  selector: string,
  writers: Writers = NOBODY,
): StoredSnapshot {
  const colon = selector.lastIndexOf(':')
  const word = selector.slice(colon + 1)
  if (word === '') {
    const is = 'no snapshot is named (must be an id, its beginning or end, or latest)'
    throw new Failure('usage.invalid', `Cannot choose a snapshot by "${selector}": ${is}`, {
      facts: { selector, hint: 'Run `backstock snapshots` to see what there is.' },
    })
  }
  const of = colon < 0 ? undefined : selector.slice(0, colon)
  const among = of === undefined ? snapshots : snapshotsOfSource(snapshots, parseNamedSource(of), writers)
  if (of !== undefined && among.length === 0) {
    const there = [...new Set(labelsOf(snapshots, writers))]
    const known = there.length === 0 ? '' : ` (there are: ${listed(there)})`
    throw none(`there is no snapshot of a source "${of}"${known}`, selector)
  }
  if (word === 'latest') {
    const latest = newestSnapshot(oneWriter(among, selector, writers))
    if (latest === undefined) throw none('there is none yet', selector)
    return latest
  }
  const exact = among.filter((one) => one.id === word)
  const found = exact.length > 0 ? exact : among.filter(({ id }) => id.startsWith(word) || id.endsWith(word))
  const [only, ...others] = found
  if (only === undefined) throw none('no id begins or ends like this', selector)
  if (others.length === 0) return only
  const labels = labelsOf(found, writers)
  const names = found.map((one, at) => `${labels[at]}:${one.id}`)
  const is = `${found.length} snapshots match (${listed(names)})`
  throw new Failure('usage.invalid', `Cannot choose a snapshot by "${selector}": ${is}`, {
    facts: { selector, matches: found.length, hint: 'Give more of the id, or WRITER:SOURCE:ID.' },
  })
}

/** The newest snapshot of a source that was complete at that time. Fails: repo.nosnapshot, usage.invalid. */
export function selectSnapshotAt(
  snapshots: readonly StoredSnapshot[],
  typed: string,
  milliseconds: number,
  writers: Writers = NOBODY,
): StoredSnapshot {
  const named = parseNamedSource(typed)
  const among = oneWriter(snapshotsOfSource(snapshots, named, writers), typed, writers)
  const found = newestSnapshot(among.filter((one) => Date.parse(one.completed) <= milliseconds))
  if (found !== undefined) return found
  const oldest = among.toSorted((a, b) => Date.parse(a.completed) - Date.parse(b.completed))[0]
  const is = oldest === undefined ? 'it has none' : `its oldest is of ${oldest.completed}`
  const message = `Cannot find a snapshot of "${typed}" from ${formatTime(milliseconds)} or before: ${is}`
  throw new Failure('repo.nosnapshot', message, { facts: { source: typed } })
}

/**
 * Those of one writer: of the only one there is, else of the one that asks. A choice among others would be
 * theirs: each of them can claim to be the newest. Fails: usage.invalid.
 */
function oneWriter(
  among: readonly StoredSnapshot[],
  typed: string,
  writers: Writers,
): readonly StoredSnapshot[] {
  const domains = new Set(among.map(({ domain }) => domain))
  if (domains.size < 2) return among
  if (writers.own !== undefined && domains.has(writers.own))
    return among.filter(({ domain }) => domain === writers.own)
  const choices = [...new Set(among.map((one) => sourceLabel(one, writers)))]
  const message = `Cannot choose by "${typed}": ${domains.size} writers have it (${listed(choices)})`
  throw new Failure('usage.invalid', message, {
    facts: { selector: typed, writers: domains.size, hint: 'Name the writer too: WRITER:SOURCE.' },
  })
}

/** The source of each; with its writer where there are several. */
export function labelsOf(snapshots: readonly StoredSnapshot[], writers: Writers): string[] {
  const isMixed = new Set(snapshots.map(({ domain }) => domain)).size > 1
  return snapshots.map((one) => (isMixed ? sourceLabel(one, writers) : one.source))
}

/** `WRITER:SOURCE`; by the domain where another writer has, or had, the same name. */
export function sourceLabel({ domain, source }: StoredSnapshot, { names }: Writers): string {
  const name = names.get(domain)
  const isShared = [...names].some(([other, of]) => other !== domain && of === name)
  return `${name === undefined || isShared ? domain : name}:${source}`
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, CANDIDATES_SHOWN_MAX)
  return shown.join(', ') + (names.length > shown.length ? `, … and ${names.length - shown.length} more` : '')
}

/**
 * The newest of one writer: within one stream its counter decides, among several sources their completion.
 * Not for snapshots of several writers: their clocks are their own claims.
 */
export function newestSnapshot(snapshots: readonly StoredSnapshot[]): StoredSnapshot | undefined {
  let newest: StoredSnapshot | undefined
  for (const one of snapshots) if (newest === undefined || isNewer(one, newest)) newest = one
  return newest
}

function isNewer(one: StoredSnapshot, other: StoredSnapshot): boolean {
  if (one.domain === other.domain && one.source === other.source)
    return one.counter > other.counter || (one.counter === other.counter && one.id > other.id)
  return Date.parse(one.completed) > Date.parse(other.completed)
}

function none(is: string, selector: string): Failure {
  return new Failure('repo.nosnapshot', `Cannot find the snapshot "${selector}": ${is}`, {
    facts: { selector },
  })
}
