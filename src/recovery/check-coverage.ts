/**
 * How much of the packs' bytes was read, by this check and by earlier ones of this host. Opened and compared
 * with the ids of its chunks, a pack is proven; where the credential holds no keys to it, only its checksum
 * is compared, which says nothing about what is in it.
 */
import { formatTime } from '../base/clock.ts'
import type { BadPack, HostState } from '../repo/host-folder.ts'
import { addFinding, type Findings } from './check-findings.ts'
import type { CheckedRuns, PackState } from './check-runs.ts'

export interface DataCoverage {
  readonly packs: number
  readonly bytes: number
  /** Read by this check. */
  readonly packsRead: number
  readonly bytesRead: number
  /** Of those read now: right by their checksum only. */
  readonly packsCompared: number
  readonly bytesCompared: number
  /** Opened and right, by this or an earlier check. */
  readonly packsCovered: number
  readonly bytesCovered: number
  /** When the one of the covered packs was read that was not read for longest; milliseconds. */
  readonly oldest: number | undefined
}

/** Something a check has learned, to be written into the host's state. */
export type StateChange = (state: HostState) => HostState

/** Packs that were read whole, by what is known of them now. */
export interface ReadPacks {
  readonly all: readonly PackState[]
  readonly proven: readonly PackState[]
  readonly compared: readonly PackState[]
}

/** Those whose data was read longest ago, never first, until `percent` of all bytes are chosen. */
export function chooseForData(
  packs: readonly PackState[],
  state: HostState,
  percent: number,
  canOpen: (pack: PackState) => boolean,
): PackState[] {
  const age = (pack: PackState): number => {
    const proven = state.checked[pack.id] ?? 0
    return canOpen(pack) ? proven : Math.max(proven, state.compared?.[pack.id] ?? 0)
  }
  const byAge = packs.toSorted((a, b) => age(a) - age(b) || (a.id < b.id ? -1 : 1))
  let wanted = (byAge.reduce((sum, pack) => sum + pack.bytes, 0) * percent) / 100
  const chosen: PackState[] = []
  for (const pack of byAge) {
    if (wanted <= 0) break
    chosen.push(pack)
    wanted -= pack.bytes
  }
  return chosen
}

/**
 * What was right, of packs that still are listed, to be remembered, and how much that is with all that
 * `state` remembers. What the store could not read now keeps what was known of it.
 */
export function rightPacks(
  state: HostState,
  checked: CheckedRuns,
  read: ReadPacks,
  now: number,
): { readonly coverage: DataCoverage; readonly change: StateChange } {
  const packs = [...checked.packs.values()]
  const listed = new Set(
    packs
      .filter(({ damage }) => damage === undefined || damage.finding.code === 'object.unreadable')
      .map((pack) => pack.id),
  )
  const next = (before: HostState['checked'], right: readonly PackState[]): Record<string, number> => ({
    ...Object.fromEntries(Object.entries(before).filter(([id]) => listed.has(id))),
    ...Object.fromEntries(right.map((pack) => [pack.id, now])),
  })
  const change: StateChange = (present) => ({
    ...present,
    checked: next(present.checked, read.proven),
    compared: next(present.compared ?? {}, read.compared),
  })
  const coverage = coverageOf(packs, read, next(state.checked, read.proven))
  return { coverage, change: read.all.length > 0 ? change : (present) => present }
}

/**
 * The packs that are known to be bad, to be remembered, once all findings have their severity. One that an
 * earlier check found so is forgotten when this one looked as deeply and found no error in it, or, with
 * `areNeedsKnown`, when no snapshot lists it any more.
 */
export function badPacks(parts: {
  readonly findings: Findings
  readonly checked: CheckedRuns
  readonly domains: ReadonlyMap<string, unknown>
  readonly areNeedsKnown: boolean
  readonly now: number
}): StateChange {
  const { findings, checked, domains, areNeedsKnown, now } = parts
  const errors = findings.list.filter(({ severity }) => severity === 'error')
  const byObject = new Map(errors.map((finding) => [finding.object, finding]))
  return (state) => {
    const bad: Record<string, BadPack> = {}
    for (const [name, pack] of Object.entries(state.badPacks ?? {}))
      if (!areNeedsKnown || checked.packs.has(name) || !domains.has(name.split('/')[1] ?? ''))
        bad[name] = pack
    const proofs = { ...state.checked }
    for (const { id, name, depth, damage } of checked.packs.values()) {
      const before = bad[name]
      const finding =
        byObject.get(name) ?? (damage?.finding.severity === 'error' ? damage.finding : undefined)
      if (finding === undefined) {
        if (before !== undefined && depth >= before.depth) delete bad[name]
        continue
      }
      const isUnreadable = finding.code === 'object.unreadable'
      const unreadable = isUnreadable && before?.unreadable !== false
      bad[name] = { at: now, depth: Math.max(depth, before?.depth ?? 0), unreadable }
      if (!isUnreadable) delete proofs[id]
    }
    return { ...state, checked: proofs, badPacks: bad }
  }
}

/**
 * Repeats what earlier checks found of packs and this one could not prove mended: `change`, of badPacks(),
 * keeps such records of `state` as they are.
 */
export function repeatBad(findings: Findings, state: HostState, change: StateChange): void {
  for (const [name, bad] of Object.entries(change(state).badPacks ?? {})) {
    if (state.badPacks?.[name] !== bad) continue
    const clears = 'this check did not look as deeply (one with --read-data tells whether it still is so)'
    const found = bad.unreadable ? 'could not read' : 'found damaged'
    const message = `${name} is what a check of ${formatTime(bad.at)} ${found}, and ${clears}`
    addFinding(findings, bad.unreadable ? 'object.unreadable' : 'pack.corrupt', message, { object: name })
  }
}

function coverageOf(
  packs: readonly PackState[],
  read: ReadPacks,
  provenAt: Readonly<Record<string, number>>,
): DataCoverage {
  const covered = packs.filter((pack) => provenAt[pack.id] !== undefined)
  let oldest: number | undefined
  for (const { id } of covered) oldest = Math.min(oldest ?? Infinity, provenAt[id] ?? 0)
  return {
    packs: packs.length,
    bytes: bytesOf(packs),
    packsRead: read.all.length,
    bytesRead: bytesOf(read.all),
    packsCompared: read.compared.length,
    bytesCompared: bytesOf(read.compared),
    packsCovered: covered.length,
    bytesCovered: bytesOf(covered),
    oldest,
  }
}

function bytesOf(packs: readonly PackState[]): number {
  return packs.reduce((sum, pack) => sum + pack.bytes, 0)
}
