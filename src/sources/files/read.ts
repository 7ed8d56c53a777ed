/** Opening files to read them: never through a symlink, never hanging on a pipe, holes left out. */
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { pathBytes } from '../../base/file-entry.ts'
import type { FileEntry } from '../../base/file-entry.ts'
import { errnoOf } from '../../base/failure.ts'
import { hasPosix, seekData, seekHole } from '../../base/posix.ts'
import { problemOf } from './problem.ts'
import type { FileProblem } from './problem.ts'
import { reachPath } from './reach.ts'
import { entryFromStats } from './stat.ts'

/** An open regular file; the caller closes `fd`. `entry` is its state at opening, without xattrs. */
export interface OpenSourceFile {
  readonly fd: number
  readonly entry: FileEntry
}

export interface DataRange {
  readonly offset: number
  readonly length: number
}

/** Beyond this many data ranges the rest of a file counts as data, holes included: they read as zeros. */
export const RANGE_COUNT_MAX = 65536

// O_NONBLOCK: a pipe that took the file's place must not stop the backup. Regular files do not care.
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY

/** Opens a regular file to read it, leaving its access time alone where the system lets us. */
export function openSourceFile(path: string): OpenSourceFile | FileProblem {
  let fd: number
  try {
    fd = reachPath(path, openQuietly)
  } catch (error) {
    // What O_NOFOLLOW says of a symlink (ELOOP) and O_NONBLOCK of a socket (ENXIO).
    const code = errnoOf(error)
    if (code === 'ELOOP' || code === 'ENXIO') return replaced(path)
    return problemOf(path, 'cannot open the file', error)
  }
  const stats = fstatSync(fd, { bigint: true })
  if (stats.isFile()) return { fd, entry: entryFromStats(path.slice(path.lastIndexOf('/') + 1), stats) }
  closeSync(fd)
  return replaced(path)
}

/** The ranges of a file from `from` to `size` that hold data, ascending; all of it where holes cannot be told. */
export function dataRanges(fd: number, size: number, from = 0): DataRange[] {
  if (size <= from) return []
  const whole = [{ offset: from, length: size - from }]
  if (!hasPosix()) return whole
  try {
    return seekRanges(fd, size, from)
  } catch (error) {
    // EINVAL: this file system has no SEEK_DATA. Reading everything is always right.
    if (errnoOf(error) === 'EINVAL') return whole
    throw error
  }
}

function seekRanges(fd: number, size: number, from: number): DataRange[] {
  const ranges: DataRange[] = []
  let at = from
  while (at < size) {
    const offset = seekData(fd, at)
    if (offset === undefined || offset >= size) break
    const isLast = ranges.length + 1 === RANGE_COUNT_MAX
    const end = isLast ? size : Math.min(size, seekHole(fd, offset))
    ranges.push({ offset, length: end - offset })
    at = end
  }
  return ranges
}

function openQuietly(path: string): number {
  const bytes = pathBytes(path)
  try {
    return openSync(bytes, OPEN_FLAGS | constants.O_NOATIME)
  } catch (error) {
    // Only the owner and root may leave the access time alone.
    if (errnoOf(error) !== 'EPERM') throw error
    return openSync(bytes, OPEN_FLAGS)
  }
}

function replaced(path: string): FileProblem {
  return { path, code: 'EREPLACED', what: 'cannot read the file: something else took its place' }
}
