/**
 * The promise: builds, checks and puts the snapshot object. Nothing is put that a reader would refuse: lists
 * that only inform people are cut to bounds, and the object is parsed again before it is stored.
 */
import { formatTime } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { encodeSigned, SIGNED_BYTES_MAX } from '../format/signed.ts'
import { sha256 } from '../format/seal.ts'
import {
  decodeDetails,
  encodeDetails,
  parseSnapshot,
  snapshotName,
  type Snapshot,
  type SnapshotDetails,
} from '../format/snapshot.ts'
import { refuseRevoked, sealDetails, type DomainKeys } from '../repo/keys.ts'
import { lineageSet } from '../repo/run-writer.ts'
import { listSnapshots, type StoredSnapshot } from '../repo/snapshots.ts'
import { systemIdOf } from '../sources/postgres/wal-branch.ts'
import type { SourceView } from '../sources/source.ts'
import type { BlobStore } from '../storage/store.ts'
import type { BackupRun } from './backup.ts'
import type { Engine } from './engine.ts'
import type { SavedTree } from './save-tree.ts'

/** Entries and characters of each list in the details: they inform, the tree has them all. */
const DETAIL_ENTRIES_MAX = 1000
const DETAIL_CHARS_MAX = 1024 * 1024

/**
 * Puts the snapshot behind the stream's head of this moment: from the put on the backup exists. undefined for
 * a dry run. Fails: key.revoked, as the store's put.
 */
export async function commit(
  run: BackupRun,
  engine: Engine,
  view: SourceView,
  saved: SavedTree & { refs: readonly string[] },
): Promise<StoredSnapshot | undefined> {
  if (run.options.dryRun) return undefined
  const { access, domain, source, plan, id } = run
  const name = snapshotName(domain.id, source.name, id)
  const place = { kind: 'snapshot', repository: access.config.repository, name } as const
  const own = lineageSet(engine.runs)
  const details = sealDetails(run.keys, place, detailsOf(run, view, saved))
  await refuseRevoked(access, domain.id)
  // Last: a snapshot of another run that comes between this look and the put has the same number.
  const head = await headNow(run)
  const payload: Snapshot = {
    type: 'snapshot',
    version: 1,
    id,
    source: source.name,
    sourceKind: source.kind,
    kind: plan.kind,
    generation: plan.full?.generation ?? run.packSet,
    packSet: run.packSet,
    full: plan.full?.id ?? id,
    parent: plan.parent?.id ?? null,
    counter: (head?.counter ?? 0) + 1,
    previous: head?.sha256 ?? null,
    begun: formatTime(run.begun),
    completed: formatTime(run.options.clock.now()),
    partial: saved.problems.length > 0,
    lineage: own === undefined ? plan.lineage : [...plan.lineage, own],
    root: Buffer.from(saved.root).toString('hex'),
    refs: saved.refs,
    tags: run.options.tags,
    totals: { ...saved.totals, problems: saved.problems.length },
    ...logOf(view),
    ...details,
  }
  const object = encodeSigned({ ...place, payload: parseSnapshot(payload, name) }, signingSeedOf(run.keys))
  if (object.length > SIGNED_BYTES_MAX)
    throw new Failure('repo.rule', `Cannot commit ${name}: its lineage makes it ${object.length} bytes long`)
  await putSnapshot(run.store, name, object)
  return { ...payload, domain: domain.id, name, sha256: sha256(object).toString('hex') }
}

/**
 * The stream's head: another run, from another cache folder, may have committed meanwhile. Only the place in
 * the stream follows it; parent and lineage stay those of the plan, and whole without it.
 */
async function headNow(run: BackupRun): Promise<StoredSnapshot | undefined> {
  const { head } = run.plan
  const last = (await streamNow(run, run.access.store)).at(-1)
  if (last === undefined || head === undefined) return last ?? head
  const isNewer = last.counter > head.counter || (last.counter === head.counter && last.id > head.id)
  return isNewer ? last : head
}

async function streamNow(run: BackupRun, store: BlobStore): Promise<readonly StoredSnapshot[]> {
  const scope = { domain: run.domain.id, source: run.source.name, known: run.history }
  return (await listSnapshots(store, run.access.config, scope)).snapshots
}

/**
 * A sentence for each snapshot that another run put under the same number, since neither saw the other's when
 * it looked. Both are whole; the next backup goes on behind the last one by name.
 */
export async function raceWarnings(
  run: BackupRun,
  store: BlobStore,
  made: StoredSnapshot,
): Promise<string[]> {
  const stream = await streamNow(run, store)
  const twins = stream.filter(({ counter, id }) => counter === made.counter && id !== made.id)
  return twins.map(
    ({ id }) =>
      `${id} and ${made.id} both are number ${made.counter} of "${made.source}": two backups ended at ` +
      'the same moment. Both are whole; of runs with one cache folder the second one is refused',
  )
}

/** A sentence if this snapshot is of another cluster than the one before: its log and its past are another's. */
export function clusterWarnings(history: readonly StoredSnapshot[], made: StoredSnapshot): string[] {
  const before = history.toSorted((a, b) => a.counter - b.counter).findLast(({ log }) => log !== undefined)
  const [was, is] = [before && systemIdOf(before), systemIdOf(made)]
  if (before === undefined || was === undefined || is === undefined || was === is) return []
  return [
    `${made.id} is of another cluster than ${before.id} before it: of system ${is}, not ${was}. ` +
      'After pg_upgrade or a new initdb that must be so, and `backstock ship` has to begin anew; ' +
      'else its URL leads to a wrong server, which should be a source of its own',
  ]
}

/** A cancelled or failed put may have happened all the same: then the backup exists, and is no failure. */
async function putSnapshot(store: BlobStore, name: string, object: Buffer): Promise<void> {
  try {
    await store.put(name, object)
  } catch (error) {
    if ((await store.stat(name).catch(() => undefined))?.bytes !== object.length) throw error
  }
}

function logOf(view: SourceView): Pick<Snapshot, 'log'> {
  const range = view.logRange()
  if (range === undefined) return {}
  const { branch, from, to, held } = range
  return { log: { branch, from: `${from}`, to: `${to}`, held: held === undefined ? null : `${held}` } }
}

function detailsOf(run: BackupRun, view: SourceView, saved: SavedTree): SnapshotDetails {
  const details: SnapshotDetails = {
    host: run.options.hostName,
    paths: cutList(view.roots, (path) => path.length),
    excludes: cutList(view.excludes, (pattern) => pattern.length),
    ...view.owners(),
    errors: cutList(
      saved.problems.map(({ path, what }) => ({ path, what })),
      ({ path, what }) => path.length + what.length,
    ),
  }
  return decodeDetails(encodeDetails(details), 'the details of the snapshot')
}

function cutList<T>(list: readonly T[], charsOf: (item: T) => number): T[] {
  let chars = 0
  const kept: T[] = []
  for (const item of list) {
    chars += charsOf(item)
    if (kept.length >= DETAIL_ENTRIES_MAX || chars > DETAIL_CHARS_MAX) break
    kept.push(item)
  }
  return kept
}

/** Fails: key.missing. */
export function signingSeedOf(keys: DomainKeys): Buffer {
  if (keys.signingSeed !== undefined) return keys.signingSeed
  throw new Failure('key.missing', `Cannot write to domain ${keys.domain}: this credential signs nothing`)
}
