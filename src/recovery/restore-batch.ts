/** Turns files of a snapshot into restore jobs: about 16 MiB or 128 files each, huge files in parts of 64 MiB. */
import { closeSync, ftruncateSync } from 'node:fs'
import type { TreeEntry } from '../format/tree.ts'
import { contentOf, fileExtents, placeOfChunk, type SnapshotReader } from '../repo/tree-reader.ts'
import type { PackPlace } from '../repo/pack-reader.ts'
import type { Extents } from '../format/content.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import { restoreFailure, type RestoreTarget } from '../sources/files/target.ts'
import { finishFile, openTarget, removeTarget } from '../sources/files/write.ts'
import type { ChunkPlaceRef, FileExtent, FileJob } from './restore-job.ts'
import { submitRestore, type RestoreLanes } from './restore-lanes.ts'

const JOB_FILES_MAX = 128
const JOB_BYTES_MAX = 16 * 1024 * 1024

export interface Batcher {
  readonly reader: SnapshotReader
  readonly lanes: RestoreLanes
  readonly delta: boolean
  files: FileJob[]
  packs: PackPlace[]
  packAt: Map<number, number>
  places: ChunkPlaceRef[]
  bytes: number
  /** Files written in several jobs, finished at the end. */
  readonly parts: { readonly path: string; readonly entry: TreeEntry }[]
  /** Paths of parts that could not be written. */
  readonly failed: Set<string>
}

export function newBatcher(reader: SnapshotReader, lanes: RestoreLanes, delta: boolean): Batcher {
  return {
    reader,
    lanes,
    delta,
    files: [],
    packs: [],
    packAt: new Map(),
    places: [],
    bytes: 0,
    parts: [],
    failed: new Set(),
  }
}

/**
 * Adds a file to the batch; hands the batch over when it is full. Fails: repo.corrupt (this file), as earlier
 * jobs.
 */
export async function addFile(
  batcher: Batcher,
  target: RestoreTarget,
  path: string,
  entry: TreeEntry,
): Promise<void> {
  const content = contentOf(entry)
  if (content.kind === 'empty' || content.kind === 'inline') {
    const inline = content.kind === 'inline' ? Uint8Array.from(content.bytes) : undefined
    if (entry.size === (inline?.length ?? 0))
      return await addJob(batcher, { path, entry, fileOffset: 0, extents: [], inline, whole: true })
  }
  let made = false
  let pending: { fileOffset: number; extents: FileExtent[] } | undefined
  for await (const { offset, extents } of fileExtents(batcher.reader, entry)) {
    if (pending !== undefined) {
      if (!made) makeParts(batcher, target, path, entry)
      made = true
      await addJob(batcher, { path, entry, ...pending, inline: undefined, whole: false })
    }
    pending = { fileOffset: offset, extents: placeExtents(batcher, extents) }
  }
  await addJob(batcher, {
    path,
    entry,
    ...(pending ?? { fileOffset: 0, extents: [] }),
    inline: undefined,
    whole: !made,
  })
}

/** Hands over what is in the batch. Fails: as earlier jobs. */
export async function flushBatch(batcher: Batcher): Promise<void> {
  if (batcher.files.length === 0) return
  const { files, packs, places, delta } = batcher
  batcher.files = []
  batcher.packs = []
  batcher.packAt = new Map()
  batcher.places = []
  batcher.bytes = 0
  await submitRestore(batcher.lanes, { files, packs, places, delta })
}

/** Gives files that were written in parts their length and metadata; all jobs are done. */
export function finishParts(batcher: Batcher, target: RestoreTarget): FileProblem[] {
  return batcher.parts.flatMap(({ path, entry }) => {
    if (batcher.failed.has(path)) {
      removeTarget(target, path)
      return []
    }
    const opened = openTarget(target, path, { update: true })
    return 'what' in opened ? [opened] : finishFile({ fd: opened.fd, path }, entry)
  })
}

/** Makes the file in full length, so that the threads only fill it in. */
function makeParts(batcher: Batcher, target: RestoreTarget, path: string, entry: TreeEntry): void {
  batcher.parts.push({ path, entry })
  const opened = openTarget(target, path, { update: batcher.delta })
  if ('what' in opened) return // said again by the thread that opens it
  try {
    ftruncateSync(opened.fd, entry.size)
  } catch (error) {
    throw restoreFailure('make', path, error)
  } finally {
    closeSync(opened.fd)
  }
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
  const { place, number, pack } = placeOfChunk(batcher.reader, chunk.id)
  let packAt = batcher.packAt.get(pack)
  if (packAt === undefined) {
    packAt = batcher.packs.push(place) - 1
    batcher.packAt.set(pack, packAt)
  }
  return batcher.places.push({ pack: packAt, number, id: Uint8Array.from(chunk.id), bytes: chunk.bytes }) - 1
}
