/** The indexer against a real server's log, with pg_waldump as the judge. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
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
import {
  CHANGED_RELATIONS_MAX,
  DROPS_MAX,
  feedIndexer,
  newIndexer,
  recordEnd,
  takeNotes,
  XID_RUNS_MAX,
} from './commit-index.ts'
import { mergeNotes, type LogNotes } from './log-notes.ts'
import { formatLsn, parseLsn, parseSegmentName, type Lsn } from './lsn.ts'
import { decodeNotes, encodeNotes } from './notes-codec.ts'

const MIB = 1 << 20
const PAGE = 8192
const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false

/** A commit or abort as pg_waldump prints it. */
interface DumpedEnd {
  readonly kind: string
  readonly lsn: Lsn
  readonly previous: Lsn
  readonly at: bigint
  readonly xid: number
  readonly isPrepared: boolean
  readonly subtransactions: readonly number[]
  readonly dropped: readonly string[]
}

interface Dumped {
  readonly ends: DumpedEnd[]
  readonly points: { lsn: Lsn; name: string }[]
  readonly prepares: string[]
  readonly databases: { lsn: Lsn }[]
}

function workload(server: PostgresServer): Record<string, string> {
  const run = (...statements: readonly string[]): string => sql(server, ...statements).at(-1) ?? ''
  run('create table orders (id int primary key, note text)', 'create table kept (i int)')
  const relation = run("select pg_relation_filenode('orders')")
  run(`insert into orders select i, repeat('x', 100) from generate_series(1, 20000) i`)
  run('update orders set note = id::text where id <= 100', 'delete from orders where id > 19990')
  run('begin', 'insert into kept values (1)', 'savepoint a', 'insert into kept values (2)', 'commit')
  run('begin', 'savepoint a', 'insert into kept values (3)', 'rollback to a', 'savepoint b')
  run('begin', 'insert into kept values (4)', 'savepoint b', 'insert into kept values (5)', 'rollback')
  run('begin', 'savepoint p', 'insert into kept values (6)', "prepare transaction 'grün'")
  run("commit prepared 'grün'")
  run('begin', 'insert into kept values (7)', "prepare transaction 'given up'")
  run("rollback prepared 'given up'")
  run("select pg_create_restore_point('before the sale')")
  // A commit record over many pages: each row in a subtransaction of its own.
  run(`do $$ begin for i in 1..30000 loop
    begin insert into kept values (i); exception when others then null; end; end loop; end $$`)
  run('create table gone (i serial primary key, t text)', 'drop table gone')
  run('truncate kept', 'vacuum full orders', 'create index on orders (note)')
  run('create database side', 'drop database side')
  run("select pg_create_restore_point('before the sale')")
  run("select pg_logical_emit_message(false, 'long', repeat('y', 3000000))", 'select pg_switch_wal()')
  run('insert into kept select 1', 'checkpoint')
  return { relation }
}

/** All log in the server's folder, joined; the server is stopped. */
async function logOf(
  server: PostgresServer,
  segmentBytes: number,
): Promise<{ folder: string; start: Lsn; log: Buffer }> {
  await stopPostgres(server)
  const folder = join(server.data, 'pg_wal')
  const names = readdirSync(folder)
    .filter((name) => /^[0-9A-F]{24}$/.test(name))
    .sort()
  const { start } = parseSegmentName(names[0]!, segmentBytes)!
  return { folder, start, log: Buffer.concat(names.map((name) => readFileSync(join(folder, name)))) }
}

