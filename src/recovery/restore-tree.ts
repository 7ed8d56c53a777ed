/**
 * What a restore does with the entries of a snapshot as the walk yields them: folders and special files at
 * once, files into batches, further names of files and the metadata of folders at the end.
 */
import { lstatSync } from 'node:fs'
import { pathBytes } from '../base/file-entry.ts'
import type { TreeEntry } from '../format/tree.ts'
import { isDamage } from '../repo/damage.ts'
import type { TreeEvent } from '../repo/tree-reader.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import { entryFromStats } from '../sources/files/stat.ts'
import { placeOf, type RestoreTarget } from '../sources/files/target.ts'
import { finishFolder, linkEntry, makeEntry, removeTarget } from '../sources/files/write.ts'
import { addFile, finishParted, type Batcher, type LostFile } from './restore-batch.ts'
import type { RestoreResult } from './restore-job.ts'
import type { RestoreMode } from './restore-marker.ts'
import { isExcluded, isSelected, mayHoldSelected, type Selection } from './select.ts'

/** Where entries are written; a dry run has none. */
export interface TreeWriting {
  readonly target: RestoreTarget
  readonly batcher: Batcher
  readonly mode: RestoreMode
}

/** A folder that the walk is in; made when something below it is selected. */
interface WalkedFolder {
  readonly path: string
  readonly entry: TreeEntry
  readonly selected: boolean
  made: boolean
}

export interface TreeRestore {
  readonly selection: Selection
  readonly noOwner: boolean
  readonly writing: TreeWriting | undefined
  readonly open: WalkedFolder[]
  /** Folders made, in the order they are left: their metadata comes last. */
  readonly folders: { readonly path: string; readonly entry: TreeEntry }[]
  /** First name of files with several, by linkKey(). */
  readonly firstNames: Map<string, string>
  readonly links: { readonly path: string; readonly first: string }[]
  /** What is missing, by path relative to the root; also in `damaged` or `failed`. */
  readonly lost: Map<string, LostFile>
  /** Paths of problems are absolute. */
  readonly problems: FileProblem[]
  readonly damaged: FileProblem[]
  readonly failed: FileProblem[]
  readonly totals: { files: number; directories: number; others: number; bytes: number; resumed: number }
  /** Entries that were selected. */
  matched: number
  readonly done: { files: number; bytesWritten: number; bytesKept: number }
}

export function newTreeRestore(options: {
  selection: Selection
  noOwner: boolean
  writing: TreeWriting | undefined
}): TreeRestore {
  return {
    ...options,
    open: [],
    folders: [],
    firstNames: new Map(),
    links: [],
    lost: new Map(),
    problems: [],
    damaged: [],
    failed: [],
    totals: { files: 0, directories: 0, others: 0, bytes: 0, resumed: 0 },
    matched: 0,
    done: { files: 0, bytesWritten: 0, bytesKept: 0 },
  }
}

/** Whether the walk must look into the folder `path` (absolute). */
export function wantsFolder(state: TreeRestore, path: string): boolean {
  const { selection } = state
  if (isExcluded(selection, path)) return false
  return isSelected(selection, path, isInSelected(state)) || mayHoldSelected(selection, path)
}

/** Takes the next event of the walk. Fails: restore.failed, storage.*. */
export async function takeEvent(state: TreeRestore, event: TreeEvent): Promise<void> {
  const path = event.path.slice(1)
  const entry = state.noOwner ? { ...event.entry, uid: ownUid(), gid: ownGid() } : event.entry
  if (event.kind === 'enter') {
    const selected = isSelected(state.selection, event.path, isInSelected(state))
    state.open.push({ path, entry, selected, made: false })
    if (selected) makeFolders(state)
  } else if (event.kind === 'leave') {
    const folder = state.open.pop()
    if (folder?.made === true) state.folders.push(folder)
  } else if (
    !isExcluded(state.selection, event.path) &&
    isSelected(state.selection, event.path, isInSelected(state))
  ) {
    makeFolders(state)
    state.matched++
    if (entry.type === 'file') await takeFile(state, path, entry)
    else takeSpecial(state, path, entry)
  }
}

/** A part of the folder `path` (absolute) cannot be read: what lies there is left out. */
export function loseFolder(state: TreeRestore, path: string, error: unknown): void {
  if (!isDamage(error)) throw error
  const what = `some or all of what is in it cannot be restored: ${error.message}`
  lose(state, { how: 'damaged', problem: { path: path.slice(1), code: 'EDAMAGED', what } })
}

