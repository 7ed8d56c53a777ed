/** Turns files of a snapshot into restore jobs: about 16 MiB or 128 files each, huge files in parts of 64 MiB. */
import { closeSync, ftruncateSync } from 'node:fs'
import { corrupt } from '../base/bytes.ts'
import { displayName } from '../base/file-entry.ts'
import { extentsBytes, type Extents } from '../format/content.ts'
import type { TreeEntry } from '../format/tree.ts'
import type { PackPlace } from '../repo/pack-reader.ts'
import { contentOf, copiesOfChunk, fileExtents, type SnapshotReader } from '../repo/tree-reader.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import { restoreFailure, type RestoreTarget } from '../sources/files/target.ts'
import { finishFile, openTarget, removeTarget } from '../sources/files/write.ts'
import { lostTo, type LostFile } from './lost-file.ts'
import type { ChunkPlaceRef, FileExtent, FileJob } from './restore-job.ts'
import { submitRestore, type RestoreLanes } from './restore-lanes.ts'

const JOB_FILES_MAX = 128
const JOB_BYTES_MAX = 16 * 1024 * 1024
const NO_BYTES = new Uint8Array(0)

export interface Batcher {
  readonly reader: SnapshotReader
  readonly lanes: RestoreLanes
  readonly target: RestoreTarget
  readonly delta: boolean
  readonly ours: boolean
  files: FileJob[]
  packs: PackPlace[]
  packAt: Map<number, number>
  places: ChunkPlaceRef[]
  bytes: number
  /** Files that are written in several jobs and finished by finishParted(). */
  parted: { readonly path: string; readonly entry: TreeEntry }[]
}

export function newBatcher(
  reader: SnapshotReader,
  lanes: RestoreLanes,
  mode: { delta: boolean; ours: boolean },
): Batcher {
  const { delta, ours } = mode
  const batch = { files: [], packs: [], packAt: new Map<number, number>(), places: [], bytes: 0 }
  return { reader, lanes, target: lanes.target, delta, ours, ...batch, parted: [] }
}

/**
 * Adds a file to the batch; hands the batch over when it is full. Returns what makes the file impossible:
 * jobs for parts of it may be under way then. Fails: storage.*, and as earlier jobs.
 */
export async function addFile(
  batcher: Batcher,
  path: string,
  entry: TreeEntry,
): Promise<LostFile | undefined> {
  const lean = leanEntry(entry)
  const inline = unlessDamaged(path, () => inlineOf(entry))
  if (isLost(inline)) return inline
  const job = { path, entry: lean, fileOffset: 0, extents: [], inline, part: 'whole' } as const
  if (inline !== undefined) {
    await addJob(batcher, job)
    return undefined
  }
  const nodes = fileExtents(batcher.reader, entry)
  let part: FileJob['part'] = 'whole'
  for (;;) {
    const node = await nextNode(path, nodes)
    if (isLost(node)) return node
    if (node === undefined) return undefined
    const { offset, extents } = node
    if (offset === 0 && extentsBytes(extents) !== entry.size) {
      const made = makeParted(batcher, path, lean)
      if (isLost(made)) return made
      part = made
    }
    const placed = unlessDamaged(path, () => placeExtents(batcher, extents))
    if (isLost(placed)) return placed
    await addJob(batcher, { ...job, fileOffset: offset, extents: placed, part })
  }
}

/** Without content, and without views of bytes that it shares with its tree node: they would live with it. */
export function leanEntry(entry: TreeEntry): TreeEntry {
  const xattrs = entry.xattrs.map(({ name, value }) => ({ name, value: Uint8Array.from(value) }))
  return { ...entry, xattrs, content: NO_BYTES, node: undefined }
}

/** Hands over what is in the batch. Fails: as earlier jobs. */
export async function flushBatch(batcher: Batcher): Promise<void> {
  if (batcher.files.length === 0) return
  const { files, packs, places, delta, ours } = batcher
  batcher.files = []
  batcher.packs = []
  batcher.packAt = new Map()
  batcher.places = []
  batcher.bytes = 0
  await submitRestore(batcher.lanes, { files, packs, places, delta, ours })
}

/**
 * Gives files that were written in parts their metadata, and removes those that are lost; all jobs handed
 * over so far are done. Fails: restore.failed.
 */
