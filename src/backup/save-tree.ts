/** The first half of a backup: the walk of the source into tree and packs, beside it the new tree cache. */
import { join } from 'node:path'
import { renameSync } from 'node:fs'
import { errnoOf } from '../base/failure.ts'
import { randomHex } from '../base/random.ts'
import { requireIdKey } from '../repo/keys.ts'
import { removeFile, subFolder, treeCachePath } from '../repo/host-folder.ts'
import {
  abandonTreeCache,
  closeTreeCache,
  createTreeCache,
  finishTreeCache,
  openTreeCache,
  type CacheReader,
  type CacheTrailer,
  type CacheWriter,
} from '../repo/tree-cache.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import type { SourceEvent, SourceView } from '../sources/source.ts'
import type { BackupRun } from './backup.ts'
import { flushEngine, packIds, tendEngine, type Engine } from './engine.ts'
import type { Marks } from './marks.ts'
import { newParentCursor } from './parent-cursor.ts'
import { saveDelivery, type DeliveryOptions } from './save-delivery.ts'
import { newTreeSaver, saveWalk, takeResults, type TreeTotals } from './tree-saver.ts'

export interface SavedTree {
  readonly root: Uint8Array
  readonly totals: TreeTotals
  readonly problems: readonly FileProblem[]
  readonly marks: Marks
  /** Pack ids by number. */
  readonly packIds: readonly string[]
  readonly parentRefs: { readonly whole: Uint8Array; readonly depth: number } | undefined
  /** Moves the new tree cache to its place. */
  readonly finishCache: (path: string, trailer: CacheTrailer) => void
  readonly discardCache: () => void
}

/** Everything is durable when it resolves. Fails: as the store's put, cancelled. */
export async function saveTree(run: BackupRun, engine: Engine, view: SourceView): Promise<SavedTree> {
  const { host, source, plan, options, keys } = run
  const idKey = requireIdKey(keys)
  const parent = plan.parent && openParent(run, engine, plan.parent.id)
  const temporary = join(subFolder(host, 'trees'), `${source.name}.${randomHex(8)}.tmp`)
  const { cache, failure } = beginCache(temporary, idKey)
  const discard = (): void => {
    if (cache !== undefined) abandonTreeCache(cache)
    removeFile(temporary)
  }
  const marks: Marks = []
  const shared = {
    saver: engine.saver,
    lanes: engine.lanes,
    cache,
    marks,
    tend: () => tendEngine(engine),
    onProgress: options.onProgress ?? (() => undefined),
    signal: options.signal,
  }
  try {
    const entries = view.entries()
    const saved =
      'deliver' in entries
        ? { ...(await saveDelivery({ ...shared, folder: engine.sessionFolder }, entries)), problems: [] }
        : await saveEntries(engine, view, { ...shared, entries, parent })
    await flushEngine(engine)
    return {
      ...saved,
      marks,
      packIds: packIds(engine),
      parentRefs: parent && { whole: parent.reader.trailer.refs, depth: parent.reader.trailer.refsDepth },
      finishCache: (path, trailer) => {
        if (cache === undefined) throw failure
        try {
          finishTreeCache(cache, trailer)
          renameSync(temporary, path)
        } finally {
          removeFile(temporary)
        }
      },
      discardCache: discard,
    }
  } catch (error) {
    discard()
    throw error
  } finally {
    if (parent !== undefined) closeTreeCache(parent.reader)
  }
}

async function saveEntries(
  engine: Engine,
  view: SourceView,
  given: Omit<DeliveryOptions, 'folder'> & {
    entries: Iterable<SourceEvent>
    parent: Parent | undefined
  },
): Promise<{ root: Uint8Array; totals: TreeTotals; problems: readonly FileProblem[] }> {
  const { entries, parent, onProgress, ...shared } = given
  const tree = newTreeSaver({
    ...shared,
    cursor: newParentCursor(parent?.reader),
    packNumbers: parent?.packNumbers ?? [],
    ignoreInode: view.ignoreInode,
    pageBytesOf: (path) => view.pageBytesOf(path),
  })
  engine.onResults = (results) => {
    takeResults(tree, results)
  }
  const root = await saveWalk(tree, entries, onProgress)
  return { root, totals: tree.totals, problems: tree.problems }
}

/** A backup works without a cache; that there will be none is said after the commit. */
function beginCache(path: string, idKey: Uint8Array): { cache: CacheWriter | undefined; failure: unknown } {
  try {
    return { cache: createTreeCache(path, idKey), failure: undefined }
  } catch (failure) {
    if (errnoOf(failure) === undefined) throw failure
    return { cache: undefined, failure }
  }
}

/** The parent's tree cache with its pack numbers in terms of this run's index. */
interface Parent {
  readonly reader: CacheReader
  readonly packNumbers: readonly number[]
}

/** undefined if the cache is gone, is of another snapshot, or names packs that the lineage does not list. */
function openParent(run: BackupRun, engine: Engine, parentId: string): Parent | undefined {
  const path = treeCachePath(run.host, run.domain.id, run.source.name, parentId)
  const reader = openTreeCache(path, requireIdKey(run.keys))
  if (reader === undefined) return undefined
  const packNumbers = renumber(engine, reader)
  if (reader.trailer.snapshot === parentId && packNumbers !== undefined) return { reader, packNumbers }
  closeTreeCache(reader)
  return undefined
}

function renumber(engine: Engine, parent: CacheReader): number[] | undefined {
  const numbers = new Map<string, number>()
  packIds(engine).forEach((id, number) => {
    if (id !== '') numbers.set(id, number)
  })
  const known = parent.trailer.packs.map((id) => (id === '' ? -1 : numbers.get(id)))
  return known.every((number) => number !== undefined) ? known : undefined
}
