/**
 * `logs: archive` of a real server: its archive_command hands the log over, ship stores it, a restore uses
 * it.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, chownSync, mkdirSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { resolveGoal } from '../../src/recovery/recovery-goal.ts'
import { archiveCommand } from '../../src/sources/postgres/archive-command.ts'
import { makeInbox } from '../../src/sources/postgres/archive-inbox.ts'
import { formatLsn, parseLsn, type Lsn } from '../../src/sources/postgres/lsn.ts'
import {
  backUp,
  dropRepository,
  makeRepository,
  snapshotsOf,
  type TestRepository,
} from '../harness/engine.ts'
import {
  dropPostgres,
  freePort,
  makePostgres,
  postgresFolder,
  sql,
  type PostgresServer,
} from '../harness/postgres.ts'
import {
  clusterSource,
  restoreBeside,
  spoolOf,
  startShip,
  whileStarted,
  type RunningShip,
} from '../harness/postgres-cluster.ts'
import { untilTrue } from '../harness/postgres-pitr.ts'
import { killPostgres, makeStandby, promote } from '../harness/postgres-standby.ts'
import { dropHost, eventsOf, here, makeHost, start, type Event } from '../harness/shop-host.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
const client = fileURLToPath(new URL('../../bin/backstock-archive', import.meta.url))
const servers: PostgresServer[] = []
let server: PostgresServer
let repository: TestRepository
let running: RunningShip
let inbox: string
let snapshot: string | undefined
/** Microseconds since 1970, when there were 2000 rows. */
let friday: bigint

before(
  async () => {
    if (skip !== false) return
    repository = await makeRepository()
    const spool = spoolOf(repository)
    mkdirSync(spool, { recursive: true })
    inbox = makeInbox(spool, 16)
    chmodSync(repository.folder, 0o711)
    const command = archiveCommand(client, inbox)
    server = await makePostgres({
      initdb: ['--wal-segsize=1'],
      settings: ["archive_mode = 'on'", `archive_command = '${command}'`, 'archive_timeout = 0'],
    })
    servers.push(server)
    // The server's user may write by the inbox's group.
    chownSync(inbox, statSync(inbox).uid, statSync(server.data).gid)
    chmodSync(inbox, 0o2770)
    running = startShip(repository, () => server, { isArchived: true })
    sql(server, 'CREATE TABLE orders (id bigint PRIMARY KEY, note text)')
    addOrders(server, 1000)
    const summary = await backUp(
      repository,
      clusterSource(() => server),
    )
    assert.deepEqual(summary.problems, [])
    snapshot = summary.snapshot
    addOrders(server, 2000)
    const [time = ''] = sql(
      server,
      "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
    )
    friday = BigInt(Date.parse(`${time.slice(0, 23)}Z`)) * 1000n + BigInt(time.slice(23))
    sql(server, 'DELETE FROM orders WHERE id > 500')
    // More than one segment of log.
    addOrders(server, 20_000)
  },
  { timeout: 120_000 },
)

after(async () => {
  if (skip !== false) return
  await running.stop()
  dropRepository(repository)
  for (const each of servers) await dropPostgres(each)
})

/** Fills the table up to so many rows, in one transaction. */
function addOrders(to: PostgresServer, upTo: number): void {
  const numbers = `generate_series((SELECT count(*) + 1 FROM orders), ${upTo})`
  sql(to, `INSERT INTO orders SELECT n, repeat(md5(n::text), 9) FROM ${numbers} AS n`)
}

/** Where the log ended when its segment was finished, so that it is handed over. */
function switchLog(of: PostgresServer): Lsn {
  return parseLsn(sql(of, 'SELECT pg_switch_wal()')[0] ?? '')
}

function countOrders(at: PostgresServer): number {
  return Number(sql(at, 'SELECT count(*) FROM orders WHERE note = repeat(md5(id::text), 9)')[0])
}

async function countRestored(goal: Parameters<typeof restoreBeside>[3]): Promise<number> {
  const { back } = await restoreBeside(repository, server, snapshot, goal)
  let count = 0
  await whileStarted(back, await freePort(), (at) => {
    count = countOrders(at)
  })
  return count
}

