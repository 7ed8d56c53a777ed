/** The reading half of the local driver: get, stat, list, and the comparison that makes a put repeatable. */
import { constants, type Dirent } from 'node:fs'
import { join } from 'node:path'
import { errnoOf } from '../base/failure.ts'
import {
  assertGet,
  BLOB_BYTES_MAX,
  closedStore,
  hugeBlob,
  missingBlob,
  rangeOf,
  readBuffer,
  shortBlob,
  throwIfAborted,
} from './blob-failures.ts'
import { localFailure } from './local-failures.ts'
import { confirmRoot, type LocalFolder } from './local-folder.ts'
import { assertName } from './names.ts'
import { type BlobStat, type ReadOptions, STORE_NAME } from './store.ts'

/** O_NONBLOCK: a FIFO that someone put there must not stop us. */
const READ = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
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
    if (errnoOf(error) === 'EISDIR') throw missingBlob(folder.location, name, error)
    throw error
  } finally {
    await folder.calls.close(file)
  }
}

async function openBlob(folder: LocalFolder, name: string): Promise<number> {
  try {
    return await folder.calls.open(join(folder.path, name), READ)
  } catch (error) {
    if (!isAbsent(error)) throw error
    await confirmRoot(folder)
    throw missingBlob(folder.location, name, error)
  }
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
    if (!stat.isFile()) throw missingBlob(location, name)
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

/** Whether the blob holds exactly these bytes. */
export async function isSameBlob(folder: LocalFolder, name: string, bytes: Uint8Array): Promise<boolean> {
  const { calls } = folder
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
export async function* listBlobs(folder: LocalFolder, prefix: string): AsyncGenerator<BlobStat> {
  try {
    await confirmRoot(folder)
    yield* listFolder(folder, prefix)
  } catch (error) {
    throw localFailure(error, { action: 'list', name: prefix, location: folder.location })
  }
}

async function* listFolder(folder: LocalFolder, prefix: string): AsyncGenerator<BlobStat> {
  const entries = await namesIn(folder, prefix)
  for (let at = 0; at < entries.length;) {
    const entry = entries[at] ?? ''
    if (entry.endsWith('/')) {
      yield* listFolder(folder, entry)
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
async function namesIn(folder: LocalFolder, prefix: string): Promise<string[]> {
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
    if (entry.isDirectory()) names.push(`${name}/`)
    else if (entry.isFile()) names.push(name)
  }
  // Names are ASCII, so the order of code units is that of bytes; the slash puts a folder in its place.
  return names.sort((a, b) => (a < b ? -1 : 1))
}

/** No file of that name: also when a part of the name is a file. */
function isAbsent(error: unknown): boolean {
  const errno = errnoOf(error)
  return errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'ENAMETOOLONG'
}
