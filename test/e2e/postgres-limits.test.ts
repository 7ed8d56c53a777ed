/** A source whose limits were raised after its backup, or lowered for its next start: the copy starts. */
import assert from 'node:assert/strict'
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { backUp, dropRepository, makeRepository } from '../harness/engine.ts'
import {
  dropPostgres,
  freePort,
  makePostgres,
  postgresFolder,
  sql,
  startPostgres,
  stopPostgres,
} from '../harness/postgres.ts'
import { clusterSource, logEnd, restoreBeside, startShip, whileStarted } from '../harness/postgres-cluster.ts'

const RAISED = {
  max_connections: 123,
  max_worker_processes: 11,
  max_wal_senders: 14,
  max_prepared_transactions: 3,
  max_locks_per_transaction: 77,
}
const LINES = Object.entries(RAISED).map(([name, value]) => `${name} = ${value}`)

for (const version of [15, 18]) {
  const skip = postgresFolder(version) === undefined ? `PostgreSQL ${version} is not here` : false
  test(
    `a recovery goes past raised limits, and they stay, version ${version}`,
    { skip, timeout: 120_000 },
    async () => {
      const server = await makePostgres({ version, settings: ['max_connections = 50'] })
      const repository = await makeRepository()
      const running = startShip(repository, () => server)
      try {
        sql(server, 'CREATE TABLE orders (id int)', 'INSERT INTO orders VALUES (1)')
        const source = clusterSource(() => server)
        const { snapshot } = await backUp(repository, source)
        await stopPostgres(server)
        const path = join(server.data, 'postgresql.conf')
        const low = readFileSync(path, 'utf8')
        appendFileSync(path, LINES.join('\n'))
        await startPostgres(server)
        sql(server, 'BEGIN', 'INSERT INTO orders VALUES (2)', "PREPARE TRANSACTION 'later'")
        sql(server, 'INSERT INTO orders VALUES (3)')
        await running.reached(logEnd(server))
        writeFileSync(path, low)
        const again = await backUp(repository, source)
        const goal = { kind: 'latest' } as const
        for (const { back } of [
          await restoreBeside(repository, server, snapshot, { goal }),
          await restoreBeside(repository, server, again.snapshot),
        ]) {
          await whileStarted(back, await freePort(), (at) => {
            for (const [name, value] of Object.entries(RAISED))
              assert.deepEqual(sql(at, `SHOW ${name}`), [String(value)])
          })
          // What was prepared needs them at each start.
          await whileStarted(back, await freePort(), (at) => {
            sql(at, "COMMIT PREPARED 'later'")
            assert.deepEqual(sql(at, 'SELECT id FROM orders ORDER BY id'), ['1', '2', '3'])
          })
        }
      } finally {
        await running.stop()
        dropRepository(repository)
        await dropPostgres(server)
      }
    },
  )
}
