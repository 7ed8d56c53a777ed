/** What the store cannot hand out now is told from damage: nobody knows whether it is whole. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Failure } from '../base/failure.ts'
import { readHostState } from '../repo/host-folder.ts'
import type { BlobStore } from '../storage/store.ts'
import { check, type CheckReport } from './check.ts'
import { dropRepository, noise, through, type TestRepository } from '../../test/harness/engine.ts'
import { backUpShop, makeShop, type TestShop } from '../../test/harness/lost-files.ts'
import {
  change,
  flip,
  freshCopy,
  leafOf,
  objectsOf,
  payloadOf,
  plantChunks,
  plantRoot,
  signSnapshot,
} from '../../test/harness/tampering.ts'

let shop: TestShop
let copies = 0

before(async () => {
  shop = await makeShop()
  await backUpShop(shop, ['full', 'incremental'])
})
after(() => {
  dropRepository(shop.repository)
})

function copyOf(): TestRepository {
  return freshCopy(shop.repository, `copy-${copies++}`)
}

/** The repository on a disk with a bad sector in that object. */
function withBadSector(repository: TestRepository, bad: string): TestRepository {
  const { store } = repository.access
  const get: BlobStore['get'] = (name, options) =>
    name === bad
      ? Promise.reject(
          new Failure('storage.offline', `Cannot read "${name}": its disk fails`, {
            facts: { errno: 'EIO' },
          }),
        )
      : store.get(name, options)
  return through(repository, { ...store, get })
}

async function run(repository: TestRepository, workers = 0, readData = 100): Promise<CheckReport> {
  return await check(repository.access, repository.host, { workers, clock: shop.clock, readData })
}

test('check() says of each kind of object that it cannot be read now', async () => {
  const last = (part: string): string => objectsOf(shop.repository, part).at(-1) ?? ''
  const meta = objectsOf(shop.repository, '/meta/') // packs of trees and of refs records
  for (const name of ['keys/', '/snapshots/', '/index/', '/packs/'].map(last).concat(meta)) {
    for (const workers of [0, 2]) {
      const repository = copyOf()
      const report = await run(withBadSector(repository, name), workers)
      const codes = new Set(
        report.findings.filter(({ severity }) => severity !== 'info').map(({ code }) => code),
      )
      assert.deepEqual([...codes], ['object.unreadable'], `${name} ${[...codes].join()}`)
      assert.equal(report.errors, report.unreadable, name)
      assert.match(report.findings[0]?.message ?? '', /not known to be damaged/)
      assert.deepEqual((await run(repository)).findings, [], 'it is read again')
    }
  }
})

test('check() keeps what it knew of a pack that cannot be read now', async () => {
  const repository = copyOf()
  const before = await run(repository)
  const known = readHostState(repository.host)
  const [pack = ''] = objectsOf(repository, '/packs/')
  const [hurt] = (await run(withBadSector(repository, pack))).findings
  assert.equal(hurt?.object, pack)
  assert.ok((hurt?.fileCount ?? 0) > 0, 'it names what waits for it')
  const id = pack.slice(-64)
  assert.equal(readHostState(repository.host).checked[id], known.checked[id])
  assert.equal(before.coverage.packsCovered, before.coverage.packs)
})

/** What the check says of hidden snapshots, and whether it knows of more than what cannot be read now. */
async function hiddenOf(
  repository: TestRepository,
): Promise<{ said: readonly string[]; isOnlyUnread: boolean }> {
  const { findings, errors, unreadable } = await run(repository)
  const said = findings.filter(({ code }) => code === 'stream.hidden')
  return {
    said: said.map(({ severity, message }) => `${severity}: ${message}`),
    isOnlyUnread: errors === unreadable,
  }
}

test('the newest snapshot may be the one that cannot be read now, an older one is not', async () => {
  const repository = copyOf()
  assert.deepEqual((await run(repository)).findings, [])
  const [first = '', newest = ''] = objectsOf(repository, '/snapshots/')
  const maybe = await hiddenOf(withBadSector(repository, newest))
  assert.equal(maybe.said.length, 1)
  assert.match(maybe.said[0] ?? '', /^warning: .*seen snapshot 2 .* unless it is one that cannot be read now/)
  assert.ok(maybe.isOnlyUnread)
  const hidden = copyOf()
  await run(hidden)
  hidden.disk.delete(newest)
  const { said, isOnlyUnread } = await hiddenOf(hidden)
  assert.match(said.join(), /^error: Someone hid, .*seen snapshot 2/)
  assert.ok(!isOnlyUnread)

  await signSnapshot(repository, { ...payloadOf(repository, newest), tags: ['other'] })
  const replaced = await hiddenOf(withBadSector(repository, first))
  assert.match(replaced.said.join(), /^error: .*snapshot 2 .* is another one than this host has seen$/)
})

test('an unreadable snapshot explains a hidden one only if it is newer than all others', async () => {
  const three = await makeShop()
  try {
    await backUpShop(three, ['full', 'incremental', 'incremental'])
    const [first = '', second = '', third = ''] = objectsOf(three.repository, '/snapshots/')
    for (const [bad, gone] of [
      [first, third],
      [second, third],
    ] as const) {
      const repository = freshCopy(three.repository, `three-${copies++}`)
      await run(repository)
      repository.disk.delete(gone)
      const { said } = await hiddenOf(withBadSector(repository, bad))
      // What lies between the newest that is shown and the hidden one may be either.
      assert.match(said.join(), bad === first ? /^error: Someone hid/ : /^warning: /)
    }
  } finally {
    dropRepository(three.repository)
  }
})

test('check() repeats what an earlier one could not read until it looks as deeply', async () => {
  const repository = copyOf()
  await run(repository)
  const [pack = ''] = objectsOf(repository, '/packs/')
  await run(withBadSector(repository, pack))
  for (const readData of [0, 0]) {
    const { findings, errors, unreadable } = await run(repository, 0, readData)
    assert.deepEqual(
      findings.map(({ code, object }) => [code, object]),
      [['object.unreadable', pack]],
    )
    assert.match(findings[0]?.message ?? '', /a check of 2026-.* could not read/)
    assert.deepEqual([errors, unreadable], [1, 1])
  }
  assert.deepEqual((await run(repository)).findings, [])
})

test('check() does not call damage harmless while it cannot read who needs what is damaged', async () => {
  const repository = copyOf()
  const spare = await plantChunks(repository, 'data', [{ kind: 'data', bytes: noise(5, 9000) }])
  await plantRoot(repository, { kind: 'tree', bytes: leafOf([]) }, [spare])
  const pack = objectsOf(repository, spare.pack)[0] ?? ''
  change(repository, pack, (bytes) => flip(bytes, 10))
  const severityIn = ({ findings }: CheckReport): string | undefined =>
    findings.find(({ object }) => object === pack)?.severity
  assert.equal(severityIn(await run(repository)), 'warning')
  const snapshot = objectsOf(shop.repository, '/snapshots/')[0] ?? ''
  assert.equal(severityIn(await run(withBadSector(repository, snapshot))), 'error')
  let trees = 0
  for (const name of objectsOf(shop.repository, '/meta/')) {
    const report = await run(withBadSector(repository, name))
    const isTree = report.findings.some(({ files }) => files.some(({ below }) => below))
    assert.equal(severityIn(report), isTree ? 'error' : 'warning', name)
    if (isTree) trees++
  }
  assert.ok(trees > 0)
})
