/**
 * The resolver against a real server: each answer is given to a recovery as its settings, and what comes back
 * is compared row by row; where PostgreSQL has a target of that kind itself, with what that one gives too.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  chownSync,
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  runAs,
  sql,
  startPostgres,
  stopPostgres,
  type PostgresServer,
} from '../../../test/harness/postgres.ts'
import { feedIndexer, newIndexer, takeNotes } from './commit-index.ts'
import type { MarkNote, NameNote } from './log-notes.ts'
import { formatLsn, parseHistory, parseLsn, parseSegmentName, type Lsn } from './lsn.ts'
import { decodeNotes, encodeNotes } from './notes-codec.ts'
import { formatTime } from './target-words.ts'
import { resolveTarget, type ResolvedTarget, type WantedTarget } from './recovery-target.ts'
import { newNames, readNames } from './relation-names.ts'
import { closeSql, openSql } from './sql-session.ts'
import type { BasePlace, NotesPiece } from './target-log.ts'

const SEGMENT_BYTES = 1 << 20
const PIECE_BYTES = 300_000
const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false

let server: PostgresServer
let base: BasePlace
let pieces: NotesPiece[] = []
/** By what happened: times, transactions, positions. */
const marks = new Map<string, string>()
/** Folders and servers of recoveries. */
const scratch: string[] = []

const run = (...statements: readonly string[]): string => sql(server, ...statements).at(-1) ?? ''
const insert = (step: number): string => `insert into steps values (${step})`
const now = (): string => run('select (extract(epoch from clock_timestamp()) * 1000000)::bigint')

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres({
      initdb: ['--wal-segsize=1'],
      settings: ['max_prepared_transactions = 5', 'wal_keep_size = 512MB', 'max_wal_size = 1GB'],
    })
    run('create table steps (step int)', 'create table orders (i int)', insert(0))
    run('insert into orders select generate_series(1, 3)')
    base = makeBase()
    const names = await workload()
    const end = parseLsn(run('select pg_current_wal_lsn()'))
    const mark = { lsn: end, serverTime: BigInt(now()), receivedAt: 0 }
    // No checkpoint at the end: the log ends with an idle gap.
    await stopPostgres(server, 'SIGQUIT')
    cpSync(join(server.data, 'pg_wal'), archive(), { recursive: true })
    execFileSync('chmod', ['-R', 'a+rX', archive()])
    pieces = readPieces(1, { names, marks: [mark] })
  },
  { timeout: 120_000 },
)
after(async () => {
  if (skip !== false) return
  for (const dir of scratch) rmSync(dir, { recursive: true, force: true })
  await dropPostgres(server)
})

const archive = (): string => join(server.dir, 'archive')

/** A base backup without log, and where it begins and ends. */
function makeBase(): BasePlace {
  const place = ['--host', '127.0.0.1', '--port', String(server.port), '--username', 'postgres']
  const pgdata = join(server.dir, 'base')
  runAs('pg_basebackup', [...place, '-D', pgdata, '--checkpoint=fast', '-X', 'none', '--no-sync'])
  const manifest = readFileSync(join(pgdata, 'backup_manifest'), 'utf8')
  const lsn = (name: string): Lsn => parseLsn(new RegExp(`"${name}": "([^"]+)"`).exec(manifest)![1]!)
  return { timeline: 1, start: lsn('Start-LSN'), end: lsn('End-LSN') }
}

async function workload(): Promise<NameNote[]> {
  run(insert(1))
  run(insert(2))
  marks.set('after 2', now())
  run(insert(3))
  run("select pg_create_restore_point('sale')")
  run(insert(4))
  run('begin', insert(5), 'savepoint a', insert(6), 'commit')
  marks.set('savepoint', run('select xmin from steps where step = 6'))
  marks.set('top', run('select xmin from steps where step = 5'))
  run('begin', insert(7), "prepare transaction 'p'")
  marks.set('prepared', run('select transaction from pg_prepared_xacts'))
  run(insert(8))
  run("commit prepared 'p'")
  run(insert(9))
  marks.set('nine', run('select xmin from steps where step = 9'))
  marks.set('lsn', run('select pg_current_wal_lsn()'))
  const place = { host: '127.0.0.1', port: server.port, user: 'postgres', password: undefined }
  const session = await openSql({ ...place, tls: false, connectTimeoutMs: 10_000 }, 'postgres')
  const names = newNames(undefined, await readNames(session))
  await closeSql(session)
  run('begin', insert(10), 'drop table orders', insert(11), 'commit')
  run(`insert into steps select 12 from generate_series(1, 20000)`, "select pg_create_restore_point('sale')")
  run('begin', insert(99), 'rollback')
  run(insert(13))
  run("select pg_logical_emit_message(false, 'long', repeat('y', 100000))")
  return names
}

