/**
 * The check: everything a repository promises, held against what its store holds, from the signed objects
 * down to the bytes of packs. It goes on past all damage and says which files of which snapshots it costs.
 * Nothing is changed in the store. Printing is the caller's.
 */
import type { Clock } from '../base/clock.ts'
import { isFailure, type Failure } from '../base/failure.ts'
import { readHostState, updateHostState, type HostFolder, type HostState } from '../repo/host-folder.ts'
import type { Access } from '../repo/keys.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { addFinding, findingsLeftOut, newFindings, type Finding, type Findings } from './check-findings.ts'
import { checkBundles, checkConfigs, checkNames, checkStrays, takeInventory } from './check-inventory.ts'
import { badPacks, repeatBad, type DataCoverage, type StateChange } from './check-coverage.ts'
import { checkPacks } from './check-packs.ts'
import { checkContinuity } from './check-continuity.ts'
import { checkLogs } from './check-logs.ts'
import { isWholeScope, scopeOf, type DomainScope } from './check-scope.ts'
import { checkRuns, checkUnlisted, isIndexWhole, type CheckedRuns } from './check-runs.ts'
import { checkSnapshots, checkStreams, streamsOf } from './check-streams.ts'
import { throwIfCancelled } from './check-threads.ts'
import { checkTrees, type TreesContext } from './check-trees.ts'
import type { TreeTally } from './check-tree.ts'

export interface CheckOptions {
  /** Share of the packs' bytes to read whole, 0 to 100: those that were read longest ago. Default 0. */
  readonly readData?: number
  /** Threads that read packs; 0 does it in this thread. */
  readonly workers: number
  readonly clock: Clock
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: CheckProgress) => void
}

export interface CheckProgress {
  readonly phase: 'objects' | 'packs' | 'trees'
  /** Objects, packs or snapshots done, and how many there are (0: not known). */
  done: number
  all: number
  /** Of pack data read. */
  bytes: number
}

export interface CheckCounts {
  readonly objects: number
  readonly snapshots: number
  readonly runs: number
  readonly entries: number
  readonly packs: number
  /** Tree nodes read, file entries and chunk references looked at. */
  readonly nodes: number
  readonly files: number
  readonly chunks: number
}

export interface CheckReport {
  /** Errors first, then warnings, then infos. */
  readonly findings: readonly Finding[]
  /** Findings beyond the bound of their code. */
  readonly leftOut: number
  readonly errors: number
  /** Those of the errors that say only that the store cannot read an object now: no damage is known. */
  readonly unreadable: number
  readonly warnings: number
  /** What the credential let the check examine. */
  readonly scope: readonly DomainScope[]
  readonly counts: CheckCounts
  readonly coverage: DataCoverage
  readonly seconds: number
  /** Why the host's state does not hold what was found: repo.busy, host.file. */
  readonly unremembered: Failure | undefined
}

/**
 * Checks the whole repository as far as the credential reaches, and remembers what it found on the host.
 * Never fails for damage, nor when it cannot remember: that is in the report. Fails: storage.* when the store
 * as a whole does not answer, key.*, host.file, cancelled.
 */
export async function check(access: Access, host: HostFolder, options: CheckOptions): Promise<CheckReport> {
  const { clock, signal, workers, readData = 0 } = options
  const { store, config } = access
  const { repository } = config
  const started = clock.elapsed()
  const findings = newFindings()
  const progress = newProgress(options)
  const tally: TreeTally = { nodes: 0, files: 0, chunks: 0 }
  const state = readHostState(host)

  const inventory = await takeInventory(store, config, () => {
    throwIfCancelled(signal)
    progress('objects', 0, 0)
  })
  checkNames(findings, inventory) //                                  names nobody knows, open sessions
  await checkConfigs(findings, access, inventory) //                  signed, each the successor of the last
  const opened = await checkBundles(findings, access, inventory) //   every recipient has its keys
  const { domains } = opened
  const names = inventory.snapshots
  const snapshots = await checkSnapshots(findings, store, config, names)
  checkStreams(findings, { config, snapshots, names, heads: state.heads, now: clock.now() })
  const runs = { store, repository, domains, inventory, host, signal }
  const checked = await checkRuns(findings, runs, snapshots) //       there, or made again from their packs
  checkUnlisted(findings, checked, inventory, domains)
  const onPack = (bytes: number): void => {
    progress('packs', checked.packs.size, bytes)
  }
  const packs = { findings, store, repository, domains, state, clock, workers, signal, onPack }
  const { coverage, change: ofRight } = await checkPacks(packs, checked, inventory, readData)
  checkStrays(findings, inventory)
  const list = await checkLogs({ findings, access, domains, readData, now: clock.now(), signal })
  await checkContinuity({ findings, access, list, now: clock.now() }, snapshots)
  const onNode = (): void => {
    throwIfCancelled(signal)
  }
  const onSnapshot = (): void => {
    progress('trees', snapshots.length, 0)
  }
  const trees = { findings, access, host, domains, checked, tally, onNode, onSnapshot }
  const areTreesWhole = await checkTreesHere(trees, snapshots)
  // Below what cannot be read or found lies more that a snapshot may need.
  const areNeedsKnown = areTreesWhole && snapshots.length === names.length && isIndexWhole(checked)
  if (areNeedsKnown) forgiveUnneeded(checked)
  const ofBad = badPacks({ findings, checked, domains, areNeedsKnown, now: clock.now() })
  repeatBad(findings, state, ofBad)
  const counts = {
    objects: inventory.objects,
    snapshots: snapshots.length,
    runs: checked.runs.size,
    entries: checked.entries,
    packs: checked.packs.size,
    ...tally,
  }
  const scope = scopeOf(config, opened)
  const found = tallyOf(findings)
  const ofThis = lastCheck(found, isWholeScope(scope), clock.now())
  const unremembered = remember(host, [ofRight, ofBad, seenHeads(findings, snapshots), ofThis])
  const seconds = (clock.elapsed() - started) / 1000
  return { ...found, scope, counts, coverage, seconds, unremembered }
}

