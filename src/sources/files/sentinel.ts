/**
 * Guards against backing up a folder whose disk is not mounted or whose content is gone: an empty tree stored
 * with success would push the good snapshots out of retention.
 */
import { readFileSync, statSync } from 'node:fs'
import { displayName, pathBytes } from '../../base/file-entry.ts'
import { Failure } from '../../base/failure.ts'
import { normalPath } from './pins.ts'
import { readEntry } from './stat.ts'

/** A named path of a source and what must hold before it is walked. Raw paths. */
export interface GuardedPath {
  readonly path: string
  /** It must be a mount point. */
  readonly mountpoint?: boolean
  /** Name of a file that must be in it, such as `.backstock-sentinel`. */
  readonly sentinel?: string
}

export interface SourceCounts {
  readonly files: number
  readonly bytes: number
}

/** `warning`: go on and report it. A refusal is a Failure. */
export type ShrinkVerdict = { readonly kind: 'fine' } | { readonly kind: 'warning'; readonly what: string }

/** A source that lost more than this share since the last snapshot deserves a look. */
const SHRINK_SHARE_MAX = 0.5
/** Below this many files a big share is an ordinary day's work. */
const SHRINK_FILES_MIN = 100

/**
 * Returns sentences about paths that are probably not what was meant: a symlink of which only the link is
 * stored. Fails: source.missing, also for a link to a folder: a backup of one link would pass for one of the
 * folder.
 */
export function guardPaths(guards: readonly GuardedPath[]): string[] {
  const warnings: string[] = []
  for (const guard of guards) {
    const path = normalPath(guard.path)
    const shown = displayName(path)
    const entry = readEntry(path, '')
    if (entry === undefined) throw missing(path, 'it is not there')
    if (guard.mountpoint === true && !isMountPoint(path)) {
      throw missing(path, 'it is no mount point (must be one: `mountpoint: true`)')
    }
    if (guard.sentinel !== undefined && readEntry(`${path}/${guard.sentinel}`, '') === undefined) {
      throw missing(path, `the file "${displayName(guard.sentinel)}" is not in it (must be: \`sentinel\`)`)
    }
    if (entry.type === 'symlink') {
      const behind = statSync(pathBytes(path), { throwIfNoEntry: false })
      if (behind?.isDirectory() === true) {
        const is = `it is a symbolic link to the folder "${displayName(entry.target)}"`
        throw missing(path, `${is} (name that folder: of a link only the link is stored)`)
      }
      warnings.push(
        `"${shown}" is a symbolic link to "${displayName(entry.target)}": only the link is stored`,
      )
    }
  }
  return warnings
}

/** Whether a file system is mounted at `path`, bind mounts included. */
export function isMountPoint(path: string): boolean {
  const real = normalPath(path)
  if (real === '/') return true
  const here = statSync(pathBytes(real), { bigint: true, throwIfNoEntry: false })
  const above = statSync(pathBytes(normalPath(`${real}/..`)), { bigint: true, throwIfNoEntry: false })
  if (here === undefined || above === undefined || !here.isDirectory()) return false
  // A bind mount of the same file system shows only in the list.
  return here.dev !== above.dev || mountPoints().has(real)
}

/**
 * Compares what was counted with the last complete snapshot of the same source.
 * Fails: source.emptied, when everything is gone and `allowEmpty` is not said.
 */
export function judgeShrink(
  source: string,
  counts: { previous: SourceCounts | undefined; current: SourceCounts },
  options: { allowEmpty: boolean },
): ShrinkVerdict {
  const { previous, current } = counts
  if (previous === undefined || previous.files === 0) return { kind: 'fine' }
  const before = `${previous.files} files (${previous.bytes} bytes) before`
  const lost = `${before}, ${current.files} (${current.bytes} bytes) now`
  const emptied = isEmptied(previous, current)
  if (emptied && !options.allowEmpty) {
    throw new Failure('source.emptied', `Cannot back up source "${source}": it has been emptied, ${lost}`, {
      facts: { source, filesBefore: previous.files, filesNow: current.files },
    })
  }
  const filesLeft = current.files / previous.files
  const bytesLeft = previous.bytes === 0 ? 1 : current.bytes / previous.bytes
  const isShrunk = previous.files >= SHRINK_FILES_MIN && Math.min(filesLeft, bytesLeft) < 1 - SHRINK_SHARE_MAX
  return emptied || isShrunk
    ? { kind: 'warning', what: `source "${source}" has shrunk: ${lost}` }
    : { kind: 'fine' }
}

/** Whether it held files, or bytes, and holds none now. */
export function isEmptied(previous: SourceCounts | undefined, current: SourceCounts): boolean {
  if (previous === undefined || previous.files === 0) return false
  return current.files === 0 || (current.bytes === 0 && previous.bytes > 0)
}

/** Field 5 of /proc/self/mountinfo (proc(5)): the mount point, with blanks and backslashes as octal escapes. */
function mountPoints(): Set<string> {
  const points = new Set<string>()
  for (const line of readFileSync('/proc/self/mountinfo', 'latin1').split('\n')) {
    const field = line.split(' ')[4]
    if (field === undefined) continue
    points.add(
      field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
    )
  }
  return points
}

function missing(path: string, is: string): Failure {
  const shown = displayName(path)
  return new Failure('source.missing', `Cannot back up "${shown}": ${is}`, { facts: { path: shown } })
}
