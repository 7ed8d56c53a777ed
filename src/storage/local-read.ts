/** The reading half of the local driver: get, stat, list, and the comparison that makes a put repeatable. */
import { constants, type Dirent, type Stats } from 'node:fs'
import { join } from 'node:path'
import { errnoOf } from '../base/failure.ts'
import {
  assertGet,
  BLOB_BYTES_MAX,
  closedStore,
  existingBlob,
  hugeBlob,
  missingBlob,
  rangeOf,
  readBuffer,
  shortBlob,
  strayBlob,
  throwIfAborted,
} from './blob-failures.ts'
import { localFailure } from './local-failures.ts'
import { confirmRoot, type LocalFolder } from './local-folder.ts'
import { assertName } from './names.ts'
import { type BlobStat, type ListOptions, type ReadOptions, STORE_NAME, type Stray } from './store.ts'

/** O_NONBLOCK: a FIFO that someone put there must not stop us. */
const READ = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
/** Of an open that no file answers with, unless its disk is gone. */
const NO_FILE_ERRNOS = new Set(['ENXIO', 'ENODEV', 'EOPNOTSUPP'])
/** stat() calls of a list under way at the same time. */
const STATS_MAX = 64
/** One comparison of bytes. */
const COMPARE_BYTES = 1024 * 1024

export async function getBlob(folder: LocalFolder, name: string, options: ReadOptions): Promise<Uint8Array> {
  assertGet(name, options)
  throwIfAborted(options.signal, `reading "${name}"`)
  const file = await openBlob(folder, name)
  try {
    return await readBlob(folder, { file, name }, options)
  } catch (error) {
    // A folder has no bytes, a pipe no positions.
    const is = errnoOf(error) === undefined ? undefined : strayKind(await folder.calls.fstat(file))
    throw is === undefined ? error : strayBlob(folder.location, { name, is }, error)
  } finally {
    await folder.calls.close(file)
  }
}

/** What is there instead of a file; undefined for a file. */
function strayKind(place: Stats | Dirent): Stray['is'] | undefined {
  if (place.isFile()) return undefined
  if (place.isDirectory()) return 'folder'
  if (place.isSymbolicLink()) return 'link'
  if (place.isFIFO()) return 'pipe'
  return place.isSocket() ? 'socket' : 'device'
}

async function openBlob(folder: LocalFolder, name: string): Promise<number> {
  try {
    return await folder.calls.open(join(folder.path, name), READ)
  } catch (error) {
    if (NO_FILE_ERRNOS.has(errnoOf(error) ?? '')) await refuseStray(folder, name, error)
    if (!isAbsent(error)) throw error
    await confirmRoot(folder)
    throw missingBlob(folder.location, name, error)
  }
}

/** What cannot be opened may be a socket, or a device that is not there. Fails: storage.missing. */
async function refuseStray(folder: LocalFolder, name: string, cause: unknown): Promise<void> {
  const is = strayKind(await folder.calls.lstat(join(folder.path, name)))
  if (is !== undefined) throw strayBlob(folder.location, { name, is }, cause)
}

async function readBlob(
  folder: LocalFolder,
  from: { file: number; name: string },
  options: ReadOptions,
): Promise<Uint8Array> {
  const { location, calls } = folder
  const { file, name } = from
  const start = options.offset ?? 0
  let length = options.length
  // A read that fills its buffer proves the length by itself; these two do not.
  if (length === undefined || length === 0) {
    const stat = await calls.fstat(file)
    const is = strayKind(stat)
    if (is !== undefined) throw strayBlob(location, { name, is })
    const range = rangeOf({ location, name, bytes: stat.size }, options)
    length = range.end - range.start
    if (options.into === undefined && length > BLOB_BYTES_MAX) throw hugeBlob(location, name, stat.size)
  }
  const bytes = readBuffer(options.into, length)
  const filled = await fill(folder, { file, start, signal: options.signal, name }, bytes)
  if (filled < length) throw shortBlob(location, name, { end: start + length, bytes: start + filled })
  return bytes
}

