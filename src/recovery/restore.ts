/**
 * The restore flow: snapshot -> tree -> batches of files -> packs -> files, then links, metadata of folders,
 * sync. Every chunk is checked before it is written; what is damaged is named and not left half-written; an
 * interrupted restore is resumed by the same command.
 */
import { lstatSync } from 'node:fs'
import type { Clock } from '../base/clock.ts'
import { pathBytes, rawPath } from '../base/file-entry.ts'
import { Failure } from '../base/failure.ts'
import type { TreeEntry } from '../format/tree.ts'
import type { HostFolder } from '../repo/host-folder.ts'
import type { Access } from '../repo/keys.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import {
  closeSnapshot,
  openSnapshot,
  walkTree,
  type SnapshotReader,
  type TreeEvent,
} from '../repo/tree-reader.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import { entryFromStats } from '../sources/files/stat.ts'
import {
  closeRestoreTarget,
  openRestoreTarget,
  placeOf,
  syncTarget,
  type RestoreTarget,
} from '../sources/files/target.ts'
import { finishFolder, linkEntry, makeEntry } from '../sources/files/write.ts'
import { addFile, finishParts, flushBatch, newBatcher, type Batcher } from './restore-batch.ts'
import { closeRestoreLanes, newRestoreLanes, settleRestore } from './restore-lanes.ts'
import type { RestoreResult } from './restore-job.ts'
import { beginMarker, endMarker, type RestoreMode } from './restore-marker.ts'
import { isExcluded, isSelected, mayHoldSelected, newSelection, type Selection } from './select.ts'

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
  readonly dryRun: boolean
  /** Leave owners as the restoring user's. */
  readonly noOwner: boolean
  readonly workers: number
  readonly clock: Clock
  readonly signal?: AbortSignal
  readonly onProgress?: (done: {
    files: number
    bytes: number
    filesTotal: number
    bytesTotal: number
  }) => void
}

export interface RestoreSummary {
  readonly snapshot: string
  readonly files: number
  readonly directories: number
  readonly others: number
  /** Bytes of file contents: all, written, and found right where they were. */
  readonly bytes: number
  readonly bytesWritten: number
  readonly bytesKept: number
  /** Files that an earlier, interrupted restore had finished. */
  readonly resumed: number
  /** Metadata and entries that this user or file system would not take. */
  readonly problems: readonly FileProblem[]
  /** Files that are damaged in the repository and were left out. */
  readonly damaged: readonly FileProblem[]
  readonly seconds: number
}

interface Restore {
  readonly reader: SnapshotReader
  readonly target: RestoreTarget | undefined
  readonly selection: Selection
  readonly options: RestoreOptions
  readonly mode: RestoreMode
  readonly batcher: Batcher | undefined
  readonly problems: FileProblem[]
  /** Folders made, in the order they are left: their metadata comes last. */
  readonly folders: { readonly path: string; readonly entry: TreeEntry }[]
  /** Folders that the walk is in; made when something below them is selected. */
  readonly open: {
    readonly path: string
    readonly entry: TreeEntry
    made: boolean
    readonly selected: boolean
  }[]
  /** First name of files with several. */
  readonly firstNames: Map<string, string>
  readonly links: { readonly path: string; readonly first: string }[]
  readonly totals: {
    files: number
    directories: number
    others: number
    bytes: number
    resumed: number
    matched: number
  }
  readonly done: { files: number; bytesWritten: number; bytesKept: number }
}

