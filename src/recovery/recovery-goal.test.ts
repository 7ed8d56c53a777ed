import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import type { Failure } from '../base/failure.ts'
import { logName } from '../format/log-header.ts'
import { deleteTails, putLog } from '../repo/log-writer.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { NO_NOTES, type LogNotes, type TransactionNote } from '../sources/postgres/log-notes.ts'
import { encodeNotes } from '../sources/postgres/notes-codec.ts'
import { formatLsn } from '../sources/postgres/lsn.ts'
import type { WantedTarget } from '../sources/postgres/recovery-target.ts'
import type { BlobStore } from '../storage/store.ts'
import { LOG_BRANCH, makeLogWorld, newShipper, nextPiece, type LogWorld } from '../../test/harness/logs.ts'
import { resolveGoal, type ResolvedGoal } from './recovery-goal.ts'

const PIECE = 800

function commit(lsn: number): TransactionNote {
  const [at, end, previous] = [BigInt(lsn) * 1_000_000n, BigInt(lsn + 40), BigInt(lsn - 80)]
  const more = { isPrepared: false, subtransactions: [], isThinned: false }
  return { kind: 'commit', lsn: BigInt(lsn), end, previous, at, xid: lsn, ...more }
}

/** Of a piece with a record every 80 bytes, of which the second is a commit. */
function notes(from: number, to: number): LogNotes {
  const span = { first: BigInt(from), previous: BigInt(from - 80), last: BigInt(to - 80), end: BigInt(to) }
  const ends = Array.from({ length: (to - from) / PIECE }, (_, nth) => commit(from + nth * PIECE + 80))
  const points = from === 2 * PIECE ? [{ lsn: BigInt(from), at: 1n, name: 'friday' }] : []
  return { ...NO_NOTES, span, ends, points }
}

/** Ships ten pieces from `PIECE` on; returns their sealed objects. */
async function shipTen(world: LogWorld, kind: 'segment' | 'tail') {
  const shipper = newShipper(world.writer)
  for (let at = PIECE; at <= 10 * PIECE; at += PIECE) {
    const range = { from: BigInt(at), to: BigInt(at + PIECE) }
    const sealed = nextPiece(shipper, kind, range, { notes: encodeNotes(notes(at, at + PIECE)) })
    await putLog(world.writer, sealed)
    if (kind === 'segment') shipper.segments.push(sealed)
    else shipper.lastTail = sealed
    shipper.tails.push(sealed)
  }
  return shipper
}

/** `from` and `to`: start and end of its log. */
function snapshotAt({ writer }: LogWorld, from: number, to: number): StoredSnapshot {
  const log = { branch: LOG_BRANCH, from: `${from}`, to: `${to}`, held: `${to}` }
  const completed = new Date(to * 1000).toISOString()
  const { domain } = writer
  const snapshot = { id: `s${from}`, domain, source: 'orders', counter: from, completed, log }
  return snapshot as unknown as StoredSnapshot
}

async function resolve(
  world: LogWorld,
  target: WantedTarget,
  store: BlobStore = world.store,
): Promise<ResolvedGoal> {
  const snapshots = [snapshotAt(world, PIECE, PIECE + 400), snapshotAt(world, 4 * PIECE, 4 * PIECE + 400)]
  return await resolveGoal({ ...world.owner, store }, snapshots, { target, timeline: undefined })
}

test('the newest backup is taken from which the target can be reached', async () => {
  const world = await makeLogWorld()
  await shipTen(world, 'segment')
  for (const [lsn, base] of [
    [2 * PIECE, PIECE],
    [5 * PIECE, 4 * PIECE],
  ] as const) {
    const wanted = { kind: 'lsn', lsn: BigInt(lsn), isInclusive: true } as const
    const { snapshot, target } = await resolve(world, wanted)
    assert.deepEqual([snapshot.id, target.lsn], [`s${base}`, BigInt(lsn)])
    const time = { kind: 'time', at: BigInt(lsn) * 1_000_000n, isInclusive: true } as const
    assert.deepEqual((await resolve(world, time)).snapshot.id, `s${base}`)
  }
  await assert.rejects(resolve(world, { kind: 'lsn', lsn: 1n, isInclusive: true }), {
    code: 'restore.refused',
  })
})

