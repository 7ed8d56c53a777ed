/** The index can be made again from packs alone: reading, the next backup and the check without index runs. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { openHostFolder } from '../repo/host-folder.ts'
import { closeSnapshot, openSnapshot } from '../repo/tree-reader.ts'
import { hostileStore } from '../../test/harness/hostile-store.ts'
import { crashingStore, endsBeforeCrash } from '../../test/harness/crashing-store.ts'
import {
  backUp,
  dropRepository,
  readBack,
  snapshotsOf,
  through,
  type EntryState,
  type TestRepository,
} from '../../test/harness/engine.ts'
import {
  backUpShop,
  changeShop,
  lostFiles,
  makeShop,
  namedFiles,
  outermost,
  type TestShop,
} from '../../test/harness/lost-files.ts'
import { change, flip, freshCopy, objectsOf, payloadOf } from '../../test/harness/tampering.ts'
import { check, type CheckReport } from './check.ts'
import type { FindingCode } from './check-findings.ts'

let shop: TestShop
const states = new Map<string, Map<string, EntryState>>()
let copies = 0

before(async () => {
  const made = await makeShop()
  // Time flies: every pack gets an index run of its own, nearly.
  shop = { ...made, clock: { ...made.clock, elapsed: () => (made.clock.at += 61_000) } }
  await backUpShop(shop, ['full'])
  await dieAfter(6, 100) // the next backup takes over what is left
  await backUpShop(shop, ['incremental', 'incremental', 'differential'], 2)
  await dieAfter(6, 101) // nobody takes over what is left
  for (const snapshot of await snapshotsOf(shop.repository))
    states.set(snapshot.id, await readBack(shop.repository, snapshot, shop.folder))
})

after(() => {
  dropRepository(shop.repository)
})

/** A backup that ends at its write number `at`. */
async function dieAfter(at: number, seed: number): Promise<void> {
  const { repository, source, clock } = shop
  changeShop(shop, seed)
  const dying = through(repository, crashingStore(repository.access.store, { at }))
  assert(!(await endsBeforeCrash(() => backUp(dying, source, { kind: 'incremental', clock }))))
}

function copyOf(): TestRepository {
  return freshCopy(shop.repository, `copy-${copies++}`)
}

async function run(repository: TestRepository): Promise<CheckReport> {
  return await check(repository.access, repository.host, { workers: 0, clock: shop.clock })
}

/** Codes of all that is wrong, each once. */
function wrongIn(report: CheckReport): FindingCode[] {
  const wrong = report.findings.filter(({ severity }) => severity !== 'info')
  return [...new Set(wrong.map(({ code }) => code))].sort()
}

async function assertExact(repository: TestRepository, report: CheckReport): Promise<string[]> {
  const host = openHostFolder(`${repository.host.path}-oracle`, repository.kit.repository)
  const lost = outermost(await lostFiles(repository, { host }))
  assert.deepEqual(outermost(namedFiles(report.findings, await snapshotsOf(repository))), lost)
  return lost
}

/** Deletes all index runs; their names. */
function dropRuns(repository: TestRepository): string[] {
  const runs = objectsOf(repository, '/index/')
  for (const name of runs) repository.disk.delete(name)
  return runs
}