/** What pg_waldump says from the first record on. */
function dump(folder: string, start: Lsn, end: Lsn): Dumped {
  const flags = ['-r', 'Transaction', '-r', 'XLOG', '-r', 'Database']
  const text = runAs('pg_waldump', [
    ...flags,
    '-p',
    folder,
    '-s',
    formatLsn(start + 40n),
    '-e',
    formatLsn(end),
  ])
  const dumped: Dumped = { ends: [], points: [], prepares: [], databases: [] }
  for (const line of text.split('\n')) {
    const place = /tx: +(\d+), lsn: (\S+), prev (\S+), desc: (\S+) (.*)$/.exec(line)
    if (place === null) continue
    const [, tx, at, previous, what, rest] = place as unknown as string[]
    const lsn = parseLsn(at!)
    if (what === 'RESTORE_POINT') dumped.points.push({ lsn, name: rest! })
    if (what === 'PREPARE') dumped.prepares.push(/^gid (.*?): /.exec(rest!)![1]!)
    if (what === 'DROP') dumped.databases.push({ lsn })
    const end = /^(COMMIT|ABORT)(_PREPARED)?$/.exec(what!)
    if (end === null) continue
    const facts = /^(?:(\d+): )?(\S+ [\d:]+)\.(\d{6}) \w+(.*)$/.exec(rest!)!
    const list = (title: string): string[] =>
      (new RegExp(`; ${title}: ([^;]*)`).exec(facts[4]!)?.[1] ?? '').split(' ').filter((item) => item !== '')
    dumped.ends.push({
      kind: end[1]!.toLowerCase(),
      lsn,
      previous: parseLsn(previous!),
      // Written in the zone of this process.
      at: BigInt(new Date(facts[2]!).getTime()) * 1000n + BigInt(facts[3]!),
      xid: Number(facts[1] ?? tx),
      isPrepared: end[2] !== undefined,
      subtransactions: list('subxacts').map(Number),
      dropped: list('rels'),
    })
  }
  return dumped
}

/** Notes taken again and again on the way, and what they are together. */
function indexAll(log: Buffer, from: Lsn, options: { segmentBytes: number; piece: number }): LogNotes[] {
  const { segmentBytes, piece } = options
  const indexer = newIndexer({ at: from, segmentBytes, major: 15, checkCrc: true })
  const parts: LogNotes[] = []
  for (let at = 0; at < log.length && indexer.reader.endedAt === undefined; at += piece) {
    feedIndexer(indexer, log.subarray(at, at + piece))
    if (at % 3 === 0) parts.push(takeNotes(indexer))
  }
  parts.push(takeNotes(indexer))
  return parts
}

function compare(notes: LogNotes, dumped: Dumped): void {
  const ends = notes.ends.map(({ kind, lsn, previous, at, xid, isPrepared, subtransactions }) => ({
    kind,
    lsn,
    previous,
    at,
    xid,
    isPrepared,
    subtransactions: subtransactions.flatMap(({ first, count }) =>
      Array.from({ length: count }, (_, nth) => first + nth),
    ),
  }))
  assert.deepEqual(
    ends,
    dumped.ends.map(({ dropped: _, ...end }) => end),
  )
  assert.deepEqual(
    notes.points.map(({ lsn, name }) => ({ lsn, name })),
    dumped.points,
  )
  assert.deepEqual(
    notes.prepares.map(({ name }) => name),
    dumped.prepares,
  )
  const drops = dumped.ends.flatMap(({ kind, lsn, dropped }) =>
    kind === 'commit' ? dropped.map((path) => `${lsn} ${path}`) : [],
  )
  const relations = notes.drops.filter(({ files }) => files.relation !== 0)
  assert.deepEqual(
    relations.map(({ lsn, files }) => `${lsn} base/${files.database}/${files.relation}`),
    drops,
  )
  const databases = notes.drops.filter(({ files }) => files.relation === 0)
  assert.deepEqual(
    databases.map(({ lsn }) => ({ lsn })),
    dumped.databases,
  )
}

