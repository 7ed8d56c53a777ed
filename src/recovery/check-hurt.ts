/**
 * From damage to names: which files of a snapshot cannot be read, and which finding is to blame. Reads the
 * whole tree of the snapshot, past everything that is broken. Exact for chunks that are known to be lost.
 */
import { describeError, type Failure } from '../base/failure.ts'
import { decodeExtentNode, decodeListNode, extentsBytes, type Extents } from '../format/content.ts'
import { decodeNode, type TreeEntry } from '../format/tree.ts'
import { isDamage } from '../repo/damage.ts'
import { PACK_DEPTHS } from '../repo/host-folder.ts'
import { readChunkAt } from '../repo/pack-reader.ts'
import { rootNode, spendEntry } from '../repo/tree-reader.ts'
import {
  addFinding,
  addHurtFile,
  addUnreadFinding,
  type Finding,
  type FindingCode,
  type Findings,
} from './check-findings.ts'
import { failureCode, isLost, loseChunk } from './check-packs.ts'
import type { PackState } from './check-runs.ts'
import {
  coveredBytes,
  decodedContent,
  findChunk,
  findCopies,
  newTreeBounds,
  type CheckedTree,
  type Counts,
  type MapNodes,
  type TreeBounds,
} from './check-tree.ts'

interface Hurt {
  readonly findings: Findings
  readonly tree: CheckedTree
  readonly bounds: TreeBounds
  /** Faults of the snapshot itself, which no pack is to blame for: one finding a code. */
  readonly own: Map<FindingCode, Finding>
}

/** Whether a counted tree references chunks that are known to be lost. */
export function isHurt(counts: Counts): boolean {
  for (const [pack, numbers] of counts) {
    if (pack.damage === undefined) continue
    for (const [number, count] of numbers.entries()) if (count > 0 && isLost(pack, number)) return true
  }
  return false
}

/**
 * Names all files of the snapshot that cannot be read. Fails: storage.* that ends the check, repo.corrupt for
 * a tree that holds more than its snapshot says.
 */
export async function nameHurtFiles(findings: Findings, tree: CheckedTree): Promise<void> {
  const hurt = { findings, tree, own: new Map(), bounds: newTreeBounds(tree.reader) }
  await nameBelow(hurt, rootNode(tree.reader), '', 1)
}

async function nameBelow(hurt: Hurt, root: Uint8Array, path: string, depth: number): Promise<void> {
  /** Findings that this directory is named in already: several of its nodes may be lost. */
  const named = new Set<Finding>()
  const nodes = [root]
  for (let id = nodes.shift(); id !== undefined; id = nodes.shift()) {
    spendEntry(hurt.bounds.nodes, depth)
    const node = await readOrBlame(hurt, id, 'tree.lost', (bytes) =>
      decodeNode(bytes, `a tree node of "${path}/"`),
    )
    if ('blames' in node) {
      for (const blame of node.blames) {
        if (!named.has(blame)) addHurtFile(blame, snapshotOf(hurt), path === '' ? '/' : path, true)
        named.add(blame)
      }
    } else if (node.value.kind === 'branch') {
      nodes.push(...node.value.children.map((child) => child.node))
    } else {
      for (const entry of node.value.entries) {
        spendEntry(hurt.bounds.entries, depth)
        if (entry.node !== undefined) await nameBelow(hurt, entry.node, `${path}/${entry.name}`, depth + 1)
        else if (entry.type === 'file') await nameFile(hurt, entry, `${path}/${entry.name}`)
      }
    }
  }
}

function snapshotOf(hurt: Hurt): string {
  return hurt.tree.reader.snapshot.id
}

async function nameFile(hurt: Hurt, entry: TreeEntry, path: string): Promise<void> {
  const blamed = new Set<Finding>()
  const content = decodedContent(entry)
  if (content === undefined) {
    blamed.add(
      ownFinding(hurt, 'file.corrupt', 'has files whose content does not decode or has another size'),
    )
  } else {
    let bytes = content.kind === 'inline' ? content.bytes.length : 0
    if (content.kind === 'cdc' || content.kind === 'pages') {
      const { map } = content
      bytes =
        map.depth === 0
          ? blameExtents(hurt, map.extents, blamed)
          : await blameNodes(hurt, map, blamed, entry.size)
    }
    if (bytes !== entry.size && blamed.size === 0)
      blamed.add(
        ownFinding(hurt, 'file.corrupt', 'has files whose content does not decode or has another size'),
      )
  }
  for (const finding of blamed) addHurtFile(finding, snapshotOf(hurt), path, false)
}

