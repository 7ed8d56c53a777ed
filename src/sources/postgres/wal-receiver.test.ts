/** The receiver against real servers: every byte that it says is durable is the server's own. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  sql,
  startPostgres,
  stopPostgres,
  type PostgresServer,
} from '../../../test/harness/postgres.ts'
import {
  compareWithServer,
  flushedEnd,
  killChild,
  receiveFrom,
  SLOT,
  spawnReceiver,
  untilCaughtUp,
  withSpool,
} from '../../../test/harness/receive-log.ts'
import { parseLsn, type Lsn } from './lsn.ts'
import { spoolPosition, spoolRanges } from './spool.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
let folder: string
let server: PostgresServer | undefined

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'backstock-spool-'))
})
afterEach(async () => {
  if (server !== undefined) await dropPostgres(server)
  server = undefined
  rmSync(folder, { recursive: true })
})

async function makeServer(segmentMegabytes = 1): Promise<PostgresServer> {
  server = await makePostgres({
    initdb: [`--wal-segsize=${segmentMegabytes}`],
    settings: ['wal_keep_size = 4GB', 'max_wal_size = 4GB'],
  })
  return server
}

for (const megabytes of [1, 64]) {
  test(
    `receiveWal() makes the log durable as the server has it, in segments of ${megabytes} MiB`,
    { skip, timeout: 120_000 },
    async () => {
      const from = await makeServer(megabytes)
      await withSpool(folder, async (spool) => {
        const receiving = receiveFrom(() => from, spool)
        await receiving.until(() => receiving.durable.length > 0)
        sql(from, 'create table t as select i, repeat(i::text, 10) from generate_series(1, 100000) i')
        sql(from, 'select pg_switch_wal()', 'insert into t select * from t limit 1000')
        const end = await untilCaughtUp(receiving, from)
        await receiving.until(() => receiving.marks.some(({ lsn }) => lsn >= end))
        const mark = receiving.marks.at(-1)!
        const drift = Number(mark.serverTime / 1000n) - mark.receivedAt
        assert.ok(Math.abs(drift) < 5000, `${drift} ms`)
        const [restart = ''] = sql(from, 'select restart_lsn from pg_replication_slots')
        assert.ok(parseLsn(restart) > 0n && parseLsn(restart) <= spool.logs[0]!.durable)
        await receiving.stop()
        assert.equal(receiving.states[0]?.kind, 'connected')
        assert.equal(receiving.states.length, 1)
        assert.ok(compareWithServer(spool, from, 1, end) > 10_000_000)
        const lsns = receiving.durable.map(({ lsn }) => lsn)
        assert.ok(lsns.every((lsn, nth) => nth === 0 || lsn > lsns[nth - 1]!))
        assert.deepEqual(sql(from, 'select slot_name, active from pg_replication_slots'), [`${SLOT}|f`])
      })
    },
  )
}

test('a receiver that is started again goes on where it was', { skip, timeout: 60_000 }, async () => {
  const from = await makeServer()
  const ends: Lsn[] = []
  for (const round of [1, 2, 3]) {
    await withSpool(folder, async (spool) => {
      if (round > 1) assert.ok(spoolPosition(spool)!.lsn >= ends.at(-1)!)
      const receiving = receiveFrom(() => from, spool)
      sql(from, `create table t${round} as select generate_series(1, 20000)`)
      // The end of a segment is the place where nothing of the next one is held.
      if (round === 2) sql(from, 'select pg_switch_wal()')
      ends.push(await untilCaughtUp(receiving, from))
      await receiving.stop()
    })
  }
  await withSpool(folder, (spool) => {
    compareWithServer(spool, from, 1, ends.at(-1)!)
    assert.equal(spoolRanges(spool).length, 1)
  })
})

test('a lost server is told and waited for', { skip, timeout: 60_000 }, async () => {
  const from = await makeServer()
  await withSpool(folder, async (spool) => {
    const receiving = receiveFrom(() => from, spool)
    sql(from, 'create table t as select generate_series(1, 50000) i')
    await untilCaughtUp(receiving, from)
    await stopPostgres(from, 'SIGQUIT')
    await receiving.until(() => receiving.states.some(({ kind }) => kind === 'disconnected'))
    await startPostgres(from)
    sql(from, 'insert into t select i from t')
    const end = await untilCaughtUp(receiving, from)
    await receiving.stop()
    const kinds = receiving.states.map(({ kind }) => kind)
    assert.equal(kinds[0], 'connected')
    assert.equal(kinds.at(-1), 'connected')
    compareWithServer(spool, from, 1, end)
  })
})

test(
  'what a killed receiver said is durable is there, nothing is skipped, nothing is doubled',
  { skip, timeout: 120_000 },
  async () => {
    const from = await makeServer()
    sql(from, 'create table t (i int, note text)')
    let said: Lsn = 0n
    for (let round = 0; round < 5; round++) {
      const { child, lines } = spawnReceiver(folder, from)
      sql(from, "insert into t select i, repeat('x', i % 500) from generate_series(1, 20000) i")
      let count = 0
      for await (const { lsn } of lines) {
        said = parseLsn(lsn!)
        // Amid the load, at another place each time.
        if (++count > 3 * round) break
        sql(from, "insert into t select i, 'y' from generate_series(1, 1000) i")
      }
      await killChild(child)
      if (round === 2) {
        await stopPostgres(from, 'SIGQUIT')
        await startPostgres(from)
      }
      await withSpool(folder, (spool) => {
        // Half of a record has no checksum: it is there, but only sound when it came again.
        const { received, end } = spool.logs[0]!
        assert.ok(end >= said && received <= end, 'what was said is there')
        compareWithServer(spool, from, 1, end)
      })
    }
    await withSpool(folder, async (spool) => {
      const receiving = receiveFrom(() => from, spool)
      const end = await untilCaughtUp(receiving, from)
      await receiving.stop()
      compareWithServer(spool, from, 1, end)
      assert.equal(flushedEnd(from) >= end, true)
    })
  },
)