export function finishParted(batcher: Batcher, isFileLost: (path: string) => boolean): PartedResult {
  const done: PartedResult = { problems: [], failed: [], files: 0, bytes: 0 }
  const { target, parted } = batcher
  batcher.parted = []
  for (const { path, entry } of parted) {
    const opened = isFileLost(path) ? undefined : openTarget(target, path, { update: true })
    if (opened === undefined) {
      done.failed.push(...removeTarget(target, path))
    } else if ('what' in opened) {
      done.failed.push(opened)
    } else if (opened.fresh) {
      closeSync(opened.fd)
      const what = 'cannot finish the file: it was taken away meanwhile'
      done.failed.push({ path, code: 'EREPLACED', what }, ...removeTarget(target, path))
    } else {
      done.files++
      done.bytes += entry.size
      done.problems.push(...finishFile({ fd: opened.fd, path }, entry))
    }
  }
  return done
}

interface PartedResult {
  readonly problems: FileProblem[]
  readonly failed: FileProblem[]
  /** Finished, and their contents. */
  files: number
  bytes: number
}

/** Bytes of a tiny file, none for an empty one; undefined if the content lies in chunks. Fails: repo.corrupt. */
function inlineOf(entry: TreeEntry): Uint8Array | undefined {
  const content = contentOf(entry)
  if (content.kind !== 'empty' && content.kind !== 'inline') return undefined
  const inline = content.kind === 'inline' ? Uint8Array.from(content.bytes) : NO_BYTES
  if (inline.length === entry.size) return inline
  throw corrupt(`"${displayName(entry.name)}"`, `holds ${inline.length} bytes (its size is ${entry.size})`)
}

async function nextNode(
  path: string,
  nodes: AsyncGenerator<{ offset: number; extents: Extents }>,
): Promise<{ offset: number; extents: Extents } | LostFile | undefined> {
  try {
    const { done, value } = await nodes.next()
    return done === true ? undefined : value
  } catch (error) {
    return lostTo(path, error)
  }
}

/** Makes the file in full length, so that the threads only fill it in. Fails: restore.failed. */
function makeParted(batcher: Batcher, path: string, entry: TreeEntry): 'fresh' | 'old' | LostFile {
  const opened = openTarget(batcher.target, path, { update: batcher.delta })
  if ('what' in opened) return { how: 'failed', problem: opened }
  batcher.parted.push({ path, entry })
  try {
    ftruncateSync(opened.fd, entry.size)
  } catch (error) {
    throw restoreFailure('make', path, error)
  } finally {
    closeSync(opened.fd)
  }
  return opened.fresh ? 'fresh' : 'old'
}

async function addJob(batcher: Batcher, job: FileJob): Promise<void> {
  batcher.files.push(job)
  for (const extent of job.extents) if (extent.place >= 0) batcher.bytes += extent.length
  if (batcher.files.length >= JOB_FILES_MAX || batcher.bytes >= JOB_BYTES_MAX) await flushBatch(batcher)
}

function placeExtents(batcher: Batcher, extents: Extents): FileExtent[] {
  const places = extents.chunks.map(() => -1)
  return extents.extents.map(({ length, ref, offset }) => {
    if (ref === 0) return { length, place: -1, offset: 0 }
    if (places[ref - 1] === -1) places[ref - 1] = addPlace(batcher, extents.chunks[ref - 1]!)
    return { length, place: places[ref - 1]!, offset }
  })
}

function addPlace(batcher: Batcher, chunk: { id: Uint8Array; bytes: number }): number {
  const copies = copiesOfChunk(batcher.reader, chunk.id).map(({ place, number, pack }) => {
    let packAt = batcher.packAt.get(pack)
    if (packAt === undefined) {
      packAt = batcher.packs.push(place) - 1
      batcher.packAt.set(pack, packAt)
    }
    return { pack: packAt, number }
  })
  return batcher.places.push({ copies, id: Uint8Array.from(chunk.id), bytes: chunk.bytes }) - 1
}

function unlessDamaged<T>(path: string, read: () => T): T | LostFile {
  try {
    return read()
  } catch (error) {
    return lostTo(path, error)
  }
}

function isLost(value: unknown): value is LostFile {
  return typeof value === 'object' && value !== null && 'how' in value
}