/** Reads until `bytes` is full or the file ends; returns how many came. */
async function fill(
  folder: LocalFolder,
  from: { file: number; start: number; name: string; signal: AbortSignal | undefined },
  bytes: Uint8Array,
): Promise<number> {
  let filled = 0
  while (filled < bytes.length) {
    throwIfAborted(from.signal, `reading "${from.name}"`)
    const rest = filled === 0 ? bytes : bytes.subarray(filled)
    const count = await folder.calls.read(from.file, rest, from.start + filled)
    if (count === 0) break
    filled += count
  }
  return filled
}

/** Whether the blob holds exactly these bytes. Fails: storage.exists (a stray), and as the system does. */
export async function isSameBlob(folder: LocalFolder, name: string, bytes: Uint8Array): Promise<boolean> {
  const { calls } = folder
  const is = strayKind(await calls.lstat(join(folder.path, name)))
  if (is !== undefined) throw existingBlob(folder.location, name, `a ${is} lies in its place`)
  const file = await calls.open(join(folder.path, name), READ)
  try {
    const stat = await calls.fstat(file)
    if (!stat.isFile() || stat.size !== bytes.length) return false
    const piece = Buffer.allocUnsafeSlow(Math.min(COMPARE_BYTES, bytes.length))
    for (let start = 0; start < bytes.length; start += piece.length) {
      const wanted = bytes.subarray(start, start + piece.length)
      const there = piece.subarray(0, wanted.length)
      const filled = await fill(folder, { file, start, name, signal: undefined }, there)
      if (filled < wanted.length || !there.equals(wanted)) return false
    }
    return true
  } finally {
    await calls.close(file)
  }
}

export async function statBlob(folder: LocalFolder, name: string): Promise<BlobStat | undefined> {
  assertName(name)
  const found = await statFile(folder, name)
  if (found === undefined) await confirmRoot(folder)
  return found
}

async function statFile(folder: LocalFolder, name: string): Promise<BlobStat | undefined> {
  try {
    const stat = await folder.calls.lstat(join(folder.path, name))
    return stat.isFile() ? { name, bytes: stat.size, modified: Math.floor(stat.mtimeMs) } : undefined
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
}

/** One folder's names are held at a time and level; stats are read as the caller takes them. */
export async function* listBlobs(
  folder: LocalFolder,
  prefix: string,
  options: ListOptions,
): AsyncGenerator<BlobStat> {
  try {
    await confirmRoot(folder)
    yield* listFolder(folder, prefix, options)
  } catch (error) {
    throw localFailure(error, { action: 'list', name: prefix, location: folder.location })
  }
}

async function* listFolder(
  folder: LocalFolder,
  prefix: string,
  options: ListOptions,
): AsyncGenerator<BlobStat> {
  const entries = await namesIn(folder, prefix, options)
  for (let at = 0; at < entries.length;) {
    const entry = entries[at] ?? ''
    if (entry.endsWith('/')) {
      yield* listFolder(folder, entry, options)
      at += 1
      continue
    }
    let end = at + 1
    while (end < entries.length && end - at < STATS_MAX && entries[end]?.endsWith('/') === false) end += 1
    if (folder.closed) throw closedStore(folder.location)
    const stats = await Promise.all(entries.slice(at, end).map((name) => statFile(folder, name)))
    // One that was deleted since is no blob any more.
    for (const stat of stats) if (stat !== undefined) yield stat
    at = end
  }
}

/** Full names of the files and folders (these with a `/` at the end) directly in a folder, in byte order. */
async function namesIn(folder: LocalFolder, prefix: string, { onStray }: ListOptions): Promise<string[]> {
  if (folder.closed) throw closedStore(folder.location)
  let entries: Dirent[]
  try {
    entries = await folder.calls.readdir(join(folder.path, prefix))
  } catch (error) {
    if (isAbsent(error)) return []
    throw error
  }
  const names: string[] = []
  for (const entry of entries) {
    const name = prefix + entry.name
    if (!STORE_NAME.test(name)) continue
    const is = strayKind(entry)
    if (is !== undefined) onStray?.({ name, is })
    if (is === undefined) names.push(name)
    else if (is === 'folder') names.push(`${name}/`)
  }
  // Names are ASCII, so the order of code units is that of bytes; the slash puts a folder in its place.
  return names.sort((a, b) => (a < b ? -1 : 1))
}

/** No file of that name: also when a part of the name is a file. */
function isAbsent(error: unknown): boolean {
  const errno = errnoOf(error)
  return errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'ENAMETOOLONG'
}
