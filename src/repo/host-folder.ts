/**
 * What a host keeps beside the repository: caches that may be lost, and what it has seen of the store, so
 * that a store that shows an older state is noticed. One folder a repository; its files are written whole or
 * not at all.
 */
import {
  closeSync,
  constants,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { Failure, describeError, errnoOf } from '../base/failure.ts'
import { rawPath } from '../base/file-entry.ts'
import { makeFolders } from '../base/folders.ts'
import { hasPosix, lockFile } from '../base/posix.ts'
import { randomHex } from '../base/random.ts'

export interface HostFolder {
  readonly path: string
}

export interface SeenSnapshot {
  readonly counter: number
  readonly sha256: string
}

export interface StreamHead extends SeenSnapshot {
  /**
   * Earlier heads that the store did not show when a backup was made: evidence that newer heads must not
   * hide.
   */
  readonly missing?: readonly SeenSnapshot[]
}

/** Regular files and their bytes. */
interface SourceCounts {
  readonly files: number
  readonly bytes: number
}

/** What the host remembers. Only grows; never a source of truth about data. */
export interface HostState {
  /** The highest config seen. */
  readonly config?: { readonly n: number; readonly sha256: string }
  /** By `<domain>/<source>`: the highest counter this host has seen, and that object's hash. */
  readonly heads: Readonly<Record<string, StreamHead>>
  /** By `<domain>/<source>`: what each path of the source held at its last backup on this host. */
  readonly roots?: Readonly<Record<string, Readonly<Record<string, SourceCounts>>>>
  /** By pack id: when its bytes were last read and found right, milliseconds. */
  readonly checked: Readonly<Record<string, number>>
  /** The same for packs that were only compared with their checksum, by a credential that cannot open them. */
  readonly compared?: Readonly<Record<string, number>>
  /** By object name: packs that are known to be bad until a check looks as deeply and finds them right. */
  readonly badPacks?: Readonly<Record<string, BadPack>>
  readonly lastCheck?: LastCheck
  /** The last one whose credential could read all contents: a weaker one does not take back what it found. */
  readonly lastWholeCheck?: LastCheck
}

/** How a pack was looked at: its place, length and end; its checksum; each chunk. */
export const PACK_DEPTHS = { tail: 0, compared: 1, opened: 2 } as const

export interface BadPack {
  /** When it was last found so, milliseconds. */
  readonly at: number
  /** How deeply one must look to see it: of PACK_DEPTHS. */
  readonly depth: number
  /** The store could not hand it out: it is not known to be damaged. */
  readonly unreadable: boolean
}

/** The last check that came to its end. */
export interface LastCheck {
  /** Milliseconds. */
  readonly at: number
  /** Of damage: what the store could not read then is not known to be damaged. */
  readonly errors: number
  readonly warnings: number
  readonly unreadable?: number
  /** Whether its credential could read all contents. */
  readonly whole?: boolean
}

/** No name of a source, whose locks lie beside it. */
const STATE_LOCK = '.state.lock'
const STATE_LOCK_MS_MAX = 10_000
const LOCK_PAUSE_MS = 5
const EMPTY: HostState = { heads: {}, checked: {} }

/** Opens (makes) the folder of one repository below the cache folder. Fails: host.file. */
export function openHostFolder(cacheFolder: string, repository: string): HostFolder {
  const path = join(cacheFolder, repository)
  try {
    makeFolders(rawPath(path))
  } catch (cause) {
    throw fileFailure('make the cache folder', path, cause)
  }
  return { path }
}

/** A folder below it, made if missing. Fails: host.file. */
export function subFolder(host: HostFolder, name: string): string {
  return openHostFolder(host.path, name).path
}

/** The same, with nothing in it. Fails: host.file. */
export function emptySubFolder(host: HostFolder, name: string): string {
  const path = join(host.path, name)
  try {
    rmSync(path, { recursive: true, force: true })
  } catch (cause) {
    throw fileFailure('empty the cache folder', path, cause)
  }
  return subFolder(host, name)
}

/** A state that is missing or damaged counts as empty: it can only warn, not lose anything. */
export function readHostState(host: HostFolder): HostState {
  try {
    return { ...EMPTY, ...(JSON.parse(readFileSync(statePath(host), 'utf8')) as HostState) }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return EMPTY
    throw fileFailure('read', statePath(host), error)
  }
}

/**
 * Replaces the state by `change` of the present one, under a lock that dies with this process. Waits for
 * another run's change; nothing is left half written. Fails: repo.busy, host.file.
 */
export function updateHostState(
  host: HostFolder,
  change: (state: HostState) => HostState,
  lockMsMax = STATE_LOCK_MS_MAX,
): void {
  const lock = openLock(join(host.path, STATE_LOCK))
  try {
    awaitLock(host, lock, lockMsMax)
    replaceFile(statePath(host), JSON.stringify(change(readHostState(host))))
  } finally {
    closeSync(lock)
  }
}

/** The lock is held for some milliseconds: who holds it for long hangs, or is stopped. */
function awaitLock(host: HostFolder, lock: number, lockMsMax: number): void {
  const pause = new Int32Array(new SharedArrayBuffer(4))
  for (let waited = 0; !tryLock(lock, host.path); waited += LOCK_PAUSE_MS) {
    if (waited >= lockMsMax)
      throw new Failure(
        'repo.busy',
        `Cannot change "${statePath(host)}": another run has held its lock for ${lockMsMax / 1000} s`,
        { facts: { path: statePath(host) } },
      )
    Atomics.wait(pause, 0, 0, LOCK_PAUSE_MS)
  }
}

/** Durable and whole, or not at all. */
function replaceFile(path: string, text: string): void {
  const temporary = `${path.slice(0, -'.json'.length)}.${randomHex(4)}.tmp`
  try {
    const fd = openSync(temporary, 'wx', 0o600)
    try {
      writeFileSync(fd, text)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, path)
  } catch (cause) {
    rmSync(temporary, { force: true })
    throw fileFailure('write', path, cause)
  }
}

function openLock(path: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600)
  } catch (cause) {
    throw fileFailure('open the lock', path, cause)
  }
}

