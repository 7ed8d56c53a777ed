import { strict as assert } from 'node:assert'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Failure, isFailure } from '../base/failure.ts'
import { openHostFolder } from '../repo/host-folder.ts'
import { revokeWriter } from '../repo/key-changes.ts'
import { domainKeys, openRepository, type Access } from '../repo/keys.ts'
import { openLogWriter, putLog } from '../repo/log-writer.ts'
import {
  logClock,
  makeLogWorld,
  mergeTails,
  newShipper,
  nextPiece,
  shipPiece,
} from '../../test/harness/logs.ts'
import type { LogWorld } from '../../test/harness/logs.ts'
import { check } from './check.ts'
import { newFindings, type Finding } from './check-findings.ts'
import { checkLogs } from './check-logs.ts'

const span = (from: number, to: number) => ({ from: BigInt(from), to: BigInt(to) })
const other = 'ff'.repeat(8)

async function found(world: LogWorld, readData = 0, access: Access = world.owner): Promise<Finding[]> {
  const findings = newFindings()
  const { domain } = world.writer
  const domains = new Map([[domain, await domainKeys(access, domain)]])
  await checkLogs({ findings, access, domains, readData, now: 0, signal: undefined })
  return findings.list
}

const rows = (findings: readonly Finding[]) => findings.map(({ code, severity }) => `${code} ${severity}`)

function damage(world: LogWorld, name: string, at: number): void {
  const blob = world.disk.get(name)!
  const bytes = Buffer.from(blob.bytes)
  bytes[at]! ^= 1
  world.disk.set(name, { ...blob, bytes })
}

async function shipped(): Promise<{ world: LogWorld; shipper: ReturnType<typeof newShipper> }> {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  for (let at = 0; at < 3; at++) await shipPiece(shipper, 'tail', span(at * 10, at * 10 + 10))
  await mergeTails(shipper)
  for (let at = 3; at < 5; at++) await shipPiece(shipper, 'segment', span(at * 10, at * 10 + 10))
  await shipPiece(shipper, 'tail', span(50, 60))
  return { world, shipper }
}

