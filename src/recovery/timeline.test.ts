import { strict as assert } from 'node:assert'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openHostFolder } from '../repo/host-folder.ts'
import { putLog } from '../repo/log-writer.ts'
import { NO_CHANGES, NO_NOTES, type LogNotes, type TransactionNote } from '../sources/postgres/log-notes.ts'
import { encodeNotes } from '../sources/postgres/notes-codec.ts'
import type { BlobStore } from '../storage/store.ts'
import {
  LOG_BRANCH,
  makeLogWorld,
  mergeTails,
  newShipper,
  nextPiece,
  shipPiece,
  type LogWorld,
  type TestShipper,
} from '../../test/harness/logs.ts'
import { readTimeline, type TimelineReport } from './timeline.ts'

const folder = mkdtempSync(join(tmpdir(), 'backstock-timeline-'))
after(() => rmSync(folder, { recursive: true }))

const second = LOG_BRANCH.replace(/1$/, '2')
const database = { tablespace: 0, database: 5, relation: 0 }
const orders = { tablespace: 1663, database: 5, relation: 100 }
const orders2 = { tablespace: 1663, database: 5, relation: 101 }
const notes = (part: Partial<LogNotes>): LogNotes => ({ ...NO_NOTES, ...part })
const commit = (lsn: bigint, seconds: number): TransactionNote => ({
  kind: 'commit',
  lsn,
  end: lsn + 8n,
  previous: lsn - 8n,
  at: BigInt(seconds) * 1_000_000n,
  xid: seconds,
  isPrepared: false,
  subtransactions: [],
  isThinned: false,
})

async function ship(shipper: TestShipper, from: number, to: number, of: Partial<LogNotes>): Promise<void> {
  const range = { from: BigInt(from), to: BigInt(to) }
  const sealed = nextPiece(shipper, 'segment', range, { notes: encodeNotes(notes(of)) })
  await putLog(shipper.writer, sealed)
  shipper.segments.push(sealed)
}

async function read(
  world: LogWorld,
  times: { readonly from?: number; readonly to?: number } = {},
  access = world.owner,
): Promise<TimelineReport> {
  const { domain } = world.writer
  const scope = { domain, source: 'orders', from: times.from, to: times.to }
  const host = openHostFolder(folder, world.kit.repository)
  return await readTimeline(access, host, [], scope)
}

/** A drop, a rewrite, deleted rows and a restore point, on two timelines with a gap in the first. */
async function shipped(): Promise<LogWorld> {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  const names = [
    { lsn: 8n, files: database, schema: '', name: 'shop' },
    { lsn: 8n, files: orders, schema: 'public', name: 'orders' },
  ]
  const changes = [{ files: orders, inserted: 5, updated: 1, deleted: 120 }]
  await ship(shipper, 0, 1000, { names, changes, ends: [commit(80n, 100)] })
  await ship(shipper, 1000, 2000, {
    ends: [commit(1800n, 200)],
    drops: [
      { lsn: 1800n, at: 200_000_000n, xid: 200, files: orders },
      { lsn: 1800n, at: 200_000_000n, xid: 200, files: { ...orders, relation: 7 } },
    ],
    truncates: [{ lsn: 1704n, xid: 200, files: orders, block: 0 }],
  })
  const renamed = [{ lsn: 3008n, files: orders2, schema: 'public', name: 'orders' }]
  await ship(shipper, 3000, 4000, {
    names: renamed,
    ends: [commit(3200n, 300)],
    changes: [{ files: orders2, inserted: 10, updated: 0, deleted: 0 }],
    otherChanges: { ...NO_CHANGES, deleted: 3 },
  })
  const next = newShipper(world.writer, { branch: second, shipper: 'ee'.repeat(8) })
  const { domain } = world.writer
  const place = { domain, source: 'orders', branch: second, kind: 'file', file: '00000002.history' } as const
  const body = Buffer.from('1\t0/FA0\tno recovery target specified\n')
  const span = { from: 0n, to: 0n }
  await putLog(world.writer, nextPiece(next, 'tail', span, { place, body, previous: null }))
  const point = { lsn: 4104n, at: 400_000_000n, name: 'before sale' }
  const copied = { lsn: 3904n, at: 390_000_000n, name: 'of the parent' }
  await ship(next, 3000, 5000, { points: [copied, point], ends: [commit(4200n, 400)] })
  return world
}

