/**
 * What the files of relations are called now, in all databases of a server, so that a drop found in the log
 * can be called by its name. Tables, materialized views, sequences and indexes; no catalogs, no TOAST,
 * nothing temporary.
 */
import { isFailure } from '../../base/failure.ts'
import type { NameNote } from './log-notes.ts'
import { parseLsn, type Lsn } from './lsn.ts'
import { databaseFiles, filesKey } from './name-history.ts'
import { askSql, type Asking } from './sql-asking.ts'
import { closeSql, openSql, runSql, type SqlRow, type SqlSession } from './sql-session.ts'

export interface NameSnapshot {
  /** Read before the names: whatever has a name here had its files by then, or soon after. */
  readonly lsn: Lsn
  /** By filesKey(); schema and name, joined by a byte that no name can hold. */
  readonly names: ReadonlyMap<string, string>
  /** There are more than RELATIONS_NAMED_MAX; of these the names are not known. */
  readonly isCut: boolean
  readonly unread: Asking['unread']
}

/** Of all databases together; tables come first. About 150 bytes each. */
const RELATIONS_NAMED_MAX = 200_000
/** Each is a connection. */
const ENTERED_MAX = 500
const SEPARATOR = '\0'
const WHERE_IT_IS = `select case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
  else pg_current_wal_lsn() end`
/** The files of a relation without tablespace lie in that of its database. */
const RELATIONS = `select coalesce(nullif(c.reltablespace, 0), d.dattablespace), d.oid,
    pg_relation_filenode(c.oid), n.nspname, c.relname
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
    join pg_database d on d.datname = current_database()
  where c.relkind in ('r', 'm', 'S', 'i') and c.relpersistence <> 't' and n.nspname !~ '^pg_'
    and n.nspname <> 'information_schema' and pg_relation_filenode(c.oid) is not null
  order by c.relkind in ('r', 'm') desc, c.oid limit $1`

/**
 * Enters each database that takes connections, with the role of `session`; one that refuses is in `unread`.
 * Fails: source.failed when the connection is gone.
 */
export async function readNames(session: SqlSession): Promise<NameSnapshot> {
  const asking: Asking = { unread: [] }
  const [place] = await runSql(session, WHERE_IT_IS)
  const lsn = parseLsn(place?.[0] ?? '0/0')
  const names = new Map<string, string>()
  const databases = await runSql(session, 'select oid, datname, datallowconn from pg_database order by oid')
  for (const [oid, name] of databases)
    names.set(filesKey(databaseFiles(Number(oid))), SEPARATOR + (name ?? ''))
  const open = databases.filter(([, , allows]) => allows === 't').map(([, name]) => name ?? '')
  if (open.length > ENTERED_MAX)
    asking.unread.push({
      what: `the relations of ${open.length - ENTERED_MAX} databases`,
      why: `only the first ${ENTERED_MAX} are entered`,
    })
  let room = RELATIONS_NAMED_MAX
  let isCut = false
  for (const database of open.slice(0, ENTERED_MAX)) {
    const rows = await readRelations(session, database, { asking, countMax: room + 1 })
    isCut ||= rows.length > room
    for (const [tablespace, oid, relation, schema, name] of rows.slice(0, room)) {
      const files = { tablespace: Number(tablespace), database: Number(oid), relation: Number(relation) }
      names.set(filesKey(files), (schema ?? '') + SEPARATOR + (name ?? ''))
    }
    room -= Math.min(room, rows.length)
  }
  return { lsn, names, isCut, unread: asking.unread }
}

/** The names that are new or changed since `before`; all of them without it. What is gone is not told. */
export function newNames(before: NameSnapshot | undefined, after: NameSnapshot): NameNote[] {
  const notes: NameNote[] = []
  for (const [key, value] of after.names) {
    if (before?.names.get(key) === value) continue
    const [tablespace = 0, database = 0, relation = 0] = key.split('/').map(Number)
    const at = value.indexOf(SEPARATOR)
    const [schema, name] = [value.slice(0, at), value.slice(at + 1)]
    notes.push({ lsn: after.lsn, files: { tablespace, database, relation }, schema, name })
  }
  return notes
}

async function readRelations(
  { place }: SqlSession,
  database: string,
  { asking, countMax }: { readonly asking: Asking; readonly countMax: number },
): Promise<readonly SqlRow[]> {
  const what = `the relations of database ${database}`
  let inside: SqlSession
  try {
    inside = await openSql(place, database)
  } catch (error) {
    if (!isFailure(error, 'source.failed')) throw error
    asking.unread.push({ what, why: error.message })
    return []
  }
  try {
    return await askSql(asking, what, async () => runSql(inside, RELATIONS, [countMax]))
  } finally {
    await closeSql(inside)
  }
}
