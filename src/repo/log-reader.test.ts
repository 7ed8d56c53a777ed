import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../base/failure.ts'
import { LOG_FRAME_BYTES } from '../format/log-header.ts'
import {
  collect,
  makeLogWorld,
  mergeTails,
  newShipper,
  nextPiece,
  shipPiece,
  streamBytes,
} from '../../test/harness/logs.ts'
import type { LogWorld } from '../../test/harness/logs.ts'
import { readLog, readLogFile, readNotes, type BadLogObject } from './log-reader.ts'
import { segmentAt, segmentsOf, type LogTable } from './log-table.ts'
import { putLog } from './log-writer.ts'
import { listLogs } from './logs.ts'

const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)

async function branchOf(world: LogWorld): Promise<LogTable> {
  const { branches } = await listLogs(world.owner)
  assert.equal(branches.length, 1)
  return branches[0]!
}

async function read(world: LogWorld, branch: LogTable, from: bigint, to: bigint, bad: BadLogObject[] = []) {
  const onBad = (each: BadLogObject) => void bad.push(each)
  return Buffer.concat(await collect(readLog(world.owner, branch, { from, to, onBad })))
}

/** Changes one byte of an object where it lies. */
function damage(world: LogWorld, name: string, at: number): void {
  const blob = world.disk.get(name)!
  const bytes = Buffer.from(blob.bytes)
  bytes[at]! ^= 1
  world.disk.set(name, { ...blob, bytes })
}

test('readLog() gives any stretch back, over any pieces (property)', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 1, maxLength: 8 }),
      fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
      fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })),
      async (lengths, kinds, share) => {
        const world = await makeLogWorld()
        const shipper = newShipper(world.writer)
        let at = 7000n
        for (const [number, length] of lengths.entries()) {
          const range = { from: at, to: at + BigInt(length) }
          await shipPiece(shipper, kinds[number] === true ? 'segment' : 'tail', range)
          at = range.to
        }
        const whole = Number(at - 7000n)
        const sorted = share.toSorted((a, b) => a - b)
        const [low, high] = sorted.map((part) => 7000n + BigInt(Math.floor(part * whole)))
        const bytes = await read(world, await branchOf(world), low!, high!)
        assert.ok(bytes.equals(streamBytes(low!, high!)))
      },
    ),
    { numRuns: 15 },
  )
})

test('readLog() reads across frames and gives no piece above one frame', async () => {
  const world = await makeLogWorld()
  const frame = BigInt(LOG_FRAME_BYTES)
  await shipPiece(newShipper(world.writer), 'segment', { from: 10n, to: 10n + 2n * frame + 5n })
  const branch = await branchOf(world)
  const pieces = await collect(readLog(world.owner, branch, { from: frame, to: 2n * frame + 12n }))
  assert.deepEqual(
    pieces.map((piece) => piece.length),
    [10, LOG_FRAME_BYTES, 2],
  )
  assert.ok(Buffer.concat(pieces).equals(streamBytes(frame, 2n * frame + 12n)))
})

test('readLog() takes tail pieces where the whole segment is damaged, and says so', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  for (let at = 0n; at < 4n; at++) await shipPiece(shipper, 'tail', { from: at * 100n, to: at * 100n + 100n })
  const whole = await shipPiece(shipper, 'segment', { from: 0n, to: 400n })
  const branch = await branchOf(world)
  damage(world, whole.header.name, whole.header.bodyAt + 3)
  const bad: BadLogObject[] = []
  assert.ok((await read(world, branch, 30n, 370n, bad)).equals(streamBytes(30n, 370n)))
  assert.deepEqual(
    bad.map(({ name, failure }) => [name, failure.code]),
    [[whole.header.name, 'repo.corrupt']],
  )
})

test("readLog() takes another shipper's copy where a segment is gone", async () => {
  const world = await makeLogWorld()
  const [one, other] = [newShipper(world.writer), newShipper(world.writer, { shipper: 'ff'.repeat(8) })]
  const lost = await shipPiece(one, 'segment', { from: 0n, to: 300n })
  await shipPiece(other, 'segment', { from: 0n, to: 200n })
  await shipPiece(other, 'segment', { from: 200n, to: 400n })
  const branch = await branchOf(world)
  await world.store.delete(lost.header.name)
  assert.ok((await read(world, branch, 0n, 400n)).equals(streamBytes(0n, 400n)))
})

test('readLog() goes on with the segment when tail pieces are merged while it reads', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  for (let at = 0n; at < 5n; at++) await shipPiece(shipper, 'tail', { from: at * 100n, to: at * 100n + 100n })
  const branch = await branchOf(world)
  const bad: BadLogObject[] = []
  const pieces: Uint8Array[] = []
  const onBad = (each: BadLogObject) => void bad.push(each)
  for await (const piece of readLog(world.owner, branch, { from: 50n, to: 500n, onBad })) {
    if (pieces.length === 1) await mergeTails(shipper)
    pieces.push(piece)
  }
  assert.ok(Buffer.concat(pieces).equals(streamBytes(50n, 500n)))
  assert.deepEqual(bad, [])
  await world.store.delete(shipper.segments[0]!.header.name)
  await assert.rejects(read(world, branch, 50n, 500n), /positions 32–1f4 are missing/)
})

