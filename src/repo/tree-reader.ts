/**
 * Reading snapshots: directories, single names and file contents, each without loading more than it needs.
 * A read path for ls, cat, find, diff, restore, check and mounts; one reader belongs to one thread.
 */
import { corrupt } from '../base/bytes.ts'
import { Failure } from '../base/failure.ts'
import { displayName } from '../base/file-entry.ts'
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
import { PACK_KINDS, type PackKind } from '../format/pack.ts'
import {
  attachIndex,
  detachIndex,
  lookupChunk,
  lookupCopies,
  packInRuns,
  type ChunkIndex,
} from './chunk-index.ts'
import { isDamage, isUnreadable } from './damage.ts'
import type { HostFolder } from './host-folder.ts'
import { domainKeys, type Access } from './keys.ts'
import { openLineage } from './lineage.ts'
import {
  newPackReader,
  readChunkAt,
  type PackPlace,
  type PackReader,
  type ReaderKeys,
} from './pack-reader.ts'
import { readerKeys } from './reader-keys.ts'
import type { RebuiltSet } from './rebuild.ts'
import type { StoredSnapshot } from './snapshots.ts'

/** A branch holds 32 nodes or more but for the last: 8 levels are 10^12 nodes. */
const BRANCH_DEPTH_MAX = 8
const DIRECTORY_DEPTH_MAX = 16_384
const WALK_MARGIN_ENTRIES = 1000
const NOTHING: ReadonlySet<string> = new Set()

export interface SnapshotReader {
  readonly snapshot: StoredSnapshot
  readonly keys: ReaderKeys
  readonly index: ChunkIndex
  readonly packs: PackReader
  /** Pack sets whose index runs are lost: what can be read is found by an index made from their packs. */
  readonly rebuilt: readonly RebuiltSet[]
}

/** Opens a snapshot for reading; end with closeSnapshot(). Fails: key.role, storage.*, repo.corrupt. */
export async function openSnapshot(
  access: Access,
  host: HostFolder,
  snapshot: StoredSnapshot,
): Promise<SnapshotReader> {
  const domain = await domainKeys(access, snapshot.domain)
  const { repository } = access.config
  const keys = readerKeys(domain, repository)
  const place = { store: access.store, repository, keys: domain, host }
  const { index, rebuilt } = await openLineage(place, snapshot.lineage)
  return { snapshot, keys, index: attachIndex(index), packs: newPackReader(access.store, keys), rebuilt }
}

export function closeSnapshot(reader: SnapshotReader): void {
  detachIndex(reader.index)
}

/** A place of a chunk: `pack` is the index's number of it. */
export interface ChunkCopy {
  readonly place: PackPlace
  readonly pack: number
  readonly number: number
}

/**
 * Everywhere a chunk of the lineage lies, mostly one place; each of them may be damaged. Fails: repo.corrupt
 * if the index does not know it.
 */
export function copiesOfChunk(reader: SnapshotReader, id: Uint8Array): ChunkCopy[] {
  const copies = lookupCopies(reader.index, keyOf(id)).flatMap((found) => copyAt(reader, found))
  return copies.length > 0 ? copies : [placeOfChunk(reader, id)]
}

function placeOfChunk(reader: SnapshotReader, id: Uint8Array): ChunkCopy {
  const found = lookupChunk(reader.index, keyOf(id), 0)
  const [copy] = found === undefined ? [] : copyAt(reader, found)
  if (copy !== undefined) return copy
  const chunk = keyOf(id).toString('hex')
  const snapshot = reader.snapshot.id
  const message = `Cannot find chunk ${chunk}: no index run of snapshot ${snapshot} lists it`
  throw new Failure('repo.corrupt', message, { facts: { chunk, snapshot } })
}

function copyAt(reader: SnapshotReader, found: { pack: number; number: number }): ChunkCopy[] {
  const pack = packInRuns(reader.index, found.pack)
  if (pack === undefined) return []
  return [{ ...found, place: { id: pack.id, bytes: pack.bytes, kind: packKind(pack.kind) } }]
}

