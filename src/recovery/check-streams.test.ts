/** Every finding about snapshots as objects and streams, made by tampering. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { formatTime } from '../base/clock.ts'
import { encodeSigned } from '../format/signed.ts'
import { snapshotId, type Snapshot } from '../format/snapshot.ts'
import { openHostFolder, readHostState, updateHostState } from '../repo/host-folder.ts'
import { revokeWriter } from '../repo/key-changes.ts'
import { openRepository, writingDomain } from '../repo/keys.ts'
import { check, type CheckReport } from './check.ts'
import type { FindingCode } from './check-findings.ts'
import { dropRepository, type TestRepository } from '../../test/harness/engine.ts'
import { backUpShop, lostFiles, makeShop, type TestShop } from '../../test/harness/lost-files.ts'
import {
  change,
  flip,
  freshCopy,
  objectsOf,
  payloadOf,
  put,
  signSnapshot,
  swap,
} from '../../test/harness/tampering.ts'

const YEAR_MS = 365 * 86_400_000

let shop: TestShop
/** Object names: a full, two incrementals, a differential, a second full, an incremental. */
let names: string[]
let copies = 0

before(async () => {
  shop = await makeShop()
  await backUpShop(shop, ['full', 'incremental', 'incremental', 'differential', 'full', 'incremental'])
  names = objectsOf(shop.repository, '/snapshots/')
})

after(() => {
  dropRepository(shop.repository)
})

function copyOf(): TestRepository {
  return freshCopy(shop.repository, `copy-${copies++}`)
}

function nameAt(at: number): string {
  return names.at(at) ?? ''
}

async function run(repository: TestRepository, now?: number): Promise<CheckReport> {
  const clock = now === undefined ? shop.clock : { ...shop.clock, now: () => now }
  return await check(repository.access, repository.host, { workers: 0, clock })
}

/** All codes of a report, once each, in order. */
function codesOf(report: CheckReport): FindingCode[] {
  return [...new Set(report.findings.map(({ code }) => code))].sort()
}

async function assertCodes(
  repository: TestRepository,
  expected: readonly FindingCode[],
  what = '',
): Promise<void> {
  const report = await run(repository)
  assert.deepEqual(
    codesOf(report),
    expected.toSorted(),
    `${what}\n${report.findings.map((f) => f.message).join('\n')}`,
  )
}

/** The last snapshot, signed by its writer, with other fields. */
async function resign(fields: Partial<Snapshot>, at = -1): Promise<TestRepository> {
  const repository = copyOf()
  await signSnapshot(repository, { ...payloadOf(repository, nameAt(at)), ...fields })
  return repository
}

describe('checkSnapshots()', () => {
  test('tells objects that are damaged, forged, foreign or newer apart, and goes on', async () => {
    const damaged = copyOf()
    change(damaged, nameAt(-1), (bytes) => flip(bytes, bytes.length >> 1))
    await assertCodes(damaged, ['pack.unlisted', 'run.unlisted', 'snapshot.corrupt'])

    const forged = copyOf()
    await signSnapshot(forged, payloadOf(forged, nameAt(-1)), Buffer.alloc(32, 7))
    await assertCodes(forged, ['pack.unlisted', 'run.unlisted', 'snapshot.forged'])

    const foreign = copyOf()
    const place = { kind: 'snapshot', repository: 'ab'.repeat(16), name: nameAt(-1) } as const
    const payload = payloadOf(foreign, nameAt(-1))
    put(foreign, nameAt(-1), encodeSigned({ ...place, payload }, Buffer.alloc(32, 7)))
    await assertCodes(foreign, ['pack.unlisted', 'run.unlisted', 'snapshot.foreign'])

    const newer = copyOf()
    change(newer, nameAt(-1), (bytes) =>
      Buffer.from(bytes.toString('latin1').replace('backstock 1', 'backstock 2'), 'latin1'),
    )
    await assertCodes(newer, ['pack.unlisted', 'run.unlisted', 'snapshot.newer'])
  })

  test('takes two exchanged snapshots for forged ones', async () => {
    const repository = copyOf()
    swap(repository, nameAt(0), nameAt(1))
    const report = await run(repository)
    assert.equal(report.findings.filter(({ code }) => code === 'snapshot.forged').length, 2)
  })
})

