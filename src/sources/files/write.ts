/**
 * The materialise side of files: creates entries below a restore root and gives them their metadata back.
 *
 * Order: makeEntry() for every entry that is not a regular file, openTarget() → writeTarget()… → finishFile()
 * for those, linkEntry() for the further names of a file, finishFolder() once nothing more is put into a
 * folder. What this user may not do to one entry is a FileProblem and the run goes on; a full or broken disk
 * is a Failure. Paths are raw (latin1) and relative to the restore root.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  rmdirSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import type { Stats } from 'node:fs'
import { pathBytes } from '../../base/file-entry.ts'
import type { FileEntry } from '../../base/file-entry.ts'
import { errnoOf } from '../../base/failure.ts'
import { deviceNumber, makeDevice, makeFifo, punchHole } from '../../base/posix.ts'
import { applyMetadata, setMode } from './metadata.ts'
import type { FileProblem } from './problem.ts'
import { enterFolder, forgetFolder, placeOf, restoreFailure, restoreProblem } from './target.ts'
import type { RestoreTarget } from './target.ts'

/** An open file of the target; finishFile() closes it. `fresh`: it was made by this call and is empty. */
export interface OpenTarget {
  readonly fd: number
  readonly fresh: boolean
}

const FRESH_FLAGS = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
const UPDATE_FLAGS = constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK
const ZEROS = Buffer.alloc(65536)

/**
 * Creates an entry that is not a regular file. All but folders get their metadata here, a folder by
 * finishFolder(). Missing parents are made; a folder that exists stays. Fails: restore.failed.
 */
export function makeEntry(target: RestoreTarget, path: string, entry: FileEntry): FileProblem[] {
  if (path === '') return []
  if (entry.type === 'socket') return [{ path, code: 'ESOCKET', what: 'sockets are not restored' }]
  try {
    const place = placeOf(target, path)
    const there = statAt(place)
    if (entry.type === 'directory') {
      if (there?.isDirectory() === true) takeFolder(target, path, there)
      else makeFolder(target, place, there)
      return []
    }
    // What also has a name elsewhere is not kept: its metadata would change there too.
    if (there === undefined || there.nlink > 1 || !isSameSpecial(place, there, entry)) {
      if (there !== undefined) giveWay(target, place, there)
      makeSpecial(place, entry)
    }
    return applyMetadata(path, place, entry)
  } catch (error) {
    return [{ ...restoreProblem(path, `cannot create the ${entry.type}`, error), missing: true }]
  }
}

/**
 * Opens a regular file to write it: a new one that nobody else can read yet, or with `update` the one that is
 * there, to rewrite what differs. An existing file with several names is never updated in place: the change
 * would reach a name outside the restore. Fails: restore.failed.
 */
export function openTarget(
  target: RestoreTarget,
  path: string,
  options: { update?: boolean } = {},
): OpenTarget | FileProblem {
  try {
    const place = placeOf(target, path)
    const existing = options.update === true ? openExisting(place) : undefined
    if (existing !== undefined) return { fd: existing, fresh: false }
    return { fd: openFresh(target, place), fresh: true }
  } catch (error) {
    return { ...restoreProblem(path, 'cannot create the file', error), missing: true }
  }
}

/** Writes all of `bytes` at `offset`. Leave holes of a fresh file unwritten. Fails: restore.failed. */
export function writeTarget(file: { fd: number; path: string }, bytes: Uint8Array, offset: number): void {
  try {
    let done = 0
    while (done < bytes.length) done += writeSync(file.fd, bytes, done, bytes.length - done, offset + done)
  } catch (error) {
    throw restoreFailure('write to', file.path, error)
  }
}

/** Makes a range of an updated file read as zeros, as a hole where the file system can. Fails: restore.failed. */
export function clearTarget(file: { fd: number; path: string }, offset: number, length: number): void {
  try {
    // Beyond the end nothing is stored, and finishFile() sets the length.
    const end = Math.min(offset + length, fstatSync(file.fd).size)
    if (end <= offset || punchHole(file.fd, offset, end - offset)) return
    for (let at = offset; at < end; at += ZEROS.length) {
      writeTarget(file, ZEROS.subarray(0, Math.min(ZEROS.length, end - at)), at)
    }
  } catch (error) {
    throw restoreFailure('clear a part of', file.path, error)
  }
}

/**
 * Sets length (a hole at the end included) and metadata and closes the file, whatever happens. Fails:
 * restore.failed.
 */
export function finishFile(file: { fd: number; path: string }, entry: FileEntry): FileProblem[] {
  let closed = false
  try {
    if (fstatSync(file.fd).size !== entry.size) ftruncateSync(file.fd, entry.size)
    const problems = applyMetadata(file.path, file.fd, entry)
    closed = true
    closeSync(file.fd)
    return problems
  } catch (error) {
    throw restoreFailure('finish', file.path, error)
  } finally {
    if (!closed) closeSync(file.fd)
  }
}

/**
 * Removes a file that must not stay: what was written of it is damaged. A file that is gone is fine; one that
 * cannot be removed is a problem that the caller must not drop. Fails: restore.failed.
 */
