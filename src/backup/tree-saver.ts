/**
 * Saves a walk as a tree: unchanged files are taken over from the parent, the others go to the lanes in
 * batches, and entries reach the tree builder and the new cache in walk order. What is under way is a queue
 * of bounded length, so a folder of a million files costs no more memory than one of a thousand.
 */
import type { FileEntry, Xattr } from '../base/file-entry.ts'
import { ENTRY_FLAGS, type TreeEntry } from '../format/tree.ts'
import {
  addEntry,
  enterDirectory,
  leaveDirectory,
  newTreeBuilder,
  type TreeBuilder,
} from '../repo/tree-builder.ts'
import { appendRecord, type CacheRecord, type CacheWriter, type PageSegment } from '../repo/tree-cache.ts'
import { saveChunk, type Saver } from '../repo/saver.ts'
import type { FileProblem } from '../sources/files/problem.ts'
import { problemOf } from '../sources/files/problem.ts'
import { isTrusted, readXattrs, sameStat } from '../sources/files/stat.ts'
import type { WalkEvent } from '../sources/files/walk.ts'
import type { MadeFolderEvent, SourceEvent, StreamEvent } from '../sources/source.ts'
import { throwIfCancelled } from './cancel.ts'
import { finishFile } from './file-item.ts'
import {
  addSegments,
  handOutBatch,
  isBatchFull,
  newHandOut,
  saveInline,
  segmentCount,
  takeAnswers,
  type HandOut,
  type SegmentedFile,
} from './hand-out.ts'
import { nextResults, type Lanes } from './lanes.ts'
import type { Marks } from './marks.ts'
import { markPairs } from './marks.ts'
import { enterParent, findParent, leaveParent, type ParentCursor } from './parent-cursor.ts'
import type { SegmentResult } from './segment.ts'
import { saveStream } from './stream.ts'

/** Entries that wait for earlier ones; about 1 KB each. */
const QUEUE_ITEMS_MAX = 2048
/** Hard links remembered so that their file is read once. */
const LINKS_MAX = 100_000

const NO_CONTENT = new Uint8Array(0)
const NO_MARKS: readonly number[] = []
const NO_PAGES: readonly PageSegment[] = []

export interface TreeTotals {
  files: number
  directories: number
  others: number
  filesNew: number
  filesChanged: number
  filesUnchanged: number
  /** Of all files, holes included. */
  bytes: number
  bytesRead: number
  /** Plaintext bytes stored that the lineage did not hold. */
  bytesFresh: number
}

export interface TreeSaver {
  readonly saver: Saver
  readonly lanes: Lanes
  readonly builder: TreeBuilder
  readonly cursor: ParentCursor
  readonly cache: CacheWriter | undefined
  /** Parent's pack numbers -> this index's. */
  readonly packNumbers: readonly number[]
  readonly marks: Marks
  readonly ignoreInode: boolean
  /** Called between batches: the engine's housekeeping. */
  readonly tend: () => Promise<void>
  readonly signal: AbortSignal | undefined
  readonly problems: FileProblem[]
  readonly totals: TreeTotals
  readonly queue: Item[]
  queueAt: number
  readonly out: HandOut
  readonly links: Map<string, FileItem>
  /** Directories that the builder is in. */
  readonly open: Seen[]
}

type Item = ({ readonly kind: 'enter' } & Seen) | { readonly kind: 'leave' } | ReadyItem | FileItem

interface ReadyItem {
  readonly kind: 'ready'
  readonly entry: TreeEntry
  readonly marks: readonly number[]
  readonly pages: readonly PageSegment[]
}

interface FileItem extends SegmentedFile {
  readonly kind: 'file'
  readonly flags: number
  /** The item of another name of the same file, which comes earlier in the queue. */
  readonly sameAs: FileItem | undefined
  /** The parent's entry, where only young stamps made the file be read again: it may turn out to be unchanged. */
  readonly before: TreeEntry | undefined
  done: ReadyItem | undefined
}

