/** A real PostgreSQL cluster through the engine and back. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chownSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { backUp, dropRepository, makeRepository, snapshotOf } from '../harness/engine.ts'
import {
  dropPostgres,
  freePort,
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
      await whileStarted(back, await freePort(), checkOrders)
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

/** Flips bytes of a page on the disk; returns how to put them back. */
function damagePage(path: string, page: number, place = 4000): () => void {
  const at = page * 8192 + place
  const fd = openSync(path, 'r+')
  const before = Buffer.alloc(16)
  readSync(fd, before, 0, before.length, at)
  writeSync(fd, Buffer.from(before.map((byte) => byte ^ 0xff)), 0, before.length, at)
  closeSync(fd)
  return () => {
    const again = openSync(path, 'r+')
    writeSync(again, before, 0, before.length, at)
    closeSync(again)
  }
}

function relationPath(name: string): string {
  return sql(server, `SELECT pg_relation_filepath('${name}')`)[0] ?? ''
}

test(
  'a damaged page is named; one that the log of the backup mends is none',
  { skip, timeout: 60_000 },
  async () => {
    const repository = await makeRepository()
    sql(server, 'CREATE TABLE prices AS SELECT n, md5(n::text) AS note FROM generate_series(1, 5000) AS n')
    // In memory the server has its pages whole and nothing to write; what it sends is what is on the disk.
    sql(server, 'VACUUM prices', 'CHECKPOINT', 'SELECT count(*) FROM prices')
    const path = relationPath('prices')
    const mend = damagePage(join(server.data, path), 7)
    try {
      const what = 'pages whose checksum is wrong, by number in the file: 7'
      const damaged = await backUp(
        repository,
        clusterSource(() => server),
      )
      assert.deepEqual(damaged.problems, [{ path: `/data/${path}`, code: 'ECHECKSUM', what }])
      assert.equal((await snapshotOf(repository, damaged.snapshot)).partial, true)
      // Two pages only: such a file is stored whole, and looked at all the same.
      sql(
        server,
        'CREATE TABLE rates AS SELECT n FROM generate_series(1, 400) AS n',
        'VACUUM rates',
        'CHECKPOINT',
      )
      const small = relationPath('rates')
      // Its position too: the page claims to have been written long after the backup.
      const mendSmall = damagePage(join(server.data, small), 1, 0)
      const both = (
        await backUp(
          repository,
          clusterSource(() => server),
        )
      ).problems.map((one) => one.path)
      mendSmall()
      assert.deepEqual(both.toSorted(), [`/data/${path}`, `/data/${small}`].toSorted())
      let isTouched = false
      const touch = (): void => {
        if (isTouched) return
        isTouched = true
        sql(server, "UPDATE prices SET note = note WHERE ctid = '(7,1)'")
      }
      const torn = await backUp(
        repository,
        clusterSource(() => server),
        { onProgress: touch },
      )
      assert.equal(isTouched, true)
      assert.deepEqual(torn.problems, [])
      sql(server, 'CHECKPOINT')
    } finally {
      mend()
      dropRepository(repository)
    }
  },
)