/** Where the system has no locks, nobody else is expected. */
function tryLock(fd: number, path: string): boolean {
  try {
    return !hasPosix() || lockFile(fd)
  } catch (cause) {
    throw fileFailure('lock', path, cause)
  }
}

function fileFailure(action: string, path: string, cause: unknown): Failure {
  return new Failure('host.file', `Cannot ${action} "${path}": ${describeError(cause)}`, {
    facts: { path },
    cause,
  })
}

function statePath(host: HostFolder): string {
  return join(host.path, 'state.json')
}

/** A lock that the system frees when this process ends, however it ends. */
export interface SourceLock {
  readonly fd: number
}

/** Only one backup of a source runs on a host at a time. Fails: repo.busy, host.file. */
export function lockSource(host: HostFolder, source: string): SourceLock {
  const path = join(host.path, `${source}.lock`)
  const fd = openLock(path)
  let isLocked = false
  try {
    isLocked = tryLock(fd, path)
  } finally {
    if (!isLocked) closeSync(fd)
  }
  if (!isLocked)
    throw new Failure(
      'repo.busy',
      `Cannot back up "${source}": another run of it is under way on this host`,
      { facts: { source } },
    )
  return { fd }
}

export function unlockSource(lock: SourceLock): void {
  closeSync(lock.fd)
}

/** Where the tree cache of a snapshot lies. */
export function treeCachePath(host: HostFolder, domain: string, source: string, snapshot: string): string {
  return join(subFolder(host, 'trees'), `${domain}.${source}.${snapshot}`)
}

/** Also where there is none. Fails: host.file. */
export function removeFile(path: string): void {
  try {
    rmSync(path, { force: true })
  } catch (cause) {
    throw fileFailure('remove', path, cause)
  }
}

/**
 * Removes the tree caches of a source but those of the snapshots `kept`, and what killed runs left
 * unfinished. Only while the source is locked.
 */
export function sweepTreeCaches(
  host: HostFolder,
  of: { domain: string; source: string },
  kept: readonly string[],
): void {
  const folder = subFolder(host, 'trees')
  const prefix = `${of.domain}.${of.source}.`
  const unfinished = `${of.source}.`
  for (const file of readdirSync(folder)) {
    const id = file.startsWith(prefix) ? file.slice(prefix.length) : ''
    const isOutdated = TREE_CACHE_ID.test(id) && !kept.includes(id)
    const isUnfinished =
      file.startsWith(unfinished) && TREE_CACHE_UNFINISHED.test(file.slice(unfinished.length))
    if (isOutdated || isUnfinished) removeFile(join(folder, file))
  }
}

/** Rests of file names, behind the source's: a name is a source's even if it begins another's. */
const TREE_CACHE_ID = /^[0-9]{8}t[0-9]{6}z-[0-9a-f]{8}$/
const TREE_CACHE_UNFINISHED = /^[0-9a-f]{16}\.tmp$/