export function newTreeSaver(options: {
  readonly saver: Saver
  readonly lanes: Lanes
  readonly cursor: ParentCursor
  readonly cache: CacheWriter | undefined
  readonly packNumbers: readonly number[]
  readonly marks: Marks
  readonly ignoreInode: boolean
  /** Page bytes of a file by its path, DETECT_PAGES to look at it. */
  readonly pageBytesOf: (path: string) => number
  /** Called between batches: the engine's housekeeping. */
  readonly tend: () => Promise<void>
  readonly signal: AbortSignal | undefined
}): TreeSaver {
  const tree: TreeSaver = {
    ...options,
    builder: newMarkedBuilder(options.saver, options.marks),
    problems: [],
    totals: newTotals(),
    queue: [],
    queueAt: 0,
    out: newHandOut(options.lanes, options.pageBytesOf),
    links: new Map(),
    open: [],
  }
  return tree
}

/** A builder whose nodes are saved and marked. */
export function newMarkedBuilder(saver: Saver, marks: Marks): TreeBuilder {
  return newTreeBuilder(async (node) => {
    const saved = await saveChunk(saver, 'tree', node)
    markPairs(marks, [saved.pack, saved.number])
    return saved.id
  })
}

export function newTotals(): TreeTotals {
  return {
    files: 0,
    directories: 0,
    others: 0,
    filesNew: 0,
    filesChanged: 0,
    filesUnchanged: 0,
    bytes: 0,
    bytesRead: 0,
    bytesFresh: 0,
  }
}

/** Saves all of the walk and returns the id of the root node. Fails: as the store, and repo.corrupt. */
export async function saveWalk(
  tree: TreeSaver,
  walk: Iterable<SourceEvent>,
  onProgress: (totals: TreeTotals, path: string) => void,
): Promise<Uint8Array> {
  let seen = 0
  for (const event of walk) {
    if (event.kind === 'stream') await takeStream(tree, event, onProgress)
    else takeEvent(tree, event)
    if (isBatchFull(tree.out)) await submit(tree)
    if (tree.queue.length - tree.queueAt >= QUEUE_ITEMS_MAX) await drain(tree, QUEUE_ITEMS_MAX / 2)
    if (++seen % 1024 === 0) {
      onProgress(tree.totals, event.path)
      // Signals and timers get their turn, also while nothing changed and nothing is waited for.
      await new Promise((resolve) => setImmediate(resolve))
      throwIfCancelled(tree.signal)
    }
  }
  await submit(tree)
  await drain(tree, 0)
  return await leaveDirectory(tree.builder)
}

/** The lanes call this; results come in any order. */
export function takeResults(tree: TreeSaver, results: readonly SegmentResult[]): void {
  takeAnswers(tree.out, results, (result) => {
    countResult(tree, result)
  })
}

function countResult(tree: TreeSaver, result: SegmentResult): void {
  tree.totals.bytesRead += result.bytesRead
  tree.totals.bytesFresh += result.bytesFresh
}

function takeEvent(tree: TreeSaver, event: WalkEvent | MadeFolderEvent): void {
  if (event.kind === 'problem') {
    tree.problems.push({ path: event.path, code: event.code, what: event.what })
  } else if (event.kind === 'leave') {
    if (event.path === '/') return
    leaveParent(tree.cursor)
    tree.queue.push({ kind: 'leave' })
  } else if (event.kind === 'enter' || event.kind === 'made') {
    const { path, entry } = event
    if (path === '/') return
    const record = enterParent(tree.cursor, entry.name)
    tree.totals.directories++
    // This host may have another folder at the path of one that is made.
    const seen = event.kind === 'made' ? { entry, flags: 0 } : withXattrs(tree, path, entry, record)
    tree.queue.push({ kind: 'enter', ...seen })
  } else if (event.entry.type === 'file') {
    takeFile(tree, event.path, event.entry)
  } else {
    const record = findParent(tree.cursor, event.entry.name)
    tree.totals.others++
    const seen = withXattrs(tree, event.path, event.entry, record)
    const entry = { ...seen.entry, flags: seen.flags, content: NO_CONTENT, node: undefined }
    tree.queue.push({ kind: 'ready', entry, marks: NO_MARKS, pages: NO_PAGES })
  }
}

/** A stream is saved at once and in full; its results wait in the queue like those of a file. */
async function takeStream(
  tree: TreeSaver,
  event: StreamEvent,
  onProgress: (totals: TreeTotals, path: string) => void,
): Promise<void> {
  const { path, entry } = event
  await submit(tree)
  if (findParent(tree.cursor, entry.name) === undefined) tree.totals.filesNew++
  else tree.totals.filesChanged++
  tree.totals.files++
  const results = await saveStream(tree.lanes.inline, event, {
    onBytes: (bytes) => {
      throwIfCancelled(tree.signal)
      tree.totals.bytes += bytes
      tree.totals.bytesRead += bytes
      onProgress(tree.totals, path)
    },
    onSegment: tree.tend,
  })
  for (const result of results) tree.totals.bytesFresh += result.bytesFresh
  tree.queue.push({
    kind: 'file',
    path,
    entry,
    flags: 0,
    results,
    missing: 0,
    sameAs: undefined,
    before: undefined,
    done: undefined,
  })
}

