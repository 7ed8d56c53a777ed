/** Clusters of unusual shape come back equal: tablespaces, temporary tables, other segments of log. */
import { mkdtempSync, chmodSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { postgresFolder } from '../harness/postgres.ts'
import { FILL, MORE, PLAIN, proveShape, segmentShape } from '../harness/postgres-shapes.ts'

const skip = postgresFolder(15) === undefined ? 'PostgreSQL 15 is not installed' : false
const given = { skip, timeout: 120_000 }
const newest = {
  skip: postgresFolder(18) === undefined ? 'PostgreSQL 18 is not installed' : false,
  timeout: 120_000,
}

test('tablespaces, their paths with spaces, quotes and umlauts', given, async () => {
  await proveShape({
    ...PLAIN,
    tablespaces: ['cold storage', 'a "näher" one'],
    before: [
      ...FILL,
      'create table archive tablespace space0 as select * from orders',
      'create index on archive (note) tablespace space1',
      'create unlogged table scratch tablespace space1 as select * from orders',
    ],
    behind: [...MORE, 'create table late tablespace space1 as select * from orders', 'drop table archive'],
    answers: {
      'select count(*) from scratch': '0',
      'select spcname from pg_class c join pg_tablespace s on s.oid = reltablespace where relname = $$late$$':
        'space1',
    },
  })
})

test('unlogged and temporary tables, large objects', given, async () => {
  await proveShape({
    ...PLAIN,
    before: [
      ...FILL,
      'create unlogged table carts (id bigserial primary key, note text)',
      'insert into carts (note) select note from orders',
      'create temporary table passing as select * from orders',
      "select lo_from_bytea(4711, convert_to(repeat(md5('a'), 40000), 'UTF8'))",
    ],
    behind: [
      ...MORE,
      "select lo_put(4711, 1000000, convert_to(repeat(md5('b'), 20000), 'UTF8'))",
      "select lo_from_bytea(4712, 'small')",
      'create temporary table more as select * from orders',
      'truncate carts',
    ],
    answers: {
      'select count(*) from carts': '0',
      'select length(lo_get(4711)), lo_get(4712)': '1640000|\\x736d616c6c',
    },
  })
})

test('segments of log of 1 MiB', given, async () => {
  await proveShape(segmentShape(1))
})

test('no checksums, and a log folder that is a link to elsewhere', given, async (t) => {
  const place = mkdtempSync(join(tmpdir(), 'backstock-pg-wal-'))
  t.after(() => rmSync(place, { recursive: true, force: true }))
  chmodSync(place, 0o777)
  const options = { checksums: false, initdb: ['--waldir', join(place, 'log of it')] }
  await proveShape({ ...PLAIN, options, answers: { 'show data_checksums': 'off' } })
})

test('a tablespace inside of the data folder, which newer servers send by itself', newest, async () => {
  await proveShape({
    ...PLAIN,
    options: { version: 18, settings: ['allow_in_place_tablespaces = on'] },
    before: [...FILL, "create tablespace inside location ''", 'alter table orders set tablespace inside'],
    behind: [...MORE, 'create table late tablespace inside as select * from orders'],
    answers: {
      'select pg_relation_filepath($$late$$) like $$pg_tblspc/%$$': 't',
    },
  })
})
