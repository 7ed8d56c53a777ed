/** Names of relations from real servers: databases, tablespaces, a standby. */
import assert from 'node:assert/strict'
import { chownSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { dropPostgres, makePostgres, postgresFolder, sql } from '../../../test/harness/postgres.ts'
import type { PostgresServer } from '../../../test/harness/postgres.ts'
import { makeStandby } from '../../../test/harness/postgres-standby.ts'
import type { NameNote } from './log-notes.ts'
import { parseLsn } from './lsn.ts'
import { addNames, databaseFiles, matchesName, nameAt, newNameHistory } from './name-history.ts'
import { newNames, readNames, type NameSnapshot } from './relation-names.ts'
import { closeSql, openSql } from './sql-session.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
let server: PostgresServer

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres({ settings: ['max_wal_senders = 5'] })
    const space = join(server.dir, 'space')
    mkdirSync(space)
    const { uid, gid } = statSync(server.data)
    chownSync(space, uid, gid)
    sql(server, `create tablespace elsewhere location '${space}'`)
    sql(server, 'create database closed')
    sql(server, 'alter database closed allow_connections false')
  },
  { timeout: 60_000 },
)
after(async () => {
  if (skip === false) await dropPostgres(server)
})

async function read(from: PostgresServer, user = 'postgres'): Promise<NameSnapshot> {
  const place = { host: '127.0.0.1', port: from.port, user, password: undefined }
  const session = await openSql({ ...place, tls: false, connectTimeoutMs: 10_000 }, 'postgres')
  try {
    return await readNames(session)
  } finally {
    await closeSql(session)
  }
}

const shown = (notes: readonly NameNote[]): string[] =>
  notes.map(({ schema, name }) => (schema === '' ? name : `${schema}.${name}`)).sort()

test('readNames() names user relations of all databases, newNames() what changed', { skip }, async () => {
  const first = await read(server)
  assert.deepEqual(shown(newNames(undefined, first)), ['closed', 'postgres', 'template0', 'template1'])
  sql(server, 'create schema "odd.one"', 'create table "odd.one"."Orders" (id int primary key)')
  sql(server, 'create table far (t text) tablespace elsewhere', 'create table old (i int)')
  sql(server, 'create materialized view seen as select 1', 'create sequence numbers')
  sql(server, 'create table parts (i int) partition by range (i)')
  sql(server, 'create table part partition of parts for values from (0) to (9)')
  const second = await read(server)
  const added = newNames(first, second)
  const names = ['odd.one.Orders', 'odd.one.Orders_pkey', 'public.far', 'public.numbers', 'public.old']
  assert.deepEqual(shown(added), [...names, 'public.part', 'public.seen'])
  for (const { lsn, name, files } of added.filter((note) => note.name === 'far')) {
    assert.equal(lsn, second.lsn)
    const path = `pg_tblspc/${files.tablespace}/`
    assert.ok(sql(server, `select pg_relation_filepath('${name}')`)[0]?.startsWith(path))
    assert.equal(sql(server, `select pg_relation_filenode('${name}')`)[0], String(files.relation))
  }
  sql(server, 'alter table old rename to renamed', 'truncate far', 'drop table part')
  sql(server, 'create database more')
  const third = await read(server)
  assert.deepEqual(shown(newNames(second, third)), ['more', 'public.far', 'public.renamed'])
  assert.deepEqual(newNames(third, third), [])
  assert.ok(first.lsn < second.lsn && second.lsn < third.lsn)
  assert.deepEqual([third.isCut, third.unread], [false, []])
})

test('names are those of the moment that is asked for', { skip }, async () => {
  sql(server, 'create table moving (i int)')
  const history = newNameHistory()
  const first = await read(server)
  addNames(history, newNames(undefined, first))
  sql(server, 'alter table moving rename to moved')
  const second = await read(server)
  addNames(history, newNames(first, second))
  const note = newNames(first, second).find(({ name }) => name === 'moved')
  assert.ok(note)
  const { files } = note
  assert.equal(nameAt(history, files, second.lsn - 1n)?.name, 'moving')
  assert.equal(nameAt(history, files, second.lsn)?.name, 'moved')
  assert.equal(nameAt(history, files, first.lsn - 1n), undefined)
  assert.equal(nameAt(history, databaseFiles(files.database), second.lsn)?.name, 'postgres')
  const asked = { known: note, lsn: second.lsn }
  for (const wanted of ['moved', 'public.moved', 'postgres.public.moved'])
    assert.ok(matchesName(history, files, { ...asked, wanted }), wanted)
  for (const wanted of ['moving', 'other.moved', 'closed.public.moved', 'postgres'])
    assert.ok(!matchesName(history, files, { ...asked, wanted }), wanted)
})

test('`matchesName()` reads names in the quotes of SQL', () => {
  const files = { tablespace: 1663, database: 5, relation: 9 }
  const database = { lsn: 1n, files: databaseFiles(5), schema: '', name: 'my "shop"' }
  const matches = (schema: string, name: string, wanted: string): boolean => {
    const history = newNameHistory()
    addNames(history, [database, { lsn: 1n, files, schema, name }])
    return matchesName(history, files, { wanted, known: { schema, name }, lsn: 1n })
  }
  const odd = `o'r "d.e"\nr`
  const quoted = `"o'r ""d.e""\nr"`
  for (const wanted of [quoted, `public.${quoted}`, `"my ""shop"""."public".${quoted}`, odd])
    assert.ok(matches('public', odd, wanted), wanted)
  for (const wanted of [`"${odd}"`, `other.${quoted}`, '"my ""shop"""', `a.b.c.${quoted}`])
    assert.ok(!matches('public', odd, wanted), wanted)
  // A dot in quotes parts nothing; one outside of them does.
  assert.deepEqual([matches('s', 'a.b', '"a.b"'), matches('a', 'b', '"a.b"')], [true, false])
  assert.deepEqual([matches('s', 'a.b', '"a".b'), matches('a', 'b', '"a".b')], [false, true])
})

test('a database that refuses the role is said, the others are named', { skip }, async () => {
  sql(server, 'create role limited login', 'create database private')
  sql(server, 'revoke connect on database private from public')
  const { unread, names } = await read(server, 'limited')
  assert.deepEqual(
    unread.map(({ what }) => what),
    ['the relations of database private'],
  )
  assert.ok([...names.values()].some((value) => value.endsWith('Orders')))
})

test('a standby names what it has replayed', { skip, timeout: 60_000 }, async () => {
  sql(server, 'create table replayed (i int)')
  // A copy on the same host would want the same folder.
  sql(server, 'drop table far', 'drop tablespace elsewhere')
  const standby = await makeStandby(server)
  try {
    const replayed = (): bigint => parseLsn(sql(standby, 'select pg_last_wal_replay_lsn()')[0] ?? '0/0')
    const lsn = replayed()
    const found = await read(standby)
    assert.ok(found.lsn >= lsn && found.lsn <= replayed())
    assert.ok([...found.names.values()].includes('public\0replayed'))
  } finally {
    await dropPostgres(standby)
  }
})