function keyOf(id: Uint8Array): Buffer {
  return Buffer.from(id.buffer, id.byteOffset, id.byteLength)
}

function packKind(code: number): PackKind {
  if (code === PACK_KINDS.data) return 'data'
  return code === PACK_KINDS.tree ? 'tree' : 'refs'
}

/**
 * A chunk's plaintext, from another copy if the first is damaged; the view is the cache's: copy what is kept.
 * Fails: storage.*, repo.corrupt, as the first copy fails when all do, or the first that cannot be read now.
 */
export async function readChunk(reader: SnapshotReader, id: Uint8Array): Promise<Uint8Array> {
  const first = placeOfChunk(reader, id)
  try {
    return await readChunkAt(reader.packs, first.place, first.number, id)
  } catch (error) {
    if (!isDamage(error)) throw error
    let failure = error
    for (const { place, number, pack } of copiesOfChunk(reader, id)) {
      if (pack === first.pack && number === first.number) continue
      try {
        return await readChunkAt(reader.packs, place, number, id)
      } catch (again) {
        if (!isDamage(again)) throw again
        if (isUnreadable(again) && !isUnreadable(failure)) failure = again
      }
    }
    throw failure
  }
}

/** The tree node's bytes are copied, so that entries outlive the frame cache. */
async function readNode(reader: SnapshotReader, id: Uint8Array): Promise<TreeNode> {
  return decodeNode(Buffer.from(await readChunk(reader, id)), `tree node ${Buffer.from(id).toString('hex')}`)
}

/** Hears of a node that cannot be read, and throws to end the walk; returns to go on without what lies in it. */
export type OnDamage = (path: string, error: unknown) => void

/**
 * Entries of a directory in ascending order of their names, without those below branch children in `skip`
 * (ids, hex). Fails: storage.*, repo.corrupt (also if the nodes are not in order, or too deep), or as
 * `onDamage`.
 */
export async function* readDirectory(
  reader: SnapshotReader,
  node: Uint8Array,
  onDamage: (error: unknown) => void = rethrow,
  skip: ReadonlySet<string> = NOTHING,
): AsyncGenerator<TreeEntry> {
  const pending = [{ node, depth: 0 }]
  let previous = ''
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { depth } = next
    let read: TreeNode
    try {
      read = await readNode(reader, next.node)
      checkPlace(read, depth, previous)
    } catch (error) {
      onDamage(error)
      continue
    }
    if (read.kind === 'leaf') {
      yield* read.entries
      previous = read.entries.at(-1)?.name ?? previous
    } else {
      for (const child of read.children.toReversed())
        if (skip.size === 0 || !skip.has(keyOf(child.node).toString('hex')))
          pending.push({ node: child.node, depth: depth + 1 })
    }
  }
}

/**
 * Ids (hex) of all nodes below the directory node `node`, each once and without reading leaves: they are
 * named by what is above them. Fails: storage.*, repo.corrupt.
 */
export async function branchNodes(reader: SnapshotReader, node: Uint8Array): Promise<Set<string>> {
  const known = new Set<string>()
  let level = [node]
  for (let depth = 0; level.length > 0; depth++) {
    const next: Uint8Array[] = []
    for (const id of level) {
      const read = await readNode(reader, id)
      if (read.kind === 'leaf') return known // leaves of a directory are all equally deep
      checkBranchDepth(depth)
      for (const { node: child } of read.children) {
        const hex = keyOf(child).toString('hex')
        if (known.has(hex)) continue
        known.add(hex)
        next.push(child)
      }
    }
    level = next
  }
  return known
}

/** A node that is there twice would repeat its names: so the nodes of a directory are as few as its names. */
function checkPlace(node: TreeNode, depth: number, previous: string): void {
  if (node.kind === 'branch') {
    checkBranchDepth(depth)
    return
  }
  const [first] = node.entries
  if (first === undefined ? depth > 0 : first.name <= previous)
    throw corrupt('a directory', 'has nodes that are not in order')
}

