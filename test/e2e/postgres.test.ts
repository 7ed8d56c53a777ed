/** A real PostgreSQL cluster through the engine and back. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, chownSync, mkdirSync, mkdtempSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '../../src/base/clock.ts'
import { restoreCluster } from '../../src/recovery/restore-cluster.ts'
import { postgresSource } from '../../src/sources/postgres/postgres.ts'
import { openReplication } from '../../src/sources/postgres/replication.ts'
import type { Source } from '../../src/sources/source.ts'
import { backUp, dropRepository, makeRepository, snapshotOf, type TestRepository } from '../harness/engine.ts'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  runAs,
  sql,
  startPostgres,
  stopPostgres,
  type PostgresServer,
} from '../harness/postgres.ts'

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

function clusterSource(): Source {
  const place = {
    host: '127.0.0.1',
    port: server.port,
    user: 'postgres',
    password: undefined,
    tls: false,
  } as const
  return postgresSource('orders', {
    connect: () => openReplication({ ...place, connectTimeoutMs: 5000 }),
    checkpoint: 'fast',
    rateBytesMax: undefined,
    now: () => Date.now(),
  })
}

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

async function restoreTo(repository: TestRepository, id: string | undefined, to: string): Promise<void> {
  const { access, host } = repository
  const { parts } = await restoreCluster(access, host, await snapshotOf(repository, id), {
    to: join(to, 'data'),
    tablespaceMap: new Map([[join(server.dir, 'space'), join(to, 'space')]]),
    dryRun: false,
    noOwner: false,
    workers: 0,
    clock: systemClock,
  })
  for (const { problems, damaged, failed } of parts)
    assert.deepEqual([problems, damaged, failed], [[], [], []])
}

for (const workers of [0, 2]) {
  test(`a cluster under load comes back with ${workers} workers`, { skip, timeout: 120_000 }, async () => {
    const repository = await makeRepository()
    const to = mkdtempSync(join(server.dir, 'back-'))
    try {
      const summary = await withLoad(() => backUp(repository, clusterSource(), { workers }))
      assert.deepEqual(summary.problems, [])
      assert.equal(summary.kind, 'full')
      await restoreTo(repository, summary.snapshot, to)
      const { uid, gid, mode } = statSync(server.data)
      chownSync(to, uid, gid)
      assert.equal(statSync(join(to, 'data')).mode, mode)
      runAs('pg_verifybackup', [join(to, 'data')])
      await checkStarted(to)
    } finally {
      dropRepository(repository)
    }
  })
}

/** Starts the restored cluster and looks into it. */
async function checkStarted(to: string): Promise<void> {
  const data = join(to, 'data')
  const port = server.port + 1
  appendFileSync(join(data, 'postgresql.conf'), `port = ${port}\nunix_socket_directories = ''\n`)
  const back: PostgresServer = { ...server, dir: to, data, port, process: undefined }
  await startPostgres(back)
  try {
    assert.deepEqual(sql(back, 'SELECT count(*), min(id), max(id) FROM orders'), ['60000|1|60000'])
    assert.deepEqual(sql(back, 'SELECT count(*) FROM archive'), ['20000'])
    assert.deepEqual(sql(back, 'SELECT count(*) FROM carts'), ['0'])
    assert.deepEqual(sql(back, 'SELECT count(*) FROM empty'), ['0'])
  } finally {
    await stopPostgres(back)
  }
  runAs('pg_checksums', ['--check', '--pgdata', data])
}
