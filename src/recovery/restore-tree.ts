/**
 * What a restore does with the entries of a snapshot as the walk yields them: folders and special files at
 * once, files into batches, further names of files and the metadata of folders when all jobs so far are done.
 */
import { lstatSync } from 'node:fs'
import { pathBytes } from '../base/file-entry.ts'
import type { TreeEntry } from '../format/tree.ts'
import type { TreeEvent } from '../repo/tree-reader.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import { entryFromStats } from '../sources/files/stat.ts'
import { placeOf, type RestoreTarget } from '../sources/files/target.ts'
import { finishFolder, linkEntry, makeEntry, removeTarget } from '../sources/files/write.ts'
import { addProblem, lostTo, newProblemList, type LostFile, type ProblemList } from './lost-file.ts'
import { addFile, finishParted, leanEntry, type Batcher } from './restore-batch.ts'
import type { RestoreResult } from './restore-job.ts'
import type { RestoreMode } from './restore-marker.ts'
import { isExcluded, isSelected, mayHoldSelected, type Selection } from './select.ts'

/** Folders whose metadata waits, and lost files remembered, before jobs are waited for. 200 bytes each. */
const WAITING_MAX = 10_000
/** Who may not read and search a folder finds nothing in it to link to. */
const OPEN_FOLDER_MODE = 0o500

/** Where entries are written; a dry run has none. */
export interface TreeWriting {
  readonly target: RestoreTarget
  readonly batcher: Batcher
  readonly mode: RestoreMode
}

interface MadeFolder {
  readonly path: string
  readonly entry: TreeEntry
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
  /** Folders made and left, in that order, whose metadata waits for what lies in them. */
  folders: MadeFolder[]
  /** Those of them that let nobody in, for the end: other files may still be linked to what is in them. */
  readonly closed: MadeFolder[]
  /** First name of files with several, by linkKey(). */
  readonly firstNames: Map<string, string>
  links: { readonly path: string; readonly first: string; readonly entry: TreeEntry }[]
  /** What is missing, by path relative to the root, as far as somebody may still ask. */
  readonly lost: Map<string, LostFile>
  /** How many are missing, and how many were when finishEntries() was there last. */
  missing: number
  missingFinished: number
  /** Paths of problems are absolute. */
  readonly problems: ProblemList
  readonly damaged: ProblemList
  readonly unreadable: ProblemList
  readonly failed: ProblemList
  /** Entries that were selected. */
  matched: number
  /** What is there, or would be; `bytes` of file contents. */
  readonly done: RestoreCounts
}

export interface RestoreCounts {
  files: number
  directories: number
  others: number
  bytes: number
  bytesWritten: number
  bytesKept: number
  resumed: number
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
    closed: [],
    firstNames: new Map(),
    links: [],
    lost: new Map(),
    missing: 0,
    missingFinished: 0,
    problems: newProblemList(),
    damaged: newProblemList(),
    unreadable: newProblemList(),
    failed: newProblemList(),
    matched: 0,
    done: { files: 0, directories: 0, others: 0, bytes: 0, bytesWritten: 0, bytesKept: 0, resumed: 0 },
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
    if (folder?.made === true && state.writing !== undefined)
      state.folders.push({ path: folder.path, entry: leanEntry(folder.entry) })
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
  lose(state, lostTo(path.slice(1), error, 'some or all of what is in it cannot be restored'))
}

/** Adds up what a job has done. */
export function takeResult(state: TreeRestore, result: RestoreResult): void {
  state.done.files += result.files
  state.done.bytes += result.bytes
  state.done.bytesWritten += result.bytesWritten
  state.done.bytesKept += result.bytesKept
  addProblems(state, result.problems)
  for (const lost of result.lost) lose(state, lost)
}

/** Whether so much waits for finishEntries() that memory asks for it before the end. */
export function isFinishDue(state: TreeRestore): boolean {
  const { folders, links, missing, missingFinished } = state
  return Math.max(folders.length, links.length, missing - missingFinished) >= WAITING_MAX
}

/**
 * After all jobs handed over so far: files in parts, further names, and the metadata of folders that were
 * left. `isLast`: nothing comes any more. Fails: restore.failed.
 */
