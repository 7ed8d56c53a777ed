/**
 * The whole way with one version of PostgreSQL: a full backup under load, shipped log, restore, recovery to
 * each kind of target, and what came back compared with the source.
 */
import assert from 'node:assert/strict'
import { Client } from 'pg'
import { resolveGoal } from '../../src/recovery/recovery-goal.ts'
import { parseLsn, type Lsn } from '../../src/sources/postgres/lsn.ts'
import type { WantedTarget } from '../../src/sources/postgres/recovery-target.ts'
import { backUp, dropRepository, makeRepository, snapshotsOf, type TestRepository } from './engine.ts'
import { dropPostgres, freePort, makePostgres, query, type PostgresServer } from './postgres.ts'
import { clusterSource, restoreBeside, startShip, whileStarted } from './postgres-cluster.ts'
import { checkPages, checkStructures, dumpText, sequencePlaces, tableHashes } from './postgres-state.ts'

const ACCOUNTS = 2000
const SCHEMA: readonly string[] = [
  'create extension amcheck',
  'create table accounts (id int primary key, balance int not null, note text)',
  `insert into accounts select n, 0, md5(n::text) from generate_series(1, ${ACCOUNTS}) n`,
  "create type status as enum ('open', 'paid')",
  `create table orders (id bigint generated always as identity, placed date, state status, lines jsonb)
    partition by range (placed)`,
  "create table orders_old partition of orders for values from ('2020-01-01') to ('2026-01-01')",
  "create table orders_new partition of orders for values from ('2026-01-01') to ('2030-01-01')",
  'create index on orders using gin (lines)',
  'create index on orders (placed, id)',
  `insert into orders (placed, state, lines)
    select '2025-06-01'::date + n % 400, 'paid', jsonb_build_object('n', n, 'sku', md5(n::text))
    from generate_series(1, 5000) n`,
  'create table photos (id int primary key, bytes text)',
  // Long and not compressible: out of line.
  `insert into photos select n, (select string_agg(md5((n * 1000 + m)::text), '')
    from generate_series(1, 300) m) from generate_series(1, 40) n`,
  "create view paid as select * from orders where state = 'paid'",
  'create materialized view per_day as select placed, count(*) from orders group by 1',
  "create function twice(n int) returns int language sql as 'select n * 2'",
  "select lo_from_bytea(0, convert_to(repeat(md5('lo'), 5000), 'UTF8'))",
  'create unlogged table carts as select generate_series(1, 500) id',
  'create table steps (step int)',
  'create table churn (id int, note text)',
]

/** What the load does, one transaction each: money moves, tables come and go. */
const LOAD: readonly string[] = [
  ...Array.from(
    { length: 8 },
    (_, at) =>
      `update accounts set balance = balance - ${at}, note = note || 'x' where id = 1 + ${at * 37};
      insert into churn select n, md5(n::text) from generate_series(1, 20) n;
      update accounts set balance = balance + ${at} where id = ${ACCOUNTS} - ${at * 53}`,
  ),
  'create table passing as select generate_series(1, 3000) id; create index on passing (id)',
  'truncate churn; drop table passing',
]

interface World {
  readonly server: PostgresServer
  readonly repository: TestRepository
  readonly snapshot: string | undefined
}

/** Steps that are in the table `steps` after a recovery, by target. */
interface Goal {
  readonly title: string
  readonly wanted: WantedTarget
  readonly steps: number
}

/** Tells by `say` what has been done. */
export async function proveVersion(version: number, say: (done: string) => void): Promise<void> {
  const server = await makePostgres({ version, settings: ['max_prepared_transactions = 5'] })
  const repository = await makeRepository()
  const running = startShip(repository, () => server)
  try {
    assert.equal(server.major, version)
    await query(server, ...SCHEMA)
    const { snapshot, problems, kind } = await withLoad(server, () =>
      backUp(
        repository,
        clusterSource(() => server),
        { workers: 2 },
      ),
    )
    assert.deepEqual([problems, kind], [[], 'full'])
    say('backed up under load')
    const world = { server, repository, snapshot }
    await proveAlone(world)
    say('restored by itself')
    const goals = await makeSteps(server)
    await running.reached(await logEnd(server))
    for (const goal of goals) {
      await proveGoal(world, goal)
      say(`recovered to ${goal.title}`)
    }
  } finally {
    await running.stop().catch(() => undefined)
    dropRepository(repository)
    await dropPostgres(server)
  }
}

