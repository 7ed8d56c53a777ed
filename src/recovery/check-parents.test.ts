/** A snapshot is counted from its parent's count, and never pays for its parent's faults. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newWriter } from '../base/bytes.ts'
import { encodeBranchEntry, encodeNode, NODE_BRANCH } from '../format/tree.ts'
import { check } from './check.ts'
import { dropRepository, snapshotsOf } from '../../test/harness/engine.ts'
import { backUpShop, makeShop, type TestShop } from '../../test/harness/lost-files.ts'
import {
  freshCopy,
  leafOf,
  objectsOf,
  payloadOf,
  plantChunks,
  plantSnapshot,
  refsOf,
  signSnapshot,
} from '../../test/harness/tampering.ts'

let shop: TestShop

before(async () => {
  shop = await makeShop()
  await backUpShop(shop, ['full'])
})
after(() => {
  dropRepository(shop.repository)
})

test('check() refuses a directory that has a node twice, and not the snapshot made against it', async () => {
  const repository = freshCopy(shop.repository, 'twice')
  const leaf = leafOf([])
  const { ids } = await plantChunks(freshCopy(shop.repository, 'ids'), 'tree', [
    { kind: 'tree', bytes: leaf },
  ])
  const [children, branch] = [newWriter(200), newWriter(200)]
  for (const name of ['a', 'b'])
    encodeBranchEntry(children, { name, node: ids[0] ?? Buffer.alloc(0), entries: 0 })
  encodeNode(branch, NODE_BRANCH, 2, children.bytes.subarray(0, children.length))
  const twice = Buffer.from(branch.bytes.subarray(0, branch.length))
  const tree = await plantChunks(repository, 'tree', [
    { kind: 'tree', bytes: twice },
    { kind: 'tree', bytes: leaf },
  ])
  const plantRefs = (numbers: readonly number[]): ReturnType<typeof plantChunks> =>
    plantChunks(repository, 'refs', [{ kind: 'refs', bytes: refsOf(tree.pack, numbers) }])
  const like = payloadOf(repository, objectsOf(repository, '/snapshots/')[0] ?? '')
  const parent = await plantSnapshot(repository, like, { tree, refs: await plantRefs([0, 1]) })
  const [stored] = (await snapshotsOf(repository)).filter(({ id }) => id === parent)
  assert(stored)
  const payload = payloadOf(repository, stored.name)
  const own = await plantRefs([1])
  const child = `${parent.slice(0, -1)}4`
  await signSnapshot(repository, {
    ...payload,
    id: child,
    counter: 2,
    previous: stored.sha256,
    parent,
    lineage: [own.set, ...payload.lineage],
    root: tree.ids[1]?.toString('hex') ?? '',
    refs: [own.ids[0]?.toString('hex') ?? ''],
  })

  const { findings } = await check(repository.access, repository.host, { workers: 0, clock: shop.clock })
  const lost = findings.filter(({ code, severity }) => severity === 'error' && code !== 'snapshot.rule')
  assert.deepEqual(
    lost.map(({ code, snapshots }) => [code, snapshots]),
    [['tree.lost', [parent]]],
  )
  assert.match(lost[0]?.message ?? '', /has one node twice/)
})
