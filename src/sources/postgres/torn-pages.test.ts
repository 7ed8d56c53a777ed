import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  sql,
  type PostgresServer,
} from '../../../test/harness/postgres.ts'
import { placeOf } from '../../../test/harness/receive-log.ts'
import { parseLsn, type Lsn } from './lsn.ts'
import { closeReplication, openReplication, runCommand } from './replication.ts'
import { withoutTornPages, type Judged, type RelationFile } from './torn-pages.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
const within = { skip, timeout: 60_000 }
const SLOT = 'torn'
let server: PostgresServer

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres()
    sql(server, 'CREATE TABLE t AS SELECT n, md5(n::text) note FROM generate_series(1, 5000) n')
  },
  { timeout: 60_000 },
)
after(async () => {
  if (skip === false) await dropPostgres(server)
})

function here(): Lsn {
  return parseLsn(sql(server, 'SELECT pg_current_wal_insert_lsn()')[0] ?? '')
}

function touch(page: number): void {
  sql(server, `UPDATE t SET n = n WHERE ctid = '(${page},1)'`)
}

/** What is left of the damaged pages 1, 2 and 3 of table `t` in a backup from `start` to `end`. */
async function judge(
  start: Lsn,
  end: Lsn,
  more: Partial<RelationFile & { slot: string }> = {},
): Promise<Judged> {
  const [ids = ''] = sql(
    server,
    "SELECT oid, pg_relation_filenode('t') FROM pg_database WHERE datname = current_database()",
  )
  const [database = 0, relation = 0] = ids.split('|').map(Number)
  const { slot = SLOT, ...of } = more
  const file = { database, relation, isInitial: false, firstBlock: 0, ...of }
  const replication = await openReplication(placeOf(server))
  try {
    await runCommand(replication, `CREATE_REPLICATION_SLOT ${SLOT} TEMPORARY PHYSICAL RESERVE_WAL`)
    const log = { slot, timeline: 1, start, end, segmentBytes: 1 << 24, major: server.major, now: () => 0 }
    return await withoutTornPages(replication, log, [{ path: '/t', pages: [1, 2, 3], more: 0, file }])
  } finally {
    closeReplication(replication)
  }
}

test(
  'a page is torn if the log of the backup touches it, and damaged if only log around does',
  within,
  async () => {
    sql(server, 'SELECT pg_switch_wal()')
    touch(1)
    const start = here()
    touch(2)
    const end = here()
    touch(3)
    // All of it lies in one segment.
    assert.equal(start >> 24n, here() >> 24n)
    assert.deepEqual(await judge(start, end), { damaged: [{ path: '/t', pages: [1, 3], more: 0 }] })
    const whole = [{ path: '/t', pages: [1, 2, 3], more: 0 }]
    assert.deepEqual(await judge(start, end, { isInitial: true }), { damaged: whole })
    assert.deepEqual(await judge(start, end, { firstBlock: 131_072 }), { damaged: whole })
  },
)

test('where the log cannot be read every page stays damaged, in doubt', within, async () => {
  const { damaged, doubt } = await judge(here(), here() + 8n, { slot: 'none' })
  assert.deepEqual(damaged[0]?.pages, [1, 2, 3])
  assert.match(doubt?.message ?? '', /slot "none" does not exist/)
})
