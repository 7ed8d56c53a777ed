/**
 * One snapshot as a check reads it, and the count of what its tree references: how often each chunk of each
 * pack. The count of a snapshot follows from its parent's by the nodes that differ, so that nodes which
 * snapshots share are read once. Not here: naming files (check-hurt.ts), the refs record (check-refs.ts).
 */
import { corrupt } from '../base/bytes.ts'
import {
  decodeContent,
  decodeExtentNode,
  decodeListNode,
  extentsBytes,
  NODE_SPAN_BYTES,
  type Content,
  type Extents,
} from '../format/content.ts'
import { decodeNode, type TreeEntry, type TreeNode } from '../format/tree.ts'
import { lookupChunk, lookupCopies, packInRuns } from '../repo/chunk-index.ts'
import { isDamage } from '../repo/damage.ts'
import {
  newWalkBudget,
  readChunk,
  spendEntry,
  type SnapshotReader,
  type WalkBudget,
} from '../repo/tree-reader.ts'
import { PACK_KINDS } from '../format/pack.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { packName } from '../repo/names.ts'
import type { Finding } from './check-findings.ts'
import type { PackState } from './check-runs.ts'

/** References by pack and chunk number. 4 bytes a chunk of the lineage. */
export type Counts = Map<PackState, Uint32Array>

export interface TreeTally {
  nodes: number
  files: number
  chunks: number
}

export interface CheckedTree {
  readonly reader: SnapshotReader
  readonly packs: ReadonlyMap<string, PackState>
  /** To blame for chunks that no index knows. */
  readonly lostRun: Finding | undefined
  /** Packs by their number in this snapshot's index. */
  readonly numbers: Map<number, PackState | undefined>
  readonly counts: Counts
  readonly tally: TreeTally
  readonly bounds: TreeBounds
  /** Everything was read and every chunk is in the index. */
  isWhole: boolean
  /** The count went below zero: it does not follow from the parent's. */
  isMiscounted: boolean
  readonly onNode: () => void
}

/** `base`: the snapshot whose tree `counts` are of, which is read too. */
export function newCheckedTree(
  of: Pick<CheckedTree, 'reader' | 'packs' | 'lostRun' | 'tally' | 'onNode'>,
  counts: Counts,
  base?: StoredSnapshot,
): CheckedTree {
  const bounds = newTreeBounds(of.reader)
  const more = base === undefined ? 0 : newWalkBudget({ snapshot: base }).left
  bounds.entries.left += more
  bounds.nodes.left += more
  return { ...of, counts, bounds, numbers: new Map(), isWhole: true, isMiscounted: false }
}

/**
 * What a walk over a tree may visit. A directory has fewer nodes than entries, but for its own first one, so
 * that both are bounded by what the snapshot says it has.
 */
export interface TreeBounds {
  readonly entries: WalkBudget
  readonly nodes: WalkBudget
}

export function newTreeBounds(reader: SnapshotReader): TreeBounds {
  return { entries: newWalkBudget(reader), nodes: newWalkBudget(reader) }
}

export function copyCounts(counts: Counts): Counts {
  return new Map([...counts].map(([pack, numbers]) => [pack, numbers.slice()]))
}

/** Where a chunk lies by this snapshot's index, or undefined if no run lists it. */
export function findChunk(
  tree: CheckedTree,
  id: Uint8Array,
): { pack: PackState; number: number } | undefined {
  const key = Buffer.from(id.buffer, id.byteOffset, id.byteLength)
  const found = lookupChunk(tree.reader.index, key, 0)
  const pack = found && packOf(tree, found.pack)
  return pack && { pack, number: found.number }
}

/** By its number in this snapshot's index. */
function packOf(tree: CheckedTree, packNumber: number): PackState | undefined {
  let pack = tree.numbers.get(packNumber)
  if (pack === undefined && !tree.numbers.has(packNumber)) {
    const listed = packInRuns(tree.reader.index, packNumber)
    const kind = listed?.kind === PACK_KINDS.data ? 'data' : 'tree'
    pack = listed && tree.packs.get(packName(tree.reader.keys.domain, kind, listed.id))
    tree.numbers.set(packNumber, pack)
  }
  return pack
}

/**
 * All places of a chunk by this snapshot's index, that of findChunk() first: threads that save a chunk at
 * once store it twice.
 */
export function findCopies(tree: CheckedTree, id: Uint8Array): { pack: PackState; number: number }[] {
  const key = Buffer.from(id.buffer, id.byteOffset, id.byteLength)
  return lookupCopies(tree.reader.index, key).flatMap((copy) => {
    const pack = packOf(tree, copy.pack)
    return pack === undefined ? [] : [{ pack, number: copy.number }]
  })
}

