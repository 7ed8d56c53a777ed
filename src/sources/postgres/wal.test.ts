/** The WAL reader against a real server's log, with pg_waldump as the judge. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../../base/failure.ts'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  runAs,
  sql,
  stopPostgres,
  type PostgresServer,
} from '../../../test/harness/postgres.ts'
import { formatLsn, parseLsn, parseSegmentName, type Lsn } from './lsn.ts'
import { eventOf, rowChange, type WalEvent } from './wal-events.ts'
import { feedWal, newWalReader, recordLsn, type WalReader } from './wal-reader.ts'
import { decodeRecord, newWalRecord } from './wal-record.ts'

const SEGMENT_BYTES = 1 << 20
const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false

let server: PostgresServer
let folder = ''
/** The log of one server life, its segments joined. */
let log = Buffer.alloc(0)
let start: Lsn = 0n
/** Where statements of the workload stand, by name. */
const marks = new Map<string, string>()

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres({
      initdb: ['--wal-segsize=1'],
      settings: ['max_prepared_transactions = 5', 'wal_keep_size = 512MB', 'max_wal_size = 1GB'],
    })
    workload()
    await stopPostgres(server)
    folder = join(server.data, 'pg_wal')
    const names = readdirSync(folder)
      .filter((name) => /^[0-9A-F]{24}$/.test(name))
      .sort()
    start = parseSegmentName(names[0]!, SEGMENT_BYTES)!.start
    log = Buffer.concat(names.map((name) => readFileSync(join(folder, name))))
  },
  { timeout: 60_000 },
)
after(async () => {
  if (skip === false) await dropPostgres(server)
})

function workload(): void {
  const run = (...statements: readonly string[]): string => sql(server, ...statements).at(-1) ?? ''
  run('create table orders (id int primary key, note text)')
  marks.set('relation', run("select pg_relation_filenode('orders')"))
  run(`insert into orders select i, repeat('x', 100) from generate_series(1, 5000) i`)
  // Records longer than a segment of the log.
  run("select pg_logical_emit_message(false, 'long', repeat('y', 3000000))")
  run('select pg_switch_wal()', 'select pg_switch_wal()')
  run('update orders set note = id::text where id <= 100', 'delete from orders where id > 4990')
  marks.set(
    'nested',
    run('begin', 'savepoint a', 'insert into orders values (9001)', 'select txid_current()', 'commit'),
  )
  run('begin', 'insert into orders values (9002)', "prepare transaction 'two phases'")
  marks.set('prepared', run('select transaction from pg_prepared_xacts'))
  run("commit prepared 'two phases'")
  run("select pg_create_restore_point('before the sale')")
  marks.set('dropped', run('create table gone (i int)', "select pg_relation_filenode('gone')"))
  marks.set('drop', run('begin', 'drop table gone', 'select txid_current()', 'commit'))
  run('create database side', 'drop database side')
  run('begin', 'delete from orders', 'rollback')
}

interface Seen {
  readonly lsn: Lsn
  readonly length: number
  readonly xid: number
  readonly blocks: number
}

/** All records, read in pieces of the sizes given, again and again. */
function readAll(pieces: readonly number[], bytes = log): { seen: Seen[]; reader: WalReader } {
  const seen: Seen[] = []
  const record = newWalRecord()
  const reader = newWalReader({
    from: start,
    segmentBytes: SEGMENT_BYTES,
    checkCrc: true,
    onRecord: (input, at, length, of) => {
      decodeRecord(record, input, { at, length }, server.major)
      seen.push({ lsn: recordLsn(of), length, xid: record.xid, blocks: record.blockCount })
    },
  })
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const piece = pieces[turn % pieces.length]!
    feedWal(reader, bytes.subarray(at, at + piece))
    at += piece
  }
  return { seen, reader }
}

/** What pg_waldump says of the same log. */
function dumpAll(end: Lsn): Seen[] {
  const text = runAs('pg_waldump', ['-p', folder, '-s', formatLsn(start + 40n), '-e', formatLsn(end)])
  return text
    .split('\n')
    .filter((line) => line.startsWith('rmgr:'))
    .map((line) => {
      const facts = /len \(rec\/tot\): +\d+\/ *(\d+), tx: +(\d+), lsn: (\S+), /.exec(line)
      assert.ok(facts, line)
      const blocks = line.split('blkref #').length - 1
      return { lsn: parseLsn(facts[3]!), length: Number(facts[1]), xid: Number(facts[2]), blocks }
    })
}

test('feedWal() finds the records that pg_waldump finds', { skip }, () => {
  const { seen, reader } = readAll([log.length])
  assert.ok(reader.endedAt)
  assert.deepEqual(seen, dumpAll(reader.endedAt))
  assert.ok(seen.length > 5000)
})