function takeFile(tree: TreeSaver, path: string, walked: FileEntry): void {
  const record = findParent(tree.cursor, walked.name)
  tree.totals.files++
  tree.totals.bytes += walked.size
  if (record?.entry?.type === 'file' && isSettled(tree, record.entry, walked)) {
    tree.totals.filesUnchanged++
    const { xattrs, flags, content } = record.entry
    const entry: TreeEntry = { ...walked, xattrs, flags, content, node: undefined }
    const marks = record.marks.map((mark, i) => (i % 2 === 0 ? tree.packNumbers[mark]! : mark))
    tree.queue.push({ kind: 'ready', entry, marks, pages: record.pages })
    return
  }
  if (record === undefined) tree.totals.filesNew++
  else tree.totals.filesChanged++
  queueFile(tree, path, withXattrs(tree, path, walked, undefined), record)
}

/** Stamps and identity are equal, and could be trusted when the entry was read. */
function isSettled(tree: TreeSaver, before: TreeEntry, now: FileEntry): boolean {
  if ((before.flags & (ENTRY_FLAGS.racy | ENTRY_FLAGS.changed)) !== 0) return false
  return sameStamps(tree, before, now)
}

function sameStamps(tree: TreeSaver, before: TreeEntry, now: FileEntry): boolean {
  return sameStat(tree.ignoreInode ? { ...before, inode: now.inode, dev: now.dev } : before, now)
}

function queueFile(tree: TreeSaver, path: string, seen: Seen, record: CacheRecord | undefined): void {
  const { entry, flags } = seen
  const link = entry.links > 1 && !tree.ignoreInode ? `${entry.dev}:${entry.inode}` : undefined
  const earlier = link === undefined ? undefined : tree.links.get(link)
  // An inode number may have been given to another file meanwhile.
  const sameAs = earlier !== undefined && sameStat(earlier.entry, entry) ? earlier : undefined
  const segments = sameAs === undefined ? segmentCount(entry) : 0
  const item: FileItem = {
    kind: 'file',
    path,
    entry,
    flags,
    sameAs,
    before: record?.entry !== undefined && sameStamps(tree, record.entry, entry) ? record.entry : undefined,
    missing: segments,
    done: undefined,
    results: Array.from({ length: segments }, () => undefined),
  }
  tree.queue.push(item)
  if (link !== undefined && sameAs === undefined) {
    if (tree.links.size >= LINKS_MAX) tree.links.clear()
    tree.links.set(link, item)
  }
  addSegments(tree.out, item, record?.pages)
}

async function submit(tree: TreeSaver): Promise<void> {
  if (!(await handOutBatch(tree.out))) return
  throwIfCancelled(tree.signal)
  await tree.tend()
  await drainReady(tree)
}

/** Waits until at most `itemsMax` items are left in the queue. */
async function drain(tree: TreeSaver, itemsMax: number): Promise<void> {
  await submit(tree)
  await drainReady(tree)
  while (tree.queue.length - tree.queueAt > itemsMax) {
    await nextResults(tree.lanes)
    await drainReady(tree)
  }
}

/** Hands the head of the queue to the builder and the cache for as long as it is complete. */
async function drainReady(tree: TreeSaver): Promise<void> {
  for (; tree.queueAt < tree.queue.length; tree.queueAt++) {
    const item = tree.queue[tree.queueAt]!
    if (item.kind === 'file' && item.missing > 0) break
    await finishItem(tree, item)
  }
  if (tree.queueAt > QUEUE_ITEMS_MAX / 2 || tree.queueAt === tree.queue.length) {
    tree.queue.splice(0, tree.queueAt)
    tree.queueAt = 0
  }
}

