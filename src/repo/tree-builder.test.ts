/** Trees as a whole: nodes, builder and what a reader finds, against a sorted map. */
import { strict as assert } from 'node:assert'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { assertFailsCleanly } from '../../test/harness/damage.ts'
import { noise, testSeed } from '../../test/harness/engine.ts'
import { fileEntry } from '../../test/harness/tampering.ts'
import type { EntryType } from '../base/file-entry.ts'
import { finishBytes, newWriter } from '../base/bytes.ts'
import { isFailure } from '../base/failure.ts'
import {
  decodeNode,
  encodeBranchEntry,
  encodeEntry,
  encodeNode,
  NODE_BRANCH,
  NODE_LEAF,
  type BranchEntry,
  type TreeEntry,
} from '../format/tree.ts'
import { addEntry, enterDirectory, leaveDirectory, newTreeBuilder } from './tree-builder.ts'

const seed = testSeed()

function entryOf(name: string, with_: Partial<TreeEntry> = {}): TreeEntry {
  return { ...fileEntry(name, 5, Buffer.from([1, 1, 65])), ...with_ }
}

const name = fc
  .uint8Array({ minLength: 1, maxLength: 255 })
  .map((bytes) => Buffer.from(bytes).toString('latin1').replace(/[/\0]/g, '_'))
  .filter((text) => text !== '.' && text !== '..')
const u32 = fc.nat({ max: 0xffffffff })
const time = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
const xattrs = fc
  .uniqueArray(
    fc.record(
      { name, value: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)) },
      { noNullPrototype: true },
    ),
    { selector: (each) => each.name, maxLength: 3 },
  )
  .map((list) => list.sort((a, b) => (a.name < b.name ? -1 : 1)))

const entry: fc.Arbitrary<TreeEntry> = fc
  .record(
    {
      name,
      type: fc.constantFrom<EntryType>('file', 'directory', 'symlink', 'fifo', 'char', 'block', 'socket'),
      mode: fc.nat({ max: 0o7777 }),
      uid: u32,
      gid: u32,
      mtime: time,
      ctime: time,
      dev: fc.nat({ max: 2 ** 40 }),
      inode: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      links: u32,
      size: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
      target: name,
      major: u32,
      minor: u32,
      xattrs,
      flags: fc.constantFrom(0, 1, 2, 3, 8, 11),
      content: fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
      node: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes)),
    },
    { noNullPrototype: true },
  )
  .map((given) => {
    const device = given.type === 'char' || given.type === 'block'
    return {
      ...given,
      size: given.type === 'file' ? given.size : 0,
      content: given.type === 'file' ? given.content : Buffer.alloc(0),
      node: given.type === 'directory' ? given.node : undefined,
      target: given.type === 'symlink' ? given.target : '',
      major: device ? given.major : 0,
      minor: device ? given.minor : 0,
    }
  })

function leafOf(entries: readonly TreeEntry[]): Buffer {
  const [inner, outer] = [newWriter(), newWriter()]
  for (const each of entries) encodeEntry(inner, each)
  encodeNode(outer, NODE_LEAF, entries.length, finishBytes(inner))
  return finishBytes(outer)
}

test(`entries of every type come back (SEED=${seed})`, () => {
  fc.assert(
    fc.property(fc.uniqueArray(entry, { selector: (each) => each.name, maxLength: 8 }), (entries) => {
      const sorted = entries.sort((a, b) => (a.name < b.name ? -1 : 1))
      assert.deepEqual(decodeNode(leafOf(sorted), 'x'), { kind: 'leaf', entries: sorted })
    }),
    { seed },
  )
})

const children = fc
  .uniqueArray(
    fc.record(
      {
        name,
        node: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes)),
        entries: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
      },
      { noNullPrototype: true },
    ),
    { selector: (each) => each.name, maxLength: 8 },
  )
  .map((list) => list.sort((a, b) => (a.name < b.name ? -1 : 1)))

function branchOf(list: readonly BranchEntry[]): Buffer {
  const [inner, outer] = [newWriter(), newWriter()]
  for (const each of list) encodeBranchEntry(inner, each)
  encodeNode(outer, NODE_BRANCH, list.length, finishBytes(inner))
  return finishBytes(outer)
}

test(`branches come back, and any damaged node fails cleanly (SEED=${seed})`, () => {
  fc.assert(
    fc.property(children, (list) => {
      assert.deepEqual(decodeNode(branchOf(list), 'x'), { kind: 'branch', children: list })
    }),
    { seed },
  )
  const few = fc.uniqueArray(entry, { selector: (each) => each.name, minLength: 1, maxLength: 3 })
  fc.assert(
    fc.property(children, few, (list, entries) => {
      const sorted = entries.sort((a, b) => (a.name < b.name ? -1 : 1))
      assertFailsCleanly(branchOf(list.slice(0, 3)), (bytes) => decodeNode(bytes, 'x'))
      assertFailsCleanly(leafOf(sorted), (bytes) => decodeNode(bytes, 'x'))
    }),
    { seed, numRuns: 10 },
  )
})

test('an entry with numbers that no system call takes is refused', () => {
  for (const with_ of [
    { mode: 0o10000 },
    { uid: 2 ** 32 },
    { gid: 2 ** 53 - 1 },
    { inode: 2n ** 64n },
    { links: 2 ** 32 },
    { type: 'char', major: 2 ** 32 },
    { type: 'block', minor: 2 ** 40 },
  ] as const)
    assert.throws(
      () => decodeNode(leafOf([entryOf('a', with_)]), 'x'),
      /is the most/,
      Object.keys(with_).join(),
    )
})