/** `depth`: of a branch below the root of its directory. Fails: repo.corrupt. */
function checkBranchDepth(depth: number): void {
  if (depth >= BRANCH_DEPTH_MAX)
    throw corrupt('a directory', `has more than ${BRANCH_DEPTH_MAX} levels of branches`)
}

/** How many entries a walk may still visit, so that a forged tree of few nodes cannot be walked for ever. */
export interface WalkBudget {
  readonly snapshot: string
  left: number
}

/** Twice what the signed totals of the snapshot say, and a margin. */
export function newWalkBudget({ snapshot }: Pick<SnapshotReader, 'snapshot'>): WalkBudget {
  const { files, directories, others } = snapshot.totals
  return { snapshot: snapshot.id, left: (files + directories + others) * 2 + WALK_MARGIN_ENTRIES }
}

/** Counts one entry at `depth` directories below the root. Fails: repo.corrupt. */
export function spendEntry(budget: WalkBudget, depth: number): void {
  const what = `the tree of snapshot ${budget.snapshot}`
  if (budget.left-- <= 0) throw corrupt(what, 'has more than twice the entries that its snapshot says')
  if (depth > DIRECTORY_DEPTH_MAX) throw corrupt(what, `has directories deeper than ${DIRECTORY_DEPTH_MAX}`)
}

function rethrow(error: unknown): never {
  throw error
}

/** The root directory of the snapshot, as a node id. */
export function rootNode(reader: SnapshotReader): Uint8Array {
  return Buffer.from(reader.snapshot.root, 'hex')
}

/** One entry by its absolute raw path, read along that path only; undefined if there is none. '/' is no entry. */
export async function findEntry(reader: SnapshotReader, path: string): Promise<TreeEntry | undefined> {
  let node: Uint8Array | undefined = rootNode(reader)
  let entry: TreeEntry | undefined
  for (const name of path.split('/').filter((part) => part !== '')) {
    if (node === undefined) return undefined
    entry = await findName(reader, node, name)
    if (entry === undefined) return undefined
    node = entry.node
  }
  return entry
}

async function findName(
  reader: SnapshotReader,
  node: Uint8Array,
  name: string,
): Promise<TreeEntry | undefined> {
  let read = await readNode(reader, node)
  for (let depth = 0; read.kind === 'branch'; depth++) {
    checkBranchDepth(depth)
    const child = read.children.findLast((each) => each.name <= name)
    if (child === undefined) return undefined
    read = await readNode(reader, child.node)
  }
  return read.entries.find((entry) => entry.name === name)
}

/** An event of a walk over a snapshot; `path` is absolute and raw. */
export interface TreeEvent {
  readonly kind: 'enter' | 'entry' | 'leave'
  readonly path: string
  readonly entry: TreeEntry
}

/**
 * Walks a snapshot depth-first in the order of names. `into` says whether a directory is entered at all
 * (default: yes); one that is not entered is not yielded either.
 */
export async function* walkTree(
  reader: SnapshotReader,
  options: { into?: (path: string) => boolean; onDamage?: OnDamage } = {},
): AsyncGenerator<TreeEvent> {
  const { into = () => true, onDamage = (_, error) => rethrow(error) } = options
  const budget = newWalkBudget(reader)
  const enter = (path: string, entry: TreeEntry | undefined, node: Uint8Array): OpenDirectory => {
    const onNodeDamage = (error: unknown): void => {
      onDamage(path === '' ? '/' : path, error)
    }
    return { path, entry, entries: readDirectory(reader, node, onNodeDamage) }
  }
  // Not recursive: trees may be deeper than the stack.
  const open = [enter('', undefined, rootNode(reader))]
  for (let last = open.at(-1); last !== undefined; last = open.at(-1)) {
    const next = await last.entries.next()
    if (next.done === true) {
      open.pop()
      if (last.entry !== undefined) yield { kind: 'leave', path: last.path, entry: last.entry }
      continue
    }
    const entry = next.value
    const path = `${last.path}/${entry.name}`
    spendEntry(budget, open.length)
    if (entry.node === undefined) {
      yield { kind: 'entry', path, entry }
    } else if (into(path)) {
      yield { kind: 'enter', path, entry }
      open.push(enter(path, entry, entry.node))
    }
  }
}

