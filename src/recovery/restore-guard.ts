/**
 * Keeps a restore away from the repository that it reads: what it wrote there would destroy the backups.
 * Folders are known by device and inode: a repository that is mounted at a second place is still itself.
 */
import { lstatSync, readdirSync, realpathSync, statSync, type BigIntStats } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { displayName, pathBytes, rawPath } from '../base/file-entry.ts'
import { errnoOf, Failure } from '../base/failure.ts'
import { isDamage } from '../repo/damage.ts'
import { findEntry, type SnapshotReader } from '../repo/tree-reader.ts'
import { isExcluded, isSelected, mayHoldSelected, type Selection } from './select.ts'

/** The folders of the store that is read. */
export interface StoreFolders {
  readonly location: string
  /** Absolute and real; undefined if the store is no folder. */
  readonly path: string | undefined
  /** Where its folders lie: no other device is worth a look at `ids`. */
  readonly devices: ReadonlySet<bigint>
  /** `device:inode` of the store's folder and of all below it; listed when they are first asked for. */
  readonly ids: () => ReadonlySet<string>
}

/** Names of objects have at most eight parts (docs/format.md section 1): deeper no folder is looked for. */
const FOLDER_DEPTH = 7
/** Above it folders may lie on disks of their own. */
const DISK_DEPTH = 2

/** Looks up the folders of the store at `location`; one that cannot be read can be told no folders below. */
export function storeFolders(location: string): StoreFolders {
  const devices = new Set<bigint>()
  if (!location.startsWith('file://'))
    return { location, path: undefined, devices, ids: () => new Set<string>() }
  const path = realPath(rawPath(fileURLToPath(location)))
  eachFolder(path, DISK_DEPTH, ({ dev }) => devices.add(dev))
  let ids: Set<string> | undefined
  const list = (): ReadonlySet<string> => {
    if (ids !== undefined) return ids
    const found = new Set<string>()
    eachFolder(path, FOLDER_DEPTH, (stats) => found.add(idOf(stats)))
    return (ids = found)
  }
  return { location, path, devices, ids: list }
}

/** The folder and those below it; files are not looked at one by one, since there may be very many. */
function eachFolder(path: string, depth: number, take: (stats: BigIntStats) => void): void {
  try {
    const stats = lstatSync(pathBytes(path), { bigint: true })
    if (!stats.isDirectory()) return
    take(stats)
    if (depth === 0) return
    for (const entry of readdirSync(pathBytes(path), { encoding: 'latin1', withFileTypes: true }))
      if (entry.isDirectory()) eachFolder(`${path}/${entry.name}`, depth - 1, take)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
  }
}

function isOfStore({ devices, ids }: StoreFolders, stats: BigIntStats): boolean {
  return devices.has(stats.dev) && ids().has(idOf(stats))
}

/**
 * Refuses a folder `root` (raw) in the repository, and one above it when the restore would write to where the
 * repository lies by its own path. Fails: restore.refused.
 */
export async function refuseRepositoryFolder(
  reader: SnapshotReader,
  folders: StoreFolders,
  selection: Selection,
  root: string,
): Promise<void> {
  const { location, path: repository } = folders
  if (repository === undefined) return
  const target = realPath(root)
  if (isWithin(folders, target))
    throw refused(root, `it lies in the repository ${location} that it would read`)
  const names = namesBelow(target, repository)
  if (names === undefined || !(await isWritten(reader, selection, names))) return
  const path = displayName(`/${names.join('/')}`)
  const is = `the repository ${location} lies in it, where the snapshot has "${path}"`
  throw refused(root, is, `Choose another folder, or leave it out: --exclude '${path}'.`)
}

/**
 * Refuses the folder `path` (raw, relative to `root`) that a restore is about to write into when it is one of
 * the repository, mounted there. Fails: restore.failed: other folders may have been written by then.
 */
export function refuseStoreFolder(
  folders: StoreFolders,
  root: string,
  { path, stats }: { readonly path: string; readonly stats: BigIntStats },
): void {
  if (!isOfStore(folders, stats)) return
  const { location } = folders
  const folder = displayName(path === '' ? root : `${root}/${path}`)
  const is = `it is a folder of the repository ${location} that is being read, mounted there`
  const leave = `leave it out: --exclude '/${displayName(path)}'`
  const hint = `Unmount it there, restore into another folder, or ${leave}.`
  throw new Failure('restore.failed', `Cannot restore into "${folder}": ${is}`, { facts: { folder, hint } })
}

function idOf({ dev, ino }: BigIntStats): string {
  return `${dev}:${ino}`
}

/** Whether the path, or a folder above it, is one of those. */
function isWithin(folders: StoreFolders, path: string): boolean {
  const names = path.split('/').filter((name) => name !== '')
  return Array.from({ length: names.length + 1 }, (_, count) =>
    folderAt(`/${names.slice(0, count).join('/')}`),
  ).some((there) => there !== undefined && isOfStore(folders, there))
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