test('feedWal() finds the same records whatever pieces the log comes in', { skip, timeout: 120_000 }, () => {
  const { seen, reader } = readAll([log.length])
  const piece = fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1000, max: 300_000 }))
  const pieces = fc.tuple(fc.integer({ min: 8192, max: 1 << 20 }), piece, piece).map((sizes) => [...sizes])
  fc.assert(
    fc.property(pieces, (sizes) => {
      const again = readAll(sizes)
      assert.equal(again.reader.endedAt, reader.endedAt)
      assert.deepEqual(again.seen, seen)
    }),
    { numRuns: 12 },
  )
})

test('a reader that begins amid a long record passes it over', { skip }, () => {
  const { seen, reader } = readAll([log.length])
  const long = seen.find((record) => record.length > 2 * SEGMENT_BYTES)
  assert.ok(long && reader.endedAt)
  const from = long.lsn - (long.lsn % BigInt(SEGMENT_BYTES)) + BigInt(SEGMENT_BYTES)
  const found: Lsn[] = []
  const later = newWalReader({
    from,
    segmentBytes: SEGMENT_BYTES,
    checkCrc: true,
    onRecord: (_, __, ___, of) => found.push(recordLsn(of)),
  })
  feedWal(later, log.subarray(Number(from - start)))
  assert.deepEqual(
    found,
    seen.map(({ lsn }) => lsn).filter((lsn) => lsn > long.lsn),
  )
})

test('a changed byte of a record is never passed over', { skip, timeout: 120_000 }, () => {
  const { seen, reader } = readAll([log.length])
  const end = Number(reader.endedAt! - start)
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: seen.length - 1 }),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      (nth, place, flip) => {
        const record = seen[nth]!
        const from = Number(record.lsn - start)
        // Only within its first page: what follows may be a page header.
        const room = Math.min(record.length, 8192 - (from % 8192))
        const damaged = Buffer.from(log.subarray(0, end))
        damaged[from + (place % room)]! ^= flip
        let found: Seen[] = []
        try {
          found = readAll([damaged.length], damaged).seen
        } catch (error) {
          assert.ok(isFailure(error, 'source.failed'))
          return
        }
        // The length may now say that the log ends here, or that more of the record is to come.
        assert.deepEqual(found, seen.slice(0, nth))
      },
    ),
    { numRuns: 40 },
  )
})

test('eventOf() and rowChange() say what the workload did', { skip }, () => {
  const events: WalEvent[] = []
  const rows = { insert: 0, update: 0, delete: 0 }
  const record = newWalRecord()
  const reader = newWalReader({
    from: start,
    segmentBytes: SEGMENT_BYTES,
    checkCrc: false,
    onRecord: (bytes, at, length) => {
      decodeRecord(record, bytes, { at, length }, server.major)
      const event = eventOf(record, server.major)
      if (event !== undefined) events.push(event)
      const change = rowChange(record)
      if (change !== undefined && record.blocks[0]!.relation === Number(marks.get('relation')))
        rows[change.kind] += change.rows
    },
  })
  feedWal(reader, log)
  assert.deepEqual(rows, { insert: 5002, update: 100, delete: 10 + 4992 })
  const ends = events.flatMap((event) => ('end' in event ? [{ kind: event.kind, ...event.end }] : []))
  const endOf = (mark: string): (typeof ends)[number] => {
    const found = ends.filter(({ xid }) => xid === Number(marks.get(mark)))
    assert.equal(found.length, 1, mark)
    return found[0]!
  }
  assert.deepEqual([endOf('nested').kind, endOf('nested').subtransactions.length], ['commit', 1])
  assert.deepEqual([endOf('prepared').kind, endOf('prepared').isPrepared], ['commit', true])
  const dropped = endOf('drop').dropped.map(({ relation }) => relation)
  assert.ok(dropped.includes(Number(marks.get('dropped'))))
  assert.ok(ends.some(({ kind }) => kind === 'abort'))
  const now = BigInt(Date.now()) * 1000n
  for (const { at } of ends) assert.ok(at > now - 3_600_000_000n && at <= now, String(at))
  const points = events.filter((event) => event.kind === 'restore-point')
  assert.deepEqual(
    points.map(({ name }) => name),
    ['before the sale'],
  )
  const kinds = events.map(({ kind }) => kind)
  assert.ok(kinds.includes('create-database') && kinds.includes('drop-database'))
  const shutdown = events.findLast((event) => event.kind === 'checkpoint')
  assert.ok(shutdown && shutdown.timeline === 1 && shutdown.at > now - 3_600_000_000n)
})
