/** Forged trees: few nodes that stand for very many entries, or for very deep ones. */
import { strict as assert } from 'node:assert'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { newWriter } from '../base/bytes.ts'
import { isFailure } from '../base/failure.ts'
import { newKeyPair } from '../format/seal.ts'
import {
  encodeBranchEntry,
  encodeEntry,
  encodeNode,
  NODE_BRANCH,
  NODE_LEAF,
  type TreeEntry,
} from '../format/tree.ts'
import { diffSnapshots } from './diff.ts'
import { findEntries, newSearch } from './find.ts'
import { memoryStore } from '../storage/memory.ts'
import { adoptRun, attachIndex, beginSession, openIndex } from '../repo/chunk-index.ts'
import { newPackReader } from '../repo/pack-reader.ts'
import { buildSessionRun } from '../repo/run-writer.ts'
import { flushSaver, newSaver, saveChunk, type StoredPack } from '../repo/saver.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { findEntry, readDirectory, walkTree, type SnapshotReader } from '../repo/tree-reader.ts'

const folder = mkdtempSync(join(tmpdir(), 'backstock-limits-'))
after(() => rmSync(folder, { recursive: true }))
const isCorrupt = (error: unknown): boolean =>
  isFailure(error, 'repo.corrupt') && !error.message.includes('find')

type SaveNode = (kind: number, entries: readonly { name: string; node?: Uint8Array }[]) => Promise<Uint8Array>

/** A reader of the tree that `forge` makes, whose snapshot says that it has `files` files. */
async function forgedTree(
  files: number,
  forge: (save: SaveNode) => Promise<Uint8Array>,
): Promise<SnapshotReader> {
  const epoch = newKeyPair()
  const common = { idKey: Buffer.alloc(32, 4), indexKey: Buffer.alloc(32, 5) }
  const repository = Buffer.alloc(16, 1)
  const domain = Buffer.alloc(8, 2)
  const writer = {
    packSet: Buffer.alloc(16, 3),
    epoch: 1,
    dataPublic: epoch.publicKey,
    metaPublic: epoch.publicKey,
  }
  const store = memoryStore({ disk: new Map() })
  const stored: StoredPack[] = []
  const index = await openIndex({ folder, runs: [], build: () => Promise.resolve() })
  const keys = { ...common, ...writer, repository, domain }
  const setup = {
    keys,
    store,
    index: attachIndex(beginSession(index)),
    packBytesMax: 4 * 1024 * 1024,
    packBuffers: 2,
  } as const
  const saver = newSaver(setup, (pack) => stored.push(pack))
  const root = await forge(async (kind, entries) => {
    const list = newWriter(1024)
    for (const { name, node } of entries) {
      if (kind === NODE_BRANCH) encodeBranchEntry(list, { name, node: node!, entries: 1 })
      else encodeEntry(list, entryOf(name, node))
    }
    const whole = newWriter(1024)
    encodeNode(whole, kind, entries.length, list.bytes.subarray(0, list.length))
    return (await saveChunk(saver, 'tree', Buffer.from(whole.bytes.subarray(0, whole.length)))).id
  })
  await flushSaver(saver)
  const privateKeys = new Map([[1, epoch.privateKey]])
  const readerKeys = {
    ...common,
    repository,
    domain: domain.toString('hex'),
    frameBytesMax: 1024 * 1024,
    dataPrivate: privateKeys,
    metaPrivate: privateKeys,
  }
  const totals = { files, directories: 0, others: 0 }
  return {
    snapshot: { id: 'forged', root: Buffer.from(root).toString('hex'), totals } as unknown as StoredSnapshot,
    keys: readerKeys,
    index: attachIndex(adoptRun(index, buildSessionRun(folder, stored))),
    packs: newPackReader(store, readerKeys),
    rebuilt: [],
  }
}

function entryOf(name: string, node: Uint8Array | undefined): TreeEntry {
  const numbers = { mode: 0o755, uid: 0, gid: 0, mtime: 0n, ctime: 0n, dev: 1, inode: 1n, links: 1, size: 0 }
  const rest = { target: '', major: 0, minor: 0, xattrs: [], flags: 0, content: Buffer.alloc(0) }
  return { name, type: node === undefined ? 'file' : 'directory', ...numbers, ...rest, node }
}

async function countWalk(reader: SnapshotReader): Promise<number> {
  let count = 0
  for await (const _ of walkTree(reader)) count++
  return count
}

