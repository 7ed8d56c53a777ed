/**
 * What happens when this host's cache folder is full or read-only: the run works in a temporary folder
 * instead. A disk that is full is a reason to restore, not one to refuse it.
 */
import { accessSync, constants, copyFileSync, mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeError, errnoOf } from '../base/failure.ts'
import { openHostFolder, type HostFolder } from '../repo/host-folder.ts'

/** Below this a folder counts as full: index files of a middling repository need as much. */
const FREE_BYTES_MIN = 16 * 1024 * 1024

export interface RunFolder {
  readonly host: HostFolder
  /** Why it is not the one of this host; undefined if it is. */
  readonly because: string | undefined
  /** Removes what is only for this run. */
  readonly end: () => void
}

/**
 * The host's folder for `repository`, or a temporary one that knows what the host has remembered so far.
 * Fails: host.file when there is no room for a temporary one either.
 */
export function openRunFolder(cacheFolder: string, repository: string): RunFolder {
  let because: string
  try {
    const host = openHostFolder(cacheFolder, repository)
    accessSync(host.path, constants.W_OK)
    const { bavail, bsize } = statfsSync(host.path)
    const free = bavail * bsize
    if (free >= FREE_BYTES_MIN) return ownFolder(host)
    because = `only ${free} bytes are free in "${host.path}"`
  } catch (error) {
    because = describeError(error)
  }
  let folder: string
  try {
    folder = mkdtempSync(join(tmpdir(), 'backstock-cache-'))
  } catch {
    // The folder that was asked for gives the better message.
    return ownFolder(openHostFolder(cacheFolder, repository))
  }
  const host = openHostFolder(folder, repository)
  try {
    copyFileSync(join(cacheFolder, repository, 'state.json'), join(host.path, 'state.json'))
  } catch (error) {
    // Nothing is remembered, or nothing can be read.
    if (errnoOf(error) === undefined) throw error
  }
  return { host, because, end: () => rmSync(folder, { recursive: true, force: true }) }
}

function ownFolder(host: HostFolder): RunFolder {
  return { host, because: undefined, end: () => undefined }
}
