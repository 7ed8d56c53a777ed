/** Paths longer than the system takes in one piece. */
import { closeSync, constants, openSync } from 'node:fs'
import { pathBytes } from '../../base/file-entry.ts'

/** The system's PATH_MAX counts the closing NUL. */
const PATH_BYTES_MAX = 4095
const PIECE_BYTES_MAX = 4000
const O_PATH = 0o10000000
const FOLDER_FLAGS = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW

/**
 * Calls `use` with a path that the system takes for the raw absolute `path`: the same one if it is short
 * enough, else one that begins at an open folder far down, which is closed afterwards.
 */
export function reachPath<T>(path: string, use: (reachable: string) => T): T {
  if (path.length <= PATH_BYTES_MAX) return use(path)
  let fd: number | undefined
  try {
    let rest = path
    while (rest.length > PIECE_BYTES_MAX) {
      const cut = rest.lastIndexOf('/', PIECE_BYTES_MAX)
      const next = openSync(pathBytes(rest.slice(0, cut)), FOLDER_FLAGS)
      if (fd !== undefined) closeSync(fd)
      fd = next
      rest = `/proc/self/fd/${fd}${rest.slice(cut)}`
    }
    return use(rest)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}
