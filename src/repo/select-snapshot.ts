/**
 * Which snapshot somebody means: an id, its unique beginning or end, `latest`, `SOURCE:latest`, `SOURCE:ID`,
 * or a time. Pure.
 */
import { formatTime } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { StoredSnapshot } from './snapshots.ts'

const CANDIDATES_SHOWN_MAX = 8

/**
 * The one snapshot that `selector` names.
 * Fails: repo.nosnapshot (none), usage.invalid (several; they are listed).
 */
export function selectSnapshot(snapshots: readonly StoredSnapshot[], selector: string): StoredSnapshot {
  const colon = selector.lastIndexOf(':')
  const source = colon < 0 ? undefined : selector.slice(0, colon)
  const word = selector.slice(colon + 1)
  const among = source === undefined ? snapshots : snapshots.filter((one) => one.source === source)
  if (source !== undefined && among.length === 0)
    throw none(`there is no snapshot of a source "${source}"`, selector)
  if (word === 'latest' || word === '') {
    const latest = word === '' ? undefined : newestSnapshot(among)
    if (latest === undefined) throw none('there is none yet', selector)
    return latest
  }
  const exact = among.filter((one) => one.id === word)
  const found = exact.length > 0 ? exact : among.filter(({ id }) => id.startsWith(word) || id.endsWith(word))
  const [only, ...others] = found
  if (only === undefined) throw none('no id begins or ends like this', selector)
  if (others.length === 0) return only
  const shown = found.slice(0, CANDIDATES_SHOWN_MAX).map(({ source: of, id }) => `${of}:${id}`)
  const more = found.length > shown.length ? `, … and ${found.length - shown.length} more` : ''
  const is = `${found.length} snapshots match (${shown.join(', ')}${more})`
  throw new Failure('usage.invalid', `Cannot choose a snapshot by "${selector}": ${is}`, {
    facts: { selector, matches: found.length, hint: 'Give more of the id.' },
  })
}

/** The newest snapshot of a source that was complete at that time. Fails: repo.nosnapshot. */
export function selectSnapshotAt(
  snapshots: readonly StoredSnapshot[],
  source: string,
  milliseconds: number,
): StoredSnapshot {
  const among = snapshots.filter((one) => one.source === source)
  const found = newestSnapshot(among.filter((one) => Date.parse(one.completed) <= milliseconds))
  if (found !== undefined) return found
  const oldest = among.toSorted((a, b) => Date.parse(a.completed) - Date.parse(b.completed))[0]
  const is = oldest === undefined ? 'it has none' : `its oldest is of ${oldest.completed}`
  const message = `Cannot find a snapshot of "${source}" from ${formatTime(milliseconds)} or before: ${is}`
  throw new Failure('repo.nosnapshot', message, { facts: { source } })
}

/** The newest by its completion, of several sources too; within one stream its counter decides. */
export function newestSnapshot(snapshots: readonly StoredSnapshot[]): StoredSnapshot | undefined {
  let newest: StoredSnapshot | undefined
  for (const one of snapshots) if (newest === undefined || isNewer(one, newest)) newest = one
  return newest
}

function isNewer(one: StoredSnapshot, other: StoredSnapshot): boolean {
  if (one.domain === other.domain && one.source === other.source) return one.counter > other.counter
  return Date.parse(one.completed) > Date.parse(other.completed)
}

function none(is: string, selector: string): Failure {
  return new Failure('repo.nosnapshot', `Cannot find the snapshot "${selector}": ${is}`, {
    facts: { selector },
  })
}