/**
 * Restores files. Everything it reports as restored is durable when it resolves.
 * Fails: restore.refused (the folder is not empty), restore.failed, key.role, storage.*, cancelled.
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
    const root = rawPath(options.to)
    const mode = beginMarker(root, snapshot, options) // refuses a folder that is not empty
    const target = options.dryRun ? undefined : openRestoreTarget(root, { replace: mode.replace })
    const state = newRestore(access, reader, target, mode, options)
    try {
      await restoreTree(state) //                          1. folders, special files, and all contents in batches
      if (target !== undefined) finishTree(state, target, root) // 2. parts, links, folders; 3. durable
    } finally {
      if (state.batcher !== undefined) await closeRestoreLanes(state.batcher.lanes)
      if (target !== undefined) closeRestoreTarget(target)
    }
    return summaryOf(state, (options.clock.elapsed() - started) / 1000)
  } finally {
    closeSnapshot(reader)
  }
}

function newRestore(
  access: Access,
  reader: SnapshotReader,
  target: RestoreTarget | undefined,
  mode: RestoreMode,
  options: RestoreOptions,
): Restore {
  const onResult = (result: RestoreResult): void => {
    state.problems.push(...result.problems.map((problem) => ({ ...problem, path: `/${problem.path}` })))
    for (const path of result.failedParts) state.batcher?.failed.add(path)
    state.done.bytesWritten += result.bytesWritten
    state.done.bytesKept += result.bytesKept
    reportProgress(state)
  }
  const lanes =
    target &&
    newRestoreLanes({
      workers: options.workers,
      reader: reader.packs,
      keys: reader.keys,
      store: access.store,
      target,
      onResult,
    })
  const state: Restore = {
    reader,
    target,
    options,
    mode,
    batcher: lanes && newBatcher(reader, lanes, mode.delta),
    selection: newSelection(options.paths, options.exclude),
    problems: [],
    folders: [],
    open: [],
    firstNames: new Map(),
    links: [],
    totals: { files: 0, directories: 0, others: 0, bytes: 0, resumed: 0, matched: 0 },
    done: { files: 0, bytesWritten: 0, bytesKept: 0 },
  }
  return state
}

async function restoreTree(state: Restore): Promise<void> {
  const { selection, options } = state
  const into = (path: string): boolean =>
    !isExcluded(selection, path) &&
    (isSelected(selection, path, state.open.at(-1)?.selected === true) || mayHoldSelected(selection, path))
  for await (const event of walkTree(state.reader, { into })) {
    if (options.signal?.aborted === true)
      throw new Failure('cancelled', 'Cannot finish the restore: it was cancelled')
    await takeEvent(state, event)
  }
  if (selection.paths.length > 0 && state.totals.matched === 0) {
    const message = `Cannot restore ${selection.paths.join(', ')}: snapshot ${state.reader.snapshot.id} holds no such path`
    throw new Failure('restore.refused', message, {
      facts: { hint: 'Look with `backstock ls` or `backstock find`.' },
    })
  }
  if (state.batcher !== undefined) {
    await flushBatch(state.batcher)
    await settleRestore(state.batcher.lanes)
  }
}

async function takeEvent(state: Restore, event: TreeEvent): Promise<void> {
  const path = event.path.slice(1)
  const entry = state.options.noOwner ? { ...event.entry, uid: ownUid(), gid: ownGid() } : event.entry
  if (event.kind === 'enter') {
    const selected = isSelected(state.selection, event.path, state.open.at(-1)?.selected === true)
    state.open.push({ path, entry, made: false, selected })
    if (selected) makeFolders(state)
    return
  }
  if (event.kind === 'leave') {
    const folder = state.open.pop()
    if (folder?.made === true) state.folders.push(folder)
    return
  }
  if (isExcluded(state.selection, event.path)) return
  if (!isSelected(state.selection, event.path, state.open.at(-1)?.selected === true)) return
  state.totals.matched++
  makeFolders(state)
  if (entry.type === 'file') {
    await takeFile(state, path, entry)
  } else {
    state.totals.others++
    if (state.target !== undefined) state.problems.push(...absolute(makeEntry(state.target, path, entry)))
  }
}

/** Makes the folders that the walk is in. */
function makeFolders(state: Restore): void {
  for (const folder of state.open) {
    if (folder.made) continue
    folder.made = true
    state.totals.matched++
    state.totals.directories++
    if (state.target !== undefined)
      state.problems.push(...absolute(makeEntry(state.target, folder.path, folder.entry)))
  }
}

async function takeFile(state: Restore, path: string, entry: TreeEntry): Promise<void> {
  state.totals.files++
  state.totals.bytes += entry.size
  if (entry.links > 1) {
    const key = `${entry.dev}:${entry.inode}`
    const first = state.firstNames.get(key)
    if (first !== undefined) {
      state.links.push({ path, first })
      return
    }
    state.firstNames.set(key, path)
  }
  if (state.target === undefined || state.batcher === undefined) return
  if (state.mode.resume && isDone(state.target, path, entry)) {
    state.totals.resumed++
    return
  }
  try {
    await addFile(state.batcher, state.target, path, entry)
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'repo.corrupt') throw error
    state.problems.push({ path: `/${path}`, code: 'EDAMAGED', what: `cannot be restored: ${error.message}` })
  }
}

/** A file whose metadata is right was finished before the interruption: its times are set last. */
function isDone(target: RestoreTarget, path: string, entry: TreeEntry): boolean {
  try {
    const stats = lstatSync(pathBytes(placeOf(target, path)), { bigint: true, throwIfNoEntry: false })
    if (stats === undefined || !stats.isFile()) return false
    const there = entryFromStats(entry.name, stats)
    return there.size === entry.size && there.mtime === entry.mtime && there.mode === entry.mode
  } catch {
    return false // whatever stands in the way is met again when the file is written
  }
}

function finishTree(state: Restore, target: RestoreTarget, root: string): void {
  if (state.batcher !== undefined) state.problems.push(...absolute(finishParts(state.batcher, target)))
  for (const { path, first } of state.links) state.problems.push(...absolute(linkEntry(target, path, first)))
  for (const { path, entry } of state.folders)
    state.problems.push(...absolute(finishFolder(target, path, entry)))
  syncTarget(target)
  endMarker(root)
}

function absolute(problems: readonly FileProblem[]): FileProblem[] {
  return problems.map((problem) => ({ ...problem, path: `/${problem.path}` }))
}

function reportProgress(state: Restore): void {
  const { totals } = state.reader.snapshot
  const bytes = state.done.bytesWritten + state.done.bytesKept
  state.options.onProgress?.({
    files: state.totals.files,
    bytes,
    filesTotal: totals.files ?? 0,
    bytesTotal: totals.bytes ?? 0,
  })
}

function summaryOf(state: Restore, seconds: number): RestoreSummary {
  const { matched: _matched, ...totals } = state.totals
  const isDamage = (problem: FileProblem): boolean => problem.code === 'EDAMAGED'
  return {
    snapshot: state.reader.snapshot.id,
    ...totals,
    bytesWritten: state.done.bytesWritten,
    bytesKept: state.done.bytesKept,
    problems: state.problems.filter((problem) => !isDamage(problem)),
    damaged: state.problems.filter(isDamage),
    seconds,
  }
}

function ownUid(): number {
  return process.getuid?.() ?? 0
}

function ownGid(): number {
  return process.getgid?.() ?? 0
}
