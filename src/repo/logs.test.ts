import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../base/failure.ts'
import { hostileStore } from '../../test/harness/hostile-store.ts'
import {
  LOG_BRANCH,
  logClock,
  makeLogWorld,
  mergeTails,
  newShipper,
  nextPiece,
  shipPiece,
} from '../../test/harness/logs.ts'
import type { LogWorld } from '../../test/harness/logs.ts'
import { addWriter, revokeWriter } from './key-changes.ts'
import { openRepository } from './keys.ts'
import type { LogFinding } from './log-findings.ts'
import { coverage } from './log-coverage.ts'
import { rangesOf, segmentsOf } from './log-table.ts'
import { openLogWriter, putLog } from './log-writer.ts'
import { listLogs, type LogList } from './logs.ts'

const other = 'ff'.repeat(8)
const codes = ({ findings }: { findings: readonly LogFinding[] }): string[] =>
  findings.map(({ code }) => code)
const span = (from: number, to: number) => ({ from: BigInt(from), to: BigInt(to) })

function listed({ branches }: LogList): string[] {
  return branches.flatMap((table) =>
    [...segmentsOf(table)].map(({ place, from, to }) => `${place.kind} ${place.seq}: ${from}-${to}`),
  )
}

function damage(world: LogWorld, name: string): void {
  const blob = world.disk.get(name)!
  world.disk.set(name, {
    ...blob,
    bytes: Buffer.from(blob.bytes.map((byte, at) => (at === 200 ? byte ^ 1 : byte))),
  })
}

test('listLogs() gives the headers of every branch by position, segments before tails', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  await shipPiece(shipper, 'tail', span(0, 10))
  await shipPiece(shipper, 'tail', span(10, 30))
  await shipPiece(shipper, 'segment', span(0, 30))
  await shipPiece(shipper, 'tail', span(30, 30))
  await shipPiece(newShipper(world.writer, { branch: `${LOG_BRANCH}b` }), 'tail', span(25, 40))
  const list = await listLogs(world.access)
  assert.deepEqual(listed(list), [
    'segment 1: 0-30',
    'tail 1: 0-10',
    'tail 2: 10-30',
    'tail 3: 30-30',
    'tail 1: 25-40',
  ])
  assert.deepEqual([list.findings, list.leftOut, list.files], [[], 0, []])
  const [segment] = segmentsOf(list.branches[0]!)
  const { header } = shipper.segments[0]!
  const { place, begun, completed, bytes, bodyAt, epoch, sha256 } = header
  assert.deepEqual(
    { ...segment, previousHalf: '', contentHalf: '' },
    {
      place,
      begun,
      completed,
      bytes,
      bodyAt,
      epoch,
      sha256,
      from: 0n,
      to: 30n,
      previousHalf: '',
      contentHalf: '',
    },
  )
})

test('listLogs() keeps to its scope', async () => {
  const world = await makeLogWorld()
  await shipPiece(newShipper(world.writer), 'tail', span(0, 1))
  await shipPiece(newShipper(world.writer, { branch: 'b' }), 'tail', span(0, 1))
  const { domain } = world.writer
  const count = async (scope: object) => (await listLogs(world.access, scope)).branches.length
  assert.equal(await count({ domain }), 2)
  assert.equal(await count({ domain: other }), 0)
  assert.equal(await count({ source: 'orders' }), 2)
  assert.equal(await count({ source: 'order' }), 0)
  assert.equal(await count({ source: 'orders', branch: 'b' }), 1)
})

test('listLogs() finds gaps between positions, not where it begins or ends', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  for (const [from, to] of [
    [100, 200],
    [200, 300],
    [310, 400],
    [450, 460],
  ])
    await shipPiece(shipper, 'segment', span(from!, to!))
  const list = await listLogs(world.access)
  assert.deepEqual(
    list.findings.map(({ code, range }) => [code, range]),
    [
      ['log.gap', span(300, 310)],
      ['log.gap', span(400, 450)],
    ],
  )
})

test('listLogs() finds missing numbers, also where another shipper covers the positions', async () => {
  const world = await makeLogWorld()
  const [shipper, second] = [newShipper(world.writer), newShipper(world.writer, { shipper: other })]
  for (let at = 0; at < 5; at++) await shipPiece(shipper, 'segment', span(at * 10, at * 10 + 10))
  await world.store.delete(shipper.segments[2]!.header.name)
  assert.deepEqual(codes(await listLogs(world.access)), ['log.gap', 'log.hidden'])
  await shipPiece(second, 'segment', span(20, 30))
  const list = await listLogs(world.access)
  assert.deepEqual(codes(list), ['log.hidden'])
  assert.match(list.findings[0]!.message, /number 3 of shipper 00112233445566aa .* not there/)
})

