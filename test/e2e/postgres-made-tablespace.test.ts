/** Log that makes a tablespace, recovered on the host where that tablespace lies. */
import assert from 'node:assert/strict'
import { chownSync, existsSync, mkdirSync, readdirSync, renameSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Failure } from '../../src/base/failure.ts'
import { parseLsn } from '../../src/sources/postgres/lsn.ts'
import { backUp, dropRepository, makeRepository } from '../harness/engine.ts'
import {
  dropPostgres,
  freePort,
  makePostgres,
  postgresFolder,
  sql,
  stopPostgres,
} from '../harness/postgres.ts'
import { clusterSource, logEnd, restoreBeside, startShip, whileStarted } from '../harness/postgres-cluster.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false

test('a copy never empties a tablespace of its source', { skip, timeout: 120_000 }, async () => {
  const server = await makePostgres()
  const repository = await makeRepository()
  const current = (): typeof server => server
  const running = startShip(repository, current)
  try {
    sql(server, 'CREATE TABLE steps AS SELECT 1 step')
    const { snapshot } = await backUp(repository, clusterSource(current))
    sql(server, 'INSERT INTO steps VALUES (2)')
    const place = join(server.dir, 'fast disk')
    mkdirSync(place)
    const { uid, gid } = statSync(server.data)
    chownSync(place, uid, gid)
    sql(server, `CREATE TABLESPACE fast LOCATION '${place}'`)
    sql(server, 'CREATE TABLE goods TABLESPACE fast AS SELECT generate_series(1, 1000) n')
    await running.reached(logEnd(server))
    const before = readdirSync(place, { recursive: true }).length
    let copy = ''
    let lsn = 0n
    await assert.rejects(
      restoreBeside(repository, server, snapshot, { goal: { kind: 'latest' } }),
      (error: Failure) => {
        assert.equal(error.code, 'restore.refused')
        assert.match(error.message, /makes a tablespace in ".*fast disk", which holds one/)
        lsn = parseLsn(/--lsn ([0-9A-F/]+) --exclusive/.exec(String(error.facts['hint']))?.[1] ?? '')
        return true
      },
    )
    for (const name of readdirSync(server.dir))
      if (name.startsWith('back-')) copy = join(server.dir, name, 'data')
    assert.equal(existsSync(join(copy, 'base')), true)
    assert.equal(existsSync(join(copy, 'global/pg_control')), false, 'nobody can start it')
    const goal = { kind: 'lsn', lsn, isExclusive: true } as const
    const { back } = await restoreBeside(repository, server, snapshot, { goal })
    await whileStarted(back, await freePort(), (at) => {
      assert.deepEqual(sql(at, 'SELECT max(step) FROM steps'), ['2'])
    })
    assert.deepEqual(sql(server, 'SELECT count(*) FROM goods'), ['1000'])
    assert.equal(readdirSync(place, { recursive: true }).length, before)
    // Where it is gone the server needs the folder, and does not make it.
    await running.stop()
    await stopPostgres(server)
    renameSync(place, `${place}, gone`)
    const latest = await restoreBeside(repository, server, snapshot, { goal: { kind: 'latest' } })
    assert.deepEqual(latest.summary.foldersNeeded, [place])
    mkdirSync(place)
    chownSync(place, uid, gid)
    await whileStarted(latest.back, await freePort(), (at) => {
      assert.deepEqual(sql(at, 'SELECT count(*) FROM goods'), ['1000'])
    })
  } finally {
    await running.stop().catch(() => undefined)
    dropRepository(repository)
    await dropPostgres(server)
  }
})