export function removeTarget(target: RestoreTarget, path: string): FileProblem[] {
  try {
    unlinkSync(pathBytes(placeOf(target, path)))
    return []
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    return [restoreProblem(path, 'cannot remove the damaged file', error)]
  }
}

/**
 * Gives a restored file one more name. Metadata belongs to the file and is not set again. A problem means
 * that the name is missing (EMLINK, or a file system without hard links): the caller may write a copy. Fails:
 * restore.failed.
 */
export function linkEntry(target: RestoreTarget, path: string, existing: string): FileProblem[] {
  try {
    const source = placeOf(target, existing)
    const file = lstatSync(pathBytes(source), { bigint: true })
    const place = placeOf(target, path)
    const there = lstatSync(pathBytes(place), { bigint: true, throwIfNoEntry: false })
    if (there !== undefined) {
      if (there.ino === file.ino && there.dev === file.dev) return []
      giveWay(target, place, lstatSync(pathBytes(place)))
    }
    linkSync(pathBytes(source), pathBytes(place))
    return []
  } catch (error) {
    return [{ ...restoreProblem(path, 'cannot create the hard link', error), missing: true }]
  }
}

/** Gives a folder its metadata, after everything below it is done. `''` is the root. Fails: restore.failed. */
export function finishFolder(target: RestoreTarget, path: string, entry: FileEntry): FileProblem[] {
  try {
    forgetFolder(target, path)
    const place = path === '' ? target.root : placeOf(target, path)
    const nofollow = path === '' ? 0 : constants.O_NOFOLLOW
    const fd = openSync(pathBytes(place), constants.O_RDONLY | constants.O_DIRECTORY | nofollow)
    try {
      return applyMetadata(path, fd, entry)
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    return [restoreProblem(path, 'cannot finish the folder', error)]
  }
}

/** A folder that is there, ours to write in until finishFolder() gives it its mode. */
function takeFolder(target: RestoreTarget, path: string, there: Stats): void {
  enterFolder(target, path)
  if ((there.mode & 0o700) !== 0o700) setMode(placeOf(target, path), (there.mode & 0o7777) | 0o700)
}

function makeFolder(target: RestoreTarget, place: string, there: Stats | undefined): void {
  if (there !== undefined) giveWay(target, place, there)
  mkdirSync(pathBytes(place), 0o700)
}

function makeSpecial(place: string, entry: FileEntry): void {
  if (entry.type === 'symlink') symlinkSync(pathBytes(entry.target), pathBytes(place))
  else if (entry.type === 'fifo') makeFifo(place, 0o600)
  else if (entry.type === 'char' || entry.type === 'block') {
    makeDevice(place, { type: entry.type, mode: 0o600, major: entry.major, minor: entry.minor })
  } else throw new Error(`Bug: makeEntry() got a ${entry.type}`)
}

function isSameSpecial(place: string, there: Stats, entry: FileEntry): boolean {
  if (entry.type === 'symlink') return there.isSymbolicLink() && linkAt(place) === entry.target
  if (entry.type === 'fifo') return there.isFIFO()
  const isSameType = entry.type === 'char' ? there.isCharacterDevice() : there.isBlockDevice()
  return isSameType && BigInt(there.rdev) === deviceNumber(entry.major, entry.minor)
}

/** The file that is there, if it may be rewritten in place. */
function openExisting(place: string): number | undefined {
  let fd: number
  try {
    fd = openSync(pathBytes(place), UPDATE_FLAGS)
  } catch (error) {
    // Something else, running as a program, or closed to us: openFresh() puts a new file in its place.
    const code = errnoOf(error) ?? ''
    if (['ENOENT', 'ELOOP', 'EISDIR', 'ENXIO', 'EACCES', 'ETXTBSY', 'ENODEV'].includes(code)) return undefined
    throw error
  }
  const stats = fstatSync(fd)
  if (stats.isFile() && stats.nlink === 1) return fd
  closeSync(fd)
  return undefined
}

function openFresh(target: RestoreTarget, place: string): number {
  const bytes = pathBytes(place)
  try {
    return openSync(bytes, FRESH_FLAGS, 0o600)
  } catch (error) {
    const there = errnoOf(error) === 'EEXIST' && target.replace ? statAt(place) : undefined
    if (there === undefined) throw error
    giveWay(target, place, there)
    return openSync(bytes, FRESH_FLAGS, 0o600)
  }
}

/** Removes what is in the way, if the target allows it; a folder only if it is empty. */
function giveWay(target: RestoreTarget, place: string, there: Stats): void {
  if (!target.replace) {
    throw Object.assign(new Error('something is there already'), { code: 'EEXIST' })
  }
  if (there.isDirectory()) rmdirSync(pathBytes(place))
  else unlinkSync(pathBytes(place))
}

function statAt(place: string): Stats | undefined {
  return lstatSync(pathBytes(place), { throwIfNoEntry: false })
}

function linkAt(place: string): string {
  return readlinkSync(pathBytes(place), { encoding: 'latin1' })
}
