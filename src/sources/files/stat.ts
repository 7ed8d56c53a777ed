/** From the system's stat to our FileEntry, and the rules on when two of them are the same file unchanged. */
import { lstatSync, readlinkSync } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { pathBytes } from '../../base/file-entry.ts'
import type { EntryType, FileEntry, Xattr } from '../../base/file-entry.ts'
import { getXattr, listXattrs, splitDevice } from '../../base/posix.ts'
import type { PathOrFd } from '../../base/posix.ts'
import { reachPath } from './reach.ts'

const NO_XATTRS: readonly Xattr[] = []
const S_IFMT = 0o170000
const S_IFLNK = 0o120000
const TYPES: Record<number, EntryType> = {
  0o100000: 'file',
  0o040000: 'directory',
  0o120000: 'symlink',
  0o010000: 'fifo',
  0o020000: 'char',
  0o060000: 'block',
  0o140000: 'socket',
}

/**
 * Time stamps this close to the moment of reading prove nothing: the file may change again within the same
 * tick of a coarse clock (1 s on old file systems, 2 s on FAT) and keep its stamps.
 */
const SETTLED_NANOSECONDS = 2_000_000_000n

/** The entry at `path`, itself if it is a symlink, with empty `xattrs`; undefined if nothing is there. */
export function readEntry(path: string, name: string): FileEntry | undefined {
  return reachPath(path, (reachable) => {
    const bytes = pathBytes(reachable)
    const stats = lstatSync(bytes, { bigint: true, throwIfNoEntry: false })
    if (stats === undefined) return undefined
    const isLink = (Number(stats.mode) & S_IFMT) === S_IFLNK
    return entryFromStats(name, stats, isLink ? readlinkSync(bytes, { encoding: 'latin1' }) : '')
  })
}

export function entryFromStats(name: string, stats: BigIntStats, target = ''): FileEntry {
  const mode = Number(stats.mode)
  const type = TYPES[mode & S_IFMT] ?? 'socket'
  const device = type === 'char' || type === 'block' ? splitDevice(stats.rdev) : undefined
  return {
    name,
    type,
    mode: mode & 0o7777,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    mtime: stats.mtimeNs,
    ctime: stats.ctimeNs,
    dev: Number(stats.dev),
    inode: stats.ino,
    links: Number(stats.nlink),
    size: type === 'file' ? Number(stats.size) : 0,
    target,
    major: device?.major ?? 0,
    minor: device?.minor ?? 0,
    xattrs: NO_XATTRS,
  }
}

/** All extended attributes, ACLs among them, in ascending order of names. Throws a system error. */
export function readXattrs(target: PathOrFd): readonly Xattr[] {
  return typeof target === 'number' ? xattrsOf(target) : reachPath(target, xattrsOf)
}

function xattrsOf(target: PathOrFd): readonly Xattr[] {
  const names = listXattrs(target)
  if (names.length === 0) return NO_XATTRS
  const found: Xattr[] = []
  for (const name of names.sort()) {
    const value = getXattr(target, name)
    if (value !== undefined) found.push({ name, value })
  }
  return found
}

/** Whether nothing says that the file changed between the two looks. */
export function sameStat(a: FileEntry, b: FileEntry): boolean {
  return (
    a.size === b.size &&
    a.mtime === b.mtime &&
    a.ctime === b.ctime &&
    a.inode === b.inode &&
    a.dev === b.dev &&
    a.type === b.type
  )
}

/**
 * Whether equal stamps later will prove that the content is what was read from `readStart` (ns since 1970)
 * on.
 */
export function isTrusted(entry: FileEntry, readStart: bigint): boolean {
  const settled = readStart - SETTLED_NANOSECONDS
  return entry.mtime <= settled && entry.ctime <= settled
}
