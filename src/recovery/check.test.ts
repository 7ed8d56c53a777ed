/**
 * The check against reading everything: what it names is what is lost, for every object and every kind of
 * damage.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { openHostFolder } from '../repo/host-folder.ts'
import { check, type CheckReport } from './check.ts'
import type { Finding } from './check-findings.ts'
import {
  dropRepository,
  seeded,
  snapshotsOf,
  testSeed,
  type TestRepository,
} from '../../test/harness/engine.ts'
import { change, flip, freshCopy, objectsOf, swap } from '../../test/harness/tampering.ts'
import {
  ALL_KINDS,
  backUpShop,
  lostFiles,
  makeShop,
  namedFiles,
  outermost,
  type TestShop,
} from '../../test/harness/lost-files.ts'

let shop: TestShop
let copies = 0

before(async () => {
  shop = await makeShop()
  await backUpShop(shop, ALL_KINDS)
})

after(() => {
  dropRepository(shop.repository)
})

/** The repository again, with caches of its own, to be damaged. */
function copyOf(): TestRepository {
  return freshCopy(shop.repository, `copy-${copies++}`)
}

async function run(repository: TestRepository, readData = 0, workers = 0): Promise<CheckReport> {
  return await check(repository.access, repository.host, { readData, workers, clock: shop.clock })
}

function bytesOf(name: string): number {
  return shop.repository.disk.get(name)?.bytes.length ?? 0
}

function codes(report: CheckReport): string[] {
  return [
    ...new Set(report.findings.filter(({ severity }) => severity !== 'info').map(({ code }) => code)),
  ].sort()
}

function describeAll(findings: readonly Finding[]): string {
  return findings.map(({ code, severity, message }) => `${severity} ${code}: ${message}`).join('\n')
}

/** The heart: the report names exactly what cannot be read. */
async function assertExact(repository: TestRepository, report: CheckReport, what: string): Promise<void> {
  const host = openHostFolder(`${repository.host.path}-oracle`, repository.kit.repository)
  const lost = outermost(await lostFiles(repository, { host }))
  const named = outermost(namedFiles(report.findings, await snapshotsOf(repository)))
  assert.deepEqual(named, lost, `${what}\n${describeAll(report.findings)}`)
}

/** Some objects of each kind, by chance: all of them takes minutes. */
function someObjects(random: () => number): string[] {
  const kinds = ['/packs/', '/meta/', '/index/', '/snapshots/'].map((part) =>
    objectsOf(shop.repository, part),
  )
  const some = kinds.flatMap((names) =>
    Array.from({ length: 4 }, () => names[Math.floor(random() * names.length)] ?? ''),
  )
  return [...new Set(some)]
}

describe('check()', () => {
  test('finds nothing in a repository that is whole, with and without data, in any thread', async () => {
    const repository = copyOf()
    for (const [readData, workers] of [
      [0, 0],
      [100, 0],
      [100, 2],
    ] as const) {
      const report = await run(repository, readData, workers)
      assert.deepEqual(report.findings, [], describeAll(report.findings))
      assert.equal(report.counts.snapshots, ALL_KINDS.length)
      assert.equal(report.coverage.packsRead, readData === 0 ? 0 : report.counts.packs)
    }
    assert.deepEqual(await lostFiles(repository, repository), new Set())
  })

  test('names what is lost with each object that is deleted', async () => {
    const seed = testSeed()
    const signed = objectsOf(shop.repository, '').filter((name) => /^(keys|config)/.test(name))
    for (const name of [...signed, ...someObjects(seeded(seed))]) {
      const repository = copyOf()
      repository.disk.delete(name)
      const report = await run(repository)
      if (name.startsWith('keys/')) {
        assert.deepEqual(codes(report), ['bundle.corrupt', 'bundle.missing'])
      } else if (name.startsWith('config/')) {
        assert.deepEqual(codes(report), ['config.missing'])
      } else {
        await assertExact(repository, report, `SEED=${seed}: deleted ${name}`)
        if (name.includes('/snapshots/')) continue // whether that is seen depends on what is known of it
        assert(report.errors > 0, `${name}\n${describeAll(report.findings)}`)
      }
    }
  })

  test('names what is lost with a flipped bit anywhere, when data is read', async () => {
    const seed = testSeed()
    const random = seeded(seed)
    for (const name of ['config/1', ...someObjects(random)]) {
      const repository = copyOf()
      const at = Math.floor(random() * bytesOf(name))
      change(repository, name, (whole) => flip(whole, at))
      const report = await run(repository, 100)
      const what = `SEED=${seed}: flipped byte ${at} of ${name}`
      assert(report.errors + report.warnings > 0, what)
      if (!name.startsWith('config/')) await assertExact(repository, report, what)
      assert.equal(
        report.coverage.packsCovered,
        report.counts.packs - (/packs|meta/.test(name) ? 1 : 0),
        what,
      )
    }
  })

  test('names what is lost with each pack, run and snapshot that is cut or grown', async () => {
    const seed = testSeed()
    const random = seeded(seed)
    for (const name of someObjects(random)) {
      const cut = copyOf()
      change(cut, name, (whole) => whole.subarray(0, Math.floor(random() * bytesOf(name))))
      const report = await run(cut)
      assert(report.errors > 0, name)
      await assertExact(cut, report, `SEED=${seed}: cut ${name}`)
      const grown = copyOf()
      change(grown, name, (whole) => Buffer.concat([whole, Buffer.from('more')]))
      const after = await run(grown, 100)
      assert(after.errors + after.warnings > 0, name)
      await assertExact(grown, after, `grown ${name}`)
    }
  })

  test('names what is lost when two objects changed places', async () => {
    for (const part of ['/packs/', '/meta/', '/index/', '/snapshots/']) {
      const names = objectsOf(shop.repository, part)
      for (let at = 0; at + 1 < names.length; at += 6) {
        const repository = copyOf()
        swap(repository, names[at] ?? '', names[at + 1] ?? '')
        for (const readData of [0, 100]) {
          const report = await run(repository, readData)
          assert(report.errors > 0, names[at])
          await assertExact(repository, report, `swapped ${names[at]} and ${names[at + 1]}, ${readData} %`)
        }
      }
    }
  })

  test('ends with a failure when it is cancelled or the store is gone, not with findings', async () => {
    const repository = copyOf()
    const cancelled = AbortSignal.abort()
    const { clock } = shop
    await assert.rejects(
      check(repository.access, repository.host, { workers: 0, clock, signal: cancelled }),
      (error) => isFailure(error, 'cancelled'),
    )
    await repository.access.store.close()
    await assert.rejects(run(repository), (error) => isFailure(error, 'storage.offline'))
  })
})
