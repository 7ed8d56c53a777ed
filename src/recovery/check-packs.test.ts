/** Findings about packs and runs, what they cost exactly, and the coverage of data that is read in parts. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { crc32 } from 'node:zlib'
import { DEFAULT_CHUNKING } from '../format/config.ts'
import { openHostFolder, readHostState } from '../repo/host-folder.ts'
import { check, type CheckOptions, type CheckReport } from './check.ts'
import type { FindingCode } from './check-findings.ts'
import {
  dropRepository,
  makeRepository,
  snapshotsOf,
  type TestRepository,
} from '../../test/harness/engine.ts'
import {
  backUpShop,
  lostFiles,
  makeShop,
  namedFiles,
  outermost,
  type TestShop,
} from '../../test/harness/lost-files.ts'
import { change, flip, freshCopy, objectsOf, payloadOf, plantChunks } from '../../test/harness/tampering.ts'

const FOOTER_BYTES = 256

let shop: TestShop
let ids: string[]
let copies = 0

before(async () => {
  shop = await makeShop()
  ids = await backUpShop(shop, ['full', 'incremental', 'incremental', 'full'])
})

after(() => {
  dropRepository(shop.repository)
})

function copyOf(): TestRepository {
  return freshCopy(shop.repository, `copy-${copies++}`)
}

async function run(repository: TestRepository, options: Partial<CheckOptions> = {}): Promise<CheckReport> {
  return await check(repository.access, repository.host, { workers: 0, clock: shop.clock, ...options })
}

function errorsOf(report: CheckReport): FindingCode[] {
  return report.findings.filter(({ severity }) => severity === 'error').map(({ code }) => code)
}

async function assertExact(repository: TestRepository, report: CheckReport): Promise<string[]> {
  const host = openHostFolder(`${repository.host.path}-oracle`, repository.kit.repository)
  const lost = outermost(await lostFiles(repository, { host }))
  assert.deepEqual(outermost(namedFiles(report.findings, await snapshotsOf(repository))), lost)
  return lost
}

/** Packs of one snapshot's own set. */
function packsOf(repository: TestRepository, at: number): string[] {
  const { packSet } = payloadOf(repository, objectsOf(repository, '/snapshots/')[at] ?? '')
  return [...objectsOf(repository, '/packs/'), ...objectsOf(repository, '/meta/')].filter((name) => {
    const bytes = repository.disk.get(name)?.bytes ?? Buffer.alloc(FOOTER_BYTES)
    return bytes.toString('hex', bytes.length - 216, bytes.length - 200) === packSet
  })
}

/** Changes footer fields so that its checksum fits. */
function refoot(bytes: Buffer, to: (footer: Buffer) => void): Buffer {
  const footer = bytes.subarray(bytes.length - FOOTER_BYTES)
  to(footer)
  footer.writeUInt32LE(crc32(footer.subarray(0, 248)), 248)
  return bytes
}

