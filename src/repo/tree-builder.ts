/**
 * Builds tree nodes from entries in walk order, bottom up, in bounded memory: a leaf is saved as soon as it
 * ends (format/tree.ts endsNode), so that a folder of a million files never lies in memory as a whole.
 */
import { newWriter, type ByteWriter } from '../base/bytes.ts'
import {
  encodeBranchEntry,
  encodeEntry,
  encodeNode,
  endsNode,
  NODE_BRANCH,
  NODE_LEAF,
  type BranchEntry,
  type TreeEntry,
} from '../format/tree.ts'
import { assert } from '../base/failure.ts'

/** Saves a node's bytes (not kept after it resolves) and returns its chunk id. */
export type SaveNode = (bytes: Uint8Array) => Promise<Uint8Array>

/** One level of a directory's node tree: the group that is being filled. */
interface Level {
  readonly writer: ByteWriter
  count: number
  entries: number
  firstName: string
}

interface OpenDirectory {
  /** levels[0] holds entries, levels[n] the nodes of levels[n − 1]. */
  readonly levels: Level[]
  entries: number
}

export interface TreeBuilder {
  readonly save: SaveNode
  readonly open: OpenDirectory[]
}

/** A builder whose root directory is open. */
export function newTreeBuilder(save: SaveNode): TreeBuilder {
  return { save, open: [newDirectory()] }
}

export function enterDirectory(builder: TreeBuilder): void {
  builder.open.push(newDirectory())
}

/** Adds an entry to the open directory; names come in ascending order. */
export async function addEntry(builder: TreeBuilder, entry: TreeEntry): Promise<void> {
  const directory = builder.open.at(-1)
  assert(directory, 'an entry needs an open directory')
  const leaf = levelOf(directory, 0)
  if (leaf.count === 0) leaf.firstName = entry.name
  encodeEntry(leaf.writer, entry)
  directory.entries++
  await grow(builder, directory, 0, entry.name, 1)
}

/** Closes the open directory and returns the id of its node. The root may be left only once. */
export async function leaveDirectory(builder: TreeBuilder): Promise<Uint8Array> {
  const directory = builder.open.pop()
  assert(directory, 'there is a directory to leave')
  for (let height = 0; ; height++) {
    const level = levelOf(directory, height)
    const isTop = directory.levels.length === height + 1
    if (isTop && (height === 0 || level.count !== 1)) return await saveLevel(builder, level, height)
    if (isTop) return onlyChild(level)
    if (level.count > 0) await closeLevel(builder, directory, height)
  }
}

async function grow(
  builder: TreeBuilder,
  directory: OpenDirectory,
  height: number,
  name: string,
  entries: number,
): Promise<void> {
  const level = levelOf(directory, height)
  level.count++
  level.entries += entries
  if (endsNode(name, level.count, level.writer.length)) await closeLevel(builder, directory, height)
}

/** Saves the group of this level and hands its node to the level above. */
async function closeLevel(builder: TreeBuilder, directory: OpenDirectory, height: number): Promise<void> {
  const level = levelOf(directory, height)
  const child: BranchEntry = {
    name: level.firstName,
    entries: level.entries,
    node: await saveLevel(builder, level, height),
  }
  level.writer.length = 0
  level.count = 0
  level.entries = 0
  const above = levelOf(directory, height + 1)
  if (above.count === 0) above.firstName = child.name
  encodeBranchEntry(above.writer, child)
  await grow(builder, directory, height + 1, child.name, child.entries)
}

async function saveLevel(builder: TreeBuilder, level: Level, height: number): Promise<Uint8Array> {
  const writer = newWriter(level.writer.length + 16)
  encodeNode(
    writer,
    height === 0 ? NODE_LEAF : NODE_BRANCH,
    level.count,
    level.writer.bytes.subarray(0, level.writer.length),
  )
  return await builder.save(writer.bytes.subarray(0, writer.length))
}

/** The id in a level of one branch entry: that child is the root by itself. */
function onlyChild(level: Level): Uint8Array {
  const nameBytes = Buffer.byteLength(level.firstName, 'latin1')
  const at = (nameBytes < 128 ? 1 : 2) + nameBytes
  return Buffer.from(level.writer.bytes.subarray(at, at + 32))
}

function newDirectory(): OpenDirectory {
  return { levels: [], entries: 0 }
}

function levelOf(directory: OpenDirectory, height: number): Level {
  let level = directory.levels[height]
  if (level === undefined) {
    level = { writer: newWriter(height === 0 ? 4096 : 1024), count: 0, entries: 0, firstName: '' }
    directory.levels[height] = level
  }
  return level
}