/** The notes of a timeline in the archive, through their bytes; names and marks with the last piece. */
function readPieces(timeline: number, more: { names: NameNote[]; marks: MarkNote[] }): NotesPiece[] {
  const files = readdirSync(archive())
    .flatMap((name) => {
      const place = parseSegmentName(name, SEGMENT_BYTES)
      return place?.timeline === timeline ? [{ name, ...place }] : []
    })
    .sort((a, b) => (a.start < b.start ? -1 : 1))
  const log = Buffer.concat(files.map(({ name }) => readFileSync(join(archive(), name))))
  const at = files[0]!.start
  const indexer = newIndexer({ at, segmentBytes: SEGMENT_BYTES, major: server.major, checkCrc: true })
  const found: NotesPiece[] = []
  for (let from = 0; indexer.reader.endedAt === undefined; from += PIECE_BYTES) {
    feedIndexer(indexer, log.subarray(from, from + PIECE_BYTES))
    const to = indexer.reader.endedAt ?? indexer.reader.next
    const notes = takeNotes(indexer)
    const isLast = indexer.reader.endedAt !== undefined
    const own = { ...notes, names: from === 0 ? more.names : [], marks: isLast ? more.marks : [] }
    found.push({ timeline, from: at + BigInt(from), to, notes: decodeNotes(encodeNotes(own)) })
  }
  return found
}

/** A copy of the base, recovered with these settings; it is on its new timeline. */
async function recover(settings: readonly string[]): Promise<PostgresServer> {
  const { uid, gid } = statSync(server.data)
  const dir = mkdtempSync(join(server.dir, 'recovered-'))
  scratch.push(dir)
  const data = join(dir, 'data')
  execFileSync('cp', ['-a', join(server.dir, 'base'), data])
  const lines = [
    `unix_socket_directories = '${server.dir}'`,
    `restore_command = 'cp ${archive()}/%f %p'`,
    "recovery_target_action = 'promote'",
    ...settings,
  ]
  appendFileSync(join(data, 'postgresql.auto.conf'), `${lines.join('\n')}\n`)
  writeFileSync(join(data, 'recovery.signal'), '')
  for (const path of [dir, join(data, 'recovery.signal')]) chownSync(path, uid, gid)
  // The server whose log this is has been stopped: its port is free.
  const recovered: PostgresServer = { ...server, dir, data, process: undefined }
  await startPostgres(recovered)
  return recovered
}

/** The rows that come back: steps without doubles, and of `orders`, if there is one. */
async function rowsAfter(settings: readonly string[]): Promise<string> {
  const recovered = await recover(settings)
  try {
    const [steps] = sql(recovered, "select string_agg(distinct step::text, ' ') from steps")
    const [has] = sql(recovered, "select to_regclass('orders') is not null")
    const [doubt] = sql(recovered, 'select count(*) from pg_prepared_xacts')
    const sorted = steps!.split(' ').sort((a, b) => Number(a) - Number(b))
    return `${sorted.join(' ')}${has === 't' ? ' +orders' : ''}${doubt === '0' ? '' : ' +prepared'}`
  } finally {
    await stopPostgres(recovered, 'SIGQUIT')
  }
}

function settingsOf({ lsn, isInclusive, timeline }: ResolvedTarget): string[] {
  return [
    `recovery_target_lsn = '${formatLsn(lsn)}'`,
    `recovery_target_inclusive = ${isInclusive ? 'on' : 'off'}`,
    `recovery_target_timeline = '${timeline}'`,
  ]
}

const resolve = async (wanted: WantedTarget): Promise<ResolvedTarget> =>
  resolveTarget({ base, timeline: 1, history: [], pieces }, wanted)

const ALL = '0 1 2 3 4 5 6 7 8 9 10 11 12 13'
const xid = (name: string, isInclusive: boolean): WantedTarget => ({
  kind: 'xid',
  xid: Number(marks.get(name)),
  isInclusive,
})
const timeOfNine = (): bigint => {
  const ends = pieces.flatMap(({ notes }) => notes.ends)
  return ends.find((end) => end.xid === Number(marks.get('nine')))!.at
}
const lsnMark = (isInclusive: boolean): WantedTarget => ({
  kind: 'lsn',
  lsn: parseLsn(marks.get('lsn')!),
  isInclusive,
})
const time = (at: bigint, isInclusive = true): WantedTarget => ({ kind: 'time', at, isInclusive })
/** Settings are read before the server knows the names of zones, Z among them. */
const serverTime = (at: bigint): string => formatTime(at).replace('Z', '+00')
const native = (name: string, value: string, isInclusive = true): string[] => [
  `recovery_target_${name} = '${value}'`,
  `recovery_target_inclusive = ${isInclusive ? 'on' : 'off'}`,
]

interface Case {
  readonly title: string
  readonly wanted: () => WantedTarget
  readonly rows: string
  /** PostgreSQL's own settings for the same. */
  readonly own?: () => string[]
}

