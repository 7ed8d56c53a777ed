/**
 * The marker of a restore under way, in the restored folder: it tells the same command run again to resume,
 * and everybody else that the folder is not finished. Locked while the restore runs, removed when it is
 * durable. Written once, so that it tells how the restore began, however often it was resumed.
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { pathBytes, displayName } from '../base/file-entry.ts'
import { describeError, errnoOf, Failure } from '../base/failure.ts'
import { makeFolders } from '../base/folders.ts'
import { lockFile } from '../base/posix.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'

const MARKER = '.backstock-restore'
/** The marker while it is written; whoever finds it alone finds a restore that never began. */
const MARKER_DRAFT = '.backstock-restore.new'
/** A marker of ours has a few hundred bytes, and those of its globs. */
const MARKER_BYTES_MAX = 1024 * 1024
const RUNNING_HINT = 'Wait for it to end, or choose another folder.'

export interface RestoreMode {
  /** Existing files give way. */
  readonly replace: boolean
  /** Compare content and write only what differs. */
  readonly delta: boolean
  /** Skip files that were finished: their metadata is right. */
  readonly resume: boolean
  /** The folder was empty when the restore began: whatever is in it now is this restore's. */
  readonly ours: boolean
}

/** A marker that is held; end with endMarker(), or with leaveMarker() when the restore is to be resumed. */
export interface HeldMarker {
  readonly root: string
  readonly fd: number
  /** The folder did not exist before. */
  readonly madeRoot: boolean
  readonly mode: RestoreMode
}

/** What must be the same for a restore to be resumed. */
interface RestoreScope {
  readonly snapshot: string
  readonly domain: string
  readonly paths: readonly string[]
  readonly exclude: readonly string[]
  readonly noOwner: boolean
  /** The folder of the snapshot whose contents are restored; '': its root. */
  readonly below: string
  /** What else must be the same, as the caller writes it. */
  readonly also: string
}

interface Marker extends RestoreScope {
  /** The running system when the restore began: after a reboot what was written may not be on the disk. */
  readonly boot: string
  /** Whether the folder was empty then: only so are all files in it those of this restore. */
  readonly empty: boolean
}

export interface MarkerOptions {
  readonly paths: readonly string[]
  readonly exclude: readonly string[]
  readonly noOwner: boolean
  readonly delta: boolean
  readonly overwrite: boolean
  readonly below?: string | undefined
  readonly also?: string | undefined
}

/**
 * Looks at the folder as beginMarker() would, and writes nothing; whether the restore would be resumed.
 * Fails: restore.refused, restore.failed.
 */
export function previewMarker(root: string, snapshot: StoredSnapshot, options: MarkerOptions): boolean {
  const scope = scopeOf(snapshot, options)
  const fd = openMarker(root)
  let there: Marker | undefined
  if (fd !== undefined) {
    try {
      lockMarker(root, fd)
      there = readMarker(fd)
    } finally {
      closeSync(fd)
    }
  }
  if (isSameScope(there, scope)) return true
  refuseUnlessTold(root, there, options)
  return false
}

/**
 * Looks at the folder, makes it if need be, and leaves a marker in it. Fails: restore.refused,
 * restore.failed.
 */
export function beginMarker(root: string, snapshot: StoredSnapshot, options: MarkerOptions): HeldMarker {
  const scope = scopeOf(snapshot, options)
  const madeRoot = makeRoot(root)
  const fd = openMarker(root)
  if (fd !== undefined) {
    try {
      lockMarker(root, fd)
      const there = readMarker(fd)
      if (isSameScope(there, scope)) return { root, fd, madeRoot, mode: modeOfResumed(there, options) }
      refuseUnlessTold(root, there, options)
      closeSync(fd)
    } catch (error) {
      closeSync(fd)
      throw error
    }
  } else refuseUnlessTold(root, undefined, options)
  const empty = namesIn(root).length === 0
  const replace = options.delta || options.overwrite
  const mode = { replace, delta: options.delta, resume: false, ours: empty }
  return { root, fd: writeMarker(root, { ...scope, boot: bootId(), empty }), madeRoot, mode }
}

/** Lets go of the marker and leaves it: the same command resumes. */
export function leaveMarker(held: HeldMarker): void {
  closeSync(held.fd)
}

/** Removes the marker: the folder is finished. Fails: restore.failed. */
export function endMarker(held: HeldMarker): void {
  try {
    rmSync(pathBytes(`${held.root}/${MARKER}`), { force: true })
  } catch (error) {
    throw markerFailure(held.root, error)
  } finally {
    closeSync(held.fd)
  }
}

