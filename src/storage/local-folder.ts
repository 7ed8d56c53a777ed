/** The state of an opened local store, and what reading and writing both need of it. */
import { constants } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, Failure } from '../base/failure.ts'
import type { LocalCalls } from './local-calls.ts'

/** No blob name begins with a dot, so these are no blobs. */
export const TEMPORARY_PREFIX = '.tmp-'

export interface LocalFolder {
  readonly path: string
  readonly location: string
  readonly calls: LocalCalls
  /** Device and inode of `path` when it was opened. */
  readonly dev: number
  readonly ino: number
  closed: boolean
  /** Folders below `path` that exist durably, or are being made. */
  readonly known: Map<string, Promise<void>>
}

/** Passes if the folder that was opened is still at its path. Fails: storage.offline. */
export async function confirmRoot(folder: LocalFolder): Promise<void> {
  const { location } = folder
  let is = 'another folder is now at its path'
  let cause: unknown
  try {
    const stat = await folder.calls.stat(folder.path)
    if (stat.dev === folder.dev && stat.ino === folder.ino) return
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTDIR') throw error
    is = 'its folder is gone'
    cause = error
  }
  throw new Failure('storage.offline', `Cannot use ${location}: ${is} (mount its disk again)`, {
    facts: { location },
    cause,
  })
}

/**
 * Makes the names in a folder durable. Filesystems that cannot (SMB, some FUSE) order names by themselves.
 */
export async function syncFolder(
  folder: LocalFolder,
  part: string,
  options = { mayBeMissing: false },
): Promise<void> {
  const { calls } = folder
  let file: number
  try {
    file = await calls.open(join(folder.path, part), constants.O_RDONLY | constants.O_DIRECTORY)
  } catch (error) {
    if (options.mayBeMissing && errnoOf(error) === 'ENOENT') return
    throw error
  }
  try {
    await calls.fsync(file)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno !== 'EINVAL' && errno !== 'ENOTSUP' && errno !== 'EOPNOTSUPP' && errno !== 'ENOSYS') throw error
  } finally {
    await calls.close(file)
  }
}
