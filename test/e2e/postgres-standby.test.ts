/** `prefer: standby`: backups of a real standby, with and without its primary, and of one that is promoted. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFailure } from '../../src/base/failure.ts'
import { backUp, dropRepository, makeRepository, snapshotsOf } from '../harness/engine.ts'
import {
  dropPostgres,
  freePort,
  makePostgres,
  postgresFolder,
  runAs,
  sql,
  startPostgres,
  stopPostgres,
  type PostgresServer,
} from '../harness/postgres.ts'
import { clusterSource, whileStarted } from '../harness/postgres-cluster.ts'
import { makeStandby, promote, startStandby, untilReplayed } from '../harness/postgres-standby.ts'
import { dropHost, here, makeHost, type ShopHost, writeConfig } from '../harness/shop-host.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
const within = { skip, timeout: 60_000 }
let primary: PostgresServer
let standby: PostgresServer
let host: ShopHost

before(
  async () => {
    if (skip !== false) return
    primary = await makePostgres()
    sql(
      primary,
      'CREATE TABLE orders AS SELECT n, repeat(md5(n::text), 8) AS note FROM generate_series(1, 40000) AS n',
    )
    standby = await makeStandby(primary)
    host = makeHost()
    const hosts = `127.0.0.1:${primary.port},127.0.0.1:${standby.port}`
    const url = `postgres://postgres@${hosts}/postgres?sslmode=disable&target_session_attrs=primary`
    writeConfig(host, {
      sources: `  orders: { kind: postgres, url: '${url}', prefer: standby, checkpoint: fast }\n`,
    })
    assert.equal((await here(host, ['init'])).exit, 0)
  },
  { timeout: 60_000 },
)

after(async () => {
  if (skip !== false) return
  dropHost(host)
  await dropPostgres(standby)
  await dropPostgres(primary)
})

/** Backs up; tells which server it was, and what the run warned of. */
async function backUpOrders(): Promise<{ from: string; isStandby: boolean; warnings: string }> {
  const done = await here(host, ['backup', 'orders'])
  assert.equal(done.exit, 0, done.stderr)
  const label = (await here(host, ['cat', 'orders:latest', '/data/backup_label'])).stdout
  const record = JSON.parse((await here(host, ['cat', 'orders:latest', '/server.json'])).stdout) as {
    facts: { isStandby: boolean }
  }
  const [, from = ''] = /^BACKUP FROM: (\w+)$/m.exec(label) ?? []
  return { from, isStandby: record.facts.isStandby, warnings: done.stderr }
}

/** Restores the latest backup, has the server's own tool look at it, and starts it: it takes writes. */
async function checkRestored(name: string, rows: number): Promise<void> {
  const data = join(standby.dir, name)
  const restored = await here(host, ['restore', 'orders', '--to', data, '--snapshot', 'latest'])
  assert.equal(restored.exit, 0, restored.stderr)
  // It reads the log up to the end of the backup too; the signal file of the standby is left out.
  runAs('pg_verifybackup', ['--ignore', 'standby.signal', data])
  const back = { ...standby, data, process: undefined }
  await whileStarted(back, await freePort(), (server) => {
    assert.deepEqual(sql(server, 'SELECT pg_is_in_recovery(), count(*) FROM orders'), [`f|${rows}`])
    sql(server, 'INSERT INTO orders VALUES (0, NULL)')
  })
}

test('a standby is backed up, and its backup starts as a server of its own', within, async () => {
  sql(primary, "INSERT INTO orders SELECT n, 'late' FROM generate_series(1, 1000) AS n")
  await untilReplayed(standby, primary)
  const { from, isStandby, warnings } = await backUpOrders()
  assert.deepEqual([from, isStandby, warnings.includes('backs up the primary')], ['standby', true, false])
  await checkRestored('back', 41_000)
})

test('dumps are taken from a standby too', within, async () => {
  const physical = readFileSync(join(host.dir, 'backstock.yaml'), 'utf8')
  writeFileSync(join(host.dir, 'logical.yaml'), physical.replace('checkpoint: fast', 'mode: logical'))
  const config = ['--config', join(host.dir, 'logical.yaml')]
  const done = await here(host, ['backup', 'orders', ...config])
  assert.equal(done.exit, 0, done.stderr)
  const record = (await here(host, ['cat', 'orders:latest', '/server.json'])).stdout
  assert.match(record, /"mode": "logical"/)
  assert.match(record, /"isStandby": true/)
})

test('a standby without its primary is backed up', within, async () => {
  await stopPostgres(primary)
  try {
    const { from, isStandby } = await backUpOrders()
    assert.deepEqual([from, isStandby], ['standby', true])
  } finally {
    await startPostgres(primary)
  }
  await checkRestored('alone', 41_000)
})

test('where the standby is away the primary is backed up, which is said', within, async () => {
  await stopPostgres(standby)
  try {
    const { from, isStandby, warnings } = await backUpOrders()
    assert.deepEqual([from, isStandby], ['primary', false])
    assert.match(warnings, /orders: backs up the primary .* not a standby: .*ECONNREFUSED/)
  } finally {
    await startStandby(standby)
  }
})

test('a promotion amid the backup of a standby: it fails, and there is no snapshot', within, async () => {
  const repository = await makeRepository()
  let isPromoted = false
  const onProgress = (): void => {
    if (isPromoted) return
    isPromoted = true
    promote(standby)
  }
  try {
    await assert.rejects(
      backUp(
        repository,
        clusterSource(() => standby),
        { onProgress },
      ),
      (error) => isFailure(error, 'source.failed') && /promoted/.test(error.message),
    )
    assert.equal(isPromoted, true)
    assert.deepEqual(await snapshotsOf(repository), [])
  } finally {
    dropRepository(repository)
  }
})