/** endMarker() of a restore that has put nothing into the folder, which goes too if it was made for it. */
export function undoMarker(held: HeldMarker): void {
  endMarker(held)
  if (held.madeRoot) rmdirSync(pathBytes(held.root))
}

/** Only what this restore began in an empty folder, in the same run of the system, is known to be right. */
function modeOfResumed(there: Marker, { delta }: MarkerOptions): RestoreMode {
  const isTrusted = there.empty && there.boot === bootId()
  return { replace: true, delta: delta || !isTrusted, resume: isTrusted && !delta, ours: there.empty }
}

function scopeOf(snapshot: StoredSnapshot, options: MarkerOptions): RestoreScope {
  const { paths, exclude, noOwner, below = '', also = '' } = options
  return { snapshot: snapshot.id, domain: snapshot.domain, paths, exclude, noOwner, below, also }
}

function isSameScope(there: Marker | undefined, scope: RestoreScope): there is Marker {
  if (there === undefined) return false
  const { snapshot, domain, paths, exclude, noOwner, below, also } = there
  return JSON.stringify({ snapshot, domain, paths, exclude, noOwner, below, also }) === JSON.stringify(scope)
}

function refuseUnlessTold(root: string, there: Marker | undefined, options: MarkerOptions): void {
  if (options.delta || options.overwrite) return
  if (there === undefined && namesIn(root).length === 0) return
  const is =
    there === undefined
      ? 'it is not empty'
      : `an unfinished restore of snapshot ${there.snapshot}, or of other paths of it, is in it`
  const message = `Cannot restore into "${displayName(root)}": ${is} (it must be empty)`
  throw new Failure('restore.refused', message, { facts: { folder: displayName(root) } })
}

function namesIn(root: string): string[] {
  try {
    const names = readdirSync(pathBytes(root), { encoding: 'latin1' })
    return names.filter((name) => name !== MARKER_DRAFT)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw markerFailure(root, error)
  }
}

function makeRoot(root: string): boolean {
  try {
    return makeFolders(root)
  } catch (error) {
    throw markerFailure(root, error)
  }
}

/** The marker that is there, if it is a file of this user: another's could send the restore astray. */
function openMarker(root: string): number | undefined {
  let fd: number
  try {
    fd = openSync(
      pathBytes(`${root}/${MARKER}`),
      constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    )
  } catch {
    return undefined // none, or not ours: then the folder counts as any other
  }
  const stats = fstatSync(fd)
  if (stats.isFile() && stats.uid === process.geteuid?.() && stats.size <= MARKER_BYTES_MAX) return fd
  closeSync(fd)
  return undefined
}

function readMarker(fd: number): Marker | undefined {
  try {
    const marker = JSON.parse(readFileSync(fd, 'utf8')) as Partial<Marker>
    return typeof marker.snapshot === 'string' ? (marker as Marker) : undefined
  } catch {
    return undefined // cut short or not ours
  }
}

/** A new file under another name first: a marker is there whole or not, and no symlink is written through. */
function writeMarker(root: string, marker: Marker): number {
  const draft = `${root}/${MARKER_DRAFT}`
  let fd: number | undefined
  try {
    rmSync(pathBytes(draft), { force: true })
    fd = openSync(pathBytes(draft), 'wx+', 0o600)
    writeSync(fd, JSON.stringify(marker))
    lockMarker(root, fd)
    renameSync(pathBytes(draft), pathBytes(`${root}/${MARKER}`))
    return fd
  } catch (error) {
    if (fd !== undefined) closeSync(fd)
    throw markerFailure(root, error)
  }
}

/** Fails: restore.refused when another process holds it. A file system without locks goes without. */
function lockMarker(root: string, fd: number): void {
  let isFree = true
  try {
    isFree = lockFile(fd)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
  }
  if (isFree) return
  const folder = displayName(root)
  const message = `Cannot restore into "${folder}": another restore into it is running`
  throw new Failure('restore.refused', message, { facts: { folder, hint: RUNNING_HINT } })
}

function markerFailure(root: string, error: unknown): Failure {
  if (error instanceof Failure) return error
  const message = `Cannot restore into "${displayName(root)}": ${describeError(error)}`
  return new Failure('restore.failed', message, { cause: error })
}

function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return '' // not Linux: every run counts as the same boot
  }
}