describe('checkPacks()', () => {
  test('says which restore points die with a pack set, and no others', async () => {
    const repository = copyOf()
    for (const name of packsOf(repository, 1)) repository.disk.delete(name)
    const report = await run(repository)
    const lost = await assertExact(repository, report)
    assert(lost.length > 0)
    const finding = report.findings.find(({ code }) => code === 'set.lost')
    assert.deepEqual(finding?.snapshots, [ids[1], ids[2]])
    assert.equal(report.findings.filter(({ code }) => code === 'pack.missing').length, 0)
    assert(lost.includes(`${ids[1]} /`))
    assert(!lost.some((each) => each.startsWith(`${ids[0]} `) || each.startsWith(`${ids[3]} `)))
  })

  test('names files by damaged frames, not by whole packs', async () => {
    const large = await makeShop({ chunking: DEFAULT_CHUNKING })
    await backUpShop(large, ['full', 'incremental'])
    const parts = new Set<number>()
    for (const name of objectsOf(large.repository, '/packs/').concat(objectsOf(large.repository, '/meta/'))) {
      const bytes = large.repository.disk.get(name)?.bytes.length ?? 0
      for (const at of [0.1, 0.4, 0.7]) {
        const repository = freshCopy(large.repository, `frames-${copies++}`)
        change(repository, name, (whole) => flip(whole, Math.floor(bytes * at)))
        const report = await run(repository, { readData: 100, workers: 1 })
        assert(report.errors + report.warnings > 0)
        const lost = await assertExact(repository, report)
        if (name.includes('/packs/')) parts.add(lost.length)
      }
    }
    assert(parts.size > 1, 'frames of one pack hold different files')
    dropRepository(large.repository)
  })

  test('tells packs of others, of newer programs and of wrong length apart', async () => {
    const names = objectsOf(shop.repository, '/packs/')
    const name = names[0] ?? ''
    const cases: [FindingCode, (bytes: Buffer) => Buffer][] = [
      ['pack.foreign', (bytes) => refoot(bytes, (footer) => footer.fill(7, 16, 32))],
      ['pack.newer', (bytes) => refoot(bytes, (footer) => footer.writeUInt16LE(2, 8))],
      ['pack.corrupt', (bytes) => refoot(bytes, (footer) => footer.writeUInt32LE(99, 12))],
      ['pack.corrupt', (bytes) => refoot(bytes, (footer) => footer.writeUInt8(2, 11))],
      ['pack.size', (bytes) => bytes.subarray(0, bytes.length - 1)],
    ]
    for (const [code, to] of cases) {
      const repository = copyOf()
      change(repository, name, to)
      const report = await run(repository)
      assert.deepEqual(errorsOf(report), [code])
      await assertExact(repository, report)
    }
    const missing = copyOf()
    missing.disk.delete(name)
    assert.deepEqual(errorsOf(await run(missing)), ['pack.missing'])
    const foreign = await makeRepository()
    const other = copyOf()
    const planted = await plantChunks(foreign, 'data', [{ kind: 'data', bytes: Buffer.from('not ours') }])
    const [stranger = ''] = objectsOf(foreign, planted.pack)
    const bytes = foreign.disk.get(stranger)?.bytes ?? Buffer.alloc(0)
    change(other, name, (whole) => padded(bytes, whole.length))
    assert.deepEqual(errorsOf(await run(other)), ['pack.foreign'])
    dropRepository(foreign)
  })

  /** The same pack with room between header and footer, where parity would lie. */
  function padded(bytes: Buffer, length: number): Buffer {
    const at = bytes.length - FOOTER_BYTES
    return Buffer.concat([bytes.subarray(0, at), Buffer.alloc(length - bytes.length), bytes.subarray(at)])
  }

  test('holds the header of a pack against what the index says of it', async () => {
    const repository = copyOf()
    const packs = objectsOf(repository, '/packs/').map((name) => ({
      name,
      bytes: repository.disk.get(name)?.bytes ?? Buffer.alloc(0),
    }))
    packs.sort((a, b) => a.bytes.length - b.bytes.length)
    const [small, large] = [packs[0], packs.at(-1)]
    assert(small && large)
    change(repository, large.name, () => padded(small.bytes, large.bytes.length))
    const report = await run(repository)
    assert.deepEqual(errorsOf(report), ['pack.index'])
    assert((await assertExact(repository, report)).length > 0)
  })

  test('warns of damage that no snapshot needs any more', async () => {
    const repository = copyOf()
    repository.disk.delete(objectsOf(repository, '/snapshots/')[1] ?? '')
    let forgiven = 0
    for (const name of packsOf(shop.repository, 1)) {
      const copy = freshCopy(repository, `unneeded-${copies++}`)
      copy.disk.delete(name)
      const report = await run(copy)
      const finding = report.findings.find(({ code }) => code === 'pack.missing')
      assert.equal(finding?.severity, (finding?.snapshots.length ?? 0) > 0 ? 'error' : 'warning')
      if (finding?.severity === 'warning') forgiven++
      await assertExact(copy, report)
    }
    assert(forgiven > 0)
  })

  test('reads a share of the data, oldest first, and remembers only what is right', async () => {
    const repository = copyOf()
    const [bad = ''] = objectsOf(repository, '/packs/')
    change(repository, bad, (bytes) => flip(bytes, 1000))
    let covered = 0
    for (let round = 0; round < 4; round++) {
      const { coverage } = await run(repository, { readData: 30 })
      assert(coverage.bytesRead >= coverage.bytes * 0.3 && coverage.bytesRead < coverage.bytes * 0.5)
      assert(coverage.packsCovered > covered || covered === coverage.packs - 1)
      covered = coverage.packsCovered
    }
    const { coverage } = await run(repository)
    assert.equal(coverage.packsCovered, coverage.packs - 1)
    assert.equal(coverage.packsRead, 0)
    const { checked } = readHostState(repository.host)
    assert.equal(checked[bad.slice(-64)], undefined)
    const before = coverage.oldest ?? 0
    await run(repository, { readData: 100, workers: 2 })
    assert(
      (readHostState(repository.host).checked[objectsOf(repository, '/packs/')[1]?.slice(-64) ?? ''] ?? 0) >
        before,
    )
  })
})

describe('checkRuns()', () => {
  test('says which snapshots a missing or exchanged run costs', async () => {
    const runs = objectsOf(shop.repository, '/index/')
    for (const name of runs) {
      const missing = copyOf()
      missing.disk.delete(name)
      const report = await run(missing)
      assert(errorsOf(report).includes('run.missing'))
      await assertExact(missing, report)
    }
    const damaged = copyOf()
    change(damaged, runs[0] ?? '', (bytes) => flip(bytes, 200))
    const report = await run(damaged)
    assert.deepEqual(errorsOf(report), ['run.corrupt'])
    await assertExact(damaged, report)
  })

  test('counts what belongs to no snapshot', async () => {
    const repository = copyOf()
    repository.disk.delete(objectsOf(repository, '/snapshots/').at(-1) ?? '')
    const report = await run(repository)
    assert.deepEqual(
      report.findings.map(({ code, severity }) => `${severity} ${code}`),
      ['info run.unlisted', 'info pack.unlisted'],
    )
    assert(report.findings[1]?.message.startsWith(`${packsOf(shop.repository, 3).length} packs`))
  })
})