test('damaged nodes, and names that no file can have or that are out of order, are refused', () => {
  const folder = entryOf('b', {
    type: 'directory',
    node: Buffer.alloc(32, 9),
    content: Buffer.alloc(0),
    size: 0,
  })
  const rich = entryOf('c', { xattrs: [{ name: 'user.a', value: Buffer.from('1') }] })
  assertFailsCleanly(leafOf([entryOf('a'), folder, rich]), (bytes) => decodeNode(bytes, 'x'))
  for (const bad of ['', '.', '..', 'a/b', 'a\0'])
    assert.throws(
      () => decodeNode(leafOf([entryOf(bad)]), 'x'),
      (error) => isFailure(error, 'repo.corrupt'),
      bad,
    )
  for (const names of [
    ['b', 'a'],
    ['a', 'a'],
  ])
    assert.throws(
      () => decodeNode(leafOf(names.map((each) => entryOf(each))), 'x'),
      (error) => isFailure(error, 'repo.corrupt'),
    )
})

/** Nodes by id (hex), as a repository would hold them. */
type Nodes = Map<string, Buffer>

async function build(
  names: readonly string[],
  nodes: Nodes,
  with_: Partial<TreeEntry> = {},
): Promise<string> {
  const builder = newTreeBuilder((bytes) => {
    const id = createHash('sha256').update(bytes).digest()
    nodes.set(id.toString('hex'), Buffer.from(bytes))
    return Promise.resolve(id)
  })
  for (const each of names) await addEntry(builder, entryOf(each, with_))
  return Buffer.from(await leaveDirectory(builder)).toString('hex')
}

/** Names in order, and that every branch says the truth about its children. */
function namesBelow(nodes: Nodes, id: string): string[] {
  const node = decodeNode(nodes.get(id)!, id)
  if (node.kind === 'leaf') return node.entries.map((each) => each.name)
  return node.children.flatMap((child) => {
    const below = namesBelow(nodes, Buffer.from(child.node).toString('hex'))
    assert.equal(below[0], child.name)
    assert.equal(below.length, child.entries)
    return below
  })
}

function manyNames(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `product-${String(i * 7919).padStart(9, '0')}.jpg`).sort()
}

for (const count of [0, 1, 2, 31, 32, 33, 255, 1023, 1024, 1025, 5000, 100_000]) {
  test(`a directory of ${count} names comes back whole, and a new name rewrites a node a level`, async () => {
    const nodes: Nodes = new Map()
    const names = manyNames(count)
    const root = await build(names, nodes)
    assert.deepEqual(namesBelow(nodes, root), names)
    for (const bytes of nodes.values()) assert.ok(bytes.length <= 600 * 1024)
    if (count < 33) assert.equal(nodes.size, 1)
    assert.equal(await build(names, new Map()), root, 'the same names give the same node')
    const levels = count > 20_000 ? 3 : count > 1024 ? 2 : 1
    for (const at of [0, count >> 1, count]) {
      const next: Nodes = new Map(nodes)
      const added = [...names.slice(0, at), `${names[at - 1] ?? 'a'}+`, ...names.slice(at)]
      assert.deepEqual(namesBelow(next, await build(added, next)), added)
      assert.ok(next.size - nodes.size <= 3 * levels + 2, `${next.size - nodes.size} of ${nodes.size} nodes`)
    }
  })
}

test('a directory of names without any boundary splits by count, one of large entries by bytes', async () => {
  const nodes: Nodes = new Map()
  const large = manyNames(300)
  const root = await build(large, nodes, { content: noise(1, 20_000) })
  assert.deepEqual(namesBelow(nodes, root), large)
  for (const bytes of nodes.values()) assert.ok(bytes.length < 512 * 1024 + 21_000, `${bytes.length}`)
})

test(`directories in directories give each entry its own node (SEED=${seed})`, async () => {
  const sizes = fc.array(fc.nat({ max: 70 }), { minLength: 1, maxLength: 6 })
  await fc.assert(
    fc.asyncProperty(sizes, async (counts) => {
      const nodes: Nodes = new Map()
      const builder = newTreeBuilder((bytes) => {
        const id = createHash('sha256').update(bytes).digest()
        nodes.set(id.toString('hex'), Buffer.from(bytes))
        return Promise.resolve(id)
      })
      for (const [i, count] of counts.entries()) {
        enterDirectory(builder)
        for (const each of manyNames(count)) await addEntry(builder, entryOf(each))
        const node = await leaveDirectory(builder)
        await addEntry(
          builder,
          entryOf(`d${i}`, { type: 'directory', node, content: Buffer.alloc(0), size: 0 }),
        )
      }
      const root = decodeNode(nodes.get(Buffer.from(await leaveDirectory(builder)).toString('hex'))!, 'root')
      assert.equal(root.kind, 'leaf')
      const found = root.kind === 'leaf' ? root.entries : []
      assert.deepEqual(
        found.map((each) => namesBelow(nodes, Buffer.from(each.node!).toString('hex'))),
        counts.map(manyNames),
      )
    }),
    { seed, numRuns: 40 },
  )
})