async function withLoad<T>(server: PostgresServer, body: () => Promise<T>): Promise<T> {
  const client = new Client({ host: '127.0.0.1', port: server.port, user: 'postgres', database: 'postgres' })
  await client.connect()
  const end = new AbortController()
  const load = async (): Promise<number> => {
    let turns = 0
    // The last turn is a whole one: what comes and goes has gone.
    for (; !end.signal.aborted; turns++) for (const text of LOAD) await client.query(text)
    return turns
  }
  const loading = load()
  try {
    return await body()
  } finally {
    end.abort()
    const turns = await loading
    await client.end()
    assert.ok(turns >= 2, `only ${turns} rounds of load while the backup ran`)
  }
}

async function logEnd(server: PostgresServer): Promise<Lsn> {
  return parseLsn((await query(server, 'select pg_current_wal_flush_lsn()'))[0] ?? '')
}

/** The backup with its own log: some moment of the load, whole. */
async function proveAlone({ server, repository, snapshot }: World): Promise<void> {
  const { back } = await restoreBeside(repository, server, snapshot, { workers: 2 })
  await whileStarted(back, await freePort(), async (at) => {
    assert.deepEqual(await query(at, 'select count(*), sum(balance) from accounts'), [`${ACCOUNTS}|0`])
    assert.deepEqual(await query(at, 'select count(*) from carts'), ['0'])
    assert.deepEqual(await query(at, 'select count(*) % 20 from churn'), ['0'])
    await checkStructures(at)
  })
  checkPages(back)
}

/** One transaction each, and the targets that lie between them. */
async function makeSteps(server: PostgresServer): Promise<Goal[]> {
  const run = async (...statements: readonly string[]): Promise<string> =>
    (await query(server, ...statements)).at(-1) ?? ''
  const insert = (step: number): string => `insert into steps values (${step})`
  await run(insert(1))
  const lsn = await logEnd(server)
  await run(insert(2))
  const at = BigInt(await run('select (extract(epoch from clock_timestamp()) * 1000000)::bigint'))
  await run(insert(3))
  await run("select pg_create_restore_point('sale')")
  const prepared = await run(
    'begin',
    insert(4),
    'select pg_current_xact_id()',
    "prepare transaction 'p'",
    "select transaction from pg_prepared_xacts where gid = 'p'",
  )
  await run("commit prepared 'p'")
  const xid = await run(
    'begin',
    'savepoint a',
    insert(5),
    'release a',
    'select pg_current_xact_id()',
    'commit',
    'select max(xmin::text::bigint) from steps where step = 5',
  )
  await run(insert(6))
  // What a recovery must not do again.
  await run('begin', insert(99), 'rollback')
  return [
    { title: 'a position', wanted: { kind: 'lsn', lsn, isInclusive: true }, steps: 1 },
    { title: 'a time', wanted: { kind: 'time', at, isInclusive: true }, steps: 2 },
    { title: 'a restore point', wanted: { kind: 'name', name: 'sale' }, steps: 3 },
    {
      title: 'a prepared transaction',
      wanted: { kind: 'xid', xid: Number(prepared), isInclusive: true },
      steps: 4,
    },
    {
      title: 'before the transaction of a savepoint',
      wanted: { kind: 'xid', xid: Number(xid), isInclusive: false },
      steps: 4,
    },
    { title: 'the end of the log', wanted: { kind: 'latest' }, steps: 6 },
  ]
}

async function proveGoal(world: World, { title, wanted, steps }: Goal): Promise<void> {
  const { server, repository } = world
  const snapshots = await snapshotsOf(repository)
  const { snapshot, target } = await resolveGoal(repository.access, snapshots, {
    target: wanted,
    timeline: undefined,
  })
  const goal = { kind: 'lsn', lsn: target.lsn, isExclusive: !target.isInclusive } as const
  const { timeline } = target
  const { back } = await restoreBeside(repository, server, snapshot.id, { goal, timeline })
  await whileStarted(back, await freePort(), async (at) => {
    const found = await query(at, 'select count(*), count(distinct step), coalesce(max(step), 0) from steps')
    assert.deepEqual(found, [`${steps}|${steps}|${steps}`], title)
    assert.deepEqual(await query(at, 'select sum(balance) from accounts'), ['0'])
    if (wanted.kind === 'latest') await compareAll(server, at)
  })
  if (wanted.kind === 'latest') checkPages(back)
}

async function compareAll(server: PostgresServer, back: PostgresServer): Promise<void> {
  const [wanted, found] = [await tableHashes(server), await tableHashes(back)]
  assert.ok(wanted.length > 50)
  assert.deepEqual(found, wanted)
  const dump = dumpText(server)
  assert.equal(dumpText(back), dump)
  if (dump !== undefined) assert.match(dump, /^COPY public\.accounts /m)
  const places = await sequencePlaces(back)
  for (const [name, value] of await sequencePlaces(server)) assert.ok((places.get(name) ?? -1) >= value, name)
  await checkStructures(back)
}