/**
 * Counts everything below the node `id`, of a directory `depth` levels down. Fails: repo.corrupt for a tree
 * that holds more than its snapshot says.
 */
export async function countTree(tree: CheckedTree, id: Uint8Array, sign: 1 | -1, depth = 1): Promise<void> {
  const seen = new Set<string>()
  const nodes = [id]
  for (let next = nodes.pop(); next !== undefined; next = nodes.pop()) {
    addOnce(seen, [next])
    countChunk(tree, next, sign)
    const node = await nodeOf(tree, next, depth)
    if (node?.kind === 'branch') nodes.push(...node.children.map((child) => child.node).toReversed())
    if (node?.kind !== 'leaf') continue
    for (const entry of node.entries) {
      const later = countEntry(tree, entry, sign, depth)
      if (later !== undefined) await later
    }
  }
}

/** Adds nodes of one directory to those it was seen to have; the ids of the added. */
function addOnce(seen: Set<string>, ids: readonly Uint8Array[]): Set<string> {
  const added = new Set<string>()
  for (const id of ids.map(hexOf)) {
    if (seen.has(id)) throw corrupt('a directory', 'has one node twice')
    seen.add(id)
    added.add(id)
  }
  return added
}

/** Turns the count of the tree below `before` into that of the one below `after`. Fails: as countTree(). */
export async function recountTree(
  tree: CheckedTree,
  before: Uint8Array,
  after: Uint8Array,
  depth = 1,
): Promise<void> {
  const gone: Held = new Map()
  const come: Held = new Map()
  const [seenOld, seenFresh] = [new Set<string>(), new Set<string>()]
  let [old, fresh] = [[before], [after]] as [Uint8Array[], Uint8Array[]]
  while (old.length > 0 || fresh.length > 0) {
    const [olds, freshes] = [addOnce(seenOld, old), addOnce(seenFresh, fresh)]
    const [wasOld, wasFresh] = [old, fresh]
    old = []
    fresh = []
    for (const id of wasOld)
      if (!freshes.has(hexOf(id))) old.push(...(await countNode(tree, id, { sign: -1, depth }, gone)))
    for (const id of wasFresh)
      if (!olds.has(hexOf(id))) fresh.push(...(await countNode(tree, id, { sign: 1, depth }, come)))
  }
  for (const [name, entry] of come) {
    const other = gone.get(name)
    if (other !== undefined && isSameBelow(other, entry)) {
      gone.delete(name)
    } else if (other?.node !== undefined && entry.node !== undefined) {
      gone.delete(name)
      await recountTree(tree, other.node, entry.node, depth + 1)
    } else {
      await countEntry(tree, entry, 1, depth)
    }
  }
  for (const entry of gone.values()) await countEntry(tree, entry, -1, depth)
}

/** Entries that may be equal in both trees and cost more than their own node: directories, large files. */
type Held = Map<string, TreeEntry>

/** Counts one node and the small entries in it, holds the others; returns the nodes below. */
async function countNode(
  tree: CheckedTree,
  id: Uint8Array,
  { sign, depth }: { sign: 1 | -1; depth: number },
  held: Held,
): Promise<Uint8Array[]> {
  countChunk(tree, id, sign)
  const node = await nodeOf(tree, id, depth)
  if (node === undefined) return []
  if (node.kind === 'branch') return node.children.map((child) => child.node)
  for (const entry of node.entries) {
    if (entry.node !== undefined || hasNodes(entry)) held.set(entry.name, entry)
    else await countEntry(tree, entry, sign, depth)
  }
  return []
}

function hexOf(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString('hex')
}

function isSameBelow(a: TreeEntry, b: TreeEntry): boolean {
  if (a.node !== undefined || b.node !== undefined)
    return a.node !== undefined && b.node !== undefined && Buffer.compare(a.node, b.node) === 0
  return a.size === b.size && Buffer.compare(a.content, b.content) === 0
}

function hasNodes(entry: TreeEntry): boolean {
  if (entry.type !== 'file') return false
  const content = decodedContent(entry)
  return (content?.kind === 'cdc' || content?.kind === 'pages') && content.map.depth > 0
}

/** A tree node, or undefined (and the tree is not whole). */
async function nodeOf(tree: CheckedTree, id: Uint8Array, depth: number): Promise<TreeNode | undefined> {
  spendEntry(tree.bounds.nodes, depth)
  tree.tally.nodes++
  tree.onNode()
  return await unlessDamaged(tree, async () =>
    decodeNode(Buffer.from(await readChunk(tree.reader, id)), 'a tree node'),
  )
}

