/**
 * Gives an entry its owner, mode, attributes and times back, in the one order that works: chown clears set-id
 * bits and capabilities, chmod rewrites the mask of an ACL, and all of them but the last leave times alone.
 */
import { chmodSync, closeSync, constants, fchmodSync, fchownSync, lchownSync, openSync } from 'node:fs'
import { pathBytes } from '../../base/file-entry.ts'
import type { FileEntry } from '../../base/file-entry.ts'
import { errnoOf } from '../../base/failure.ts'
import { listXattrs, removeXattr, setTimes, setXattr } from '../../base/posix.ts'
import type { PathOrFd } from '../../base/posix.ts'
import { problemOf } from './problem.ts'
import type { FileProblem } from './problem.ts'
import { fdPath } from './target.ts'

const O_PATH = 0o10000000
/** To chown: leave this one as it is. */
const UNCHANGED = 4294967295
/** Belongs to the host's policy, not to the file: the system sets it and lets nobody remove it. */
const HOST_XATTRS = new Set(['security.selinux', 'security.evm', 'security.ima'])

/**
 * `at` is where the entry is: an open descriptor, or a path, which is not followed if it is a symlink.
 * Returns what this user may not set or this file system cannot hold; `path` names the entry in problems.
 */
export function applyMetadata(path: string, at: PathOrFd, entry: FileEntry): FileProblem[] {
  const problems: FileProblem[] = []
  const attempt = (what: string, act: () => void): boolean => {
    try {
      act()
      return true
    } catch (error) {
      problems.push(problemOf(path, what, error))
      return false
    }
  }
  const isOwned = attempt(`cannot set the owner ${entry.uid}:${entry.gid}`, () => setOwner(at, entry))
  if (entry.type !== 'symlink') {
    // A set-id bit on another owner's file would lend that owner's rights: it is left out with the owner.
    const mode = isOwned ? entry.mode : entry.mode & ~0o6000
    attempt(`cannot set the mode ${mode.toString(8)}`, () => setMode(at, mode))
  }
  applyXattrs(at, entry, attempt)
  attempt('cannot set the time', () => setTimes(at, { mtime: entry.mtime }))
  return problems
}

function setOwner(at: PathOrFd, entry: FileEntry): void {
  try {
    chown(at, entry.uid, entry.gid)
  } catch (error) {
    // Somebody who may not give files away may still choose among their own groups.
    if (errnoOf(error) === 'EPERM') setGroup(at, entry.gid)
    throw error
  }
}

function setGroup(at: PathOrFd, gid: number): void {
  try {
    chown(at, UNCHANGED, gid)
  } catch (error) {
    // Reported by the caller as one problem of the owner.
    if (errnoOf(error) !== 'EPERM') throw error
  }
}

function chown(at: PathOrFd, uid: number, gid: number): void {
  if (typeof at === 'number') fchownSync(at, uid, gid)
  else lchownSync(pathBytes(at), uid, gid)
}

/** chmod(2) follows symlinks, so a path is opened first without following. */
export function setMode(at: PathOrFd, mode: number): void {
  if (typeof at === 'number') return fchmodSync(at, mode)
  const fd = openSync(pathBytes(at), O_PATH | constants.O_NOFOLLOW)
  try {
    chmodSync(pathBytes(fdPath(fd, at)), mode)
  } finally {
    closeSync(fd)
  }
}

/** Attributes that the entry lacks are removed, such as ACLs inherited from a folder's default. */
function applyXattrs(
  at: PathOrFd,
  entry: FileEntry,
  attempt: (what: string, act: () => void) => boolean,
): void {
  let present: string[] = []
  attempt('cannot list the attributes', () => {
    present = listXattrs(at)
  })
  const wanted = new Set(entry.xattrs.map((xattr) => xattr.name))
  for (const name of present) {
    if (wanted.has(name) || HOST_XATTRS.has(name)) continue
    attempt(`cannot remove the attribute ${name}`, () => removeXattr(at, name))
  }
  for (const { name, value } of entry.xattrs) {
    attempt(`cannot set the attribute ${name}`, () => setXattr(at, name, value))
  }
}