async function blameNodes(
  hurt: Hurt,
  { depth, nodes }: MapNodes,
  blamed: Set<Finding>,
  bytesMax: number,
): Promise<number> {
  let bytes = 0
  for (const id of nodes) {
    if (bytes > bytesMax) break
    if (depth > 1) {
      const list = await readOrBlame(hurt, id, 'tree.lost', (chunk) => decodeListNode(chunk, 'a list node'))
      if ('blames' in list) for (const blame of list.blames) blamed.add(blame)
      const below = 'blames' in list ? undefined : { depth: depth - 1, nodes: list.value }
      bytes += coveredBytes(below && (await blameNodes(hurt, below, blamed, bytesMax - bytes)))
      continue
    }
    const node = await readOrBlame(hurt, id, 'tree.lost', (chunk) =>
      decodeExtentNode(chunk, 'an extent node'),
    )
    if ('blames' in node) for (const blame of node.blames) blamed.add(blame)
    bytes += coveredBytes('blames' in node ? undefined : blameExtents(hurt, node.value, blamed))
  }
  return bytes
}

/** Only chunks that a byte of the file comes from count. */
function blameExtents(hurt: Hurt, extents: Extents, blamed: Set<Finding>): number {
  const needed = new Set(extents.extents.map((extent) => (extent.length > 0 ? extent.ref : 0)))
  for (const [at, chunk] of extents.chunks.entries()) {
    if (!needed.has(at + 1)) continue
    const place = findChunk(hurt.tree, chunk.id)
    if (place === undefined) blamed.add(unlisted(hurt, 'file.corrupt'))
    else if (isLost(place.pack, place.number)) blameCopies(hurt.tree, chunk.id, blamed)
  }
  return extentsBytes(extents)
}

/** Blames all packs that hold the chunk, unless one of them holds it whole. */
function blameCopies(tree: CheckedTree, id: Uint8Array, blamed: Set<Finding>): void {
  const copies = findCopies(tree, id)
  if (!copies.every(({ pack, number }) => isLost(pack, number))) return
  for (const { pack } of copies) if (pack.damage !== undefined) blamed.add(pack.damage.finding)
}

/**
 * Reads and decodes a chunk; what fails is blamed on all packs that hold it, or else on the snapshot. A copy
 * that is found damaged on the way to a whole one gets its finding too.
 */
async function readOrBlame<T>(
  hurt: Hurt,
  id: Uint8Array,
  code: FindingCode,
  decode: (bytes: Buffer) => T,
): Promise<{ readonly value: T } | { readonly blames: readonly Finding[] }> {
  const copies = findCopies(hurt.tree, id)
  if (copies.length === 0) return { blames: [unlisted(hurt, code)] }
  const blames: Finding[] = []
  let bytes: Buffer | undefined
  for (const { pack, number } of copies) {
    if (isLost(pack, number) && pack.damage !== undefined) {
      blames.push(pack.damage.finding)
      continue
    }
    try {
      bytes = Buffer.from(await readChunkAt(hurt.tree.reader.packs, pack, number, id))
      break
    } catch (error) {
      if (!isDamage(error)) throw error
      blames.push(blamePack(hurt.findings, pack, number, error))
    }
  }
  if (bytes === undefined) return { blames }
  try {
    return { value: decode(bytes) }
  } catch (error) {
    if (!isDamage(error)) throw error
    const is = `holds what this program cannot read: ${describeError(error)}`
    return { blames: [ownFinding(hurt, code, is)] }
  }
}

/** Damage that shows only when a chunk is read. */
export function blamePack(findings: Findings, pack: PackState, number: number, failure: Failure): Finding {
  const finding =
    pack.damage?.finding ??
    addUnreadFinding(findings, failureCode(failure.code), failure, { object: pack.name })
  loseChunk(pack, number, finding)
  pack.depth = PACK_DEPTHS.opened
  return finding
}

function unlisted(hurt: Hurt, code: FindingCode): Finding {
  const { lostRun } = hurt.tree
  return lostRun ?? ownFinding(hurt, code, 'references chunks that no index run of its lineage lists')
}

function ownFinding(hurt: Hurt, code: FindingCode, is: string): Finding {
  let finding = hurt.own.get(code)
  if (finding === undefined) {
    const { name } = hurt.tree.reader.snapshot
    finding = addFinding(hurt.findings, code, `${name} ${is}`, { object: name })
    hurt.own.set(code, finding)
  }
  return finding
}