async function unlessDamaged<T>(tree: CheckedTree, read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if (!isDamage(error)) throw error
    // check-hurt.ts reads again and says what this costs.
    tree.isWhole = false
    return undefined
  }
}

function countChunk(tree: CheckedTree, id: Uint8Array, sign: 1 | -1): void {
  tree.tally.chunks++
  const place = findChunk(tree, id)
  if (place === undefined) {
    tree.isWhole = false
    return
  }
  const { pack, number } = place
  let numbers = tree.counts.get(pack)
  if (numbers === undefined || number >= numbers.length) {
    const grown = new Uint32Array(Math.max(pack.chunks, number + 1))
    if (numbers !== undefined) grown.set(numbers)
    numbers = grown
    tree.counts.set(pack, numbers)
  }
  const count = (numbers[number] ?? 0) + sign
  if (count < 0) tree.isMiscounted = true
  else numbers[number] = count
}

/** Counts an entry; a promise only if nodes have to be read for it. */
function countEntry(
  tree: CheckedTree,
  entry: TreeEntry,
  sign: 1 | -1,
  depth: number,
): Promise<void> | undefined {
  spendEntry(tree.bounds.entries, depth)
  if (entry.node !== undefined) return countTree(tree, entry.node, sign, depth + 1)
  if (entry.type !== 'file') return undefined
  tree.tally.files++
  const content = decodedContent(entry)
  if (content === undefined) {
    tree.isWhole = false
  } else if (content.kind === 'cdc' || content.kind === 'pages') {
    if (content.kind === 'pages') for (const id of content.hashes) countChunk(tree, id, sign)
    if (content.map.depth !== 0) return countMap(tree, entry, content.map, sign)
    countExtents(tree, content.map.extents, sign)
    if (extentsBytes(content.map.extents) !== entry.size) tree.isWhole = false
  } else if ((content.kind === 'inline' ? content.bytes.length : 0) !== entry.size) {
    tree.isWhole = false
  }
  return undefined
}

/** undefined if it cannot be decoded. */
export function decodedContent(entry: TreeEntry): Content | undefined {
  try {
    return decodeContent(entry.content, 'the content of a file')
  } catch (error) {
    if (isDamage(error)) return undefined
    throw error
  }
}

async function countMap(tree: CheckedTree, entry: TreeEntry, map: MapNodes, sign: 1 | -1): Promise<void> {
  const bytes = await countMapNodes(tree, map, sign, entry.size)
  if (bytes !== entry.size) tree.isWhole = false
}

/** Nodes of a file's map: of extents at depth 1, lists of such at depth 2. */
export interface MapNodes {
  readonly depth: number
  readonly nodes: readonly Uint8Array[]
}

/** Returns the bytes of file that were found; goes on to `bytesMax` at most. */
async function countMapNodes(
  tree: CheckedTree,
  { depth, nodes }: MapNodes,
  sign: 1 | -1,
  bytesMax: number,
): Promise<number> {
  let bytes = 0
  for (const id of nodes) {
    if (bytes > bytesMax) break
    countChunk(tree, id, sign)
    tree.tally.nodes++
    tree.onNode()
    if (depth > 1) {
      const below = await unlessDamaged(tree, async () =>
        decodeListNode(await chunkCopy(tree, id), 'a list node'),
      )
      const left = bytesMax - bytes
      bytes += coveredBytes(
        below && (await countMapNodes(tree, { depth: depth - 1, nodes: below }, sign, left)),
      )
      continue
    }
    const extents = await unlessDamaged(tree, async () =>
      decodeExtentNode(await chunkCopy(tree, id), 'an extent node'),
    )
    if (extents !== undefined) countExtents(tree, extents, sign)
    bytes += coveredBytes(extents && extentsBytes(extents))
  }
  return bytes
}

/**
 * Of a map node, undefined for a damaged one. One that covers nothing is forged and ends the map, which could
 * else go on for ever.
 */
export function coveredBytes(bytes: number | undefined): number {
  return bytes === 0 ? Infinity : (bytes ?? NODE_SPAN_BYTES)
}

/** The reader's caches keep the original. */
async function chunkCopy(tree: CheckedTree, id: Uint8Array): Promise<Buffer> {
  return Buffer.from(await readChunk(tree.reader, id))
}

function countExtents(tree: CheckedTree, extents: Extents, sign: 1 | -1): void {
  for (const chunk of extents.chunks) countChunk(tree, chunk.id, sign)
}
