/** A record of the log that is longer than files of the log are, just where a recovery has to stop. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { backUp, dropRepository, makeRepository } from '../harness/engine.ts'
import { dropPostgres, freePort, makePostgres, postgresFolder, sql } from '../harness/postgres.ts'
import { clusterSource, logEnd, restoreBeside, startShip, whileStarted } from '../harness/postgres-cluster.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
const LONG = "SELECT pg_logical_emit_message(false, 'x', repeat('a', 5 * 1024 * 1024))"

test('a recovery stops at a record of many files', { skip, timeout: 120_000 }, async () => {
  const server = await makePostgres({ initdb: ['--wal-segsize=1'] })
  const repository = await makeRepository()
  const current = (): typeof server => server
  const running = startShip(repository, current)
  try {
    sql(server, 'CREATE TABLE steps (step int)')
    const { snapshot } = await backUp(repository, clusterSource(current))
    sql(server, 'INSERT INTO steps VALUES (1)')
    const lsn = logEnd(server)
    sql(server, LONG)
    sql(server, 'INSERT INTO steps VALUES (2)')
    sql(server, LONG)
    sql(server, 'INSERT INTO steps VALUES (3)')
    await running.reached(logEnd(server))
    for (const [isExclusive, end] of [
      [false, lsn],
      [true, lsn + 16n],
    ] as const) {
      // Exclusive and amid the record: the next one is what it stops before.
      const goal = { kind: 'lsn', lsn: end, isExclusive } as const
      const { back, summary } = await restoreBeside(repository, server, snapshot, { goal })
      assert.ok((summary.recovery?.bytes ?? 0) < 9 * 1024 * 1024, 'no more than the record takes is written')
      await whileStarted(back, await freePort(), (at) => {
        assert.deepEqual(sql(at, 'SELECT max(step) FROM steps'), ['1'])
      })
    }
  } finally {
    await running.stop().catch(() => undefined)
    dropRepository(repository)
    await dropPostgres(server)
  }
})
