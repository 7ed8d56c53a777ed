/** A real PostgreSQL cluster through the engine and back. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdirSync, mkdtempSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { backUp, dropRepository, makeRepository } from '../harness/engine.ts'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  runAs,
  sql,
  type PostgresServer,
} from '../harness/postgres.ts'
import { clusterSource, restoreBeside, whileStarted } from '../harness/postgres-cluster.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
let server: PostgresServer

before(async () => {
  if (skip !== false) return
  server = await makePostgres()
  const space = join(server.dir, 'space')
  mkdirSync(space)
  const { uid, gid } = statSync(server.data)
  chownSync(space, uid, gid)
  sql(
    server,
    `CREATE TABLESPACE cold LOCATION '${space}'`,
    'CREATE TABLE orders (id bigint PRIMARY KEY, total int, note text)',
    'INSERT INTO orders SELECT n, n % 97, repeat(md5(n::text), 8) FROM generate_series(1, 60000) AS n',
    'CREATE TABLE archive (id int, note text) TABLESPACE cold',
    'INSERT INTO archive SELECT n, md5(n::text) FROM generate_series(1, 20000) AS n',
    'CREATE UNLOGGED TABLE carts (id int)',
    'INSERT INTO carts SELECT generate_series(1, 1000)',
    'CREATE TABLE empty (id int)',
  )
})

after(async () => {
  if (skip === false) await dropPostgres(server)
})

/** Inserts orders, one transaction each, until it is stopped. */
async function withLoad<T>(body: () => Promise<T>): Promise<T> {
  const psql = join(postgresFolder()!, 'psql')
  const place = ['-h', '127.0.0.1', '-p', String(server.port), '-U', 'postgres', '-q']
  const child = spawn(psql, place, { stdio: ['pipe', 'ignore', 'inherit'] })
  const exit = once(child, 'exit')
  let isOver = false
  const feed = (): void => {
    if (isOver) return
    const some = 'SELECT (random() * 60000)::int FROM generate_series(1, 50)'
    child.stdin.write(`UPDATE orders SET total = total + 1 WHERE id IN (${some});\n`.repeat(20), feed)
  }
  feed()
  try {
    return await body()
  } finally {
    isOver = true
    child.stdin.end()
    await exit
  }
}

for (const workers of [0, 2]) {
  test(`a cluster under load comes back with ${workers} workers`, { skip, timeout: 120_000 }, async () => {
    const repository = await makeRepository()
    try {
      const summary = await withLoad(() =>
        backUp(
          repository,
          clusterSource(() => server),
          { workers },
        ),
      )
      assert.deepEqual(summary.problems, [])
      assert.equal(summary.kind, 'full')
      const space = mkdtempSync(join(server.dir, 'space-'))
      const tablespaceMap = new Map([[join(server.dir, 'space'), space]])
      const { back, summary: restored } = await restoreBeside(repository, server, summary.snapshot, {
        tablespaceMap,
      })
      for (const { problems, damaged, failed } of restored.parts)
        assert.deepEqual([problems, damaged, failed], [[], [], []])
      assert.equal(statSync(back.data).mode, statSync(server.data).mode)
      runAs('pg_verifybackup', [back.data])
      await whileStarted(back, server.port + 1, checkOrders)
      runAs('pg_checksums', ['--check', '--pgdata', back.data])
    } finally {
      dropRepository(repository)
    }
  })
}

function checkOrders(back: PostgresServer): void {
  assert.deepEqual(sql(back, 'SELECT count(*), min(id), max(id) FROM orders'), ['60000|1|60000'])
  assert.deepEqual(sql(back, 'SELECT count(*) FROM archive'), ['20000'])
  assert.deepEqual(sql(back, 'SELECT count(*) FROM carts'), ['0'])
  assert.deepEqual(sql(back, 'SELECT count(*) FROM empty'), ['0'])
}
