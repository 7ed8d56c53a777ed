/**
 * Snapshots made by hand, with all seals and signatures right: chunks that are not what their ids say, as a
 * stolen writer could make, and names of one file that a backup met in two states.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { newWriter } from '../../src/base/bytes.ts'
import { isFailure } from '../../src/base/failure.ts'
import { encodeExtents, encodeInline, encodeMapped } from '../../src/format/content.ts'
import type { TreeEntry } from '../../src/format/tree.ts'
import { check } from '../../src/recovery/check.ts'
import { closeSnapshot, openSnapshot, readFile, walkTree } from '../../src/repo/tree-reader.ts'
import { dropRepository, snapshotOf, type TestRepository } from '../harness/engine.ts'
import { backUpShop, makeShop, type TestShop } from '../harness/lost-files.ts'
import { makeScratch, restoreTo } from '../harness/restores.ts'
import { fileEntry, freshCopy, leafOf, plantChunks, plantRoot } from '../harness/tampering.ts'

const GOOD = Buffer.from('pay to account 1111')
const BAD = Buffer.from('pay to account 6666')

let shop: TestShop
let scratch = ''
let copies = 0

before(async () => {
  shop = await makeShop()
  await backUpShop(shop, ['full'])
  scratch = makeScratch()
})
after(() => {
  dropRepository(shop.repository)
  rmSync(scratch, { recursive: true, force: true })
})

/** A snapshot of `/other` with content of its own, and `/note`, whose chunk bears GOOD's id and is `stored`. */
async function plantNote(stored: Buffer): Promise<{ repository: TestRepository; id: string }> {
  const repository = freshCopy(shop.repository, `copy-${copies++}`)
  const data = await plantChunks(repository, 'data', [{ kind: 'data', bytes: stored, claims: GOOD }])
  const extents = newWriter()
  encodeExtents(extents, {
    chunks: [{ id: data.ids[0]!, bytes: GOOD.length }],
    extents: [{ length: GOOD.length, ref: 1, offset: 0 }],
  })
  const content = encodeMapped({ extents: extents.bytes.subarray(0, extents.length) }, 0, [])
  const root = leafOf([
    fileEntry('note', GOOD.length, content),
    { ...fileEntry('other', 2, encodeInline(Buffer.from('hi'))), inode: 2n },
  ])
  return { repository, id: await plantRoot(repository, { kind: 'tree', bytes: root }, [data]) }
}

/** A snapshot whose root says that it has `/good`, and has `/bad`. */
async function plantLyingRoot(): Promise<{ repository: TestRepository; id: string }> {
  const repository = freshCopy(shop.repository, `copy-${copies++}`)
  const rootOf = (name: string): Buffer => leafOf([fileEntry(name, 2, encodeInline(Buffer.from('hi')))])
  const liar = { kind: 'tree', bytes: rootOf('bad!'), claims: rootOf('good') } as const
  return { repository, id: await plantRoot(repository, liar) }
}

/** What reading `/note` gives. */
async function readNote(repository: TestRepository, id: string): Promise<string> {
  const reader = await openSnapshot(repository.access, repository.host, await snapshotOf(repository, id))
  try {
    const pieces: Uint8Array[] = []
    for await (const { path, entry } of walkTree(reader))
      if (path === '/note') for await (const piece of readFile(reader, entry)) pieces.push(Buffer.from(piece))
    return Buffer.concat(pieces).toString()
  } finally {
    closeSnapshot(reader)
  }
}

test('a planted file whose chunk is what its id says comes back', async () => {
  const { repository, id } = await plantNote(GOOD)
  assert.equal(await readNote(repository, id), GOOD.toString())
  const to = join(scratch, 'good')
  const done = await restoreTo({ repository }, id, to)
  assert.deepEqual([done.damaged, done.failed], [[], []])
  assert.equal(readFileSync(join(to, 'note'), 'utf8'), GOOD.toString())
})

test('a chunk with the id of another is not read, restored or passed by the check', async () => {
  const { repository, id } = await plantNote(BAD)
  await assert.rejects(readNote(repository, id), (error) => isFailure(error, 'repo.corrupt'))
  const to = join(scratch, 'bad')
  const done = await restoreTo({ repository }, id, to)
  assert.deepEqual(
    done.damaged.map(({ path }) => path),
    ['/note'],
  )
  assert.equal(existsSync(join(to, 'note')), false)
  assert.equal(readFileSync(join(to, 'other'), 'utf8'), 'hi')
  const report = await check(repository.access, repository.host, {
    readData: 100,
    workers: 0,
    clock: shop.clock,
  })
  const corrupt = report.findings.filter(({ code }) => code === 'pack.corrupt')
  assert.deepEqual(
    corrupt.flatMap(({ files }) => files.map(({ path }) => path)),
    ['/note'],
  )
})

test('a node of a tree with the id of another is not walked', async () => {
  const { repository, id } = await plantLyingRoot()
  await assert.rejects(readNote(repository, id), (error) => isFailure(error, 'repo.corrupt'))
})

function linked(name: string, text: string, mtime: bigint): TreeEntry {
  return { ...fileEntry(name, text.length, encodeInline(Buffer.from(text))), links: 2, inode: 77n, mtime }
}

/** Restores a snapshot of these two names; returns their contents and whether they are one file. */
async function restored(a: TreeEntry, b: TreeEntry): Promise<[string, string, boolean]> {
  const repository = freshCopy(shop.repository, `copy-${copies++}`)
  const id = await plantRoot(repository, { kind: 'tree', bytes: leafOf([a, b]) })
  const to = join(scratch, `to-${copies}`)
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
