/** From the saved segments of a file to its tree entry: content map, flags, marks, and what the cache keeps. */
import type { FileEntry } from '../base/file-entry.ts'
import {
  encodeExtentNode,
  encodeHashLeaf,
  encodeInline,
  encodeListNode,
  encodeMapped,
  LIST_NODES_MAX,
  NODE_SPAN_BYTES,
} from '../format/content.ts'
import { ENTRY_FLAGS, type TreeEntry } from '../format/tree.ts'
import { saveChunk, type Saver } from '../repo/saver.ts'
import type { PageSegment } from '../repo/tree-cache.ts'
import type { SegmentResult } from './segment.ts'

/** Extents up to this size stay in the tree entry; larger maps become nodes. */
const ENTRY_EXTENTS_BYTES_MAX = 4096

export interface FinishedFile {
  readonly entry: TreeEntry
  /** Pairs of pack number and chunk number of all that the entry references. */
  readonly marks: readonly number[]
  readonly pages: readonly PageSegment[]
}

/**
 * `walkedFlags`: what the walk knows. `results`: of all segments in order, none with a problem. The entry's
 * size is what was covered: where a segment fell short (the file shrank), the file ends there, so that the
 * entry is consistent in itself.
 */
export async function finishFile(
  saver: Saver,
  walked: FileEntry,
  walkedFlags: number,
  results: readonly SegmentResult[],
): Promise<FinishedFile> {
  const first = results[0]!
  const used = usedResults(results)
  const marks = used.flatMap((result) => result.marks)
  const isPages = used.every((result) => result.pageBytes > 0 && result.pageBytes === first.pageBytes)
  const content = await encodeFile(saver, used, marks)
  const size = used.reduce((sum, result) => sum + result.bytes, 0)
  const changed = results.some((result) => result.changed || !sameIdentity(first, result))
  const at = first.entry ?? walked
  // The attributes were read at the walk, the content later: stamps that moved between prove neither.
  const settled = results.every((result) => result.trusted) && at.ctime === walked.ctime
  const flags = walkedFlags | (settled ? 0 : ENTRY_FLAGS.racy) | (changed ? ENTRY_FLAGS.changed : 0)
  const entry: TreeEntry = {
    ...at,
    name: walked.name,
    xattrs: walked.xattrs,
    size,
    flags,
    content,
    node: undefined,
  }
  return { entry, marks, pages: isPages ? used.map(pageSegment) : [] }
}

/** Everything up to the first segment that ended early. */
function usedResults(results: readonly SegmentResult[]): readonly SegmentResult[] {
  const short = results.findIndex((result, i) => i < results.length - 1 && result.bytes < NODE_SPAN_BYTES)
  return short < 0 ? results : results.slice(0, short + 1)
}

function sameIdentity(a: SegmentResult, b: SegmentResult): boolean {
  return (
    a.entry?.inode === b.entry?.inode &&
    a.entry?.mtime === b.entry?.mtime &&
    a.entry?.ctime === b.entry?.ctime
  )
}

async function encodeFile(
  saver: Saver,
  results: readonly SegmentResult[],
  marks: number[],
): Promise<Uint8Array> {
  const only = results.length === 1 ? results[0] : undefined
  if (only?.inline !== undefined) return only.bytes === 0 ? new Uint8Array(0) : encodeInline(only.inline)
  const withBytes = results.filter((result) => result.extents !== undefined)
  if (withBytes.length === 0) return new Uint8Array(0)
  const { pageBytes: firstPageBytes } = withBytes[0]!
  // Segments taken for different things, since the file changed meanwhile: the map alone is right for both.
  const pageBytes = withBytes.every((result) => result.pageBytes === firstPageBytes) ? firstPageBytes : 0
  const hashes: Uint8Array[] = []
  for (const result of pageBytes > 0 ? withBytes : []) {
    hashes.push(await saveMarked(saver, 'hashes', encodeHashLeaf(pageBytes, result.hashes!), marks))
  }
  if (only !== undefined && only.extents!.length <= ENTRY_EXTENTS_BYTES_MAX)
    return encodeMapped({ extents: only.extents! }, pageBytes, hashes)
  const nodes: Uint8Array[] = []
  for (const result of withBytes) {
    nodes.push(await saveMarked(saver, 'extents', encodeExtentNode(result.extents!), marks))
  }
  if (nodes.length <= LIST_NODES_MAX) return encodeMapped({ depth: 1, nodes }, pageBytes, hashes)
  const lists: Uint8Array[] = []
  for (let at = 0; at < nodes.length; at += LIST_NODES_MAX) {
    const list = encodeListNode(nodes.slice(at, at + LIST_NODES_MAX))
    lists.push(await saveMarked(saver, 'extents', list, marks))
  }
  return encodeMapped({ depth: 2, nodes: lists }, pageBytes, hashes)
}

async function saveMarked(
  saver: Saver,
  kind: 'extents' | 'hashes',
  bytes: Uint8Array,
  marks: number[],
): Promise<Uint8Array> {
  const saved = await saveChunk(saver, kind, bytes)
  marks.push(saved.pack, saved.number)
  return saved.id
}

function pageSegment(result: SegmentResult): PageSegment {
  return {
    pageBytes: result.pageBytes,
    extents: result.extents ?? new Uint8Array(0),
    hashes: result.hashes ?? new Uint8Array(0),
  }
}