const UP_TO_NINE = '0 1 2 3 4 5 6 7 8 9 +orders'
const CASES: readonly Case[] = [
  {
    title: 'a time in an idle gap',
    wanted: () => time(BigInt(marks.get('after 2')!)),
    rows: '0 1 2 +orders',
    own: () => native('time', serverTime(BigInt(marks.get('after 2')!))),
  },
  {
    title: 'the very time of a commit, inclusive',
    wanted: () => time(timeOfNine()),
    rows: UP_TO_NINE,
    own: () => native('time', serverTime(timeOfNine())),
  },
  {
    title: 'the very time of a commit, exclusive',
    wanted: () => time(timeOfNine(), false),
    rows: '0 1 2 3 4 5 6 7 8 +orders',
    own: () => native('time', serverTime(timeOfNine()), false),
  },
  {
    title: 'a time behind the last commit',
    wanted: () => time(pieces.at(-1)!.notes.marks[0]!.serverTime),
    rows: ALL,
  },
  {
    title: 'the first restore point of a name',
    wanted: () => ({ kind: 'name', name: 'sale' }),
    rows: '0 1 2 3 +orders',
    own: () => native('name', 'sale'),
  },
  { title: 'a savepoint', wanted: () => xid('savepoint', true), rows: '0 1 2 3 4 5 6 +orders' },
  {
    title: 'before the transaction of a savepoint',
    wanted: () => xid('savepoint', false),
    rows: '0 1 2 3 4 +orders',
    own: () => native('xid', marks.get('top')!, false),
  },
  {
    title: 'a prepared transaction',
    wanted: () => xid('prepared', true),
    rows: '0 1 2 3 4 5 6 7 8 +orders',
    own: () => native('xid', marks.get('prepared')!),
  },
  {
    title: 'before a prepared transaction, which is then in doubt',
    wanted: () => xid('prepared', false),
    rows: '0 1 2 3 4 5 6 8 +orders +prepared',
  },
  { title: 'before a drop', wanted: () => ({ kind: 'drop', name: 'public.orders' }), rows: UP_TO_NINE },
  { title: 'a position, inclusive', wanted: () => lsnMark(true), rows: UP_TO_NINE },
  { title: 'a position, exclusive', wanted: () => lsnMark(false), rows: UP_TO_NINE },
  {
    title: 'the end of the base',
    wanted: () => ({ kind: 'immediate' }),
    rows: '0 +orders',
    own: () => ["recovery_target = 'immediate'"],
  },
  { title: 'the end of the log', wanted: () => ({ kind: 'latest' }), rows: ALL, own: () => [] },
]

for (const { title, wanted, rows, own } of CASES)
  test(`a recovery stops where it is wanted: ${title}`, { skip, timeout: 60_000 }, async () => {
    const target = await resolve(wanted())
    assert.equal(await rowsAfter(settingsOf(target)), rows)
    if (own !== undefined) assert.equal(await rowsAfter(own()), rows)
  })

test('what is kept and what is lost is said', { skip }, async () => {
  const { kept, lost } = await resolve({ kind: 'drop', name: 'orders' })
  assert.equal(kept?.at, timeOfNine())
  assert.equal(kept.xid, Number(marks.get('nine')))
  assert.equal(lost.count, 3)
})

test('a target that the server would fail on is refused', { skip, timeout: 60_000 }, async () => {
  const ends = pieces.at(-1)!.notes
  const beyond = time(ends.marks[0]!.serverTime + 1_000_000n)
  const isRefused = (error: unknown): boolean => isFailure(error, 'restore.refused')
  await assert.rejects(resolve(beyond), isRefused)
  await assert.rejects(resolve({ kind: 'lsn', lsn: base.end - 8n, isInclusive: true }), isRefused)
  await assert.rejects(
    rowsAfter(native('lsn', formatLsn(ends.span!.end + 8n))),
    /before configured recovery target/,
  )
})

test('on a timeline that a recovery began', { skip, timeout: 120_000 }, async () => {
  const target = await resolve(time(BigInt(marks.get('after 2')!)))
  const recovered = await recover(settingsOf(target))
  try {
    sql(recovered, insert(100))
    sql(recovered, insert(101))
    const [first] = sql(recovered, 'select xmin from steps where step = 100')
    marks.set('hundred', first!)
  } finally {
    await stopPostgres(recovered, 'SIGQUIT')
  }
  const from = join(recovered.data, 'pg_wal')
  for (const name of readdirSync(from))
    if (name.startsWith('00000002')) cpSync(join(from, name), join(archive(), name))
  execFileSync('chmod', ['-R', 'a+rX', archive()])
  const history = parseHistory(2, readFileSync(join(archive(), '00000002.history'), 'utf8'))
  const both = [...pieces, ...readPieces(2, { names: [], marks: [] })]
  const log = { base, timeline: 2, history, pieces: both }
  const latest = await resolveTarget(log, { kind: 'latest' })
  assert.equal(latest.timeline, 2)
  assert.equal(await rowsAfter(settingsOf(latest)), '0 1 2 100 101 +orders')
  const one = await resolveTarget(log, xid('hundred', true))
  assert.equal(await rowsAfter(settingsOf(one)), '0 1 2 100 +orders')
  // The old branch is as it was.
  const old = await resolveTarget({ ...log, timeline: 1, history: [] }, { kind: 'latest' })
  assert.equal(await rowsAfter(settingsOf(old)), ALL)
})