for (const megabytes of [1, 64])
  test(
    `takeNotes() has what pg_waldump has, with segments of ${megabytes} MiB`,
    { skip, timeout: 120_000 },
    async () => {
      const segmentBytes = megabytes * MIB
      const server = await makePostgres({
        initdb: [`--wal-segsize=${megabytes}`],
        settings: ['max_prepared_transactions = 5', 'wal_keep_size = 512MB', 'max_wal_size = 1GB'],
      })
      try {
        const { relation } = workload(server)
        const { folder, start, log } = await logOf(server, segmentBytes)
        const [whole] = indexAll(log, start, { segmentBytes, piece: log.length })
        const end = whole!.span!.end
        const dumped = dump(folder, start, end)
        compare(whole!, dumped)
        assert.ok(dumped.ends.some(({ subtransactions }) => subtransactions.length === 30_000))
        assert.equal(dumped.points.length, 2)
        assert.deepEqual(dumped.prepares, ['grün', 'given up'])
        assert.equal(dumped.databases.length, 1)
        const orders = whole!.changes.find(({ files }) => files.relation === Number(relation))
        assert.deepEqual([orders?.inserted, orders?.updated, orders?.deleted], [20_000, 100, 10])

        const parts = indexAll(log, start, { segmentBytes, piece: 100_003 })
        const encoded = parts.map((part) => encodeNotes(part))
        assert.deepEqual(mergeNotes(encoded.map(decodeNotes)), whole)
        const spans = parts.flatMap(({ span }) => span ?? [])
        for (const [at, span] of spans.slice(1).entries()) assert.equal(span.previous, spans[at]!.last)
        for (const { lsn, end: to, previous } of whole!.ends) assert.ok(previous < lsn && lsn < to)

        // Within the long record, and within the commit of the many savepoints.
        const many = whole!.ends.find(({ subtransactions }) => (subtransactions[0]?.count ?? 0) > 10_000)!
        const from = many.lsn - (many.lsn % BigInt(PAGE)) + BigInt(2 * PAGE)
        const [later] = indexAll(log.subarray(Number(from - start)), from, {
          segmentBytes,
          piece: log.length,
        })
        assert.deepEqual(
          later!.ends,
          whole!.ends.filter(({ lsn }) => lsn > many.lsn),
        )
      } finally {
        await dropPostgres(server)
      }
    },
  )

/** Log of version 15 from the start of a segment on, without checksums of records. */
function writeLog(records: readonly { manager: number; info: number; xid: number; parts: Buffer }[]): Buffer {
  const pages: Buffer[] = []
  let page = Buffer.alloc(0)
  let at = PAGE
  const newPage = (left: number): void => {
    page = Buffer.alloc(PAGE)
    const isFirst = pages.length % (MIB / PAGE) === 0
    page.writeUInt16LE(0xd110, 0)
    page.writeUInt16LE((left > 0 ? 1 : 0) + (isFirst ? 2 : 0), 2)
    page.writeUInt32LE(1, 4)
    page.writeBigUInt64LE(BigInt(MIB + pages.length * PAGE), 8)
    page.writeUInt32LE(left, 16)
    if (isFirst) page.writeUInt32LE(MIB, 32)
    if (isFirst) page.writeUInt32LE(PAGE, 36)
    pages.push(page)
    at = isFirst ? 40 : 24
  }
  let previous = 0n
  for (const { manager, info, xid, parts } of records) {
    if (at === PAGE) newPage(0)
    const header = Buffer.alloc(24)
    header.writeUInt32LE(24 + parts.length, 0)
    header.writeUInt32LE(xid, 4)
    header.writeBigUInt64LE(previous, 8)
    header[16] = info
    header[17] = manager
    previous = BigInt(MIB + (pages.length - 1) * PAGE + at)
    const bytes = Buffer.concat([header, parts])
    for (let done = 0; done < bytes.length;) {
      if (at === PAGE) newPage(bytes.length - done)
      const count = Math.min(PAGE - at, bytes.length - done)
      bytes.copy(page, at, done, done + count)
      at += count
      done += count
    }
    at += -at & 7
  }
  return Buffer.concat(pages)
}

/** A commit's data: time 0, subtransactions, dropped relations. */
function commitParts(xids: readonly number[], dropped: readonly number[] = []): Buffer {
  const main = Buffer.alloc(8 + 4 + 4 + xids.length * 4 + 4 + dropped.length * 12)
  main.writeUInt32LE(2 + 4, 8)
  let at = main.writeUInt32LE(xids.length, 12)
  for (const xid of xids) at = main.writeUInt32LE(xid, at)
  at = main.writeUInt32LE(dropped.length, at)
  for (const relation of dropped)
    for (const number of [1663, 5, relation]) at = main.writeUInt32LE(number, at)
  const header = Buffer.alloc(5, 254)
  header.writeUInt32LE(main.length, 1)
  return Buffer.concat([header, main])
}