describe('checkStreams()', () => {
  test('sees that the newest snapshot was hidden, lost or replaced', async () => {
    const seen = (repository: TestRepository): TestRepository => {
      updateHostState(repository.host, () => readHostState(shop.repository.host))
      return repository
    }
    assert.deepEqual((await run(seen(copyOf()))).findings, [])
    const hidden = seen(copyOf())
    hidden.disk.delete(nameAt(-1))
    await assertCodes(hidden, ['pack.unlisted', 'run.unlisted', 'stream.hidden'])
    await assertCodes(seen(await resign({ tags: ['other'] })), ['stream.hidden'])
    const empty = seen(copyOf())
    for (const name of empty.disk.keys()) if (name.startsWith('d/')) empty.disk.delete(name)
    await assertCodes(empty, ['stream.hidden'])
  })

  test('remembers what it has seen, so that the next check sees what was hidden meanwhile', async () => {
    const repository = copyOf()
    assert.deepEqual((await run(repository)).findings, [])
    repository.disk.delete(nameAt(-1))
    assert.equal((await run(repository)).errors, 1)
    assert.equal((await run(repository)).errors, 1)
  })

  test('sees forks, replaced predecessors and gaps', async () => {
    const last = payloadOf(shop.repository, nameAt(-1))
    // Whichever of the two sorts first.
    for (const end of ['00000000', 'ffffffff']) {
      const id = `${last.id.slice(0, -8)}${end}`
      await assertCodes(await resign({ id }), ['stream.race'])
      const foreign = await resign({ id, previous: 'ab'.repeat(32) })
      await assertCodes(foreign, ['stream.fork', 'stream.previous'])
    }
    // Both ran for hours, and one was there an hour before the other was completed: it was hidden from that.
    const late = formatTime(Date.parse(last.completed) + 3_600_000)
    await assertCodes(await resign({ id: `${last.id.slice(0, -8)}0badc0de`, completed: late }), [
      'stream.fork',
    ])
    // Begun a minute and a half after the other was there: the store hid it, even if nothing else tells.
    const begun = Date.parse(last.completed) + 90_000
    const times = { begun: formatTime(begun), completed: formatTime(begun + 1000) }
    await assertCodes(await resign({ id: snapshotId(begun, Buffer.alloc(4)), ...times }), ['stream.fork'])
    await assertCodes(await resign({ tags: ['other'] }, -2), ['stream.previous'])
    const gap = copyOf()
    gap.disk.delete(nameAt(1))
    const codes = codesOf(await run(gap))
    assert.deepEqual(codes, ['snapshot.parent', 'stream.gap'])
  })

  test('sees clocks that were set back or run ahead', async () => {
    const other = await makeShop()
    try {
      await backUpShop(other, ['full'])
      other.clock.at -= YEAR_MS
      await backUpShop(other, ['incremental'], 5)
      other.clock.at += YEAR_MS
      const { access, host } = other.repository
      const report = await check(access, host, { workers: 0, clock: other.clock })
      assert.deepEqual(codesOf(report), ['clock.backward'])
      assert.deepEqual(await lostFiles(other.repository, other.repository), new Set())
    } finally {
      dropRepository(other.repository)
    }
    const { begun, completed } = payloadOf(shop.repository, nameAt(-1))
    await assertCodes(await resign({ begun: completed, completed: begun }), ['clock.backward'])
    await assertCodes(await resign({ begun: '2030-01-01T00:00:00Z', completed: '2030-01-02T00:00:00Z' }), [
      'clock.backward',
      'clock.future',
    ])
    // What corrects a clock all the time is no finding; the parent of the last is the one before it.
    const parentEnded = Date.parse(payloadOf(shop.repository, nameAt(-2)).completed)
    await assertCodes(await resign({ begun: formatTime(parentEnded - 1500) }), [])
    await assertCodes(await resign({ begun: formatTime(parentEnded - 10_000) }), ['clock.backward'])
    await assertCodes(await resign({ completed: formatTime(Date.parse(begun) - 1500) }), [])
    await assertCodes(await resign({ completed: formatTime(Date.parse(begun) - 10_000) }), ['clock.backward'])
    const early = await run(copyOf(), shop.clock.at - YEAR_MS)
    assert.deepEqual(codesOf(early), ['clock.future'])
  })

  test('holds each kind to its rules', async () => {
    const payloads = names.map((name) => payloadOf(shop.repository, name))
    const [full, incremental, second, differential, later, last] = payloads
    assert(full && incremental && second && differential && later && last)
    const broken: [at: number, fields: Partial<Snapshot>][] = [
      [-2, { lineage: [...full.lineage, ...later.lineage] }],
      [-1, { lineage: last.lineage.toReversed() }],
      [-1, { lineage: [...incremental.lineage, ...last.lineage] }],
      [-1, { parent: last.id }],
      [-1, { full: full.id }],
      [-1, { kind: 'differential', lineage: [...full.lineage, ...last.lineage] }],
      [
        -1,
        { lineage: last.lineage.map((set, at) => (at === 0 ? { ...set, runs: set.runs.slice(1) } : set)) },
      ],
    ]
    for (const [at, fields] of broken) {
      const codes = codesOf(await run(await resign(fields, at)))
      assert(codes.includes('snapshot.rule'), JSON.stringify(fields))
    }
  })

  test('does not trust what a revoked writer completed later', async () => {
    const repository = copyOf()
    const { kit, access } = repository
    const revoked = payloadOf(repository, nameAt(2)).completed
    const owner = {
      store: access.store,
      kit,
      clock: { ...shop.clock, now: () => Date.parse(revoked) },
    }
    await revokeWriter(owner, writingDomain(access).id)
    const reopened = { ...repository, access: await openRepository(access.store, kit) }
    const report = await run(reopened)
    const late = names.filter((name) => payloadOf(repository, name).completed > revoked)
    assert.equal(late.length, 3)
    assert.deepEqual(codesOf(report), ['snapshot.revoked'])
    assert.deepEqual(new Set(report.findings.map(({ object }) => object)), new Set(late))
  })

  test('leaves a later full wholly readable when everything older is deleted', async () => {
    const repository = copyOf()
    for (const name of names.slice(0, 4)) {
      repository.disk.delete(name)
      for (const { packSet } of payloadOf(shop.repository, name).lineage)
        for (const object of objectsOf(repository, `/index/${packSet}/`)) repository.disk.delete(object)
    }
    const orphans = await run(repository)
    assert.equal(orphans.errors, 0)
    const kept = new Set<string>()
    for (const name of names.slice(4))
      for (const { packSet } of payloadOf(repository, name).lineage) kept.add(packSet)
    for (const name of objectsOf(repository, '/packs/').concat(objectsOf(repository, '/meta/'))) {
      const bytes = repository.disk.get(name)?.bytes ?? Buffer.alloc(256)
      if (!kept.has(bytes.toString('hex', bytes.length - 216, bytes.length - 200)))
        repository.disk.delete(name)
    }
    await assertCodes(repository, ['stream.gap'])
    const host = openHostFolder(`${repository.host.path}-oracle`, repository.kit.repository)
    assert.deepEqual(await lostFiles(repository, { host }), new Set())
  })
})