describe('a repository without index runs', () => {
  test('gives everything back, from one listing, and tells which sets were rebuilt', async () => {
    const [full] = await snapshotsOf(shop.repository)
    assert((full?.lineage[0]?.runs.length ?? 0) > 2, 'a set has several runs')
    for (const keepsLast of [false, true]) {
      const copy = copyOf()
      const runs = dropRuns(copy)
      const last = runs.at(-1) ?? ''
      const kept = shop.repository.disk.get(last)
      if (keepsLast && kept !== undefined) copy.disk.set(last, kept)
      for (const snapshot of await snapshotsOf(copy)) {
        assert.deepEqual(await readBack(copy, snapshot, shop.folder), states.get(snapshot.id))
        let lists = 0
        const list = (prefix: string): ReturnType<typeof copy.access.store.list> => {
          lists++
          return copy.access.store.list(prefix)
        }
        const fresh = freshCopy(copy, `fresh-${copies++}`)
        const counting = through(fresh, { ...fresh.access.store, list })
        const reader = await openSnapshot(counting.access, fresh.host, snapshot)
        closeSnapshot(reader)
        assert.deepEqual(
          reader.rebuilt.map(({ packSet, isWhole }) => [packSet, isWhole]),
          snapshot.lineage.map(({ packSet }) => [packSet, true]),
        )
        assert.equal(lists, 2, 'packs/ and meta/')
        // What was rebuilt whole is kept.
        closeSnapshot(await openSnapshot(counting.access, fresh.host, snapshot))
        assert.equal(lists, 2)
      }
    }
  })

  test('takes the next backup, which reads nothing again that it has', async () => {
    const copy = copyOf()
    dropRuns(copy)
    const { source, clock } = shop
    const { snapshot, rebuilt, totals } = await backUp(copy, source, { kind: 'incremental', clock })
    assert(rebuilt.length > 0 && rebuilt.every(({ isWhole }) => isWhole))
    assert(totals.bytesFresh < 400_000, `${totals.bytesFresh} of a megabyte were stored again`)
    const last = (await snapshotsOf(copy)).find(({ id }) => id === snapshot)
    assert(last)
    const { rebuilt: still } = await openAndClose(copy, last)
    assert.equal(still, rebuilt.length)
    const report = await run(copy)
    assert.deepEqual(wrongIn(report), ['run.missing'])
    assert.deepEqual(await assertExact(copy, report), [])
  })

  async function openAndClose(
    repository: TestRepository,
    snapshot: Parameters<typeof openSnapshot>[2],
  ): Promise<{ rebuilt: number }> {
    const reader = await openSnapshot(repository.access, repository.host, snapshot)
    closeSnapshot(reader)
    return { rebuilt: reader.rebuilt.length }
  }

  test('is checked: each run is named, and no file', async () => {
    const copy = copyOf()
    dropRuns(copy)
    const report = await run(copy)
    assert.deepEqual(wrongIn(report), ['run.missing'])
    const runs = (await snapshotsOf(copy)).flatMap(({ lineage }) => lineage.flatMap((set) => set.runs))
    const named = report.findings.filter(({ code }) => code === 'run.missing')
    assert.equal(named.length, new Set(runs.map(({ sha256 }) => sha256)).size)
    for (const { fileCount, snapshots, message } of named) {
      assert.deepEqual([fileCount, snapshots], [0, []])
      assert.match(message, /its index was made again from \d+ packs of pack set [0-9a-f]{32}$/)
    }
    assert.deepEqual(await assertExact(copy, report), [])
  })

  test('loses with a pack exactly what lies in it', async () => {
    const { packSet } = payloadOf(shop.repository, objectsOf(shop.repository, '/snapshots/')[0] ?? '')
    const packs = objectsOf(shop.repository, '/packs/').filter((name) => {
      const bytes = shop.repository.disk.get(name)?.bytes ?? Buffer.alloc(256)
      return bytes.toString('hex', bytes.length - 216, bytes.length - 200) === packSet
    })
    for (const name of packs.slice(0, 3)) {
      const whole = copyOf()
      whole.disk.delete(name)
      const expected = await assertExact(whole, await run(whole))
      assert(expected.length > 0)
      for (const damage of ['missing', 'tail'] as const) {
        const copy = copyOf()
        dropRuns(copy)
        if (damage === 'missing') copy.disk.delete(name)
        else change(copy, name, (bytes) => flip(bytes, bytes.length - 100))
        const report = await run(copy)
        assert.deepEqual(await assertExact(copy, report), expected)
        assert.deepEqual(wrongIn(report), ['run.missing'])
        const hurting = report.findings.filter(({ fileCount }) => fileCount > 0)
        assert.match(hurting[0]?.message ?? '', /, of \d+: what the others hold cannot be found$/)
      }
    }
  })

  test('heals when the runs or packs come back', async () => {
    const copy = copyOf()
    const kept = new Map(copy.disk)
    dropRuns(copy)
    const [pack = ''] = objectsOf(copy, '/packs/')
    copy.disk.delete(pack)
    assert((await run(copy)).errors > 0)
    copy.disk.set(pack, kept.get(pack)!)
    const [snapshot] = await snapshotsOf(copy)
    assert(snapshot)
    assert.deepEqual(await readBack(copy, snapshot, shop.folder), states.get(snapshot.id))
    for (const [name, blob] of kept) copy.disk.set(name, blob)
    assert.deepEqual(wrongIn(await run(copy)), [])
    assert.equal((await openAndClose(copy, snapshot)).rebuilt, 0)
  })

  test('is not made up for a store that does not answer', async () => {
    const copy = copyOf()
    dropRuns(copy)
    const [snapshot] = await snapshotsOf(copy)
    assert(snapshot)
    const fails = { kind: 'fail', code: 'storage.offline' } as const
    const rules = [{ on: 'get' as const, name: /\/(?:packs|meta)\//, after: 3, trick: fails }]
    const store = hostileStore(copy.access.store, { rules })
    await assert.rejects(openAndClose(through(copy, store), snapshot), { code: 'storage.offline' })
    assert.deepEqual(await readBack(copy, snapshot, shop.folder), states.get(snapshot.id))
  })
})
