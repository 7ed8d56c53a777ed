/**
 * Whether a restored cluster is what the source was: all rows of all tables, the catalog among them, by
 * hashes over SQL; indexes by amcheck; pages by our own checksums. For servers that bring no clients.
 */
import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { damagedPages } from '../../src/sources/postgres/page-check.ts'
import { postgresFolder, query, runAs, type PostgresServer } from './postgres.ts'

const RELATION = /^\d+(?:_(?:fsm|vm|init))?(?:\.(\d+))?$/
/** Blocks in one file of a relation: 1 GiB. */
const FILE_BLOCKS = 131_072
/** Tables in one statement. */
const TOGETHER = 200
/** From then on amcheck knows tables too. */
const CHECKS_TABLES = 14

/** Hashes of all tables that are logged, by name; rows in the order of their text. */
export async function tableHashes(server: Pick<PostgresServer, 'port'>): Promise<string[]> {
  const names = await query(
    server,
    `select format('%I.%I', nspname, relname) from pg_class c join pg_namespace n on n.oid = relnamespace
      where relkind in ('r', 'm') and relpersistence = 'p' order by 1`,
  )
  const hashes = names.map((name) => {
    const rows = `md5(string_agg(md5(t::text), '' order by t::text))`
    return `select '${name.replaceAll("'", "''")}', count(*), ${rows} from ${name} t`
  })
  const found: string[] = []
  for (let at = 0; at < hashes.length; at += TOGETHER)
    found.push(...(await query(server, hashes.slice(at, at + TOGETHER).join(' union all '))))
  // Tables are read in parallel: their order is by chance.
  return found.toSorted()
}

/** A sequence may be ahead by the values that the log has reserved, but never behind. */
export async function sequencePlaces(server: Pick<PostgresServer, 'port'>): Promise<Map<string, number>> {
  const rows = await query(
    server,
    'select schemaname, sequencename, coalesce(last_value, 0) from pg_sequences',
  )
  return new Map(
    rows.map((row) => {
      const [schema, name, value] = row.split('|')
      return [`${schema}.${name}`, Number(value)]
    }),
  )
}

/** All of it as SQL, where that version brings pg_dumpall; without what may differ: places of sequences. */
export function dumpText({ port, major }: Pick<PostgresServer, 'port' | 'major'>): string | undefined {
  if (!existsSync(join(postgresFolder(major) ?? '', 'pg_dumpall'))) return undefined
  const place = ['--host', '127.0.0.1', '--port', String(port), '--username', 'postgres']
  const text = runAs('pg_dumpall', [...place, '--no-unlogged-table-data'], major)
  // Newer releases fence each dump by a random word.
  return text.replaceAll(/^(?:\\(?:un)?restrict |SELECT pg_catalog\.setval\().*\n/gm, '')
}

/** Of the extension amcheck, which must be there: every index against its table, and the tables. */
export async function checkStructures(server: Pick<PostgresServer, 'port' | 'major'>): Promise<void> {
  const [count] = await query(
    server,
    `select count(bt_index_check(c.oid, relkind = 'i')) from pg_index i join pg_class c on c.oid = indexrelid
      where relam = (select oid from pg_am where amname = 'btree') and indisvalid and relkind = 'i'
        and relpersistence = 'p'`,
  )
  assert.ok(Number(count) > 50, `only ${count} indexes were checked`)
  if (server.major < CHECKS_TABLES) return
  const found = await query(
    server,
    `select c.oid::regclass, blkno, msg from pg_class c, verify_heapam(c.oid)
      where relkind in ('r', 'm', 't') and relpersistence = 'p'`,
  )
  assert.deepEqual(found, [])
}

/** Every page of a stopped cluster has the right checksum. Returns how many were looked at. */
export function checkPages({ data, major }: Pick<PostgresServer, 'data' | 'major'>): number {
  let count = 0
  for (const path of globSync(['global/*', 'base/*/*', 'pg_tblspc/*/PG_*/*/*'], { cwd: data })) {
    const parts = RELATION.exec(basename(path))
    if (parts === null) continue
    const bytes = readFileSync(join(data, path))
    const rule = { firstBlock: Number(parts[1] ?? 0) * FILE_BLOCKS }
    assert.deepEqual(damagedPages(bytes, 0, rule), [], path)
    count += bytes.length / 8192
  }
  assert.ok(count > 500, `only ${count} pages were checked`)
  if (existsSync(join(postgresFolder(major) ?? '', 'pg_checksums')))
    runAs('pg_checksums', ['--check', '--pgdata', data], major)
  return count
}
