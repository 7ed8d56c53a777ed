/** A chunk that is stored twice: one damaged copy is named, and nothing is lost while the other is whole. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { newWriter } from '../base/bytes.ts'
import { Failure } from '../base/failure.ts'
import { encodeExtents, encodeMapped } from '../format/content.ts'
import { packName } from '../repo/names.ts'
import type { BlobStore } from '../storage/store.ts'
import { check, type CheckReport } from './check.ts'
import type { Finding } from './check-findings.ts'
import { dropRepository, noise, through, type TestRepository } from '../../test/harness/engine.ts'
import { backUpShop, makeShop, type TestShop } from '../../test/harness/lost-files.ts'
import { restoreTo } from '../../test/harness/restores.ts'
import {
  change,
  fileEntry,
  flip,
  freshCopy,
  leafOf,
  objectsOf,
  payloadOf,
  plantChunks,
  plantSnapshot,
  refsOf,
  type Planted,
} from '../../test/harness/tampering.ts'

const CONTENT = noise(77, 20_000)

let shop: TestShop
let planted: TestRepository
let snapshot = ''
let scratch = ''
/** Names of the two packs that hold the content, and of the two that hold the tree. */
let data: string[]
let trees: string[]
let copies = 0

before(async () => {
  shop = await makeShop()
  await backUpShop(shop, ['full'])
  scratch = mkdtempSync(join(tmpdir(), 'backstock-copies-'))
  planted = freshCopy(shop.repository, 'planted')
  const twice = async (kind: 'data' | 'tree', bytes: Buffer): Promise<[Planted, Planted]> => [
    await plantChunks(planted, kind, [{ kind, bytes }]),
    await plantChunks(planted, kind, [{ kind, bytes }]),
  ]
  const chunks = await twice('data', CONTENT)
  const extents = newWriter(100)
  encodeExtents(extents, {
    chunks: [{ id: chunks[0].ids[0] ?? Buffer.alloc(0), bytes: CONTENT.length }],
    extents: [{ length: CONTENT.length, ref: 1, offset: 0 }],
  })
  const map = encodeMapped({ extents: extents.bytes.subarray(0, extents.length) }, 0, [])
  const nodes = await twice('tree', leafOf([fileEntry('note', CONTENT.length, map)]))
  const marked = refsOf(chunks[0].pack, [0], new Map([[nodes[0].pack, [0]]]))
  const refs = await plantChunks(planted, 'refs', [{ kind: 'refs', bytes: marked }])
  const like = payloadOf(planted, objectsOf(planted, '/snapshots/')[0] ?? '')
  const [tree, other] = nodes
  snapshot = await plantSnapshot(planted, like, { tree, refs, data: [...chunks, other] })
  const domain = planted.access.config.domains[0]?.id ?? ''
  data = chunks.map(({ pack }) => packName(domain, 'data', pack))
  trees = nodes.map(({ pack }) => packName(domain, 'tree', pack))
})

after(() => {
  dropRepository(shop.repository)
  rmSync(scratch, { recursive: true })
})

/** A copy in which the packs `names` are damaged where their only chunk lies. */
function damaged(...names: string[]): TestRepository {
  const repository = freshCopy(planted, `copy-${copies++}`)
  for (const name of names) change(repository, name, (bytes) => flip(bytes, 10))
  return repository
}

async function run(repository: TestRepository): Promise<CheckReport> {
  return await check(repository.access, repository.host, { workers: 0, clock: shop.clock, readData: 100 })
}

/** What is not about the planting itself: it breaks the rules of kinds. */
function real({ findings }: CheckReport): Finding[] {
  return findings.filter(({ code }) => code !== 'snapshot.rule')
}

async function restored(repository: TestRepository): Promise<[lost: number, bytes: Buffer | undefined]> {
  const to = join(scratch, `to-${copies}`)
  const done = await restoreTo({ repository }, snapshot, to)
  const { counts, files } = done
  return [counts.damaged, files === 1 ? readFileSync(join(to, 'note')) : undefined]
}

test('check() names a damaged copy and says that nothing is lost; a restore takes the other', async () => {
  assert.deepEqual(real(await run(planted)), [])
  for (const name of [...data, ...trees]) {
    const repository = damaged(name)
    const [finding, ...others] = real(await run(repository))
    assert.deepEqual(others, [])
    assert.deepEqual([finding?.code, finding?.object, finding?.severity], ['pack.corrupt', name, 'warning'])
    assert.match(finding?.message ?? '', /nothing is lost/)
    assert.deepEqual(finding?.files, [])
    assert.deepEqual(await restored(repository), [0, CONTENT])
  }
})

test('check() names the files when all copies are damaged', async () => {
  const repository = damaged(...data)
  const found = real(await run(repository))
  assert.equal(found.length, 2)
  for (const { severity, files } of found)
    assert.deepEqual([severity, files.map(({ path }) => path)], ['error', ['/note']])
  assert.deepEqual(await restored(repository), [1, undefined])
  const lost = real(await run(damaged(...trees)))
  assert.deepEqual(
    lost.map(({ severity }) => severity),
    ['error', 'error'],
  )
  assert.deepEqual(
    lost.map(({ files }) => files.map(({ path, below }) => [path, below])),
    [[['/', true]], [['/', true]]],
  )
})

test('a restore calls what it cannot read unreadable, not damaged, while a copy may be whole', async () => {
  for (const names of [data, trees])
    for (const [bad, corrupt] of [names, names.toReversed()]) {
      const repository = damaged(corrupt ?? '')
      const { store } = repository.access
      const get: BlobStore['get'] = (name, options) =>
        name === bad
          ? Promise.reject(new Failure('storage.offline', 'Its disk fails', { facts: { errno: 'EIO' } }))
          : store.get(name, options)
      const failing = through(repository, { ...store, get })
      const { counts } = await restoreTo({ repository: failing }, snapshot, join(scratch, `to-${copies++}`))
      assert.deepEqual([counts.damaged, counts.unreadable], [0, 1])
    }
})
