/**
 * The marker of a restore under way, in the restored folder: it tells the same command run again to resume,
 * and everybody else that the folder is not finished. Removed when the restore is durable.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { pathBytes, displayName } from '../base/file-entry.ts'
import { describeError, errnoOf, Failure } from '../base/failure.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'

const MARKER = '.backstock-restore'

export interface RestoreMode {
  /** Existing files give way. */
  readonly replace: boolean
  /** Compare content and write only what differs. */
  readonly delta: boolean
  /** Skip files that were finished. */
  readonly resume: boolean
}

interface Marker {
  readonly snapshot: string
  readonly domain: string
  /** Of the running system: after a reboot what was written may not have reached the disk. */
  readonly boot: string
}

/** Looks at the folder and leaves a marker in it. Fails: restore.refused, restore.failed. */
export function beginMarker(
  root: string,
  snapshot: StoredSnapshot,
  options: { delta: boolean; overwrite: boolean; dryRun: boolean },
): RestoreMode {
  const mine: Marker = { snapshot: snapshot.id, domain: snapshot.domain, boot: bootId() }
  const there = readMarker(root)
  const isSame = there?.snapshot === mine.snapshot && there.domain === mine.domain
  const names = namesIn(root)
  if (names.length > 0 && !isSame && !options.delta && !options.overwrite) {
    const is =
      there === undefined ? 'it is not empty' : `an unfinished restore of snapshot ${there.snapshot} is in it`
    const message = `Cannot restore into "${displayName(root)}": ${is} (it must be empty)`
    throw new Failure('restore.refused', message, { facts: { folder: displayName(root) } })
  }
  if (!options.dryRun) writeMarker(root, mine)
  const survived = isSame && there.boot === mine.boot
  return {
    replace: isSame || options.delta || options.overwrite,
    delta: options.delta || (isSame && !survived),
    resume: survived && !options.delta,
  }
}

export function endMarker(root: string): void {
  rmSync(pathBytes(markerPath(root)), { force: true })
}

function markerPath(root: string): string {
  return `${root}/${MARKER}`
}

function namesIn(root: string): string[] {
  try {
    return readdirSync(pathBytes(root), { encoding: 'latin1' })
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    const message = `Cannot restore into "${displayName(root)}": ${describeError(error)}`
    throw new Failure('restore.failed', message, { cause: error })
  }
}

function readMarker(root: string): Marker | undefined {
  try {
    return JSON.parse(readFileSync(pathBytes(markerPath(root)), 'utf8')) as Marker
  } catch {
    return undefined // none, or not ours: then the folder counts as any other
  }
}

function writeMarker(root: string, marker: Marker): void {
  try {
    mkdirSync(pathBytes(root), { recursive: true, mode: 0o700 })
    writeFileSync(pathBytes(markerPath(root)), JSON.stringify(marker))
  } catch (cause) {
    const message = `Cannot restore into "${displayName(root)}": ${describeError(cause)}`
    throw new Failure('restore.failed', message, { cause })
  }
}

function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return '' // not Linux: every run counts as the same boot
  }
}
