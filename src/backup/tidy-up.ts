/**
 * What a backup does after its commit: remembers the snapshot, keeps the tree cache, clears what dead runs
 * left. None of it can fail the backup any more: each step that does not succeed is a warning.
 */
import { describeError, errnoOf, isFailure } from '../base/failure.ts'
import { sessionName } from '../format/snapshot.ts'
import { sweepRuns } from '../repo/chunk-index.ts'
import { keepHead } from '../repo/heads.ts'
import { subFolder, sweepTreeCaches, treeCachePath, updateHostState } from '../repo/host-folder.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import type { SourceBefore } from '../sources/source.ts'
import type { BlobStore } from '../storage/store.ts'
import type { BackupRun } from './backup.ts'
import { clusterWarnings, raceWarnings } from './commit.ts'
import type { Engine } from './engine.ts'
import type { SavedRefs } from './save-refs.ts'
import type { SavedTree } from './save-tree.ts'

/** Local index files that nothing read for this long are removed. */
const INDEX_CACHE_MS = 14 * 24 * 3600 * 1000
/** Temporary files of puts that died are removed after this long: no put takes so long. */
const LEFTOVER_MS = 24 * 3600 * 1000

interface Done {
  readonly tree: SavedTree
  readonly refs: SavedRefs
  readonly roots: SourceBefore['roots']
  /** undefined for a dry run. */
  readonly snapshot: StoredSnapshot | undefined
  /** Names of session objects whose pack sets are used by a snapshot. */
  readonly spent: readonly string[]
}

/** Returns warnings for people; empty if all went well. */
export async function tidyUp(
  run: BackupRun,
  store: BlobStore,
  engine: Engine,
  done: Done,
): Promise<string[]> {
  const { tree, refs, snapshot, spent, roots } = done
  if (snapshot === undefined) {
    tree.discardCache()
    return []
  }
  const { host, domain, source, plan } = run
  const warnings: string[] = clusterWarnings(run.history, snapshot)
  await attempt(warnings, 'remember the snapshot on this host', () => {
    updateHostState(host, (state) => ({
      ...state,
      heads: keepHead(state.heads, snapshot, run.history),
      roots: { ...state.roots, [`${domain.id}/${source.name}`]: roots },
    }))
  })
  await attempt(warnings, 'keep the tree cache (the next backup reads everything again)', () => {
    tree.finishCache(treeCachePath(host, domain.id, source.name, snapshot.id), {
      snapshot: snapshot.id,
      packs: tree.packIds,
      refs: refs.whole,
      refsDepth: refs.depth,
    })
    sweepTreeCaches(host, { domain: domain.id, source: source.name }, [snapshot.id, snapshot.full])
    sweepRuns(subFolder(host, 'index'), engine.shared, run.options.clock.now() - INDEX_CACHE_MS)
  })
  await attempt(warnings, 'look for backups that ended at the same moment', async () => {
    warnings.push(...(await raceWarnings(run, store, snapshot)))
  })
  await attempt(warnings, 'clear what earlier runs left in the store', async () => {
    for (const name of [...spent, sessionName(domain.id, source.name, run.id)]) await store.delete(name)
    if (plan.kind === 'full') await store.sweep(LEFTOVER_MS)
  })
  return warnings
}

async function attempt(warnings: string[], what: string, step: () => void | Promise<void>): Promise<void> {
  try {
    await step()
  } catch (error) {
    if (!isFailure(error) && errnoOf(error) === undefined) throw error
    warnings.push(`Cannot ${what}: ${describeError(error)}`)
  }
}