test(
  'log that was handed over is restored, to its end and to a time',
  { skip, timeout: 120_000 },
  async () => {
    await running.reached(switchLog(server))
    assert.equal(await countRestored({ goal: { kind: 'latest' } }), 20_000)
    const wanted = { target: { kind: 'time', at: friday, isInclusive: true }, timeline: undefined } as const
    const found = (await resolveGoal(repository.access, await snapshotsOf(repository), wanted)).target
    const goal = { kind: 'lsn', lsn: found.lsn, isExclusive: !found.isInclusive } as const
    assert.equal(await countRestored({ goal }), 2000)
    assert.deepEqual(readdirSync(inbox), ['.backstock'])
  },
)

test(
  'what is handed over while ship is stopped is taken when it starts',
  { skip, timeout: 60_000 },
  async () => {
    await running.stop()
    sql(server, "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 3000000))")
    const end = switchLog(server)
    running = startShip(repository, () => server, { isArchived: true })
    await running.reached(end)
  },
)

test('the log goes on across a promotion', { skip, timeout: 120_000 }, async () => {
  const standby = await makeStandby(server)
  servers.push(standby)
  // What a server finished and did not hand over before it died, nobody does: a standby marks it as done. And
  // who first reads rows marks their pages, which goes to the log as well.
  assert.equal(countOrders(server), 20_000)
  await running.reached(switchLog(server))
  sql(server, "INSERT INTO orders VALUES (20001, repeat(md5('20001'), 9))")
  const [end] = sql(server, 'SELECT pg_current_wal_flush_lsn()')
  const isReplayed = `SELECT pg_last_wal_replay_lsn() >= '${end}'`
  while (sql(standby, isReplayed)[0] !== 't');
  await killPostgres(server)
  promote(standby)
  addOrders(standby, 21_000)
  await running.reached(switchLog(standby))
  const { back, summary } = await restoreBeside(repository, standby, snapshot, { goal: { kind: 'latest' } })
  assert.equal(summary.recovery?.target?.timeline, 2)
  await whileStarted(back, await freePort(), (at) => assert.equal(countOrders(at), 21_000))
  const wal = readdirSync(join(standby.data, 'pg_wal'))
  assert.ok(wal.some((name) => name.endsWith('.partial')))
  assert.deepEqual(readdirSync(inbox), ['.backstock'])
})

test('check prints the archive_command that ship needs', { skip, timeout: 60_000 }, async () => {
  const current = servers.at(-1)!
  const url = `postgres://postgres@127.0.0.1:${current.port}/postgres?sslmode=disable`
  const host = makeHost({
    repository: 'store: repo, identity: identity.age, spool: spool',
    sources: `  orders: { kind: postgres, url: '${url}', logs: archive }\n`,
  })
  assert.equal((await here(host, ['init'])).exit, 0)
  const child = start(host, ['ship', '--json'])
  try {
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const nextLine = async (): Promise<string> => {
      const { value, done } = await lines.next()
      return done === true ? assert.fail('ship ended') : value
    }
    const place = /first file in \\"(.+)\\""/.exec(await nextLine())?.[1] ?? ''
    for (const folder of [host.dir, join(host.dir, 'spool')]) chmodSync(folder, 0o711)
    chownSync(place, statSync(place).uid, statSync(current.data).gid)
    chmodSync(place, 0o2770)
    const findings = async (): Promise<Event[]> =>
      eventsOf(await here(host, ['check', '--json'])).filter(({ code }) => /archive/.test(String(code)))
    const [found, ...others] = await findings()
    assert.deepEqual([found?.['code'], others], ['server.archive-command', []])
    const mend = found?.['mend'] as string[]
    assert.equal(mend[0], `ALTER SYSTEM SET archive_command = '${archiveCommand(client, place)}';`)
    for (const statement of mend) sql(current, statement)
    addOrders(current, 21_100)
    const end = formatLsn(((switchLog(current) >> 20n) + 1n) << 20n)
    while (!(await nextLine()).includes(`"lsn":"${end}"`));
    assert.deepEqual(await findings(), [])
    chmodSync(place, 0)
    addOrders(current, 21_200)
    switchLog(current)
    await untilTrue(current, 'select last_failed_time > last_archived_time from pg_stat_archiver')
    const failing = await findings()
    assert.deepEqual([failing[0]?.['code'], failing.length], ['server.archive-failing', 1])
    chmodSync(place, 0o2770)
    // Wakes the archiver, which by now waits a minute before it tries again.
    addOrders(current, 21_300)
    switchLog(current)
    await untilTrue(current, 'select last_archived_time > last_failed_time from pg_stat_archiver')
    assert.deepEqual(await findings(), [])
  } finally {
    child.kill('SIGKILL')
    await once(child, 'close')
    dropHost(host)
  }
})