async function countChanges(before: SnapshotReader, after: SnapshotReader): Promise<number> {
  let count = 0
  for await (const _ of diffSnapshots(before, after)) count++
  return count
}

async function countNames(reader: SnapshotReader, node: Uint8Array): Promise<number> {
  let count = 0
  for await (const _ of readDirectory(reader, node)) count++
  return count
}

test('a tree whose folders hold one child twice is not walked to its end', async () => {
  const reader = await forgedTree(100, async (save) => {
    let node = await save(NODE_LEAF, [])
    for (let i = 0; i < 40; i++)
      node = await save(NODE_LEAF, [
        { name: 'a', node },
        { name: 'b', node },
      ])
    return node
  })
  await assert.rejects(countWalk(reader), isCorrupt)
  await assert.rejects(findEntries(newSearch(['x']), reader, new AbortController().signal), isCorrupt)
})

test('a diff ends with trees that hold one child twice, and goes through deep ones', async () => {
  const doubled = (last: string) => async (save: SaveNode) => {
    let node = await save(NODE_LEAF, [{ name: last }])
    for (let i = 0; i < 40; i++)
      node = await save(NODE_LEAF, [
        { name: 'a', node },
        { name: 'b', node },
      ])
    return node
  }
  const one = await forgedTree(100, doubled('x'))
  const empty = await forgedTree(0, (save) => save(NODE_LEAF, []))
  for (const [before, after] of [
    [one, empty],
    [empty, one],
    [one, await forgedTree(100, doubled('y'))],
  ] as const)
    await assert.rejects(countChanges(before, after), isCorrupt)
  assert.equal(await countChanges(one, await forgedTree(100, doubled('x'))), 0)
  const nest = (depth: number) => async (save: SaveNode) => {
    let node = await save(NODE_LEAF, [])
    for (let i = 0; i < depth; i++) node = await save(NODE_LEAF, [{ name: 'd', node }])
    return node
  }
  assert.equal(await countChanges(empty, await forgedTree(6000, nest(6000))), 6000)
  await assert.rejects(countChanges(empty, await forgedTree(20_000, nest(17_000))), isCorrupt)
})

test('a diff of directories whose branches share one child ends', async () => {
  const shared = (last: string) => async (save: SaveNode) => {
    let node = await save(NODE_LEAF, [{ name: last }])
    for (let level = 0; level < 7; level++)
      node = await save(
        NODE_BRANCH,
        Array.from({ length: 100 }, (_, nth) => ({ name: String(nth).padStart(3, '0'), node })),
      )
    return node
  }
  const [before, after] = [await forgedTree(100, shared('x')), await forgedTree(100, shared('y'))]
  await assert.rejects(countChanges(before, after), isCorrupt)
})

test('a walk goes as deep as the snapshot says, and stops above 16 384 directories', async () => {
  const nest = (depth: number) => async (save: SaveNode) => {
    let node = await save(NODE_LEAF, [])
    for (let i = 0; i < depth; i++) node = await save(NODE_LEAF, [{ name: 'd', node }])
    return node
  }
  assert.equal(await countWalk(await forgedTree(6000, nest(6000))), 12_000)
  await assert.rejects(countWalk(await forgedTree(20_000, nest(17_000))), isCorrupt)
})

test('a directory of too many levels of branches, or with a node twice, is refused', async () => {
  const deep = (levels: number) => async (save: SaveNode) => {
    let node = await save(NODE_LEAF, [{ name: 'a' }])
    for (let i = 0; i < levels; i++) node = await save(NODE_BRANCH, [{ name: 'a', node }])
    return node
  }
  const sound = await forgedTree(1, deep(8))
  assert.equal(await countWalk(sound), 1)
  assert.equal((await findEntry(sound, '/a'))?.name, 'a')
  const tooDeep = await forgedTree(1, deep(9))
  await assert.rejects(countWalk(tooDeep), isCorrupt)
  await assert.rejects(findEntry(tooDeep, '/a'), isCorrupt)
  for (const names of [['a'], []]) {
    const twice = await forgedTree(1, async (save) => {
      const node = await save(
        NODE_LEAF,
        names.map((name) => ({ name })),
      )
      return await save(NODE_BRANCH, [
        { name: 'a', node },
        { name: 'b', node },
      ])
    })
    const root = Buffer.from(twice.snapshot.root, 'hex')
    await assert.rejects(countNames(twice, root), isCorrupt)
  }
})