/** In one write: a cache folder that fills up meanwhile must not cost what was found. */
function remember(host: HostFolder, changes: readonly StateChange[]): Failure | undefined {
  try {
    updateHostState(host, (state) => changes.reduce((changed, change) => change(changed), state))
    return undefined
  } catch (error) {
    if (isFailure(error, 'host.file') || isFailure(error, 'repo.busy')) return error
    throw error
  }
}

/** The same when the host has no room for the index files that it takes: then the trees are not checked. */
async function checkTreesHere(context: TreesContext, snapshots: readonly StoredSnapshot[]): Promise<boolean> {
  try {
    return await checkTrees(context, snapshots)
  } catch (error) {
    if (!isFailure(error, 'host.file')) throw error
    const message = `Not checked: trees and files, which needs room on this host: ${error.message}`
    addFinding(context.findings, 'not-checked', message, { severity: 'error' })
    return false
  }
}

function newProgress(
  options: CheckOptions,
): (phase: CheckProgress['phase'], all: number, bytes: number) => void {
  let now: CheckProgress = { phase: 'objects', done: 0, all: 0, bytes: 0 }
  return (phase, all, bytes) => {
    if (now.phase !== phase) now = { phase, done: 0, all, bytes: 0 }
    now.done++
    now.all = all
    now.bytes += bytes
    options.onProgress?.(now)
  }
}

/** Damage that hurts no file and no record of any snapshot is a warning. Only when all their needs are known. */
function forgiveUnneeded(checked: CheckedRuns): void {
  for (const { damage } of checked.packs.values()) {
    if (damage === undefined || damage.finding.snapshots.length > 0) continue
    if (damage.finding.severity !== 'error') continue
    damage.finding.severity = 'warning'
    damage.finding.message +=
      '; nothing is lost: no snapshot needs what is damaged, or another pack holds it too'
  }
}

/** The highest believable counter of each stream, so that hiding it later is noticed. */
function seenHeads(findings: Findings, snapshots: readonly StoredSnapshot[]): StateChange {
  if (findings.list.some(({ code }) => code === 'stream.fork' || code === 'stream.hidden'))
    return (state) => state
  const raise = (heads: HostState['heads']): HostState['heads'] => {
    const raised = { ...heads }
    for (const [key, stream] of streamsOf(snapshots)) {
      const last = stream.at(-1)
      if (last !== undefined && last.counter > (raised[key]?.counter ?? 0))
        raised[key] = { counter: last.counter, sha256: last.sha256 }
    }
    return raised
  }
  return (state) => ({ ...state, heads: raise(state.heads) })
}

function lastCheck(
  { errors, unreadable, warnings }: Pick<CheckReport, 'errors' | 'unreadable' | 'warnings'>,
  whole: boolean,
  at: number,
): StateChange {
  const last = { at, errors: errors - unreadable, warnings, unreadable, whole }
  return (state) => ({ ...state, lastCheck: last, ...(whole ? { lastWholeCheck: last } : {}) })
}

const ORDER = { error: 0, warning: 1, info: 2 } as const

function tallyOf(
  findings: Findings,
): Pick<CheckReport, 'findings' | 'leftOut' | 'errors' | 'unreadable' | 'warnings'> {
  const sorted = findings.list.toSorted((a, b) => ORDER[a.severity] - ORDER[b.severity])
  const count = (severity: Finding['severity']): number =>
    sorted.filter((finding) => finding.severity === severity).length
  const isUnreadable = ({ code, severity }: Finding): boolean =>
    code === 'object.unreadable' && severity === 'error'
  return {
    findings: sorted,
    leftOut: findingsLeftOut(findings),
    errors: count('error'),
    unreadable: sorted.filter(isUnreadable).length,
    warnings: count('warning'),
  }
}
