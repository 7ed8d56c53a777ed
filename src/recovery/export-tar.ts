/**
 * A snapshot's tree, or a part of it, as one tar archive in a stream of bytes: in the order of the tree, each
 * chunk verified, memory bounded by a chunk and the reader's cache. Not here: where the bytes go.
 */
import { Failure } from '../base/failure.ts'
import type { TreeEntry } from '../format/tree.ts'
import { readFile, walkTree, type SnapshotReader } from '../repo/tree-reader.ts'
import { encodeTarHeader, TAR_END, tarPadding } from './tar-header.ts'

/** Takes bytes in order. Resolves when there is room for more; the bytes are the caller's again then. */
export type WriteBytes = (bytes: Uint8Array) => Promise<void>

export interface TarPart {
  /** What it is called in the archive, raw; undefined: it is left out, and a folder is not entered. */
  readonly nameOf: (path: string, entry: TreeEntry | undefined) => string | undefined
  /** Where a symlink leads. */
  readonly targetOf: (path: string, entry: TreeEntry) => string
  /** Name of user and group in headers. */
  readonly owner: string
}

export interface TarCounts {
  files: number
  /** Of contents. */
  bytes: number
  /** What an archive of this form does not hold. */
  sockets: number
  xattrs: number
  /** Files with several names, each of which is in the archive as a file of its own. */
  linked: number
}

export interface TarOutput {
  readonly reader: SnapshotReader
  readonly write: WriteBytes
  readonly counts: TarCounts
  readonly signal: AbortSignal | undefined
  readonly onProgress: (counts: TarCounts) => void
}

const NANOSECONDS = 1_000_000_000n

/** Writes entries, without the archive's end. Fails: repo.corrupt, storage.*, cancelled, as `write` fails. */
export async function writeTarPart(output: TarOutput, part: TarPart): Promise<void> {
  // A folder is asked for by its path alone: whether it is entered is decided before its entry is known.
  const into = (path: string): boolean => part.nameOf(path, undefined) !== undefined
  for await (const { kind, path, entry } of walkTree(output.reader, { into })) {
    if (kind === 'leave') continue
    const name = part.nameOf(path, entry)
    if (name === undefined || name === '') continue
    await writeTarEntry(output, entry, {
      name,
      target: entry.type === 'symlink' ? part.targetOf(path, entry) : '',
      owner: part.owner,
    })
  }
}

export async function writeTarEntry(
  { reader, write, counts, signal, onProgress }: TarOutput,
  entry: TreeEntry,
  { name, target, owner }: { readonly name: string; readonly target: string; readonly owner: string },
): Promise<void> {
  throwIfCancelled(signal)
  const { type, mode, uid, gid, major, minor } = entry
  if (type === 'socket') {
    counts.sockets++
    return
  }
  if (entry.xattrs.length > 0) counts.xattrs++
  const bytes = type === 'file' ? entry.size : 0
  const mtimeSeconds = Number(entry.mtime / NANOSECONDS)
  await write(
    encodeTarHeader({ type, path: name, target, bytes, mode, uid, gid, mtimeSeconds, major, minor, owner }),
  )
  if (type !== 'file') return
  if (entry.links > 1) counts.linked++
  await copyFile(reader, entry, async (part) => {
    throwIfCancelled(signal)
    await write(part)
    counts.bytes += part.length
    onProgress(counts)
  })
  await write(tarPadding(bytes))
  counts.files++
}

export async function endTarFile({ write }: Pick<TarOutput, 'write'>): Promise<void> {
  await write(TAR_END)
}

/** All bytes of a file. Fails: repo.corrupt, storage.*, as `write` fails. */
export async function copyFile(reader: SnapshotReader, entry: TreeEntry, write: WriteBytes): Promise<void> {
  let left = entry.size
  for await (const part of readFile(reader, entry)) {
    left -= part.length
    await write(part)
  }
  // An archive whose header promises another length is none.
  if (left !== 0)
    throw new Failure('repo.corrupt', `Cannot export "${entry.name}": ${left} bytes are missing`)
}

export function newTarCounts(): TarCounts {
  return { files: 0, bytes: 0, sockets: 0, xattrs: 0, linked: 0 }
}

export function cancelledExport(cause?: unknown): Failure {
  return new Failure('cancelled', 'Cannot finish the export: it was cancelled', { cause })
}

function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelledExport()
}