/** Adds up what a job has done. */
export function takeResult(state: TreeRestore, result: RestoreResult): void {
  state.done.files += result.files
  state.done.bytesWritten += result.bytesWritten
  state.done.bytesKept += result.bytesKept
  addProblems(state, result.problems)
  for (const problem of result.damaged) lose(state, { how: 'damaged', problem })
  for (const problem of result.failed) lose(state, { how: 'failed', problem })
}

/** After all jobs: files in parts, further names, and the metadata of folders. Fails: restore.failed. */
export function finishEntries(state: TreeRestore, { target, batcher }: TreeWriting): void {
  const parted = finishParted(batcher, (path) => state.lost.has(path))
  state.done.files += parted.files
  addProblems(state, parted.problems)
  for (const problem of parted.failed) lose(state, { how: 'failed', problem })
  for (const { path, first } of state.links) {
    const lost = state.lost.get(first)
    if (lost !== undefined) lose(state, { ...lost, problem: { ...lost.problem, path } })
    else for (const problem of linkEntry(target, path, first)) lose(state, { how: 'failed', problem })
  }
  for (const { path, entry } of state.folders) addProblems(state, finishFolder(target, path, entry))
}

function isInSelected(state: TreeRestore): boolean {
  return state.open.at(-1)?.selected === true
}

/** Makes the folders that the walk is in. */
function makeFolders(state: TreeRestore): void {
  for (const folder of state.open) {
    if (folder.made) continue
    folder.made = true
    state.totals.directories++
    if (folder.selected) state.matched++
    if (state.writing === undefined) continue
    for (const problem of makeEntry(state.writing.target, folder.path, folder.entry))
      lose(state, { how: 'failed', problem })
  }
}

function takeSpecial(state: TreeRestore, path: string, entry: TreeEntry): void {
  state.totals.others++
  if (state.writing === undefined || isFurtherName(state, path, entry)) return
  const problems = makeEntry(state.writing.target, path, entry)
  const [problem] = problems
  if (problem?.missing !== true) noteFirstName(state, path, entry)
  // Devices and the like hold no content: a user who may not make them loses nothing that was backed up.
  if (entry.type === 'symlink' && problem?.missing === true) lose(state, { how: 'failed', problem })
  else addProblems(state, problems)
}

async function takeFile(state: TreeRestore, path: string, entry: TreeEntry): Promise<void> {
  state.totals.files++
  state.totals.bytes += entry.size
  if (state.writing === undefined || isFurtherName(state, path, entry)) return
  noteFirstName(state, path, entry)
  const { target, batcher, mode } = state.writing
  if (mode.resume && isDone(target, path, entry)) {
    state.totals.resumed++
    state.done.files++
    state.done.bytesKept += entry.size
    return
  }
  const lost = await addFile(batcher, path, entry)
  if (lost === undefined) return
  lose(state, lost)
  if (mode.ours) for (const problem of removeTarget(target, path)) lose(state, { how: 'failed', problem })
}

/** Whether another name of the same file was restored; then this one becomes a link at the end. */
function isFurtherName(state: TreeRestore, path: string, entry: TreeEntry): boolean {
  const first = entry.links > 1 ? state.firstNames.get(linkKey(entry)) : undefined
  if (first !== undefined) state.links.push({ path, first })
  return first !== undefined
}

function noteFirstName(state: TreeRestore, path: string, entry: TreeEntry): void {
  if (entry.links > 1) state.firstNames.set(linkKey(entry), path)
}

/** With size and time: a file that changed between the backup of its names comes back as two. */
function linkKey({ dev, inode, size, mtime }: TreeEntry): string {
  return `${dev}:${inode}:${size}:${mtime}`
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

/** An entry is lost once, whoever says so first. */
function lose(state: TreeRestore, lost: LostFile): void {
  const { path } = lost.problem
  if (state.lost.has(path)) return
  state.lost.set(path, lost)
  state[lost.how].push({ ...lost.problem, path: `/${path}` })
}

function addProblems(state: TreeRestore, problems: readonly FileProblem[]): void {
  for (const problem of problems) state.problems.push({ ...problem, path: `/${problem.path}` })
}

function ownUid(): number {
  return process.geteuid?.() ?? 0
}

function ownGid(): number {
  return process.getegid?.() ?? 0
}
