/**
 * Names of one file that the backup met in two states: what comes back is what each name held when it was
 * read.
 */
import assert from 'node:assert/strict'
import { readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { encodeInline } from '../../src/format/content.ts'
import type { TreeEntry } from '../../src/format/tree.ts'
import { dropRepository } from '../harness/engine.ts'
import { backUpShop, makeShop, type TestShop } from '../harness/lost-files.ts'
import { makeScratch, restoreTo } from '../harness/restores.ts'
import {
  fileEntry,
  freshCopy,
  leafOf,
  objectsOf,
  payloadOf,
  plantChunks,
  plantSnapshot,
  refsOf,
} from '../harness/tampering.ts'

let shop: TestShop
let scratch = ''
let targets = 0

before(async () => {
  shop = await makeShop()
  await backUpShop(shop, ['full'])
  scratch = makeScratch()
})
after(() => {
  dropRepository(shop.repository)
  rmSync(scratch, { recursive: true, force: true })
})

function linked(name: string, text: string, mtime: bigint): TreeEntry {
  return { ...fileEntry(name, text.length, encodeInline(Buffer.from(text))), links: 2, inode: 77n, mtime }
}

/** Restores a snapshot of these two names; returns their contents and whether they are one file. */
async function restored(a: TreeEntry, b: TreeEntry): Promise<[string, string, boolean]> {
  const repository = freshCopy(shop.repository, `copy-${targets}`)
  const tree = await plantChunks(repository, 'tree', [{ kind: 'tree', bytes: leafOf([a, b]) }])
  const refs = await plantChunks(repository, 'refs', [{ kind: 'refs', bytes: refsOf(tree.pack, [0]) }])
  const like = payloadOf(repository, objectsOf(repository, '/snapshots/')[0]!)
  const id = await plantSnapshot(repository, like, { tree, refs })
  const to = join(scratch, `to-${targets++}`)
  await restoreTo({ repository }, id, to)
  const [one, other] = [join(to, a.name), join(to, b.name)]
  const isOne = statSync(one).ino === statSync(other).ino
  return [readFileSync(one, 'utf8'), readFileSync(other, 'utf8'), isOne]
}

test('two names of one state are one file again', async () => {
  assert.deepEqual(await restored(linked('a', 'same', 1n), linked('b', 'same', 1n)), ['same', 'same', true])
})

test('a file that changed between its two names comes back as two', async () => {
  const before = linked('a', 'before', 1n)
  assert.deepEqual(await restored(before, linked('b', 'then longer', 2n)), ['before', 'then longer', false])
  assert.deepEqual(
    await restored(before, linked('b', 'longer', 2n)),
    ['before', 'longer', false],
    'mtime alone',
  )
  assert.deepEqual(await restored(before, linked('b', 'size alone', 1n)), ['before', 'size alone', false])
})