test('readTimeline() tells covers, gaps, switches and events by name', async () => {
  const { clusters, areNotesRead, bad } = await read(await shipped())
  const [cluster] = clusters
  assert.ok(cluster)
  assert.deepEqual([clusters.length, areNotesRead, bad], [1, true, []])
  const ranges = cluster.covers.map(({ timeline, from, to }) => [timeline, from, to])
  assert.deepEqual(ranges, [
    [1, 0n, 2000n],
    [1, 3000n, 4000n],
    [2, 3000n, 5000n],
  ])
  assert.deepEqual(cluster.gaps, [{ timeline: 1, from: 2000n, to: 3000n }])
  const reason = 'no recovery target specified'
  assert.deepEqual(cluster.switches, [{ timeline: 1, to: 2, lsn: 4000n, reason }])
  const events = cluster.events.map(({ kind, timeline, lsn, names }) => [kind, timeline, lsn, ...names])
  assert.deepEqual(events, [
    ['delete', 1, 80n, 'shop.public.orders'],
    ['shrink', 1, 1704n, 'shop.public.orders'],
    ['rewrite', 1, 1800n, 'shop.public.orders'],
    ['point', 2, 4104n, 'before sale'],
  ])
  assert.deepEqual([cluster.events[2]?.unnamed, cluster.events[1]?.at], [1, 200_000_000n])
  const name = 'shop.public.orders'
  assert.deepEqual(cluster.relations, [{ name, inserted: 15, updated: 1, deleted: 120 }])
  assert.equal(cluster.otherChanges.deleted, 3)
})

test('readTimeline() keeps to the time that is asked for, and knows names from before', async () => {
  const world = await shipped()
  const [late] = (await read(world, { from: 150_000 })).clusters
  assert.deepEqual(
    late?.events.map(({ kind, names }) => [kind, names[0]]),
    [
      ['shrink', 'shop.public.orders'],
      ['rewrite', 'shop.public.orders'],
      ['point', 'before sale'],
    ],
  )
  assert.deepEqual(
    late.relations.map(({ inserted }) => inserted),
    [10],
  )
  const [early] = (await read(world, { to: 150_000 })).clusters
  assert.deepEqual(
    early?.events.map(({ kind }) => kind),
    ['delete'],
  )
})

test('readTimeline() without the right to read tells what headers say', async () => {
  const world = await shipped()
  const { clusters, areNotesRead } = await read(world, {}, world.access)
  assert.equal(areNotesRead, false)
  assert.deepEqual([clusters[0]?.covers.length, clusters[0]?.events], [3, []])
})

test('readTimeline() goes on past a damaged object, and names it', async () => {
  const world = await shipped()
  const name = [...world.disk.keys()].find((each) => each.includes(`${LOG_BRANCH}/`))!
  const blob = world.disk.get(name)!
  const bytes = Buffer.from(blob.bytes)
  bytes[200]! ^= 1
  world.disk.set(name, { ...blob, bytes })
  const { bad, clusters } = await read(world)
  assert.ok(bad.some((each) => each.name === name && each.message !== ''))
  assert.equal(clusters.length, 1)
})

test('readTimeline() begins again when tails are merged while it reads', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  for (let at = 0; at < 4; at++) {
    const range = { from: BigInt(at * 16), to: BigInt(at * 16 + 16) }
    const point = { lsn: range.from, at: 1n, name: `p${at}` }
    const sealed = nextPiece(shipper, 'tail', range, { notes: encodeNotes(notes({ points: [point] })) })
    await putLog(world.writer, sealed)
    shipper.tails.push(sealed)
    shipper.lastTail = sealed
  }
  let gets = 0
  const store: BlobStore = {
    ...world.store,
    get: async (name, options) => {
      // The headers are read by then.
      if (name.includes('/tail/') && ++gets === 6) await mergeTails(shipper)
      return await world.store.get(name, options)
    },
  }
  const { clusters, bad } = await read(world, {}, { ...world.owner, store })
  assert.deepEqual([bad.length, shipper.tails.length, clusters[0]?.covers.length], [1, 0, 1])
  await shipPiece(shipper, 'tail', { from: 64n, to: 80n })
})