test('check() finds nothing in a sound log, with every credential, also when it reads data', async () => {
  const { world } = await shipped()
  const folder = mkdtempSync(join(tmpdir(), 'backstock-check-logs-'))
  try {
    const host = openHostFolder(folder, world.kit.repository)
    for (const access of [await openRepository(world.store, world.kit), world.access]) {
      const report = await check(access, host, { workers: 0, clock: logClock, readData: 100 })
      const loud = report.findings.filter(({ severity }) => severity !== 'info')
      assert.deepEqual(loud, [])
    }
    damage(
      world,
      [...world.disk.keys()].findLast((name) => name.includes('/tail/'))!,
      300,
    )
    const report = await check(world.owner, host, { workers: 0, clock: logClock })
    assert.deepEqual(rows(report.findings), ['log.corrupt error'])
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('checkLogs() finds log.gap and log.hidden', async () => {
  const { world, shipper } = await shipped()
  await world.store.delete(shipper.segments[1]!.header.name)
  const findings = await found(world)
  assert.deepEqual(rows(findings), ['log.gap error', 'log.hidden error'])
  assert.match(findings[0]!.message, /positions 1e–28 are missing/)
})

test('checkLogs() finds log.conflict and log.overlap', async () => {
  const { world } = await shipped()
  const second = newShipper(world.writer, { shipper: other })
  await putLog(world.writer, nextPiece(second, 'segment', span(30, 40), { body: Buffer.from('0123456789') }))
  assert.deepEqual(rows(await found(world)), ['log.conflict error'])
  const third = newShipper(world.writer, { shipper: 'ee'.repeat(8) })
  await putLog(world.writer, nextPiece(third, 'segment', span(35, 45)))
  assert.ok(rows(await found(world)).includes('log.overlap info'))
})

test('checkLogs() finds log.forged, log.foreign, log.newer and unknown names', async () => {
  const { world, shipper } = await shipped()
  const { domain } = world.writer
  const elsewhere = await makeLogWorld()
  const foreign = newShipper({ ...elsewhere.writer, domain }, { shipper: other })
  await putLog(world.writer, nextPiece(foreign, 'tail', span(60, 70)))
  const kit = await openLogWriter(world.owner)
  const forged = newShipper({ ...kit, domain }, { shipper: 'ee'.repeat(8) })
  await putLog(world.writer, nextPiece(forged, 'tail', span(60, 70)))
  await world.store.put(`d/${domain}/logs/orders/junk`, Buffer.from('x'))
  const { bytes, header } = nextPiece(shipper, 'tail', span(60, 70))
  await world.store.put(
    header.name,
    Buffer.from(Buffer.from(bytes).toString('latin1').replace('backstock 1', 'backstock 2'), 'latin1'),
  )
  assert.deepEqual(rows(await found(world)).toSorted(), [
    'log.foreign error',
    'log.forged error',
    'log.newer error',
    'object.unknown warning',
  ])
})

test('checkLogs() finds log.revoked', async () => {
  const { world, shipper } = await shipped()
  const late = { begun: logClock.now() + 10, completed: logClock.now() + 20 }
  await putLog(world.writer, nextPiece(shipper, 'tail', span(60, 70), late))
  await revokeWriter({ store: world.store, kit: world.kit, clock: logClock }, world.writer.domain)
  assert.deepEqual(rows(await found(world, 0, await openRepository(world.store, world.kit))), [
    'log.revoked error',
  ])
})

test('checkLogs() tells an object that the store cannot hand out from a damaged one', async () => {
  const { world } = await shipped()
  const store: typeof world.store = {
    ...world.store,
    get(name, options) {
      if (!name.includes('/tail/')) return world.store.get(name, options)
      return Promise.reject(new Failure('storage.offline', 'Cannot read it', { facts: { errno: 'EIO' } }))
    },
  }
  assert.deepEqual(rows(await found(world, 0, { ...world.owner, store })), ['object.unreadable error'])
})

test('checkLogs() that reads data finds damaged bodies with any credential, and what they cost', async () => {
  const { world, shipper } = await shipped()
  const { name, bodyAt } = shipper.segments[0]!.header
  damage(world, name, bodyAt + 3)
  assert.deepEqual(await found(world, 0), [])
  for (const access of [world.owner, world.access]) {
    const findings = await found(world, 100, access)
    assert.deepEqual(rows(findings), ['log.corrupt error'])
    assert.match(findings[0]!.message, /positions 0–1e of "orders" \(.*\) are lost/)
  }
  await shipPiece(newShipper(world.writer, { shipper: other }), 'segment', span(0, 30))
  const findings = await found(world, 100)
  assert.deepEqual(rows(findings), ['log.corrupt warning'])
})

test('checkLogs() reads files beside a stream too', async () => {
  const { world, shipper } = await shipped()
  const { domain, source, branch } = shipper.segments[0]!.header.place
  const place = { domain, source, branch, kind: 'file', file: '00000002.history' } as const
  const sealed = nextPiece(shipper, 'tail', span(0, 0), { place, body: Buffer.from('1'), previous: null })
  await putLog(world.writer, sealed)
  assert.deepEqual(await found(world, 100), [])
  damage(world, sealed.header.name, sealed.bytes.length - 1)
  assert.deepEqual(rows(await found(world, 100)), ['log.corrupt error'])
})

test('checkLogs() finds a body that is not what its writer said', async () => {
  const { world, shipper } = await shipped()
  const liar = newShipper({ ...world.writer, idKey: Buffer.alloc(32) }, { shipper: other })
  await putLog(world.writer, nextPiece(liar, 'tail', span(60, 70)))
  assert.equal(shipper.tails.length, 1)
  assert.deepEqual(rows(await found(world, 100)), ['log.corrupt error'])
  assert.deepEqual(rows(await found(world, 100, world.access)), [])
})

test('checkLogs() reads all bodies in time when it reads a part each day', async () => {
  const { world } = await shipped()
  const reads = new Map<string, number>()
  const store: typeof world.store = {
    ...world.store,
    get(name, options) {
      if (name.includes('/logs/')) reads.set(name, (reads.get(name) ?? 0) + 1)
      return world.store.get(name, options)
    },
  }
  const access = { ...world.owner, store }
  const domains = new Map([[world.writer.domain, await domainKeys(access, world.writer.domain)]])
  for (let day = 0; day < 4; day++) {
    const now = day * 86_400_000
    await checkLogs({ findings: newFindings(), access, domains, readData: 25, now, signal: undefined })
  }
  // Each day the header, and on one of them the whole object.
  assert.deepEqual([...reads.values()], [5, 5, 5, 5])
  const signal = AbortSignal.abort()
  const stopped = checkLogs({ findings: newFindings(), access, domains, readData: 100, now: 0, signal })
  await assert.rejects(stopped, (error) => isFailure(error, 'cancelled'))
})
