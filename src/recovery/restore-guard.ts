/** Keeps a restore away from the repository that it reads: what it wrote there would destroy the backups. */
import { realpathSync, statSync, type BigIntStats } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { displayName, pathBytes, rawPath } from '../base/file-entry.ts'
import { errnoOf, Failure } from '../base/failure.ts'
import { isDamage } from '../repo/damage.ts'
import { findEntry, type SnapshotReader } from '../repo/tree-reader.ts'
import { isExcluded, isSelected, mayHoldSelected, type Selection } from './select.ts'

/**
 * Refuses a folder `root` (raw) in the repository, and one above it when the restore would write to where the
 * repository lies. Folders are compared as what they are, not by name. Fails: restore.refused.
 */
export async function refuseRepositoryFolder(
  reader: SnapshotReader,
  selection: Selection,
  root: string,
): Promise<void> {
  const { location } = reader.packs.store
  if (!location.startsWith('file://')) return
  const repository = realPath(rawPath(fileURLToPath(location)))
  const target = realPath(root)
  if (namesBelow(repository, target) !== undefined)
    throw refused(root, `it lies in the repository ${location} that it would read`)
  const names = namesBelow(target, repository)
  if (names === undefined || !(await isWritten(reader, selection, names))) return
  const path = displayName(`/${names.join('/')}`)
  const is = `the repository ${location} lies in it, where the snapshot has "${path}"`
  throw refused(root, is, `Choose another folder, or leave it out: --exclude '${path}'.`)
}

/** The real path as far as it is there; the rest has no links. */
function realPath(path: string): string {
  try {
    return realpathSync(pathBytes(path), { encoding: 'latin1' })
  } catch {
    const cut = path.lastIndexOf('/')
    return cut <= 0 ? path : `${realPath(path.slice(0, cut)).replace(/\/$/, '')}${path.slice(cut)}`
  }
}

/** The names from the folder `above` down to `path`; undefined if it is not above it. */
function namesBelow(above: string, path: string): string[] | undefined {
  const wanted = folderAt(above)
  if (wanted === undefined) return undefined
  const names = path.split('/').filter((name) => name !== '')
  for (let count = names.length; count >= 0; count--) {
    const there = folderAt(`/${names.slice(0, count).join('/')}`)
    if (there !== undefined && there.dev === wanted.dev && there.ino === wanted.ino) return names.slice(count)
  }
  return undefined
}

function folderAt(path: string): BigIntStats | undefined {
  try {
    return statSync(pathBytes(path), { bigint: true, throwIfNoEntry: false })
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return undefined // not to be seen by this user, nor to be written
  }
}

/** Whether the restore takes what the snapshot has at that path, or something below it. */
async function isWritten(
  reader: SnapshotReader,
  selection: Selection,
  names: readonly string[],
): Promise<boolean> {
  const path = `/${names.join('/')}`
  if (!(await isReadable(reader, path))) return false
  let selected = false
  for (let count = 1; count <= names.length; count++) {
    const above = `/${names.slice(0, count).join('/')}`
    if (isExcluded(selection, above)) return false
    selected = isSelected(selection, above, selected)
  }
  return selected || mayHoldSelected(selection, path)
}

/** What cannot be read is not written either. */
async function isReadable(reader: SnapshotReader, path: string): Promise<boolean> {
  try {
    return (await findEntry(reader, path)) !== undefined
  } catch (error) {
    if (!isDamage(error)) throw error
    return false
  }
}

function refused(root: string, is: string, hint = 'Choose a folder outside of the repository.'): Failure {
  const folder = displayName(root)
  return new Failure('restore.refused', `Cannot restore into "${folder}": ${is}`, { facts: { folder, hint } })
}
