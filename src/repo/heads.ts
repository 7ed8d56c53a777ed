/**
 * Whether the store still shows the newest snapshots that this host has seen: one that hides them would make
 * an old state look like the latest.
 */
import { type HostFolder, readHostState, type HostState, type StreamHead } from './host-folder.ts'
import type { StoredSnapshot } from './snapshots.ts'

/** Missing heads remembered of one stream; the oldest tell most. */
const MISSING_MAX = 16

/** A stream whose newest known snapshot the store does not show. */
export interface HiddenHead {
  /** `<domain>/<source>` */
  readonly stream: string
  readonly source: string
  /** Number of the snapshot that is missing. */
  readonly counter: number
  /** What is there under the same number instead. */
  readonly instead: readonly StoredSnapshot[]
  /** The highest number that is there; 0 if there is none. */
  readonly newest: number
}

/**
 * Streams of which neither the newest known snapshot nor a newer one is among `snapshots`, or another one has
 * its number. One that is gone while newer ones are there was expired, unless a backup found it missing: that
 * is said until it is back.
 */
export function hiddenHeads(heads: HostState['heads'], snapshots: readonly StoredSnapshot[]): HiddenHead[] {
  const hidden: HiddenHead[] = []
  for (const [stream, head] of Object.entries(heads)) {
    const own = snapshots.filter(({ domain, source }) => `${domain}/${source}` === stream)
    const newest = own.reduce((most, { counter }) => Math.max(most, counter), 0)
    const source = stream.slice(stream.indexOf('/') + 1)
    const missed = head.missing ?? []
    const isMissed = missed.some(({ sha256 }) => sha256 === head.sha256)
    for (const { counter, sha256 } of isMissed ? missed : [...missed, head]) {
      const instead = own.filter((one) => one.counter === counter)
      if (instead.some((one) => one.sha256 === sha256)) continue
      const isExpired = instead.length === 0 && newest > counter && sha256 === head.sha256 && !isMissed
      if (!isExpired) hidden.push({ stream, source, counter, instead, newest })
    }
  }
  return hidden
}

/**
 * The heads after a backup that was made on `shown`, all that the store had of its stream. A head never gets
 * lower; one that the store hid stays known as missing, whatever comes after it, until it is shown again.
 */
export function keepHead(
  heads: HostState['heads'],
  made: StoredSnapshot,
  shown: readonly StoredSnapshot[],
): HostState['heads'] {
  const stream = `${made.domain}/${made.source}`
  const { counter, sha256 } = made
  const head = heads[stream]
  if (head === undefined) return { ...heads, [stream]: { counter, sha256 } }
  const all = [...(head.missing ?? []), { counter: head.counter, sha256: head.sha256 }]
  const lost = new Set(hiddenHeads({ [stream]: head }, shown).map((one) => one.counter))
  const missing = all
    .filter((one, nth) => lost.has(one.counter) && all.findIndex((of) => of.sha256 === one.sha256) === nth)
    .slice(0, MISSING_MAX)
  const top = counter > head.counter ? { counter, sha256 } : { counter: head.counter, sha256: head.sha256 }
  const kept: StreamHead = missing.length === 0 ? top : { ...top, missing }
  return { ...heads, [stream]: kept }
}

/** A sentence for each hidden stream; `snapshots` are all of the given scope. */
export function missingHeads(
  host: HostFolder,
  snapshots: readonly StoredSnapshot[],
  scope: { readonly source?: string } = {},
): string[] {
  const hidden = hiddenHeads(readHostState(host).heads, snapshots)
  return hidden
    .filter(({ source }) => scope.source === undefined || scope.source === source)
    .map(({ source, counter, instead, newest }) => {
      if (instead.length > 0)
        return `the store shows another snapshot number ${counter} of "${source}" than this host has seen`
      const is = newest === 0 ? 'none of them is there' : `the newest there is number ${newest}`
      return (
        `the store shows an older state of "${source}" than this host has seen: ` +
        `${is}, snapshot number ${counter} is missing`
      )
    })
}