/** A directory that a walk is in; the root has no entry. */
interface OpenDirectory {
  readonly path: string
  readonly entry: TreeEntry | undefined
  readonly entries: AsyncGenerator<TreeEntry>
}

/** The content of a file entry, decoded. Fails: repo.corrupt. */
export function contentOf(entry: TreeEntry): Content {
  return decodeContent(entry.content, `the content of "${displayName(entry.name)}"`)
}

/**
 * The extents of a file in order, node by node (up to 64 MiB of file each), holes included. Fails:
 * repo.corrupt, also when they do not cover exactly `entry.size`.
 */
export async function* fileExtents(
  reader: SnapshotReader,
  entry: TreeEntry,
): AsyncGenerator<{ offset: number; extents: Extents }> {
  const content = contentOf(entry)
  let offset = content.kind === 'inline' ? content.bytes.length : 0
  if (content.kind === 'cdc' || content.kind === 'pages') {
    for await (const extents of mapExtents(reader, content)) {
      yield { offset, extents }
      const bytes = extentsBytes(extents)
      offset += bytes
      // Nodes that bring nothing, or too much, could go on for ever.
      if (offset > entry.size || (bytes === 0 && entry.size > 0)) break
    }
  }
  if (offset !== entry.size) {
    const is = `its content covers ${offset} bytes (its size is ${entry.size})`
    throw new Failure('repo.corrupt', `Cannot read "${displayName(entry.name)}": ${is}`)
  }
}

async function* mapExtents(
  reader: SnapshotReader,
  content: Extract<Content, { kind: 'cdc' | 'pages' }>,
): AsyncGenerator<Extents> {
  const { map } = content
  if (map.depth === 0) {
    yield map.extents
    return
  }
  for await (const id of extentNodes(reader, map)) {
    yield decodeExtentNode(
      Buffer.from(await readChunk(reader, id)),
      `extent node ${Buffer.from(id).toString('hex')}`,
    )
  }
}

async function* extentNodes(
  reader: SnapshotReader,
  map: { readonly depth: 1 | 2; readonly nodes: readonly Uint8Array[] },
): AsyncGenerator<Uint8Array> {
  for (const id of map.nodes) {
    if (map.depth === 1) yield id
    else
      yield* decodeListNode(
        Buffer.from(await readChunk(reader, id)),
        `list node ${Buffer.from(id).toString('hex')}`,
      )
  }
}

/**
 * Bytes `[offset, offset + length)` of a file in pieces, at most one chunk each; the pieces are fresh.
 * Reads only the nodes and frames that it needs. Fails: storage.*, repo.corrupt.
 */
export async function* readFile(
  reader: SnapshotReader,
  entry: TreeEntry,
  range: { offset: number; length: number } = { offset: 0, length: entry.size },
): AsyncGenerator<Uint8Array> {
  const end = Math.min(entry.size, range.offset + range.length)
  const content = contentOf(entry)
  if (content.kind === 'inline') {
    if (range.offset < end) yield Uint8Array.from(content.bytes.subarray(range.offset, end))
    return
  }
  for await (const { offset, extents } of fileExtents(reader, entry)) {
    if (offset >= end) return
    if (offset + NODE_SPAN_BYTES <= range.offset && offset + extentsBytes(extents) <= range.offset) continue
    let at = offset
    for (const extent of extents.extents) {
      const from = Math.max(at, range.offset)
      const to = Math.min(at + extent.length, end)
      if (from < to) yield await readExtent(reader, extents, extent, from - at, to - from)
      at += extent.length
    }
  }
}

async function readExtent(
  reader: SnapshotReader,
  extents: Extents,
  extent: Extents['extents'][number],
  from: number,
  length: number,
): Promise<Uint8Array> {
  const chunk = extent.ref === 0 ? undefined : extents.chunks[extent.ref - 1]
  if (chunk === undefined) return new Uint8Array(length)
  const start = extent.offset + from
  return Uint8Array.from((await readChunk(reader, chunk.id)).subarray(start, start + length))
}
