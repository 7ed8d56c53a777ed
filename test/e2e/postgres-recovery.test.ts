/** Point-in-time recovery of a real PostgreSQL cluster: full backup, shipped log, restore, start. */
import assert from 'node:assert/strict'
import { appendFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { resolveGoal } from '../../src/recovery/recovery-goal.ts'
import { formatLsn, type Lsn } from '../../src/sources/postgres/lsn.ts'
import type { WantedTarget } from '../../src/sources/postgres/recovery-target.ts'
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
  stopPostgres,
  type PostgresServer,
} from '../harness/postgres.ts'
import {
  clusterSource,
  logEnd,
  restoreBeside,
  startShip,
  whileStarted,
  type RunningShip,
} from '../harness/postgres-cluster.ts'
import { makeStandby, promote } from '../harness/postgres-standby.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
const servers: PostgresServer[] = []
let server: PostgresServer
let current: PostgresServer
let repository: TestRepository
let running: RunningShip
let snapshot: string | undefined
/** Where the log ended when the table had so many rows. */
const ends = new Map<number, Lsn>()
/** Microseconds since 1970, when there were 2000 rows. */
let friday: bigint
/** The transaction that took 500 rows away. */
let xid: number

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres({ settings: ['max_wal_size = 64MB', 'min_wal_size = 32MB'] })
    servers.push(server)
    current = server
    // As an earlier recovery of this cluster may have left it: two targets would be an error.
    appendFileSync(join(server.data, 'postgresql.auto.conf'), "recovery_target_name = 'long ago'\n")
    sql(server, 'CREATE TABLE orders (id bigint PRIMARY KEY, note text)')
    repository = await makeRepository()
    running = startShip(repository, () => current)
    addOrders(1000)
    const summary = await backUp(
      repository,
      clusterSource(() => current),
    )
    assert.deepEqual([summary.problems, summary.kind], [[], 'full'])
    snapshot = summary.snapshot
    addOrders(2000)
    sql(server, "SELECT pg_create_restore_point('friday')")
    const [time = ''] = sql(
      server,
      "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
    )
    friday = BigInt(Date.parse(`${time.slice(0, 23)}Z`)) * 1000n + BigInt(time.slice(23))
    addOrders(2500)
    xid = Number(
      sql(server, 'BEGIN', 'DELETE FROM orders WHERE id > 2000', 'SELECT txid_current()', 'COMMIT')[0],
    )
    // More than one segment of log.
    addOrders(60_000)
    addOrders(60_001)
  },
  { timeout: 120_000 },
)

after(async () => {
  if (skip !== false) return
  try {
    await running.stop()
  } finally {
    // A server that is left behind keeps this process from ending.
    dropRepository(repository)
    for (const each of servers) await dropPostgres(each)
  }
})

/** Fills the table up to so many rows, in one transaction. */
function addOrders(upTo: number): void {
  const numbers = `generate_series((SELECT count(*) + 1 FROM orders), ${upTo})`
  sql(current, `INSERT INTO orders SELECT n, repeat(md5(n::text), 9) FROM ${numbers} AS n`)
  ends.set(upTo, logEnd(current))
}

function countOrders(at: PostgresServer): number {
  return Number(sql(at, 'SELECT count(*) FROM orders WHERE note = repeat(md5(id::text), 9)')[0])
}

test('the snapshot alone, then all of the log, come back', { skip, timeout: 120_000 }, async () => {
  await running.reached(ends.get(60_001)!)
  const alone = await restoreBeside(repository, server, snapshot)
  assert.equal(alone.summary.recovery, undefined)
  await whileStarted(alone.back, await freePort(), (back) => assert.equal(countOrders(back), 1000))
  const latest = await restoreBeside(repository, server, snapshot, { goal: { kind: 'latest' } })
  assert.ok((latest.summary.recovery?.bytes ?? 0) > 16 * 1024 * 1024)
  await whileStarted(latest.back, await freePort(), (back) => {
    assert.equal(countOrders(back), 60_001)
    assert.deepEqual(sql(back, 'SHOW restore_command'), ['false'])
    assert.equal(existsSync(join(back.data, 'recovery.signal')), false)
  })
})