test('listLogs() does not miss tails that were deleted after they were merged', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  for (let at = 0; at < 3; at++) await shipPiece(shipper, 'tail', span(at * 10, at * 10 + 10))
  await mergeTails(shipper)
  await shipPiece(shipper, 'tail', span(30, 40))
  const list = await listLogs(world.access)
  assert.deepEqual([listed(list), codes(list)], [['segment 1: 0-30', 'tail 4: 30-40'], []])
})

test('listLogs() finds a segment that was replaced by another genuine one', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  const first = nextPiece(shipper, 'segment', span(0, 10))
  await shipPiece(shipper, 'segment', span(0, 10))
  await shipPiece(shipper, 'segment', span(10, 20))
  await world.store.delete(first.header.name)
  await putLog(world.writer, first)
  const list = await listLogs(world.access)
  assert.deepEqual(codes(list), ['log.hidden'])
  assert.match(list.findings[0]!.message, /does not follow number 1/)
})

test('listLogs() tells copies of the same bytes from copies that differ, and finds overlaps', async () => {
  const world = await makeLogWorld()
  const [shipper, second] = [newShipper(world.writer), newShipper(world.writer, { shipper: other })]
  await shipPiece(shipper, 'segment', span(0, 10))
  await shipPiece(second, 'segment', span(0, 10))
  assert.deepEqual(codes(await listLogs(world.access)), [])
  await shipPiece(shipper, 'segment', span(10, 20))
  const fork = nextPiece(second, 'segment', span(10, 20), { body: Buffer.from('0123456789') })
  await putLog(world.writer, fork)
  assert.deepEqual(codes(await listLogs(world.access)), ['log.conflict'])
  await world.store.delete(fork.header.name)
  await shipPiece(second, 'segment', span(15, 30))
  const list = await listLogs(world.access)
  assert.deepEqual(
    list.findings.map(({ code, range }) => [code, range]),
    [['log.overlap', span(15, 20)]],
  )
})

test('listLogs() puts damaged, cut, exchanged and unknown objects beside the list', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  for (let at = 0; at < 4; at++) await shipPiece(shipper, 'tail', span(at * 10, at * 10 + 10))
  const [first, second, third] = shipper.tails.map(({ header }) => header.name)
  damage(world, first!)
  world.disk.set(second!, { bytes: Buffer.from(shipper.tails[1]!.bytes.subarray(0, -1)), modified: 0 })
  world.disk.set(third!, { bytes: Buffer.from(shipper.tails[3]!.bytes), modified: 0 })
  await world.store.put(`d/${world.writer.domain}/logs/orders/junk`, Buffer.from('x'))
  await world.store.put(`${first!.replace(/\d+$/, '')}000000000009`, Buffer.alloc(0))
  const list = await listLogs(world.access)
  assert.deepEqual(listed(list), ['tail 4: 30-40'])
  assert.deepEqual(codes(list).toSorted(), [
    'log.corrupt',
    'log.corrupt',
    'log.corrupt',
    'log.forged',
    'log.unknown',
  ])
})

test('listLogs() refuses what another writer signed, and objects of another repository', async () => {
  const world = await makeLogWorld()
  const owner = { store: world.store, kit: world.kit, clock: logClock }
  const { writer: credential } = await addWriter(owner, 'web-2', () => Promise.resolve())
  const foreign = await openLogWriter(await openRepository(world.store, credential))
  const { domain } = world.writer
  const stolen = nextPiece(newShipper({ ...foreign, domain }), 'tail', span(0, 10))
  await putLog(world.writer, stolen)
  const elsewhere = await makeLogWorld()
  const piece = nextPiece(
    newShipper({ ...elsewhere.writer, domain }, { shipper: other }),
    'tail',
    span(10, 20),
  )
  await putLog(world.writer, piece)
  const list = await listLogs(await openRepository(world.store, world.kit))
  assert.deepEqual([listed(list), codes(list).toSorted()], [[], ['log.foreign', 'log.forged']])
})

