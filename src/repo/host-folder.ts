/**
 * What a host keeps beside the repository: caches that may be lost, and what it has seen of the store, so
 * that a store that shows an older state is noticed. One folder a repository; its files are written whole or
 * not at all.
 */
import {
  closeSync,
  constants,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { Failure, describeError, errnoOf } from '../base/failure.ts'
import { hasPosix, lockFile } from '../base/posix.ts'
import { randomHex } from '../base/random.ts'

export interface HostFolder {
  readonly path: string
}

/** What the host remembers. Only grows; never a source of truth about data. */
export interface HostState {
  /** The highest config seen. */
  readonly config?: { readonly n: number; readonly sha256: string }
  /** By `<domain>/<source>`: the highest counter this host has seen, and that object's hash. */
  readonly heads: Readonly<Record<string, { readonly counter: number; readonly sha256: string }>>
  /** By pack id: when its bytes were last read and found right, milliseconds. */
  readonly checked: Readonly<Record<string, number>>
  /** The last check that came to its end; times in milliseconds. */
  readonly lastCheck?: { readonly at: number; readonly errors: number; readonly warnings: number }
}

const EMPTY: HostState = { heads: {}, checked: {} }

/** Opens (makes) the folder of one repository below the cache folder. Fails: host.file. */
export function openHostFolder(cacheFolder: string, repository: string): HostFolder {
  const path = join(cacheFolder, repository)
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw new Failure('host.file', `Cannot make the cache folder "${path}": ${describeError(cause)}`, {
      cause,
    })
  }
  return { path }
}

/** A folder below it, made if missing. */
export function subFolder(host: HostFolder, name: string): string {
  const path = join(host.path, name)
  mkdirSync(path, { recursive: true, mode: 0o700 })
  return path
}

/** The same, with nothing in it. */
export function emptySubFolder(host: HostFolder, name: string): string {
  rmSync(join(host.path, name), { recursive: true, force: true })
  return subFolder(host, name)
}

/** A state that is missing or damaged counts as empty: it can only warn, not lose anything. */
export function readHostState(host: HostFolder): HostState {
  try {
    return { ...EMPTY, ...(JSON.parse(readFileSync(statePath(host), 'utf8')) as HostState) }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return EMPTY
    throw new Failure('host.file', `Cannot read "${statePath(host)}": ${describeError(error)}`, {
      cause: error,
    })
  }
}

/** Replaces the state by `change` of the present one, under a lock that dies with this process. */
export function updateHostState(host: HostFolder, change: (state: HostState) => HostState): void {
  const lock = openSync(join(host.path, 'state.lock'), constants.O_RDWR | constants.O_CREAT, 0o600)
  try {
    if (hasPosix()) while (!lockFile(lock)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    const temporary = join(host.path, `state.${randomHex(4)}.tmp`)
    const fd = openSync(temporary, 'wx', 0o600)
    writeFileSync(fd, JSON.stringify(change(readHostState(host))))
    fsyncSync(fd)
    closeSync(fd)
    renameSync(temporary, statePath(host))
  } finally {
    closeSync(lock)
  }
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
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600)
  if (hasPosix() && !lockFile(fd)) {
    closeSync(fd)
    throw new Failure(
      'repo.busy',
      `Cannot back up "${source}": another run of it is under way on this host`,
      { facts: { source } },
    )
  }
  return { fd }
}

export function unlockSource(lock: SourceLock): void {
  closeSync(lock.fd)
}

/** Where the tree cache of a snapshot lies. */
export function treeCachePath(host: HostFolder, domain: string, source: string, snapshot: string): string {
  return join(subFolder(host, 'trees'), `${domain}.${source}.${snapshot}`)
}

export function removeFile(path: string): void {
  rmSync(path, { force: true })
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