test('a position is reached exactly', { skip, timeout: 120_000 }, async () => {
  const cases: [Lsn, boolean, number][] = [
    [ends.get(2000)!, true, 2000],
    // The last record before that end is the commit, which lies before the position.
    [ends.get(60_000)!, true, 60_000],
    [ends.get(60_001)! - 1n, false, 60_001],
  ]
  await running.reached(ends.get(60_001)!)
  for (const [lsn, isExclusive, rows] of cases) {
    const goal = { kind: 'lsn', lsn, isExclusive } as const
    const { back } = await restoreBeside(repository, server, snapshot, { goal })
    await whileStarted(back, await freePort(), (at) => assert.equal(countOrders(at), rows, formatLsn(lsn)))
  }
})

test(
  'what people ask for is found in the notes, in merged segments too',
  { skip, timeout: 120_000 },
  async () => {
    await running.reached(ends.get(60_001)!)
    const snapshots = await snapshotsOf(repository)
    const cases: [WantedTarget, number][] = [
      [{ kind: 'time', at: friday, isInclusive: true }, 2000],
      [{ kind: 'name', name: 'friday' }, 2000],
      [{ kind: 'xid', xid, isInclusive: false }, 2500],
      [{ kind: 'xid', xid, isInclusive: true }, 2000],
    ]
    for (const [target, rows] of cases) {
      const found = await resolveGoal(repository.access, snapshots, { target, timeline: undefined })
      const { lsn, isInclusive } = found.target
      assert.equal(found.target.lost.count > 0, true)
      const goal = { kind: 'lsn', lsn, isExclusive: !isInclusive } as const
      const { back } = await restoreBeside(repository, server, found.snapshot.id, { goal })
      await whileStarted(back, await freePort(), (at) => assert.equal(countOrders(at), rows, target.kind))
    }
    const far = { target: { kind: 'name', name: 'monday' }, timeline: undefined } as const
    await assert.rejects(resolveGoal(repository.access, snapshots, far), {
      code: 'restore.refused',
      message: /restore point "friday" at/,
    })
  },
)

test('a position out of reach is refused before anything is written', { skip, timeout: 60_000 }, async () => {
  const far = { kind: 'lsn', lsn: logEnd(current) + (1n << 30n), isExclusive: false } as const
  const early = { kind: 'lsn', lsn: 100n, isExclusive: false } as const
  for (const [goal, message] of [
    [far, /lies beyond the log, which ends at/],
    [early, /lies before the end of the backup/],
  ] as const)
    await assert.rejects(restoreBeside(repository, server, snapshot, { goal }), {
      code: 'restore.refused',
      message,
      facts: { hint: 'Choose a moment, or a timeline, that `backstock timeline` shows.' },
    })
  const latest = { goal: { kind: 'latest' }, timeline: 7 } as const
  await assert.rejects(restoreBeside(repository, server, snapshot, latest), {
    code: 'restore.refused',
    message: /timeline 7 does not come from timeline 1/,
  })
})

test('the log goes on across a promotion', { skip, timeout: 120_000 }, async () => {
  // A standby would heed it too.
  sql(server, 'ALTER SYSTEM RESET recovery_target_name')
  const standby = await makeStandby(server)
  servers.push(standby)
  const lsn = logEnd(server)
  await running.reached(lsn)
  await stopPostgres(server)
  promote(standby)
  current = standby
  addOrders(60_500)
  await running.reached(ends.get(60_500)!)
  const { back, summary } = await restoreBeside(repository, standby, snapshot, { goal: { kind: 'latest' } })
  assert.equal(summary.recovery?.target?.timeline, 2)
  await whileStarted(back, await freePort(), (at) => assert.equal(countOrders(at), 60_500))
  // What lies before the switch is still reached, by position and by time.
  const snapshots = await snapshotsOf(repository)
  const wanted = { target: { kind: 'time', at: friday, isInclusive: true }, timeline: undefined } as const
  const found = (await resolveGoal(repository.access, snapshots, wanted)).target
  for (const [lsn, isExclusive] of [
    [ends.get(2000)!, true],
    [found.lsn, !found.isInclusive],
  ] as const) {
    const goal = { kind: 'lsn', lsn, isExclusive } as const
    const early = await restoreBeside(repository, standby, snapshot, { goal })
    assert.equal(early.summary.recovery?.target?.timeline, 1)
    await whileStarted(early.back, await freePort(), (at) => assert.equal(countOrders(at), 2000))
  }
  // The timeline that was left can still be chosen.
  const old = { goal: { kind: 'latest' }, timeline: 1 } as const
  const { back: before } = await restoreBeside(repository, standby, snapshot, old)
  await whileStarted(before, await freePort(), (at) => assert.equal(countOrders(at), 60_001))
})
