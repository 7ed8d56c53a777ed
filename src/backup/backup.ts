/**
 * The backup flow: source -> segments -> chunks -> packs -> index runs -> refs -> snapshot. Order is the
 * safety (docs/format.md section 1): whatever stops here, the repository is whole, and the next run adopts
 * what was stored.
 */
import type { Clock } from '../base/clock.ts'
import { formatTime } from '../base/clock.ts'
import { randomBytes, randomHex } from '../base/random.ts'
import { encodeSigned } from '../format/signed.ts'
import {
  sessionName,
  snapshotId,
  snapshotName,
  type LineageSet,
  type Session,
  type SnapshotKind,
} from '../format/snapshot.ts'
import type { ConfigDomain } from '../format/config.ts'
import { adoptRun, type SharedIndex } from '../repo/chunk-index.ts'
import {
  emptySubFolder,
  lockSource,
  readHostState,
  unlockSource,
  type HostFolder,
} from '../repo/host-folder.ts'
import {
  currentEpoch,
  domainKeys,
  requireIdKey,
  writingDomain,
  type Access,
  type DomainKeys,
} from '../repo/keys.ts'
import { openLineage } from '../repo/lineage.ts'
import type { RebuiltSet } from '../repo/rebuild.ts'
import { buildSessionRun } from '../repo/run-writer.ts'
import type { WriterKeys } from '../repo/saver.ts'
import { listSnapshots, type StoredSnapshot } from '../repo/snapshots.ts'
import type { BlobStore } from '../storage/store.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import type { Source, SourceBefore } from '../sources/source.ts'
import { adoptedBytes, adoptSession, type Adopted } from './adopt.ts'
import { throwIfCancelled } from './cancel.ts'
import { commit, signingSeedOf } from './commit.ts'
import { closeEngine, flushEngine, openEngine, type Engine } from './engine.ts'
import { planBackup, planFull, type BackupPlan, type WantedKind } from './parent.ts'
import { cancellableStore, discardingStore } from './run-store.ts'
import { saveRefs } from './save-refs.ts'
import { saveTree, type SavedTree } from './save-tree.ts'
import { tidyUp } from './tidy-up.ts'
import type { TreeTotals } from './tree-saver.ts'

export interface BackupOptions {
  readonly kind: WantedKind
  readonly tags: readonly string[]
  readonly hostName: string
  /** Worker threads; 0 does all in this thread. */
  readonly workers: number
  /** Reads and packs, but stores nothing. */
  readonly dryRun: boolean
  readonly clock: Clock
  readonly signal?: AbortSignal
  readonly onProgress?: (totals: TreeTotals, path: string) => void
}

export interface BackupSummary {
  readonly source: string
  /** undefined for a dry run. */
  readonly snapshot: string | undefined
  readonly kind: SnapshotKind
  /** Why the kind is not the one asked for. */
  readonly because: string | undefined
  readonly parent: string | undefined
  /** Whether an interrupted backup's packs were taken over. */
  readonly adoptedPacks: number
  /** Pack sets of the lineage whose index runs are lost. */
  readonly rebuilt: readonly RebuiltSet[]
  readonly problems: readonly FileProblem[]
  /** The backup is sound, but something about it or after its commit deserves a word. */
  readonly warnings: readonly string[]
  readonly totals: TreeTotals
  /** Bytes of the packs this backup wrote; for a dry run, that it would have written. */
  readonly bytesStored: number
  readonly seconds: number
}

/** Everything the steps share. */
export interface BackupRun {
  readonly access: Access
  readonly store: BlobStore
  readonly host: HostFolder
  readonly domain: ConfigDomain
  readonly keys: DomainKeys
  /** All that the store showed of this stream when the run began. */
  readonly history: readonly StoredSnapshot[]
  readonly plan: BackupPlan
  readonly source: Source
  readonly options: BackupOptions
  readonly id: string
  readonly begun: number
  readonly packSet: string
}

/**
 * Backs up one source. The snapshot is durable when it resolves; problems with single files are in the
 * summary. Fails: repo.busy, source._, storage._, key.*, repo.corrupt, cancelled.
 */
export async function backup(
  given: Access,
  host: HostFolder,
  source: Source,
  options: BackupOptions,
): Promise<BackupSummary> {
  const started = options.clock.elapsed()
  const access = { ...given, store: cancellableStore(given.store, options.signal) }
  const lock = lockSource(host, source.name)
  try {
    const domain = writingDomain(access)
    const keys = await domainKeys(access, domain.id)
    const { snapshots: history } = await listSnapshots(access.store, access.config, {
      domain: domain.id,
      source: source.name,
    })
    const plan = (source.increments ? planBackup : planFull)(options.kind, history)
    // Refuses what is unmounted or suddenly empty.
    const view = await source.begin(plan.head && beforeOf(plan.head, host))
    let ended: Promise<readonly FileProblem[]> | undefined
    const end = (): Promise<readonly FileProblem[]> => (ended ??= view.end())
    try {
      const { adopted, spent } = await adoptSession(
        { ...access, domain, keys, source: source.name, history },
        plan,
      )
      const run = beginRun(access, host, { domain, keys, history, plan, source, options, adopted })
      await announce(run) // the session: from here on the janitor knows of us
      return await withEngine(run, adopted, async (engine, rebuilt) => {
        const tree = await saveTree(run, engine, view) // 1. every file and tree node is in a pack
        await flushEngine(engine) //                      2. every pack durable, then listed in an index run
        const refs = await saveRefs(run, engine, tree) // 3. what the snapshot references, for the janitor
        await flushEngine(engine)
        throwIfCancelled(options.signal)
        const problems = [...tree.problems, ...(await end())]
        const saved = { ...tree, problems, refs: refs.ids }
        const snapshot = await commit(run, engine, view, saved) // 4. the promise
        const roots = view.rootCounts()
        const warnings = await tidyUp(run, given.store, engine, { tree, refs, roots, snapshot, spent })
        return summaryOf(run, engine, { tree, problems, adopted, rebuilt, started, warnings })
      })
    } finally {
      await end()
    }
  } finally {
    unlockSource(lock)
  }
}

