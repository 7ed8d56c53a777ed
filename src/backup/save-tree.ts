/** The first half of a backup: the walk of the source into tree and packs, beside it the new tree cache. */
import { join } from 'node:path'
import { renameSync } from 'node:fs'
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
} from '../repo/tree-cache.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import type { SourceView } from '../sources/source.ts'
import type { BackupRun } from './backup.ts'
import { flushEngine, packIds, tendEngine, type Engine } from './engine.ts'
import type { Marks } from './marks.ts'
import { newParentCursor } from './parent-cursor.ts'
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
  const { host, domain, source, plan, options, keys } = run
  const idKey = requireIdKey(keys)
  const parent =
    plan.parent && openTreeCache(treeCachePath(host, domain.id, source.name, plan.parent.id), idKey)
  const temporary = join(subFolder(host, 'trees'), `${source.name}.${randomHex(8)}.tmp`)
  const cache = createTreeCache(temporary, idKey)
  const marks: Marks = []
  const tree = newTreeSaver({
    saver: engine.saver,
    lanes: engine.lanes,
    cursor: newParentCursor(parent),
    cache,
    marks,
    packNumbers: parent === undefined ? [] : renumber(engine, parent),
    ignoreInode: view.ignoreInode,
    pageBytesOf: (path) => view.pageBytesOf(path),
    tend: () => tendEngine(engine),
    signal: options.signal,
  })
  engine.onResults = (results) => {
    takeResults(tree, results)
  }
  try {
    const root = await saveWalk(tree, view.entries(), options.onProgress ?? (() => undefined))
    await flushEngine(engine)
    return {
      root,
      marks,
      totals: tree.totals,
      problems: tree.problems,
      packIds: packIds(engine),
      parentRefs: parent && { whole: parent.trailer.refs, depth: parent.trailer.refsDepth },
      finishCache: (path, trailer) => {
        finishTreeCache(cache, trailer)
        renameSync(temporary, path)
      },
      discardCache: () => {
        abandonTreeCache(cache)
        removeFile(temporary)
      },
    }
  } catch (error) {
    abandonTreeCache(cache)
    removeFile(temporary)
    throw error
  } finally {
    if (parent !== undefined) closeTreeCache(parent)
  }
}

/** The parent cache's pack numbers in terms of this run's index. */
function renumber(engine: Engine, parent: CacheReader): number[] {
  const numbers = new Map<string, number>()
  packIds(engine).forEach((id, number) => {
    if (id !== '') numbers.set(id, number)
  })
  return parent.trailer.packs.map((id) => numbers.get(id) ?? -1)
}
