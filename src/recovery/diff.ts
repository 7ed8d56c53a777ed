/**
 * What differs between two snapshots: both trees side by side in the order of names. Equal nodes are equal
 * subtrees, so the cost goes with what changed, not with what there is. Contents are compared by their
 * chunks; bytes are read only where these differ. A first pass looks for files that only moved.
 */
import { hash } from 'node:crypto'
import type { Extent, Extents } from '../format/content.ts'
import type { TreeEntry } from '../format/tree.ts'
import {
  branchNodes,
  contentOf,
  fileExtents,
  findEntry,
  newWalkBudget,
  readDirectory,
  readFile,
  rootNode,
  spendEntry,
  type SnapshotReader,
} from '../repo/tree-reader.ts'

/** Files looked at as moved; of more, the rest count as removed and added. About 300 bytes each. */
const MOVE_FILES_MAX = 50_000

export interface Change {
  /**
   * `changed`: its content or what it is; `metadata`: owner, mode, times, attributes only; `moved`: a file
   * of the same content that was at `from`.
   */
  readonly kind: 'added' | 'removed' | 'changed' | 'metadata' | 'moved'
  /** Raw and absolute. */
  readonly path: string
  /** Only of what was moved: where it was. */
  readonly from?: string
  /** Undefined for what was added. */
  readonly before: TreeEntry | undefined
  /** Undefined for what was removed. */
  readonly after: TreeEntry | undefined
}

interface Sides {
  readonly before: SnapshotReader
  readonly after: SnapshotReader
  /** Node ids of two domains never say that something is equal, since their keys differ. */
  readonly sameKeys: boolean
}

/** What both snapshots have at a path, of which at least one has something. */
type Pair = Pick<Change, 'path' | 'before' | 'after'>

/**
 * All changes in the order of paths; what is below an added or removed directory too, a moved file where it
 * is now. Fails: storage.*, repo.corrupt (also of a tree that holds more than its snapshot says).
 */
export async function* diffSnapshots(before: SnapshotReader, after: SnapshotReader): AsyncGenerator<Change> {
  const sides: Sides = { before, after, sameKeys: before.snapshot.domain === after.snapshot.domain }
  const moves = await findMoves(sides)
  const left = new Set(moves.values())
  for await (const pair of differingPairs(sides)) {
    const from = pair.before === undefined ? moves.get(pair.path) : undefined
    if (from !== undefined) yield { ...pair, kind: 'moved', from, before: await findEntry(before, from) }
    else if (pair.after !== undefined || !left.has(pair.path)) {
      const kind = await kindOf(sides, pair)
      if (kind !== undefined) yield { ...pair, kind }
    }
  }
}

/**
 * Old paths by new ones of files that are gone at one path and have come, with the same content, at another.
 * Several of the same content are paired in the order of their paths.
 */
async function findMoves(sides: Sides): Promise<Map<string, string>> {
  const moves = new Map<string, string>()
  if (!sides.sameKeys) return moves
  const [gone, come] = [new Map<string, string[]>(), new Map<string, string[]>()]
  let files = 0
  for await (const { path, before, after } of differingPairs(sides)) {
    const entry = before ?? after
    if ((before !== undefined && after !== undefined) || entry?.type !== 'file' || entry.size === 0) continue
    if (files++ >= MOVE_FILES_MAX) break
    const key = `${entry.size}:${hash('sha256', entry.content, 'base64')}`
    const other = (after === undefined ? come : gone).get(key)?.shift()
    if (other === undefined) addTo(after === undefined ? gone : come, key, path)
    else if (after === undefined) moves.set(other, path)
    else moves.set(path, other)
  }
  return moves
}

function addTo(waiting: Map<string, string[]>, key: string, path: string): void {
  const paths = waiting.get(key)
  if (paths === undefined) waiting.set(key, [path])
  else paths.push(path)
}

/** Two directories of which one may be missing, read side by side; `a` and `b` are next. */
interface OpenPair {
  readonly path: string
  readonly old: AsyncGenerator<TreeEntry, undefined, undefined>
  readonly now: AsyncGenerator<TreeEntry, undefined, undefined>
  a: TreeEntry | undefined
  b: TreeEntry | undefined
}

/** What is there in either snapshot, by name, but for directories and parts of directories that are equal. */
async function* differingPairs(sides: Sides): AsyncGenerator<Pair> {
  const budgets = { before: newWalkBudget(sides.before), after: newWalkBudget(sides.after) }
  const roots = { path: '', before: rootNode(sides.before), after: rootNode(sides.after) }
  // Not recursive: trees may be deeper than the stack.
  const open = await openPairs(sides, roots)
  for (let last = open.at(-1); last !== undefined; last = open.at(-1)) {
    const { a, b } = last
    const name = a !== undefined && (b === undefined || a.name <= b.name) ? a.name : b?.name
    if (name === undefined) {
      open.pop()
      continue
    }
    const path = `${last.path}/${name}`
    const before = a?.name === name ? a : undefined
    const after = b?.name === name ? b : undefined
    if (before !== undefined) {
      spendEntry(budgets.before, open.length)
      last.a = (await last.old.next()).value
    }
    if (after !== undefined) {
      spendEntry(budgets.after, open.length)
      last.b = (await last.now.next()).value
    }
    yield { path, before, after }
    open.push(...(await openPairs(sides, { path, before: before?.node, after: after?.node })))
  }
}

