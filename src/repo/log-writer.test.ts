import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { Failure, isFailure } from '../base/failure.ts'
import { LOG_FRAME_BYTES } from '../format/log-header.ts'
import { hostileStore } from '../../test/harness/hostile-store.ts'
import {
  collect,
  logClock,
  makeLogWorld,
  mergeTails,
  newShipper,
  nextPiece,
  shipPiece,
  streamBytes,
} from '../../test/harness/logs.ts'
import { revokeWriter, rotateEpoch } from './key-changes.ts'
import { openRepository } from './keys.ts'
import { readLog, readNotes } from './log-reader.ts'
import { segmentAt } from './log-table.ts'
import { coveredTails, deleteTails, openLogWriter, putLog } from './log-writer.ts'
import { listLogs } from './logs.ts'

const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)
const first = { from: 0x100n, to: 0x900n }

test('putLog() puts once, and the same sealed piece again', async () => {
  const { writer, disk } = await makeLogWorld()
  const sealed = nextPiece(newShipper(writer), 'tail', first)
  assert.equal(await putLog(writer, sealed), 'created')
  assert.equal(await putLog(writer, sealed), 'identical')
  assert.ok(disk.get(sealed.header.name)!.bytes.equals(sealed.bytes))
})

test('putLog() refuses another piece of the same name loudly, and leaves the first', async () => {
  const { writer, disk } = await makeLogWorld()
  const shipper = newShipper(writer)
  const [one, other] = [nextPiece(shipper, 'tail', first), nextPiece(shipper, 'tail', first)]
  await putLog(writer, one)
  await assert.rejects(putLog(writer, other), fails('storage.exists'))
  assert.ok(disk.get(one.header.name)!.bytes.equals(one.bytes))
})

test('putLog() that lost its answer is done when it is tried again', async () => {
  const { writer, store } = await makeLogWorld()
  const hostile = hostileStore(store, {
    rules: [{ on: 'put', times: 1, trick: { kind: 'lose-answer' } }],
  })
  const sealed = nextPiece(newShipper(writer), 'tail', first)
  const through = { ...writer, store: hostile }
  await assert.rejects(putLog(through, sealed), fails('storage.offline'))
  assert.equal(await putLog(through, sealed), 'identical')
})

test('sealLog() refuses what no reader takes, and pieces of another domain', async () => {
  const { writer } = await makeLogWorld()
  const shipper = newShipper(writer)
  const place = { ...nextPiece(shipper, 'tail', first).header.place, domain: 'ff'.repeat(8) }
  assert.throws(() => nextPiece(shipper, 'tail', first, { place }), /own domain/)
  const huge = { body: Buffer.alloc(64 * LOG_FRAME_BYTES + 1) }
  assert.throws(() => nextPiece(shipper, 'tail', first, huge), /log object/)
  const notes = Buffer.alloc(4 * LOG_FRAME_BYTES + 1)
  assert.throws(() => nextPiece(shipper, 'tail', first, { notes }), /notes/)
})

test('a writer credential ships and merges, lists, and reads nothing back', async () => {
  const { writer, access, owner } = await makeLogWorld()
  const shipper = newShipper(writer)
  await shipPiece(shipper, 'tail', first)
  await shipPiece(shipper, 'tail', { from: 0x900n, to: 0xa00n })
  assert.deepEqual(await mergeTails(shipper), { deleted: 2, kept: 0 })
  const { branches, findings } = await listLogs(access)
  assert.deepEqual(findings, [])
  assert.equal(branches[0]!.count, 1)
  const wanted = { from: 0x100n, to: 0xa00n }
  await assert.rejects(collect(readLog(access, branches[0]!, wanted)), fails('key.role'))
  await assert.rejects(readNotes(access, segmentAt(branches[0]!, 0)), fails('key.role'))
  const read = Buffer.concat(await collect(readLog(owner, branches[0]!, wanted)))
  assert.ok(read.equals(streamBytes(wanted.from, wanted.to)))
})

test('openLogWriter() refuses who was revoked, and who signs nothing', async () => {
  const { store, kit, credential, owner } = await makeLogWorld()
  await openLogWriter(owner)
  await revokeWriter({ store, kit, clock: logClock }, credential.domain)
  await assert.rejects(openRepository(store, credential), fails('key.revoked'))
  const { authoritySeed: _, ...identity } = kit
  const access = await openRepository(store, { ...identity, authoritySeed: undefined })
  await assert.rejects(openLogWriter(access), fails('key.missing'))
})

