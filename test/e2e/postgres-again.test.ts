/**
 * A recovered cluster leads a life of its own: what its recovery needed disturbs neither a standby nor the
 * next one.
 */
import assert from 'node:assert/strict'
import { existsSync, statSync, writeFileSync, appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { readAutoConf } from '../../src/recovery/auto-conf.ts'
import { backUp, dropRepository, makeRepository, type TestRepository } from '../harness/engine.ts'
import {
  dropPostgres,
  freePort,
  makePostgres,
  postgresFolder,
  sql,
  type PostgresServer,
} from '../harness/postgres.ts'
import { clusterSource, logEnd, restoreBeside, startShip, whileStarted } from '../harness/postgres-cluster.ts'
import { makeStandby } from '../harness/postgres-standby.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false

/** Backs up, then fills the table to 20 and 30 rows; what lies behind the backup is only in the log. */
async function fillShipped(
  server: PostgresServer,
  repository: TestRepository,
): Promise<{ snapshot: string; twenty: bigint }> {
  const running = startShip(repository, () => server)
  try {
    const { snapshot = '' } = await backUp(
      repository,
      clusterSource(() => server),
    )
    sql(server, 'INSERT INTO orders SELECT generate_series(11, 20)')
    const twenty = logEnd(server)
    sql(server, 'INSERT INTO orders SELECT generate_series(21, 30)')
    await running.reached(logEnd(server))
    return { snapshot, twenty }
  } finally {
    await running.stop()
  }
}

test(
  'a recovered server keeps nothing of its recovery, and is recovered again',
  { skip, timeout: 60_000 },
  async () => {
    const server = await makePostgres()
    const repositories = [await makeRepository(), await makeRepository()] as const
    const told = join(server.dir, 'told')
    try {
      // Of a server that was a standby with a delay: its copy would wait, and tell the world.
      const settings = [
        "recovery_min_apply_delay = '8h'",
        `recovery_end_command = 'touch ${told}'`,
        `archive_cleanup_command = 'touch ${told}'`,
      ]
      appendFileSync(join(server.data, 'postgresql.conf'), `${settings.join('\n')}\n`)
      writeFileSync(
        join(server.data, 'postgresql.auto.conf'),
        "recovery_target_time = '2020-01-01'\nwork_mem = '9MB'\n",
      )
      sql(server, 'CREATE TABLE orders AS SELECT generate_series(1, 10) AS n')
      const { snapshot, twenty } = await fillShipped(server, repositories[0])
      const first = await restoreBeside(repositories[0], server, snapshot, {
        goal: { kind: 'lsn', lsn: twenty, isExclusive: true },
      })
      let again = { snapshot: '', twenty: 0n }
      await whileStarted(first.back, await freePort(), async (at) => {
        assert.deepEqual(sql(at, 'SELECT count(*) FROM orders'), ['20'])
        const lines = readAutoConf(at.data).lines.join('\n')
        assert.doesNotMatch(lines, /recovery_target|restore_command|# backstock: recovery/)
        assert.match(lines, /^work_mem = '9MB'$/m)
        assert.equal(statSync(join(at.data, 'postgresql.auto.conf')).mode & 0o777, 0o600)
        sql(at, 'DELETE FROM orders WHERE n > 10')
        again = await fillShipped(at, repositories[1])
        sql(at, 'ALTER SYSTEM SET hot_standby = on')
        const standby = await makeStandby(at)
        try {
          assert.deepEqual(sql(standby, 'SELECT pg_is_in_recovery()'), ['t'])
        } finally {
          await dropPostgres(standby)
        }
      })
      const second = await restoreBeside(repositories[1], server, again.snapshot, {
        goal: { kind: 'lsn', lsn: again.twenty, isExclusive: true },
      })
      await whileStarted(second.back, await freePort(), (at) => {
        assert.deepEqual(sql(at, 'SELECT count(*) FROM orders'), ['20'])
      })
      assert.equal(existsSync(told), false)
    } finally {
      for (const repository of repositories) dropRepository(repository)
      await dropPostgres(server)
    }
  },
)