test('readLog() names exactly the positions that are missing, before it gives a byte', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  for (const from of [0x100n, 0x300n, 0x500n])
    await shipPiece(shipper, 'segment', { from, to: from + 0x100n })
  const branch = await branchOf(world)
  const reading = readLog(world.owner, branch, { from: 0x80n, to: 0x680n })
  await assert.rejects(reading.next(), (error) => {
    assert.ok(isFailure(error, 'repo.corrupt'))
    assert.equal(error.facts['missing'], '80–100, 200–300, 400–500, 600–680')
    return true
  })
})

test('readLog() names what a damaged object costs, after the bytes before it', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  await shipPiece(shipper, 'segment', { from: 0x0n, to: 0x100n })
  const lost = await shipPiece(shipper, 'segment', { from: 0x100n, to: 0x200n })
  await shipPiece(shipper, 'tail', { from: 0x120n, to: 0x180n })
  const branch = await branchOf(world)
  damage(world, lost.header.name, lost.bytes.length - 1)
  const pieces: Uint8Array[] = []
  await assert.rejects(
    async () => {
      for await (const piece of readLog(world.owner, branch, { from: 0x10n, to: 0x200n })) pieces.push(piece)
    },
    (error) => isFailure(error, 'repo.corrupt') && error.facts['missing'] === '100–120, 180–200',
  )
  assert.ok(Buffer.concat(pieces).equals(streamBytes(0x10n, 0x100n)))
})

test('readLog() refuses an object that was exchanged since it was listed', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  const one = nextPiece(shipper, 'segment', { from: 0n, to: 50n })
  const other = nextPiece(shipper, 'segment', { from: 0n, to: 50n })
  await putLog(world.writer, one)
  const branch = await branchOf(world)
  world.disk.set(one.header.name, { bytes: Buffer.from(other.bytes), modified: 0 })
  await assert.rejects(read(world, branch, 0n, 50n), /not the one that was listed/)
})

test('every flipped bit of an object is a failure of readLog() and readNotes()', async () => {
  const world = await makeLogWorld()
  const sealed = await shipPiece(newShipper(world.writer), 'segment', { from: 0n, to: 9n })
  const branch = await branchOf(world)
  for (let at = 0; at < sealed.bytes.length; at++) {
    damage(world, sealed.header.name, at)
    const { notesAt, bodyAt } = sealed.header
    if (at < notesAt || at >= bodyAt)
      await assert.rejects(read(world, branch, 0n, 9n), fails('repo.corrupt'), `byte ${at}`)
    if (at < bodyAt) await assert.rejects(readNotes(world.owner, segmentAt(branch, 0)), `byte ${at}`)
    damage(world, sealed.header.name, at)
  }
  assert.equal((await read(world, branch, 0n, 9n)).length, 9)
})

test('readLog() stops when it is told to', async () => {
  const world = await makeLogWorld()
  await shipPiece(newShipper(world.writer), 'segment', { from: 0n, to: 9n })
  const signal = AbortSignal.abort()
  const reading = readLog(world.owner, await branchOf(world), { from: 0n, to: 9n, signal })
  await assert.rejects(reading.next(), fails('cancelled'))
})

test('readNotes() takes one read that ends before the body', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  await shipPiece(shipper, 'tail', { from: 5n, to: 5n })
  await shipPiece(shipper, 'segment', { from: 5n, to: 50_000n })
  const branch = await branchOf(world)
  const reads: (number | undefined)[] = []
  const store: typeof world.store = {
    ...world.store,
    get(name, options) {
      if (name.includes('/logs/')) reads.push(options?.length)
      return world.store.get(name, options)
    },
  }
  const notes: string[] = []
  for (const segment of segmentsOf(branch))
    notes.push(Buffer.from(await readNotes({ ...world.owner, store }, segment)).toString())
  assert.deepEqual(notes, ['segment 1', 'tail 1'])
  assert.equal(reads.length, 2)
  for (const length of reads) assert.ok(length! < 2048, `${length} bytes`)
})

test('readLogFile() gives a file back, and refuses a damaged one', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  const { domain, source, branch } = nextPiece(shipper, 'tail', { from: 0n, to: 1n }).header.place
  const text = '1\t0/3000060\tno recovery target specified\n'
  const sealed = nextPiece(
    shipper,
    'tail',
    { from: 0n, to: 0n },
    {
      place: { domain, source, branch, kind: 'file', file: '00000002.history' },
      body: Buffer.from(text),
      notes: Buffer.alloc(0),
      previous: null,
    },
  )
  await putLog(world.writer, sealed)
  const { files, branches, findings } = await listLogs(world.owner)
  assert.deepEqual([branches, findings], [[], []])
  const [file] = files
  assert.equal(file!.place.file, '00000002.history')
  const { body, notes } = await readLogFile(world.owner, file!)
  assert.deepEqual([Buffer.from(body).toString(), notes.length], [text, 0])
  damage(world, sealed.header.name, sealed.header.bodyAt)
  await assert.rejects(readLogFile(world.owner, file!), fails('repo.corrupt'))
})