function beforeOf(head: StoredSnapshot, host: HostFolder): SourceBefore {
  const roots = readHostState(host).roots?.[`${head.domain}/${head.source}`] ?? {}
  return { files: head.totals.files, bytes: head.totals.bytes ?? 0, roots }
}

function beginRun(
  access: Access,
  host: HostFolder,
  parts: {
    domain: ConfigDomain
    keys: DomainKeys
    history: readonly StoredSnapshot[]
    plan: BackupPlan
    source: Source
    options: BackupOptions
    adopted: Adopted | undefined
  },
): BackupRun {
  const begun = parts.options.clock.now()
  const store = parts.options.dryRun ? discardingStore(access.store) : access.store
  const packSet = parts.adopted?.packSet ?? randomHex(16)
  return { access, host, store, ...parts, begun, id: snapshotId(begun, randomBytes(4)), packSet }
}

async function announce(run: BackupRun): Promise<void> {
  const { domain, source, plan, packSet, id, access } = run
  const name = sessionName(domain.id, source.name, id)
  const session: Session = {
    type: 'session',
    version: 1,
    id,
    source: source.name,
    kind: plan.kind,
    generation: plan.full?.generation ?? packSet,
    packSet,
    parent: plan.parent?.id ?? null,
    epoch: currentEpoch(run.keys).epoch,
    begun: formatTime(run.begun),
    snapshot: snapshotName(domain.id, source.name, id),
  }
  const place = { kind: 'session', repository: access.config.repository, name } as const
  await run.store.put(name, encodeSigned({ ...place, payload: session }, signingSeedOf(run.keys)))
}

/** Opens the lineage's index and the lanes around `body`; closes them whatever happens. */
async function withEngine<T>(
  run: BackupRun,
  adopted: Adopted | undefined,
  body: (engine: Engine, rebuilt: readonly RebuiltSet[]) => Promise<T>,
): Promise<T> {
  const { store, keys, host, plan, options, access } = run
  const lineage: LineageSet[] = [...plan.lineage]
  if (adopted !== undefined) lineage.push(adopted)
  const place = { store: access.store, repository: access.config.repository, keys, host }
  const { index: opened, rebuilt } = await openLineage(place, lineage)
  let index: SharedIndex = opened
  const sessionFolder = emptySubFolder(host, `session-${run.source.name}`)
  if (adopted !== undefined && adopted.loose.length > 0)
    index = adoptRun(index, buildSessionRun(sessionFolder, adopted.loose))
  const { clock, workers, signal } = options
  const engine = openEngine({
    store,
    keys: writerKeys(run),
    chunking: access.config.chunking,
    index,
    adopted,
    sessionFolder,
    clock,
    workers,
    signal,
  })
  try {
    if (adopted !== undefined) engine.runs.pending.push(...adopted.loose)
    return await body(engine, rebuilt)
  } finally {
    await closeEngine(engine)
    emptySubFolder(host, `session-${run.source.name}`)
  }
}

function writerKeys(run: BackupRun): WriterKeys {
  const { epoch, dataPublic, metaPublic } = currentEpoch(run.keys)
  return {
    repository: Buffer.from(run.access.config.repository, 'hex'),
    domain: Buffer.from(run.domain.id, 'hex'),
    packSet: Buffer.from(run.packSet, 'hex'),
    epoch,
    dataPublic,
    metaPublic,
    idKey: requireIdKey(run.keys),
    indexKey: run.keys.indexKey,
  }
}

function summaryOf(
  run: BackupRun,
  engine: Engine,
  done: {
    tree: SavedTree
    problems: readonly FileProblem[]
    adopted: Adopted | undefined
    rebuilt: readonly RebuiltSet[]
    started: number
    warnings: readonly string[]
  },
): BackupSummary {
  return {
    source: run.source.name,
    snapshot: run.options.dryRun ? undefined : run.id,
    kind: run.plan.kind,
    because: run.plan.because,
    parent: run.plan.parent?.id,
    adoptedPacks: done.adopted === undefined ? 0 : done.adopted.packs + done.adopted.loose.length,
    rebuilt: done.rebuilt,
    problems: done.problems,
    warnings: done.warnings,
    totals: done.tree.totals,
    bytesStored: engine.runs.bytes - (done.adopted === undefined ? 0 : adoptedBytes(done.adopted)),
    seconds: (run.options.clock.elapsed() - done.started) / 1000,
  }
}
