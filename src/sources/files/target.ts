/**
 * The folders of a restore target, held open, so that every write goes where the restore root says.
 *
 * A parent folder is opened one component at a time without following symlinks; entries are then reached by
 * name inside the open folder (`/proc/self/fd/N/name`). A symlink planted in the target, even while the
 * restore runs, cannot send a write outside, and paths longer than the system's PATH_MAX work.
 */
import { closeSync, constants, existsSync, fstatSync, mkdirSync, openSync } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { displayName, pathBytes } from '../../base/file-entry.ts'
import { Failure, describeError, errnoOf } from '../../base/failure.ts'
import { makeFolders } from '../../base/folders.ts'
import { requirePosix, syncFileSystem, syncFileSystems } from '../../base/posix.ts'
import { problemOf } from './problem.ts'
import type { FileProblem } from './problem.ts'

/** A folder held open; `base` is a path that leads to exactly this folder. */
interface OpenFolder {
  readonly fd: number
  readonly base: string
}

export interface TargetOptions {
  readonly replace?: boolean
  /** Sees each folder (path as in `folders`) before anything is written into it; ends the restore by throwing. */
  readonly guard?: (path: string, folder: BigIntStats) => void
  /** The system's calls, for tests: makes the file system of `fd` durable, or all of them. */
  readonly sync?: ((fd: number | undefined) => void) | undefined
}

/** Belongs to one thread; several may share one root. */
export interface RestoreTarget {
  /** Raw absolute path of the folder that receives the tree. */
  readonly root: string
  /** Whether an existing entry of another kind gives way. A folder that holds something never does. */
  readonly replace: boolean
  /** Open folders by path relative to the root, least recently used first; '' is the root and never closed. */
  readonly folders: Map<string, OpenFolder>
  /** By device, a folder of each file system that was entered, held open; undefined if none may be read. */
  readonly disks: Map<bigint, number | undefined>
  readonly guard: TargetOptions['guard']
  readonly sync: (fd: number | undefined) => void
}

/** A few workers with this many each stay below the usual limit of 1 024 descriptors. */
const FOLDER_COUNT_MAX = 128
const O_PATH = 0o10000000
const FOLDER_FLAGS = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW

/** Not one file's trouble: going on would fail for all others too. */
const FATAL = new Set(['ENOSPC', 'EDQUOT', 'EIO', 'EROFS', 'EMFILE', 'ENFILE', 'ENOMEM', 'ENODEV'])

/** Opens the folder that receives a restore, made if it is not there. Fails: restore.failed, host.unsupported. */
export function openRestoreTarget(root: string, options: TargetOptions = {}): RestoreTarget {
  requirePosix()
  const { replace = false, guard, sync = syncDisk } = options
  const target: RestoreTarget = { root, replace, folders: new Map(), disks: new Map(), guard, sync }
  try {
    makeFolders(root)
    // The root itself may be a symlink: the person who named it means the folder behind it.
    const fd = openSync(pathBytes(root), O_PATH | constants.O_DIRECTORY)
    const folder = { fd, base: fdPath(fd, root) }
    target.folders.set('', folder)
    enter(target, '', folder)
    return target
  } catch (error) {
    closeRestoreTarget(target)
    throw restoreFailure('open the folder', root, error)
  }
}

/** Closes the folders. What was written stays; it is durable only after syncTarget(). */
export function closeRestoreTarget(target: RestoreTarget): void {
  for (const { fd } of target.folders.values()) closeSync(fd)
  for (const fd of target.disks.values()) if (fd !== undefined) closeSync(fd)
  target.folders.clear()
  target.disks.clear()
}

/**
 * Makes all that was written durable, on each file system that was entered; blocks the thread until it is.
 * Fails: restore.failed.
 */
export function syncTarget(target: RestoreTarget): void {
  try {
    for (const fd of target.disks.values()) target.sync(fd)
  } catch (error) {
    throw restoreFailure('make durable', target.root, error)
  }
}

function syncDisk(fd: number | undefined): void {
  if (fd === undefined) syncFileSystems()
  else syncFileSystem(fd)
}

/**
 * Opens the folder `path`, made if it is missing, before anything is done to it: it may be the mount point of
 * another file system, or of a folder that the guard refuses. Throws as placeOf().
 */
export function enterFolder(target: RestoreTarget, path: string): void {
  openFolder(target, path)
}

/**
 * A path at which the system finds the entry `path` (raw, relative to the root), its parents opened and made
 * where they are missing. Good until the next call for the same target. Throws a system error: ELOOP or
 * ENOTDIR if a parent is no folder.
 */