async function finishItem(tree: TreeSaver, item: Item): Promise<void> {
  if (item.kind === 'enter') {
    tree.open.push(item)
    enterDirectory(tree.builder)
    const entry = { ...item.entry, flags: item.flags, content: NO_CONTENT, node: undefined }
    cacheRecord(tree, { kind: 'enter', entry, marks: NO_MARKS, pages: NO_PAGES })
  } else if (item.kind === 'leave') {
    const { entry, flags } = tree.open.pop()!
    const node = await leaveDirectory(tree.builder)
    await addEntry(tree.builder, { ...entry, flags, content: NO_CONTENT, node })
    cacheRecord(tree, { kind: 'leave', entry: undefined, marks: NO_MARKS, pages: NO_PAGES })
  } else {
    const ready = item.kind === 'ready' ? item : await finishFileItem(tree, item)
    if (ready === undefined) return
    if (item.kind === 'file' && item.before !== undefined && sameEntry(tree, item.before, ready.entry)) {
      tree.totals.filesChanged--
      tree.totals.filesUnchanged++
    }
    markPairs(tree.marks, ready.marks)
    await addEntry(tree.builder, ready.entry)
    cacheRecord(tree, { kind: 'entry', entry: ready.entry, marks: ready.marks, pages: ready.pages })
  }
}

/** Whether a file that was read again is what it was: chunk ids in the content are hashes of it. */
function sameEntry(tree: TreeSaver, before: TreeEntry, now: TreeEntry): boolean {
  if (!sameStamps(tree, before, now) || Buffer.compare(before.content, now.content) !== 0) return false
  const sameXattr = ({ name, value }: Xattr, at: number): boolean =>
    now.xattrs[at]?.name === name && Buffer.compare(now.xattrs[at].value, value) === 0
  return before.xattrs.length === now.xattrs.length && before.xattrs.every(sameXattr)
}

async function finishFileItem(tree: TreeSaver, item: FileItem): Promise<ReadyItem | undefined> {
  if (item.sameAs !== undefined) {
    const twin = item.sameAs.done
    if (twin === undefined || !sameStat(twin.entry, item.entry)) return await finishAlone(tree, item)
    return { ...twin, entry: { ...twin.entry, name: item.entry.name, xattrs: item.entry.xattrs } }
  }
  const results = item.results.filter((result) => result !== undefined)
  item.results.length = 0
  return await finishRead(tree, item, results)
}

/** A further name of a file that could not be read by its first one. */
async function finishAlone(tree: TreeSaver, item: FileItem): Promise<ReadyItem | undefined> {
  const results = await saveInline(tree.out, item)
  for (const result of results) countResult(tree, result)
  return await finishRead(tree, item, results)
}

async function finishRead(
  tree: TreeSaver,
  item: FileItem,
  results: readonly SegmentResult[],
): Promise<ReadyItem | undefined> {
  const problem = results.find((result) => result.problem !== undefined)?.problem
  if (problem !== undefined) {
    tree.problems.push(problem)
    return undefined
  }
  const finished = await finishFile(tree.saver, item.entry, item.flags, results)
  if ((finished.entry.flags & ENTRY_FLAGS.changed) !== 0)
    tree.problems.push({ path: item.path, code: 'ECHANGED', what: 'the file changed while it was read' })
  item.done = { kind: 'ready', ...finished }
  return item.done
}

function cacheRecord(tree: TreeSaver, record: CacheRecord): void {
  if (tree.cache !== undefined) appendRecord(tree.cache, record)
}

/** An entry with its extended attributes, and the flags that say how far its stamps prove it unchanged later. */
interface Seen {
  readonly entry: FileEntry
  readonly flags: number
}

/**
 * Extended attributes: the parent's while the stamps prove that nothing changed, else read. Stamps too young
 * to prove anything, or attributes that could not be read, make the entry racy: the next backup looks again.
 */
function withXattrs(tree: TreeSaver, path: string, walked: FileEntry, record: CacheRecord | undefined): Seen {
  const before = record?.entry
  if (before !== undefined && isSettled(tree, before, walked))
    return { entry: before.xattrs.length === 0 ? walked : { ...walked, xattrs: before.xattrs }, flags: 0 }
  const readStart = BigInt(Math.floor(tree.lanes.inline.clock.now())) * 1_000_000n
  try {
    const xattrs = readXattrs(path)
    const flags = isTrusted(walked, readStart) ? 0 : ENTRY_FLAGS.racy
    return { entry: xattrs.length === 0 ? walked : { ...walked, xattrs }, flags }
  } catch (error) {
    tree.problems.push(problemOf(path, 'cannot read the extended attributes', error))
    return { entry: walked, flags: ENTRY_FLAGS.racy }
  }
}