function insertParts(relation: number): Buffer {
  const block = Buffer.alloc(20)
  for (const [nth, number] of [1663, 5, relation, 0].entries()) block.writeUInt32LE(number, 4 + nth * 4)
  return Buffer.concat([block, Buffer.from([255, 3, 0, 0, 0])])
}

function indexWritten(log: Buffer): LogNotes {
  const indexer = newIndexer({ at: BigInt(MIB), segmentBytes: MIB, major: 15, checkCrc: false })
  feedIndexer(indexer, log)
  return takeNotes(indexer)
}

test('a transaction with a million savepoints costs one run, or their bounds', () => {
  const row = Array.from({ length: 1_000_000 }, (_, nth) => 1000 + nth)
  const sparse = row.map((xid, nth) => xid + nth)
  const commit = { manager: 1, info: 0x80, xid: 999 }
  const notes = indexWritten(
    writeLog([
      { ...commit, parts: commitParts(row) },
      { ...commit, parts: commitParts(sparse) },
      { ...commit, parts: commitParts(sparse.slice(0, 5)) },
    ]),
  )
  assert.deepEqual(
    notes.ends.map(({ isThinned, subtransactions }) => [isThinned, subtransactions.length]),
    [
      [false, 1],
      [true, 1],
      [false, 5],
    ],
  )
  assert.deepEqual(notes.ends[0]!.subtransactions, [{ first: 1000, count: 1_000_000 }])
  assert.deepEqual(notes.ends[1]!.subtransactions, [{ first: 1000, count: 1_999_999 }])
  assert.ok(XID_RUNS_MAX < sparse.length)
})

test('relations and drops beyond the limits are counted, not listed', () => {
  const relations = Array.from({ length: CHANGED_RELATIONS_MAX + 10 }, (_, nth) => 20_000 + nth)
  const drops = Array.from({ length: DROPS_MAX + 7 }, (_, nth) => 20_000 + nth)
  const notes = indexWritten(
    writeLog([
      ...relations.map((relation) => ({ manager: 10, info: 0, xid: 5, parts: insertParts(relation) })),
      { manager: 10, info: 0, xid: 5, parts: insertParts(1259) },
      { manager: 1, info: 0x80, xid: 5, parts: commitParts([], drops) },
    ]),
  )
  assert.equal(notes.changes.length, CHANGED_RELATIONS_MAX)
  assert.deepEqual(notes.otherChanges, { inserted: 10, updated: 0, deleted: 0 })
  assert.deepEqual([notes.drops.length, notes.dropsOmitted], [DROPS_MAX, 7])
  assert.equal(notes.ends.length, 1)
})

test('feedIndexer() refuses log behind its end', () => {
  const log = writeLog([{ manager: 1, info: 0x80, xid: 5, parts: commitParts([]) }])
  const indexer = newIndexer({ at: BigInt(MIB), segmentBytes: MIB, major: 15, checkCrc: false })
  feedIndexer(indexer, log)
  assert.throws(
    () => feedIndexer(indexer, log),
    (error: unknown) => isFailure(error, 'source.failed'),
  )
})

test('after a failure the notes say that log is unread, and reading does not go on', () => {
  const log = writeLog([{ manager: 1, info: 0x80, xid: 5, parts: commitParts([]) }])
  const indexer = newIndexer({ at: BigInt(MIB), segmentBytes: MIB, major: 15, checkCrc: true })
  const isFailed = (error: unknown): boolean => isFailure(error, 'source.failed')
  assert.equal(takeNotes(indexer).isUnread, false)
  for (let turn = 0; turn < 2; turn++) {
    assert.throws(() => feedIndexer(indexer, log), isFailed)
    assert.equal(takeNotes(indexer).isUnread, true)
  }
})

test('recordEnd() counts the headers of pages as the server does', () => {
  const end = (lsn: bigint, length: number): bigint => recordEnd(lsn, length, MIB)
  assert.equal(end(40n, 34), 80n)
  assert.equal(end(8192n - 40n, 34), 8192n)
  assert.equal(end(8192n - 40n, 48), 8192n + 24n + 8n)
  assert.equal(end(BigInt(MIB) - 8n, 24), BigInt(MIB) + 40n + 16n)
})
