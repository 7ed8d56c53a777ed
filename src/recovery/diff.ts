/**
 * What differs between two snapshots: both trees side by side in the order of names. Equal nodes are equal
 * subtrees, so the cost goes with what changed, not with what there is. Contents are compared by their
 * chunks; bytes are read only where these differ.
 */
import type { Extent, Extents } from '../format/content.ts'
import { decodeNode, type TreeEntry, type TreeNode } from '../format/tree.ts'
import {
  contentOf,
  fileExtents,
  readChunk,
  readFile,
  rootNode,
  type SnapshotReader,
} from '../repo/tree-reader.ts'

export interface Change {
  /** `changed`: its content or what it is; `metadata`: owner, mode, times, attributes only. */
  readonly kind: 'added' | 'removed' | 'changed' | 'metadata'
  /** Raw and absolute. */
  readonly path: string
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

/** All changes in the order of paths; what is below an added or removed directory too. */
export async function* diffSnapshots(before: SnapshotReader, after: SnapshotReader): AsyncGenerator<Change> {
  const sides: Sides = { before, after, sameKeys: before.snapshot.domain === after.snapshot.domain }
  yield* diffNodes(sides, '', rootNode(before), rootNode(after))
}

async function* diffNodes(
  sides: Sides,
  base: string,
  before: Uint8Array | undefined,
  after: Uint8Array | undefined,
): AsyncGenerator<Change> {
  if (sides.sameKeys && before !== undefined && after !== undefined && hexOf(before) === hexOf(after)) return
  const skip = await commonNodes(sides, before, after)
  const old = entriesOf(sides.before, before, skip)
  const now = entriesOf(sides.after, after, skip)
  let a = (await old.next()).value
  let b = (await now.next()).value
  while (a !== undefined || b !== undefined) {
    const isOld = a !== undefined && (b === undefined || a.name <= b.name)
    const isNew = b !== undefined && (a === undefined || b.name <= a.name)
    const name = (isOld ? a?.name : b?.name) ?? ''
    yield* diffEntry(sides, `${base}/${name}`, isOld ? a : undefined, isNew ? b : undefined)
    if (isOld) a = (await old.next()).value
    if (isNew) b = (await now.next()).value
  }
}

async function* diffEntry(
  sides: Sides,
  path: string,
  before: TreeEntry | undefined,
  after: TreeEntry | undefined,
): AsyncGenerator<Change> {
  if (before === undefined || after === undefined) {
    yield { kind: before === undefined ? 'added' : 'removed', path, before, after }
  } else if (!(await isSameThing(sides, before, after))) {
    yield { kind: 'changed', path, before, after }
  } else if (!hasSameMetadata(before, after)) {
    yield { kind: 'metadata', path, before, after }
  }
  if (before?.node !== undefined || after?.node !== undefined) {
    yield* diffNodes(sides, path, before?.node, after?.node)
  }
}

/** Ids of nodes that are part of both directories: huge ones are made of many. */
async function commonNodes(
  sides: Sides,
  before: Uint8Array | undefined,
  after: Uint8Array | undefined,
): Promise<ReadonlySet<string>> {
  if (!sides.sameKeys || before === undefined || after === undefined) return new Set()
  const old = new Set<string>()
  for await (const id of branchNodes(sides.before, before)) old.add(id)
  const common = new Set<string>()
  if (old.size === 0) return common
  for await (const id of branchNodes(sides.after, after)) if (old.has(id)) common.add(id)
  return common
}

/** Ids of all nodes below a branch; leaves are named by it and not read. */
async function* branchNodes(reader: SnapshotReader, node: Uint8Array): AsyncGenerator<string> {
  const read = await readNode(reader, node)
  if (read.kind === 'leaf') return
  const [first] = read.children
  const isAboveLeaves = first === undefined || (await readNode(reader, first.node)).kind === 'leaf'
  for (const child of read.children) {
    yield hexOf(child.node)
    if (!isAboveLeaves) yield* branchNodes(reader, child.node)
  }
}

async function* entriesOf(
  reader: SnapshotReader,
  node: Uint8Array | undefined,
  skip: ReadonlySet<string>,
): AsyncGenerator<TreeEntry, undefined, undefined> {
  if (node === undefined) return
  const read = await readNode(reader, node)
  if (read.kind === 'leaf') yield* read.entries
  else {
    for (const child of read.children)
      if (!skip.has(hexOf(child.node))) yield* entriesOf(reader, child.node, skip)
  }
}

async function readNode(reader: SnapshotReader, id: Uint8Array): Promise<TreeNode> {
  return decodeNode(Buffer.from(await readChunk(reader, id)), `tree node ${hexOf(id)}`)
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