export function finishEntries(state: TreeRestore, { target, batcher }: TreeWriting, isLast: boolean): void {
  const parted = finishParted(batcher, (path) => state.lost.has(path))
  state.done.files += parted.files
  state.done.bytes += parted.bytes
  addProblems(state, parted.problems)
  for (const problem of parted.failed) lose(state, { how: 'failed', problem })
  for (const link of state.links) makeLink(state, target, link)
  for (const folder of state.folders) {
    const isOpen = (folder.entry.mode & OPEN_FOLDER_MODE) === OPEN_FOLDER_MODE
    if (isOpen) addProblems(state, finishFolder(target, folder.path, folder.entry))
    else state.closed.push(folder)
  }
  state.links = []
  state.folders = []
  forgetLost(state)
  if (!isLast) return
  for (const { path, entry } of state.closed) addProblems(state, finishFolder(target, path, entry))
}

function makeLink(state: TreeRestore, target: RestoreTarget, link: TreeRestore['links'][number]): void {
  const { path, first, entry } = link
  const lost = state.lost.get(first)
  if (lost !== undefined) {
    lose(state, { ...lost, problem: { ...lost.problem, path } })
    return
  }
  const [problem] = linkEntry(target, path, first)
  if (problem !== undefined) lose(state, { how: 'failed', problem })
  else countEntry(state, entry)
}

/** Of what is lost only the first names of files may still be asked for, by their further names. */
function forgetLost(state: TreeRestore): void {
  state.missingFinished = state.missing
  if (state.lost.size === 0) return
  const firsts = new Set(state.firstNames.values())
  for (const path of state.lost.keys()) if (!firsts.has(path)) state.lost.delete(path)
}

function countEntry({ done }: TreeRestore, entry: TreeEntry): void {
  if (entry.type === 'file') {
    done.files++
    done.bytes += entry.size
  } else if (entry.type !== 'socket') done.others++
}

function isInSelected(state: TreeRestore): boolean {
  return state.open.at(-1)?.selected === true
}

/** Makes the folders that the walk is in. */
function makeFolders(state: TreeRestore): void {
  for (const folder of state.open) {
    if (folder.made) continue
    folder.made = true
    if (folder.selected) state.matched++
    const { target } = state.writing ?? {}
    const [problem] = target === undefined ? [] : makeEntry(target, folder.path, folder.entry)
    if (problem === undefined) state.done.directories++
    else lose(state, { how: 'failed', problem })
  }
}

function takeSpecial(state: TreeRestore, path: string, entry: TreeEntry): void {
  if (state.writing === undefined) countEntry(state, entry)
  if (state.writing === undefined || isFurtherName(state, path, entry)) return
  const problems = makeEntry(state.writing.target, path, entry)
  const [problem] = problems
  if (problem?.missing !== true) {
    noteFirstName(state, path, entry)
    countEntry(state, entry)
  }
  // Devices and the like hold no content: a user who may not make them loses nothing that was backed up.
  if (entry.type === 'symlink' && problem?.missing === true) lose(state, { how: 'failed', problem })
  else addProblems(state, problems)
}

async function takeFile(state: TreeRestore, path: string, entry: TreeEntry): Promise<void> {
  if (state.writing === undefined) countEntry(state, entry)
  if (state.writing === undefined || isFurtherName(state, path, entry)) return
  noteFirstName(state, path, entry)
  const { target, batcher, mode } = state.writing
  if (mode.resume && isDone(target, path, entry)) {
    countEntry(state, entry)
    state.done.resumed++
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
  if (first !== undefined) state.links.push({ path, first, entry: leanEntry(entry) })
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
  state.missing++
  addProblem(state[lost.how], { ...lost.problem, path: `/${path}` })
}

function addProblems(state: TreeRestore, problems: readonly FileProblem[]): void {
  for (const problem of problems) addProblem(state.problems, { ...problem, path: `/${problem.path}` })
}

function ownUid(): number {
  return process.geteuid?.() ?? 0
}

function ownGid(): number {
  return process.getegid?.() ?? 0
}
