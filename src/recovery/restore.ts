/**
 * The restore flow: snapshot -> tree -> batches of files -> packs -> files, then links, metadata of folders,
 * sync. Every chunk is checked before it is written; what is damaged is named and not left half-written; an
 * interrupted restore is resumed by the same command.
 */
import type { Clock } from '../base/clock.ts'
import { rawPath } from '../base/file-entry.ts'
import { Failure } from '../base/failure.ts'
import type { HostFolder } from '../repo/host-folder.ts'
import type { Access } from '../repo/keys.ts'
import type { RebuiltSet } from '../repo/rebuild.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { closeSnapshot, findEntry, openSnapshot, walkTree, type SnapshotReader } from '../repo/tree-reader.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import {
  closeRestoreTarget,
  openRestoreTarget,
  syncTarget,
  type TargetOptions,
} from '../sources/files/target.ts'
import { addProblem, type LostHow } from './lost-file.ts'
import { flushBatch, newBatcher } from './restore-batch.ts'
import {
  refuseRepositoryFolder,
  refuseStoreFolder,
  storeFolders,
  type StoreFolders,
} from './restore-guard.ts'
import { closeRestoreLanes, newRestoreLanes, settleRestore } from './restore-lanes.ts'
import { beginMarker, endMarker, leaveMarker, previewMarker, undoMarker } from './restore-marker.ts'
import {
  finishEntries,
  isFinishDue,
  loseFolder,
  newTreeRestore,
  takeEvent,
  takeResult,
  wantsFolder,
  type RestoreCounts,
  type TreeRestore,
} from './restore-tree.ts'
import { newSelection, type Selection } from './select.ts'

/** A file without which nobody takes the folder for whole: written when all else is durable. */
export interface LastFile {
  /** Raw and absolute, below `below`. */
  readonly path: string
  /** Runs before; false: it is left out, and the restore is not finished. */
  readonly before: () => Promise<boolean>
}

export interface RestoreOptions {
  /** Folder that receives the tree; files keep their absolute path below it. */
  readonly to: string
  /** Globs; none: everything. */
  readonly paths: readonly string[]
  readonly exclude: readonly string[]
  /** Rewrite only what differs from what is there. */
  readonly delta: boolean
  /** Replace files that are there. */
  readonly overwrite: boolean
  /** Count what would be restored; write nothing. */
  readonly dryRun: boolean
  /** Leave owners as the restoring user's. */
  readonly noOwner: boolean
  /** Raw path of a folder of the snapshot whose contents become those of `to`; undefined: its root. */
  readonly below?: string | undefined
  readonly last?: LastFile | undefined
  /** Resumed only by a call that says the same. */
  readonly also?: string | undefined
  /** Threads; 0 does everything in this one. */
  readonly workers: number
  readonly clock: Clock
  /** The system's call, for tests: see TargetOptions. */
  readonly sync?: TargetOptions['sync']
  readonly signal?: AbortSignal
  readonly onProgress?: (done: {
    files: number
    bytes: number
    filesTotal: number
    bytesTotal: number
  }) => void
}

/**
 * What was restored; nothing that is missing is counted. Lists of problems hold the first of each kind,
 * `counts` says how many there are.
 */
export interface RestoreSummary extends Readonly<RestoreCounts> {
  readonly snapshot: string
  /** Pack sets whose index runs are lost. */
  readonly rebuilt: readonly RebuiltSet[]
  /** Owners, modes, attributes and special files that this user or file system would not take. */
  readonly problems: readonly FileProblem[]
  /** Entries that are damaged in the repository and were left out, folders with what lies below. */
  readonly damaged: readonly FileProblem[]
  /** Entries that were left out because the store could not read them now; they may be whole. */
  readonly unreadable: readonly FileProblem[]
  /** Entries that could not be written here, and globs that match nothing. */
  readonly failed: readonly FileProblem[]
  readonly counts: Readonly<Record<'problems' | LostHow, number>>
  readonly seconds: number
}

/**
 * Restores files. Everything it reports as restored is durable when it resolves. As long as something is
 * missing, the same call restores what is missing. Fails: restore.refused (the folder is not empty or the
 * repository's, nothing is selected), restore.failed, key.role, storage.*, cancelled.
 */
export async function restore(
  access: Access,
  host: HostFolder,
  snapshot: StoredSnapshot,
  options: RestoreOptions,
): Promise<RestoreSummary> {
  const started = options.clock.elapsed()
  const reader = await openSnapshot(access, host, snapshot)
  try {
    const selection = newSelection(options.paths, options.exclude)
    const folders = storeFolders(access.store.location)
    await refuseRepositoryFolder(reader, folders, selection, rawPath(options.to))
    const state = options.dryRun
      ? await previewTree(reader, selection, options)
      : await restoreTree({ access, reader, folders }, selection, options)
    return summaryOf(state, reader, (options.clock.elapsed() - started) / 1000)
  } finally {
    closeSnapshot(reader)
  }
}

/** Counts; nothing is written. */
async function previewTree(
  reader: SnapshotReader,
  selection: Selection,
  options: RestoreOptions,
): Promise<TreeRestore> {
  previewMarker(rawPath(options.to), reader.snapshot, options) // refuses a folder that is not empty
  const state = newTreeRestore({ selection, noOwner: options.noOwner, writing: undefined })
  await walkSelected(reader, state, options, () => Promise.resolve())
  noteUnmatched(state, reader)
  return state
}