test('a log goes on in a new epoch, and is read across both', async () => {
  const { store, kit, credential } = await makeLogWorld()
  const owner = { store, kit, clock: logClock }
  const old = await openLogWriter(await openRepository(store, kit))
  const shipper = newShipper(old)
  await shipPiece(shipper, 'segment', first)
  await rotateEpoch(owner, old.domain)
  const access = await openRepository(store, kit)
  const writer = await openLogWriter(access)
  assert.deepEqual([old.epoch, writer.epoch], [1, 2])
  assert.notEqual(old.domain, credential.domain)
  await shipPiece({ ...shipper, writer }, 'segment', { from: 0x900n, to: 0xa00n })
  const { branches, findings } = await listLogs(access)
  assert.deepEqual(findings, [])
  const read = Buffer.concat(await collect(readLog(access, branches[0]!, { from: 0x100n, to: 0xa00n })))
  assert.ok(read.equals(streamBytes(0x100n, 0xa00n)))
})

test('deleteTails() deletes nothing unless the segment is in the store as it was put', async () => {
  const { writer, store, disk } = await makeLogWorld()
  const shipper = newShipper(writer)
  const tail = await shipPiece(shipper, 'tail', first)
  const whole = nextPiece(shipper, 'segment', first)
  const merge = () => deleteTails(writer, [tail.header], [whole.header])
  await assert.rejects(merge(), fails('repo.corrupt'))
  await store.put(whole.header.name, whole.bytes.subarray(1))
  await assert.rejects(merge(), fails('repo.corrupt'))
  assert.ok(disk.has(tail.header.name))
  await store.delete(whole.header.name)
  await putLog(writer, whole)
  assert.deepEqual(await merge(), { deleted: 1, kept: 0 })
  assert.deepEqual(await merge(), { deleted: 1, kept: 0 }, 'again, after a lost answer')
})

test('deleteTails() stops at a tail that reaches beyond the segments', async () => {
  const { writer, disk } = await makeLogWorld()
  const shipper = newShipper(writer)
  const tail = await shipPiece(shipper, 'tail', { from: 0x100n, to: 0x901n })
  const whole = await shipPiece(shipper, 'segment', first)
  await assert.rejects(deleteTails(writer, [tail.header], [whole.header]), /Bug: only tails that whole/)
  await assert.rejects(deleteTails(writer, [whole.header], [whole.header]), /Bug: only own tails/)
  assert.ok(disk.has(tail.header.name))
})

test('coveredTails() finds what a shipper that died has to delete, and only its own', async () => {
  const { writer, access } = await makeLogWorld()
  const [shipper, other] = [newShipper(writer), newShipper(writer, { shipper: 'ff'.repeat(8) })]
  for (let at = 0n; at < 6n; at++) await shipPiece(shipper, 'tail', { from: at * 10n, to: at * 10n + 10n })
  await shipPiece(shipper, 'tail', { from: 10n, to: 10n })
  await shipPiece(other, 'tail', { from: 10n, to: 20n })
  await shipPiece(other, 'segment', { from: 40n, to: 50n })
  for (const [from, to] of [
    [0n, 15n],
    [15n, 32n],
  ] as const)
    await shipPiece(shipper, 'segment', { from, to })
  const { branches } = await listLogs(access)
  const { tails, whole } = coveredTails(branches[0]!, shipper.shipper)
  assert.deepEqual(
    tails.map(({ place }) => place.seq),
    [1, 2, 3],
  )
  assert.equal(whole.length, 2)
  assert.deepEqual(await deleteTails(writer, tails, whole), { deleted: 3, kept: 0 })
})

test('a store that forbids to delete keeps the tails, and readers take either', async () => {
  const { writer, store, owner } = await makeLogWorld()
  const denied = {
    ...store,
    delete: () => Promise.reject(new Failure('storage.denied', 'Cannot delete: locked')),
  }
  const shipper = newShipper({ ...writer, store: denied })
  for (let at = 0n; at < 5n; at++) await shipPiece(shipper, 'tail', { from: at * 100n, to: at * 100n + 100n })
  assert.deepEqual(await mergeTails(shipper), { deleted: 0, kept: 5 })
  const { branches, findings } = await listLogs(owner)
  assert.deepEqual(findings, [])
  assert.equal(branches[0]!.count, 6)
  const read = Buffer.concat(await collect(readLog(owner, branches[0]!, { from: 50n, to: 450n })))
  assert.ok(read.equals(streamBytes(50n, 450n)))
})