/** None if there is no directory, or both are equal. */
async function openPairs(
  sides: Sides,
  of: { path: string; before: Uint8Array | undefined; after: Uint8Array | undefined },
): Promise<OpenPair[]> {
  const { path, before, after } = of
  if (before === undefined && after === undefined) return []
  const isShared = sides.sameKeys && before !== undefined && after !== undefined
  if (isShared && hexOf(before) === hexOf(after)) return []
  const skip = isShared ? await commonNodes(sides, before, after) : new Set<string>()
  const old = entriesOf(sides.before, before, skip)
  const now = entriesOf(sides.after, after, skip)
  return [{ path, old, now, a: (await old.next()).value, b: (await now.next()).value }]
}

async function* entriesOf(
  reader: SnapshotReader,
  node: Uint8Array | undefined,
  skip: ReadonlySet<string>,
): AsyncGenerator<TreeEntry, undefined, undefined> {
  if (node !== undefined) yield* readDirectory(reader, node, undefined, skip)
}

/** Ids of nodes that are part of both directories: huge ones are made of many. */
async function commonNodes(
  sides: Sides,
  before: Uint8Array,
  after: Uint8Array,
): Promise<ReadonlySet<string>> {
  const old = await branchNodes(sides.before, before)
  if (old.size === 0) return old
  const now = await branchNodes(sides.after, after)
  return new Set([...old].filter((id) => now.has(id)))
}

/** How they differ; undefined if they do not. */
async function kindOf(sides: Sides, { before, after }: Pair): Promise<Change['kind'] | undefined> {
  if (before === undefined) return 'added'
  if (after === undefined) return 'removed'
  if (!(await isSameThing(sides, before, after))) return 'changed'
  return hasSameMetadata(before, after) ? undefined : 'metadata'
}

function hexOf(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString('hex')
}

/** Whether both are of one type with one content, target or device. */
async function isSameThing(sides: Sides, before: TreeEntry, after: TreeEntry): Promise<boolean> {
  if (before.type !== after.type) return false
  if (before.type === 'file') return hasSameContent(sides, before, after)
  const { target, major, minor } = before
  return target === after.target && major === after.major && minor === after.minor
}

/** Access, change time and inode say nothing about what a restore would bring back. */
function hasSameMetadata(before: TreeEntry, after: TreeEntry): boolean {
  const { mode, uid, gid, mtime, xattrs } = before
  if (mode !== after.mode || uid !== after.uid || gid !== after.gid || mtime !== after.mtime) return false
  if (xattrs.length !== after.xattrs.length) return false
  return xattrs.every(({ name, value }, at) => {
    const other = after.xattrs[at]
    return other !== undefined && other.name === name && Buffer.from(value).equals(other.value)
  })
}

async function hasSameContent(sides: Sides, before: TreeEntry, after: TreeEntry): Promise<boolean> {
  if (before.size !== after.size) return false
  if (sides.sameKeys && Buffer.from(before.content).equals(after.content)) return true
  const [old, now] = [contentOf(before), contentOf(after)]
  if (old.kind === 'inline' || now.kind === 'inline' || !sides.sameKeys)
    return hasSameBytes(sides, before, after, { offset: 0, length: after.size })
  const ranges = differingRanges(piecesOf(sides.before, before), piecesOf(sides.after, after))
  for await (const range of ranges) if (!(await hasSameBytes(sides, before, after, range))) return false
  return true
}

/** `length` bytes of a file from one place in a chunk, or of a hole. */
interface Piece {
  readonly chunk: string
  readonly offset: number
  readonly length: number
}

async function* piecesOf(
  reader: SnapshotReader,
  entry: TreeEntry,
): AsyncGenerator<Piece, undefined, undefined> {
  for await (const { extents } of fileExtents(reader, entry)) {
    for (const extent of extents.extents) yield pieceOf(extents, extent)
  }
}

function pieceOf({ chunks }: Extents, { ref, offset, length }: Extent): Piece {
  const chunk = ref === 0 ? undefined : chunks[ref - 1]
  return { chunk: chunk === undefined ? '' : hexOf(chunk.id), offset: ref === 0 ? 0 : offset, length }
}

/** Ranges of the file that the two take from different places. */
async function* differingRanges(
  old: AsyncGenerator<Piece, undefined, undefined>,
  now: AsyncGenerator<Piece, undefined, undefined>,
): AsyncGenerator<{ offset: number; length: number }> {
  let at = 0
  let a = (await old.next()).value
  let b = (await now.next()).value
  while (a !== undefined && b !== undefined) {
    const length = Math.min(a.length, b.length)
    const isSame = a.chunk === b.chunk && (a.chunk === '' || a.offset === b.offset)
    if (!isSame) yield { offset: at, length }
    at += length
    a = a.length > length ? restOf(a, length) : (await old.next()).value
    b = b.length > length ? restOf(b, length) : (await now.next()).value
  }
}

function restOf(piece: Piece, from: number): Piece {
  const offset = piece.chunk === '' ? 0 : piece.offset + from
  return { chunk: piece.chunk, offset, length: piece.length - from }
}

async function hasSameBytes(
  sides: Sides,
  before: TreeEntry,
  after: TreeEntry,
  range: { offset: number; length: number },
): Promise<boolean> {
  const now = readFile(sides.after, after, range)
  let rest: Uint8Array = new Uint8Array(0)
  for await (const part of readFile(sides.before, before, range)) {
    for (let at = 0; at < part.length;) {
      if (rest.length === 0) rest = ((await now.next()).value as Uint8Array | undefined) ?? rest
      const length = Math.min(part.length - at, rest.length)
      if (length === 0) return false
      if (Buffer.compare(part.subarray(at, at + length), rest.subarray(0, length)) !== 0) return false
      at += length
      rest = rest.subarray(length)
    }
  }
  return true
}