test('a name that no backup has is refused with those behind each backup', async () => {
  const world = await makeLogWorld()
  await shipTen(world, 'segment')
  await assert.rejects(resolve(world, { kind: 'name', name: 'fridya' }), (error: Failure) => {
    assert.equal(error.code, 'restore.refused')
    const [newest, friday] = [4 * PIECE + 400, 2 * PIECE].map((lsn) => formatLsn(BigInt(lsn)))
    return new RegExp(`nearest: base at ${newest};.*"friday" at ${friday}`).test(error.message)
  })
  assert.equal((await resolve(world, { kind: 'name', name: 'friday' })).snapshot.id, `s${PIECE}`)
  // Nothing of it is of use for somebody who has given a time.
  const early = resolve(world, { kind: 'time', at: 1n, isInclusive: true })
  await assert.rejects(early, (error: Failure) => /timeline/.test(String(error.facts['hint'])))
})

test('a target is found while tails are merged and deleted, and each object is read once', async () => {
  const world = await makeLogWorld()
  const shipper = await shipTen(world, 'tail')
  const reads = new Map<string, number>()
  const store: BlobStore = {
    ...world.store,
    get: async (name, options) => {
      const count = (reads.get(name) ?? 0) + 1
      reads.set(name, count)
      // Headers are listed first; by then the notes are being read.
      if (count === 2 && shipper.tails.length > 0) {
        const { tails } = shipper
        shipper.tails = []
        const [from, to] = [BigInt(PIECE), BigInt(11 * PIECE)]
        const of = { notes: encodeNotes(notes(PIECE, 11 * PIECE)) }
        const whole = nextPiece(shipper, 'segment', { from, to }, of)
        await putLog(world.writer, whole)
        const covered = tails.map(({ header }) => header)
        await deleteTails(world.writer, covered, [whole.header])
      }
      return await world.store.get(name, options)
    },
  }
  const { snapshot, target } = await resolve(
    world,
    { kind: 'xid', xid: 7 * PIECE + 80, isInclusive: true },
    store,
  )
  assert.deepEqual([snapshot.id, target.lsn], [`s${4 * PIECE}`, BigInt(7 * PIECE + 80)])
  assert.equal(shipper.tails.length, 0)
  // The older backup is looked at too; what was read for the newer one is not read again.
  reads.clear()
  const before = { kind: 'lsn', lsn: BigInt(2 * PIECE), isInclusive: true } as const
  assert.equal((await resolve(world, before, store)).snapshot.id, `s${PIECE}`)
  assert.deepEqual([...reads.values()], [2], 'its header, and its notes once')
})

test('a piece whose notes are damaged ends what can be chosen, and nothing before it', async () => {
  const world = await makeLogWorld()
  const { segments } = await shipTen(world, 'segment')
  const name = logName(segments[6]!.header.place)
  const store: BlobStore = {
    ...world.store,
    get: async (wanted, options) => {
      const bytes = Buffer.from(await world.store.get(wanted, options))
      // Behind the header come the notes.
      if (wanted === name && bytes.length === segments[6]!.header.bodyAt) bytes[bytes.length - 1]! ^= 1
      return bytes
    },
  }
  const at = (place: number): WantedTarget => ({ kind: 'xid', xid: place * PIECE + 80, isInclusive: true })
  assert.equal((await resolve(world, at(6), store)).target.lsn, BigInt(6 * PIECE + 80))
  for (const wanted of [at(8), { kind: 'latest' }] as const)
    await assert.rejects(resolve(world, wanted, store), (error: Failure) => {
      assert.equal(error.code, 'source.gap')
      return /could not be read, from/.test(error.message)
    })
})