export function placeOf(target: RestoreTarget, path: string): string {
  const cut = path.lastIndexOf('/')
  const name = path.slice(cut + 1)
  if (!isName(name)) throw badPath(path)
  return `${openFolder(target, cut < 0 ? '' : path.slice(0, cut)).base}/${name}`
}

/** Closes a folder into which nothing more is written. */
export function forgetFolder(target: RestoreTarget, path: string): void {
  const folder = target.folders.get(path)
  if (folder === undefined || path === '') return
  target.folders.delete(path)
  closeSync(folder.fd)
}

/** A problem of this one entry; a full or broken disk is thrown. Fails: restore.failed. */
export function restoreProblem(path: string, attempt: string, error: unknown): FileProblem {
  const code = errnoOf(error)
  if (code !== undefined && FATAL.has(code))
    throw restoreFailure(attempt.replace(/^cannot /, ''), path, error)
  return problemOf(path, attempt, error)
}

/** The failure of a write that ends the restore; rethrows what is no system error, since that is a bug. */
export function restoreFailure(action: string, path: string, error: unknown): Failure {
  if (error instanceof Failure) return error
  if (errnoOf(error) === undefined) throw error
  const message = `Cannot ${action} "${displayName(path)}": ${describeError(error)}`
  return new Failure('restore.failed', message, {
    facts: { path: displayName(path), errno: errnoOf(error) },
    cause: error,
  })
}

/** Where /proc shows open folder `fd`, or its plain path on a system without /proc. */
export function fdPath(fd: number, path: string): string {
  const shown = `/proc/self/fd/${fd}`
  return existsSync(shown) ? shown : path
}

function openFolder(target: RestoreTarget, path: string): OpenFolder {
  const known = target.folders.get(path)
  if (known !== undefined) {
    if (path !== '') {
      target.folders.delete(path)
      target.folders.set(path, known)
    }
    return known
  }
  // From the deepest ancestor that is open, down.
  let cut = path.lastIndexOf('/')
  while (cut > 0 && !target.folders.has(path.slice(0, cut))) cut = path.lastIndexOf('/', cut - 1)
  const ancestor = cut > 0 ? path.slice(0, cut) : ''
  const start = target.folders.get(ancestor)
  if (start === undefined) throw new Error('Bug: the restore target is closed')
  const names = path.slice(ancestor === '' ? 0 : cut + 1).split('/')
  const folder = descend(target, start, names, path)
  keepFolder(target, path, folder)
  return folder
}

/** Opens one component after the other below `start`, which stays open. */
function descend(target: RestoreTarget, start: OpenFolder, names: string[], path: string): OpenFolder {
  let folder = start
  for (const [nth, name] of names.entries()) {
    try {
      if (!isName(name)) throw badPath(path)
      const child = `${folder.base}/${name}`
      const fd = openOrMake(pathBytes(child))
      if (folder !== start) closeSync(folder.fd)
      folder = { fd, base: fdPath(fd, child) }
      const below = names.slice(nth + 1).join('/')
      enter(target, below === '' ? path : path.slice(0, -below.length - 1), folder)
    } catch (error) {
      if (folder !== start) closeSync(folder.fd)
      throw error
    }
  }
  return folder
}

/** Looks at a folder that was opened: by its descriptor, so that nothing can take its place any more. */
function enter(target: RestoreTarget, path: string, { fd, base }: OpenFolder): void {
  const stats = fstatSync(fd, { bigint: true })
  target.guard?.(path, stats)
  if (target.disks.get(stats.dev) === undefined) target.disks.set(stats.dev, openReadable(base))
}

/** The system syncs by a descriptor that may read; of a folder that is closed to us there is none. */
function openReadable(base: string): number | undefined {
  try {
    return openSync(pathBytes(`${base}/.`), constants.O_RDONLY | constants.O_DIRECTORY)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return undefined
  }
}

function openOrMake(place: string | Buffer): number {
  try {
    return openSync(place, FOLDER_FLAGS)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
  try {
    mkdirSync(place, 0o700)
  } catch (error) {
    // Another worker may have made it since.
    if (errnoOf(error) !== 'EEXIST') throw error
  }
  return openSync(place, FOLDER_FLAGS)
}

function keepFolder(target: RestoreTarget, path: string, folder: OpenFolder): void {
  target.folders.set(path, folder)
  if (target.folders.size <= FOLDER_COUNT_MAX) return
  for (const [oldest, { fd }] of target.folders) {
    if (oldest === '') continue
    closeSync(fd)
    target.folders.delete(oldest)
    return
  }
}

function isName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !name.includes('\0')
}

/** Names come from a repository, which may lie. */
function badPath(path: string): Failure {
  return new Failure(
    'repo.corrupt',
    `Cannot restore "${displayName(path)}": its name would leave the restore folder`,
  )
}
