/**
 * The driver of stores in a folder (file://): local disks, and what the system mounts (NFS, SMB, SSHFS).
 *
 * A blob is one read-only file. It is written under a hidden name in its own folder, fsynced, published by
 * link(2), which creates the name or fails, and the folder is fsynced: a reader sees nothing or all, and a
 * power cut loses nothing that was promised. Filesystems without hard links (exFAT, some SMB and FUSE): look,
 * then rename(2); still never a torn blob, but of two puts of one name at the same moment the later replaces
 * the earlier, so `createOnly` says 'check-then-put'.
 *
 * Links inside the store are not followed: list() passes over them, put() and get() refuse them, and so they
 * do with folders, pipes, sockets and devices in the place of a blob. Only a link at a folder of names is not
 * looked for when a blob below it is read. The store's folder is known by device and inode. When something
 * else stands at its path (an unmounted disk), everything that would say "there is no such blob" says
 * storage.offline instead.
 */
import { constants } from 'node:fs'
import { dirname, isAbsolute, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { assert, errnoOf, Failure } from '../base/failure.ts'
import { randomHex } from '../base/random.ts'
import { assertPut, closedStore, existingBlob, throwIfAborted } from './blob-failures.ts'
import { blockingCalls, type LocalCalls, poolCalls } from './local-calls.ts'
import { localFailure } from './local-failures.ts'
import { type LocalFolder, confirmRoot, syncFolder, TEMPORARY_PREFIX } from './local-folder.ts'
import { getBlob, isSameBlob, listBlobs, statBlob } from './local-read.ts'
import { assertName, assertPrefix, folderOf } from './names.ts'
import type { BlobStore, StoreCapabilities } from './store.ts'

/** How often a put begins anew because its folder or temporary file was removed under it. */
const PUT_TRIES_MAX = 3
/** Folders remembered as existing and durable; above it they are looked up again. */
const FOLDERS_KNOWN_MAX = 65_536
const FILE_MODE = 0o400
const FOLDER_MODE = 0o700
const CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW

export interface LocalStoreOptions {
  /**
   * Makes the store's folder and its parents. Without it a missing folder is storage.offline: the disk may be
   * unmounted.
   */
  readonly create?: boolean
  /** Blocking system calls: less CPU, and the calling thread waits. For worker threads. */
  readonly blocking?: boolean
  /** The system, for tests of faults. */
  readonly calls?: LocalCalls
}

/**
 * Opens the store in the folder `path` (absolute). Any number of processes may use it at the same time.
 * Fails: storage.offline (no such folder), storage.denied, storage.readonly, storage.full.
 */
export async function localStore(path: string, options: LocalStoreOptions = {}): Promise<BlobStore> {
  assert(isAbsolute(path), `relative store folder ${JSON.stringify(path)}`)
  const calls = options.calls ?? (options.blocking === true ? blockingCalls : poolCalls)
  const location = pathToFileURL(path).href
  const doing = { action: 'open', name: '', location }
  try {
    if (options.create === true) await createRoot(calls, path)
    const { dev, ino } = await openRoot(calls, path, location)
    const folder = { path, location, calls, dev, ino, closed: false, known: new Map<string, Promise<void>>() }
    return storeOfFolder(folder, await probeLinks(folder))
  } catch (error) {
    throw localFailure(error, doing)
  }
}

function storeOfFolder(folder: LocalFolder, createOnly: StoreCapabilities['createOnly']): BlobStore {
  const run = async <T>(action: string, name: string, work: () => Promise<T>): Promise<T> => {
    if (folder.closed) throw closedStore(folder.location)
    try {
      return await work()
    } catch (error) {
      throw localFailure(error, { action, name, location: folder.location })
    }
  }
  return {
    location: folder.location,
    workerUrl: folder.location,
    capabilities: { createOnly, listAfterPut: true, versions: false, lock: false },
    async put(name, bytes, options = {}) {
      assertPut(name, bytes)
      return run('write', name, () => putBlob(folder, { name, bytes, createOnly }, options.signal))
    },
    get: (name, options = {}) => run('read', name, () => getBlob(folder, name, options)),
    stat: (name) => run('look at', name, () => statBlob(folder, name)),
    list(prefix, options = {}) {
      assertPrefix(prefix)
      return listBlobs(folder, prefix, options)
    },
    delete: (name) => run('delete', name, () => deleteBlob(folder, name)),
    sweep: (olderThanMs) => run('sweep', '', () => sweepFolder(folder, olderThanMs)),
    close() {
      folder.closed = true
      return Promise.resolve()
    },
  }
}

interface PutRequest {
  readonly name: string
  readonly bytes: Uint8Array
  readonly createOnly: StoreCapabilities['createOnly']
}

async function putBlob(
  folder: LocalFolder,
  request: PutRequest,
  signal: AbortSignal | undefined,
): Promise<'created' | 'identical'> {
  for (let tries = 1; ; tries++) {
    throwIfAborted(signal, `writing "${request.name}"`)
    try {
      return await putBlobOnce(folder, request, signal)
    } catch (error) {
      // Someone removed the folder (it was empty), or swept the temporary file of a put that took very long.
      if (errnoOf(error) !== 'ENOENT' || tries === PUT_TRIES_MAX) throw error
      // Forgotten folders are made again, which first makes sure that the store's own folder is still there.
      folder.known.clear()
    }
  }
}

async function putBlobOnce(
  folder: LocalFolder,
  request: PutRequest,
  signal: AbortSignal | undefined,
): Promise<'created' | 'identical'> {
  const { name, bytes } = request
  const parent = folderOf(name)
  await makeFolder(folder, parent, name)
  const temporary = join(folder.path, parent, TEMPORARY_PREFIX + randomHex(8))
  let published: boolean
  try {
    await writeTemporary(folder, { temporary, bytes, name }, signal)
    published = await publish(folder, temporary, request)
  } finally {
    await removeTemporary(folder, temporary)
  }
  if (!published && !(await isSameBlob(folder, name, bytes))) throw existingBlob(folder.location, name)
  // Also when it was there before: its writer may not have come to this point.
  await syncFolder(folder, parent)
  return published ? 'created' : 'identical'
}

/** The whole file, durable under its temporary name. */
async function writeTemporary(
  folder: LocalFolder,
  to: { temporary: string; bytes: Uint8Array; name: string },
  signal: AbortSignal | undefined,
): Promise<void> {
  const { calls } = folder
  const file = await calls.open(to.temporary, CREATE, FILE_MODE)
  try {
    let written = 0
    while (written < to.bytes.length) {
      throwIfAborted(signal, `writing "${to.name}"`)
      const count = await calls.write(file, written === 0 ? to.bytes : to.bytes.subarray(written), written)
      if (count === 0) throw stuckDisk(folder, to.name)
      written += count
    }
    throwIfAborted(signal, `writing "${to.name}"`)
    await calls.fsync(file)
  } finally {
    await calls.close(file)
  }
}

function stuckDisk({ location }: LocalFolder, name: string): Failure {
  const is = 'its disk takes no more bytes, and gives no reason'
  return new Failure(
    'storage.offline',
    `Cannot write "${name}" in ${location}: ${is} (look at the disk and its mount)`,
    {
      facts: { location, name },
    },
  )
}

/** Gives the temporary file its name; false if the name is taken. */
async function publish(folder: LocalFolder, temporary: string, request: PutRequest): Promise<boolean> {
  const { calls } = folder
  const target = join(folder.path, request.name)
  try {
    await calls.link(temporary, target)
    return true
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false
    if (request.createOnly === 'atomic' || !isWithoutLinks(error)) throw error
  }
  try {
    await calls.lstat(target)
    return false
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
  await calls.rename(temporary, target)
  return true
}

async function removeTemporary(folder: LocalFolder, temporary: string): Promise<void> {
  try {
    await folder.calls.unlink(temporary)
  } catch {
    // Renamed, never made, or swept; else sweep() will find it. The put's own outcome matters more.
  }
}

/** Makes the folder and its parents and makes them durable; once for each folder and opened store. */
function makeFolder(folder: LocalFolder, part: string, name: string): Promise<void> {
  if (part === '') return confirmRoot(folder)
  const known = folder.known.get(part)
  if (known !== undefined) return known
  if (folder.known.size >= FOLDERS_KNOWN_MAX) folder.known.clear()
  const made = makeFolderOnce(folder, part, name).catch((error: unknown) => {
    folder.known.delete(part)
    throw error
  })
  folder.known.set(part, made)
  return made
}

async function makeFolderOnce(folder: LocalFolder, part: string, name: string): Promise<void> {
  const { calls } = folder
  const path = join(folder.path, part)
  await makeFolder(folder, folderOf(part), name)
  try {
    await calls.mkdir(path, FOLDER_MODE)
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error
    const isFolder = (await calls.lstat(path)).isDirectory()
    if (!isFolder) throw existingBlob(folder.location, name, `"${part}" is no folder`)
  }
  // Also when it was there: whoever made it may not have come to this point.
  await syncFolder(folder, folderOf(part))
}

async function deleteBlob(folder: LocalFolder, name: string): Promise<'deleted' | 'absent'> {
  assertName(name)
  try {
    await folder.calls.unlink(join(folder.path, name))
  } catch (error) {
    const errno = errnoOf(error)
    if (errno !== 'ENOENT' && errno !== 'ENOTDIR' && errno !== 'EISDIR') throw error
    await confirmRoot(folder)
    // Whoever deleted it may not have made that durable yet.
    if (errno === 'ENOENT') await syncFolder(folder, folderOf(name), { mayBeMissing: true })
    return 'absent'
  }
  await syncFolder(folder, folderOf(name))
  return 'deleted'
}

async function sweepFolder(folder: LocalFolder, olderThanMs: number): Promise<number> {
  await confirmRoot(folder)
  const now = await storeClock(folder)
  let swept = 0
  const parts = ['']
  for (let part = parts.pop(); part !== undefined; part = parts.pop()) {
    for (const entry of await folder.calls.readdir(join(folder.path, part))) {
      const path = join(part, entry.name)
      if (entry.isDirectory() && !entry.name.startsWith('.')) parts.push(path)
      if (entry.name.startsWith(TEMPORARY_PREFIX) && (await sweepFile(folder, path, now - olderThanMs)))
        swept += 1
    }
  }
  return swept
}

/** Removes a temporary file last written at `until` or before. */
async function sweepFile(folder: LocalFolder, part: string, until: number): Promise<boolean> {
  const path = join(folder.path, part)
  try {
    const stat = await folder.calls.lstat(path)
    if (!stat.isFile() || stat.mtimeMs > until) return false
    await folder.calls.unlink(path)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}

/** The time of the store's own clock (an NFS server's may differ from ours): that of a file made now. */
async function storeClock(folder: LocalFolder): Promise<number> {
  const { calls } = folder
  const path = join(folder.path, TEMPORARY_PREFIX + randomHex(8))
  const file = await calls.open(path, CREATE, FILE_MODE)
  try {
    return (await calls.fstat(file)).mtimeMs
  } finally {
    await calls.close(file)
    await removeTemporary(folder, path)
  }
}

/** Whether link(2) works here, tried with an empty file; the weaker promise where it cannot be tried. */
async function probeLinks(folder: LocalFolder): Promise<'atomic' | 'check-then-put'> {
  const { calls } = folder
  const from = join(folder.path, TEMPORARY_PREFIX + randomHex(8))
  const to = `${from}-link`
  try {
    await calls.close(await calls.open(from, CREATE, FILE_MODE))
    await calls.link(from, to)
    return 'atomic'
  } catch {
    // Without links, read-only, full or forbidden: a put that matters will say so itself.
    return 'check-then-put'
  } finally {
    await removeTemporary(folder, to)
    await removeTemporary(folder, from)
  }
}

function isWithoutLinks(error: unknown): boolean {
  const errno = errnoOf(error)
  return (
    errno === 'EPERM' ||
    errno === 'ENOTSUP' ||
    errno === 'EOPNOTSUPP' ||
    errno === 'ENOSYS' ||
    errno === 'EMLINK'
  )
}

async function openRoot(
  calls: LocalCalls,
  path: string,
  location: string,
): Promise<{ dev: number; ino: number }> {
  try {
    const stat = await calls.stat(path)
    if (stat.isDirectory()) return stat
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTDIR') throw error
    const must = 'mount its disk, or make the folder with `backstock init`'
    throw new Failure('storage.offline', `Cannot open ${location}: there is no such folder (${must})`, {
      facts: { location },
      cause: error,
    })
  }
  throw new Failure('storage.denied', `Cannot open ${location}: it is a file (a store is a folder)`, {
    facts: { location },
  })
}

/** mkdir -p, each new folder durable in its parent. */
async function createRoot(calls: LocalCalls, path: string): Promise<void> {
  try {
    await calls.mkdir(path, FOLDER_MODE)
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return
    if (errnoOf(error) !== 'ENOENT' || dirname(path) === path) throw error
    await createRoot(calls, dirname(path))
    return createRoot(calls, path)
  }
  const parent = await calls.open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await calls.fsync(parent)
  } finally {
    await calls.close(parent)
  }
}