async function restoreTree(
  from: { readonly access: Access; readonly reader: SnapshotReader; readonly folders: StoreFolders },
  selection: Selection,
  options: RestoreOptions,
): Promise<TreeRestore> {
  const { access, reader, folders } = from
  const root = rawPath(options.to)
  const marker = beginMarker(root, reader.snapshot, options) // refuses a folder that is not empty
  let end = leaveMarker
  let isWhole = true
  try {
    const target = openRestoreTarget(root, {
      replace: marker.mode.replace,
      guard: (path, stats) => refuseStoreFolder(folders, root, { path, stats }),
      sync: options.sync,
    })
    const { packs, keys } = reader
    const onResult = (result: Parameters<typeof takeResult>[1]): void => {
      takeResult(state, result)
      reportProgress(state, reader, options)
    }
    const { workers } = options
    const lanes = newRestoreLanes({ workers, reader: packs, keys, store: access.store, target, onResult })
    const batcher = newBatcher(reader, lanes, marker.mode)
    const writing = { target, batcher, mode: marker.mode }
    const state = newTreeRestore({ selection, noOwner: options.noOwner, writing })
    try {
      const finish = async (isLast: boolean): Promise<void> => {
        await flushBatch(batcher)
        await settleRestore(lanes)
        throwIfCancelled(options)
        finishEntries(state, writing, isLast)
      }
      // 1. folders, special files, all contents in batches
      await walkSelected(reader, state, options, () => finish(false))
      if (isNothing(state, selection)) end = undoMarker
      noteUnmatched(state, reader)
      await finish(true) //  2. files in parts, links, metadata of folders
      syncTarget(target) //  3. durable
      if (options.last !== undefined && state.missing === 0) {
        isWhole = await options.last.before()
        if (isWhole) await takeLast(reader, state, options)
        await finish(true)
        syncTarget(target)
      }
    } finally {
      await closeRestoreLanes(lanes)
      closeRestoreTarget(target)
    }
    if (state.missing === 0 && isWhole) end = endMarker
    return state
  } finally {
    end(marker)
  }
}

/** `finish`: waits for all jobs so far and finishes what depends on them. */
async function walkSelected(
  reader: SnapshotReader,
  state: TreeRestore,
  options: RestoreOptions,
  finish: () => Promise<void>,
): Promise<void> {
  const { below = '', last } = options
  const into = (path: string): boolean =>
    isAbove(path, below) || (path.startsWith(`${below}/`) && wantsFolder(state, path.slice(below.length)))
  const onDamage = (path: string, error: unknown): void =>
    loseFolder(state, pathBelow(path, below) ?? path, error)
  for await (const event of walkTree(reader, { into, onDamage })) {
    throwIfCancelled(options)
    const path = pathBelow(event.path, below)
    if (path === undefined || path === last?.path) continue
    await takeEvent(state, { ...event, path })
    if (isFinishDue(state)) await finish()
  }
}

/** Restores the file that was left for last; its folder is there. */
async function takeLast(
  reader: SnapshotReader,
  state: TreeRestore,
  { below = '', last }: RestoreOptions,
): Promise<void> {
  const path = last?.path ?? ''
  const entry = await findEntry(reader, `${below}${path}`)
  if (entry !== undefined) await takeEvent(state, { kind: 'entry', path, entry })
}

/** Whether `path` is the folder, or one on the way to it. */
function isAbove(path: string, folder: string): boolean {
  return path === '/' || folder === path || folder.startsWith(`${path}/`)
}

/** The path as the target has it; undefined for what is not below. */
function pathBelow(path: string, below: string): string | undefined {
  return path.startsWith(`${below}/`) ? path.slice(below.length) : undefined
}

function throwIfCancelled({ signal }: RestoreOptions): void {
  if (signal?.aborted === true) throw new Failure('cancelled', 'Cannot finish the restore: it was cancelled')
}

/** Whether the selection took nothing of a snapshot that could be read; an empty snapshot is no mistake. */
function isNothing(state: TreeRestore, selection: Selection): boolean {
  return selection.paths.length > 0 && state.matched === 0 && state.missing === 0
}

/** Globs that match nothing are mistakes: all of them refuse the restore, some are named. */
function noteUnmatched(state: TreeRestore, reader: SnapshotReader): void {
  const { selection } = state
  const unmatched = selection.paths.filter((glob) => !glob.isMatched)
  if (isNothing(state, selection)) {
    const what = selection.paths.map((glob) => glob.text).join(', ')
    const is = `snapshot ${reader.snapshot.id} holds no such path that is not excluded`
    const message = `Cannot restore ${what}: ${is}`
    throw new Failure('restore.refused', message, {
      facts: { hint: 'Look with `backstock ls` or `backstock find`.' },
    })
  }
  for (const { text } of unmatched)
    addProblem(state.failed, {
      path: rawPath(text),
      code: 'ENOENT',
      what: 'the snapshot holds no such path',
    })
}

function reportProgress(state: TreeRestore, reader: SnapshotReader, options: RestoreOptions): void {
  const { files, bytes = 0 } = reader.snapshot.totals
  const done = { files: state.done.files, bytes: state.done.bytesWritten + state.done.bytesKept }
  options.onProgress?.({ ...done, filesTotal: files, bytesTotal: bytes })
}

function summaryOf(state: TreeRestore, reader: SnapshotReader, seconds: number): RestoreSummary {
  const { problems, damaged, unreadable, failed } = state
  return {
    snapshot: reader.snapshot.id,
    ...state.done,
    rebuilt: reader.rebuilt,
    problems: problems.kept,
    damaged: damaged.kept,
    unreadable: unreadable.kept,
    failed: failed.kept,
    counts: {
      problems: problems.count,
      damaged: damaged.count,
      unreadable: unreadable.count,
      failed: failed.count,
    },
    seconds,
  }
}