test('listLogs() refuses what a writer completed after it was revoked, also from what is known', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  await shipPiece(shipper, 'tail', span(0, 10))
  const late = { begun: logClock.now() + 10, completed: logClock.now() + 20 }
  await putLog(world.writer, nextPiece(shipper, 'tail', span(10, 20), late))
  const before = await listLogs(world.access)
  assert.deepEqual(listed(before), ['tail 1: 0-10', 'tail 2: 10-20'])
  const owner = { store: world.store, kit: world.kit, clock: logClock }
  await revokeWriter(owner, world.writer.domain)
  const access = await openRepository(world.store, world.kit)
  for (const known of [undefined, () => before.branches[0]]) {
    const list = await listLogs(access, known === undefined ? {} : { known })
    assert.deepEqual([listed(list), codes(list)], [['tail 1: 0-10'], ['log.revoked']])
  }
})

test('listLogs() says which branches are not of the source', async () => {
  const world = await makeLogWorld()
  await shipPiece(newShipper(world.writer), 'tail', span(0, 10))
  await shipPiece(newShipper(world.writer, { branch: '99-00000001' }), 'tail', span(0, 10))
  const isOwnBranch = ({ branch }: { branch: string }) => branch.startsWith('7531234567890123456-')
  assert.deepEqual(codes(await listLogs(world.access, { isOwnBranch })), ['log.branch'])
})

test('listLogs() reads no header that it knows, and those that changed', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  for (let at = 0; at < 20; at++)
    await shipPiece(shipper, at % 3 === 0 ? 'segment' : 'tail', span(at * 10, at * 10 + 10))
  let reads = 0
  const store: typeof world.store = {
    ...world.store,
    get(name, options) {
      reads++
      return world.store.get(name, options)
    },
  }
  const access = { ...world.access, store }
  const first = await listLogs(access)
  assert.equal(reads, 20)
  await shipPiece(shipper, 'tail', span(200, 210))
  const second = await listLogs(access, { known: () => first.branches[0] })
  assert.equal(reads, 21)
  assert.deepEqual(second, await listLogs(access))
})

test('listLogs() lists again when a merge is under way', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  for (let at = 0; at < 3; at++) await shipPiece(shipper, 'tail', span(at * 10, at * 10 + 10))
  let isMerged = false
  const store: typeof world.store = {
    ...world.store,
    async get(name, options) {
      if (!isMerged) {
        isMerged = true
        await mergeTails(shipper)
      }
      return await world.store.get(name, options)
    },
  }
  const list = await listLogs({ ...world.access, store })
  assert.deepEqual([listed(list), codes(list)], [['segment 1: 0-30'], []])
})

test('listLogs() fails when the store does not answer, and says what the store cannot hand out', async () => {
  const world = await makeLogWorld()
  await shipPiece(newShipper(world.writer), 'tail', span(0, 10))
  const store = hostileStore(world.store, {
    rules: [{ on: 'get', trick: { kind: 'fail', code: 'storage.offline' } }],
  })
  await assert.rejects(listLogs({ ...world.access, store }), (error) => isFailure(error, 'storage.offline'))
  const signal = AbortSignal.abort()
  await assert.rejects(listLogs(world.access, { signal }), (error) => isFailure(error, 'cancelled'))
})

test('what listLogs() covers is what was put and can be read (property)', async () => {
  const lengths = fc.array(fc.tuple(fc.integer({ min: 1, max: 50 }), fc.boolean(), fc.nat(4)), {
    minLength: 1,
    maxLength: 12,
  })
  await fc.assert(
    fc.asyncProperty(lengths, async (pieces) => {
      const world = await makeLogWorld()
      const shipper = newShipper(world.writer)
      const kept: { from: bigint; to: bigint }[] = []
      let at = 0
      for (const [length, isTail, fate] of pieces) {
        const sealed = await shipPiece(shipper, isTail ? 'tail' : 'segment', span(at, at + length))
        if (fate === 0) await world.store.delete(sealed.header.name)
        else if (fate === 1) damage(world, sealed.header.name)
        else kept.push(span(at, at + length))
        at += length
      }
      const { branches, findings } = await listLogs(world.access)
      assert.deepEqual(
        branches.flatMap((table) => coverage(rangesOf(table))),
        coverage(kept),
      )
      const gaps = findings.filter(({ code }) => code === 'log.gap').length
      assert.equal(gaps, Math.max(0, coverage(kept).length - 1))
    }),
    { numRuns: 30 },
  )
})
