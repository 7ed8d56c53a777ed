/**
 * What is asked of a restored copy that runs: each database, and in it tables and indexes by amcheck,
 * visibility maps by pg_visibility, indexes that are not valid, versions of collations. Changes the copy: it
 * installs these extensions in it.
 */
import { describeError, isFailure, type Failure } from '../base/failure.ts'
import { closeSql, openSql, runSql, type SqlRow, type SqlSession } from '../sources/postgres/sql-session.ts'
import { bootPlace, lastWords, type BootServer } from './boot-server.ts'
import { addFinding, type FindingCode, type Findings, type Severity } from './check-findings.ts'
import { throwIfCancelled } from './check-threads.ts'

export interface BootCounts {
  databases: number
  tables: number
  indexes: number
  /** Of what should have been looked into: relations, databases, kinds of checks. */
  unchecked: number
}

/** The steps whose time is taken. */
export type CheckStep = 'databases' | 'tables' | 'indexes' | 'visibility' | 'collations'

export interface BootChecking {
  readonly server: BootServer
  /** What the findings begin with, and whom they hurt. */
  readonly source: string
  readonly snapshot: string
  readonly findings: Findings
  readonly counts: BootCounts
  readonly signal: AbortSignal | undefined
  readonly timed: <T>(step: CheckStep, work: () => Promise<T>) => Promise<T>
  /** Said once, not for each database. */
  readonly said: Set<string>
}

interface Relation {
  readonly oid: string
  readonly name: string
}

/** From then on amcheck knows tables. */
const CHECKS_TABLES = 14
/** From then on a database says with which version of its collation it was made. */
const HAS_DATABASE_VERSION = 15
/** Classes of SQLSTATE after which nothing more is answered: connection lost, shut down. */
const GONE = /^(08|57P)/
/** Classes that tell of damage: internal errors and damaged data, system errors. */
const DAMAGE = /^(XX|58)/
/** Something of this host is lacking, which a missing file (58P01) else tells of the copy. */
const LACKING = /could not (?:access file|load library)/
/** A database whose locale this host does not have. */
const LOCALE = /locale|collation/

/** Fails: source.failed when the server is gone, cancelled. */
export async function checkDatabases(checking: BootChecking): Promise<void> {
  const { server } = checking
  const databases = await checking.timed('databases', () => listDatabases(checking))
  for (const database of databases) {
    throwIfCancelled(checking.signal)
    const session = await checking.timed('databases', () => enter(checking, database))
    if (session === undefined) continue
    try {
      await checkDatabase(checking, session)
    } catch (error) {
      throwIfCancelled(checking.signal)
      if (!isFailure(error, 'source.failed') || !isGone(error)) throw error
      const what = `the server ended while database ${database} was checked: ${lastWords(server)}`
      throw Object.assign(error, { message: what })
    } finally {
      await closeSql(session).catch(() => undefined)
    }
  }
}

async function listDatabases(checking: BootChecking): Promise<string[]> {
  const { server } = checking
  const session = await openSql(bootPlace(server), 'template1').catch(() =>
    openSql(bootPlace(server), 'template0'),
  )
  try {
    const rows = await runSql(session, 'select datname, datconnlimit from pg_database order by oid')
    for (const [name, limit] of rows)
      if (limit === '-2') add(checking, 'not-checked', `database ${name}: its removal was cut off`, 'info')
    if (server.major >= HAS_DATABASE_VERSION) await checkDatabaseVersions(checking, session)
    return rows.filter(([, limit]) => limit !== '-2').map(([name]) => name ?? '')
  } finally {
    await closeSql(session)
  }
}

async function enter(checking: BootChecking, database: string): Promise<SqlSession | undefined> {
  try {
    const session = await openSql(bootPlace(checking.server), database)
    checking.counts.databases++
    return session
  } catch (error) {
    if (!isFailure(error, 'source.failed')) throw error
    throwIfCancelled(checking.signal)
    const text = `database ${database} cannot be entered: ${wordsOf(error)}`
    if (LOCALE.test(error.message)) add(checking, 'not-checked', text, 'error')
    else add(checking, 'boot.database', text)
    return undefined
  }
}

async function checkDatabase(checking: BootChecking, session: SqlSession): Promise<void> {
  // Those that fire always would run what somebody wrote into the copy's source.
  await runSql(session, "update pg_event_trigger set evtenabled = 'D'")
  if (await install(checking, session, 'amcheck')) {
    await checking.timed('tables', () => checkTables(checking, session))
    await checking.timed('indexes', () => checkIndexes(checking, session))
  }
  if (await install(checking, session, 'pg_visibility'))
    await checking.timed('visibility', () => checkVisibility(checking, session))
  await checking.timed('indexes', () => findInvalidIndexes(checking, session))
  await checking.timed('collations', () => checkCollations(checking, session))
}

/** Anew and where names without a schema are found; whether it is there. */
async function install(checking: BootChecking, session: SqlSession, name: string): Promise<boolean> {
  const [row] = await runSql(session, 'select 1 from pg_available_extensions where name = $1', [name])
  if (row === undefined) {
    const of = { amcheck: 'tables and indexes', pg_visibility: 'visibility maps' }[name] ?? name
    const is = `the extension ${name} is not on this host (it is in PostgreSQL's contrib package)`
    once(checking, `${of}: ${is}`, 'warning')
    return false
  }
  try {
    await runSql(session, `drop extension if exists ${name} cascade`)
    await runSql(session, `create extension ${name} with schema pg_catalog`)
    return true
  } catch (error) {
    judge(checking, error, { code: 'boot.database', what: `${name} in database ${session.database}` })
    return false
  }
}

async function checkTables(checking: BootChecking, session: SqlSession): Promise<void> {
  if (checking.server.major < CHECKS_TABLES) {
    const is = 'amcheck looks at them from version 14 on; their indexes are compared with them'
    once(checking, `tables: ${is}`, 'info')
    return
  }
  for (const relation of await heapsOf(session)) {
    throwIfCancelled(checking.signal)
    checking.counts.tables++
    await ask(checking, {
      code: 'boot.table',
      what: `table ${relation.name} of database ${session.database}`,
      run: () =>
        runSql(
          session,
          `select count(*), (array_agg(format('block %s: %s', blkno, msg) order by blkno))[1]
            from verify_heapam($1::oid, check_toast => true)`,
          [relation.oid],
        ),
      isBad: ([count]) => count !== '0',
      tell: ([count, first]) => `${count} problems, the first: ${first}`,
    })
  }
}

async function checkIndexes(checking: BootChecking, session: SqlSession): Promise<void> {
  const rows = await runSql(
    session,
    `select c.oid, format('%I.%I', n.nspname, c.relname) from pg_class c
      join pg_namespace n on n.oid = c.relnamespace join pg_am a on a.oid = c.relam
      join pg_index i on i.indexrelid = c.oid
      where a.amname = 'btree' and c.relkind = 'i' and c.relpersistence = 'p'
        and i.indisvalid and i.indisready
      order by c.oid`,
  )
  for (const relation of rows.map(relationOf)) {
    throwIfCancelled(checking.signal)
    checking.counts.indexes++
    await ask(checking, {
      code: 'boot.index',
      what: `index ${relation.name} of database ${session.database}`,
      run: () => runSql(session, 'select bt_index_check($1::oid, true)', [relation.oid]),
      isBad: () => false,
      tell: () => '',
    })
  }
}

async function checkVisibility(checking: BootChecking, session: SqlSession): Promise<void> {
  for (const relation of await heapsOf(session)) {
    throwIfCancelled(checking.signal)
    await ask(checking, {
      code: 'boot.visibility',
      what: `table ${relation.name} of database ${session.database}`,
      run: () =>
        runSql(
          session,
          `select v.count, f.count, coalesce(v.first, f.first)
            from (select count(*), (array_agg(t_ctid))[1] as first from pg_check_visible($1::oid)) v,
              (select count(*), (array_agg(t_ctid))[1] as first from pg_check_frozen($1::oid)) f`,
          [relation.oid],
        ),
      isBad: ([visible, frozen]) => visible !== '0' || frozen !== '0',
      tell: ([visible, frozen, first]) =>
        `its map is wrong about ${visible} rows as visible and ${frozen} as frozen, the first at ${first}: ` +
        'queries that read an index only may return deleted rows',
    })
  }
}

async function findInvalidIndexes(checking: BootChecking, session: SqlSession): Promise<void> {
  const rows = await runSql(
    session,
    `select format('%I.%I', n.nspname, c.relname) from pg_class c
      join pg_namespace n on n.oid = c.relnamespace join pg_index i on i.indexrelid = c.oid
      where c.relkind = 'i' and not i.indisvalid order by c.oid`,
  )
  for (const [name] of rows) {
    const is = 'is not valid, as in the source: no query uses it'
    add(checking, 'boot.invalid', `index ${name} of database ${session.database} ${is}`)
  }
}

async function checkCollations(checking: BootChecking, session: SqlSession): Promise<void> {
  const rows = await runSql(
    session,
    `select oid, format('%I', collname), collversion from pg_collation
      where collversion is not null
        and collencoding in (-1, (select encoding from pg_database where datname = current_database()))
      order by oid`,
  )
  for (const [oid, name, version] of rows) {
    throwIfCancelled(checking.signal)
    const what = `collation ${name} of database ${session.database}`
    try {
      const [row] = await runSql(session, 'select pg_collation_actual_version($1::oid)', [oid])
      tellVersion(checking, what, { made: version, here: row?.[0] })
    } catch (error) {
      judge(checking, error, { code: 'boot.collation', what })
    }
  }
}

async function checkDatabaseVersions(checking: BootChecking, session: SqlSession): Promise<void> {
  const rows = await runSql(
    session,
    'select oid, format($1, datname), datcollversion from pg_database where datcollversion is not null',
    ['%I'],
  )
  for (const [oid, name, version] of rows) {
    const what = `the collation of database ${name}`
    try {
      const [row] = await runSql(session, 'select pg_database_collation_actual_version($1::oid)', [oid])
      tellVersion(checking, what, { made: version, here: row?.[0] })
    } catch (error) {
      judge(checking, error, { code: 'boot.collation', what })
    }
  }
}

function tellVersion(
  checking: BootChecking,
  what: string,
  { made, here }: Readonly<Record<'made' | 'here', string | null | undefined>>,
): void {
  if (made === here) return
  const is = `was made with version ${made}, this host has ${here ?? 'none'}`
  add(checking, 'boot.collation', `${what} ${is}: indexes that sort by it may be wrong on such a host`)
}

interface Question {
  readonly code: FindingCode
  readonly what: string
  readonly run: () => Promise<readonly SqlRow[]>
  /** Of the first row. */
  readonly isBad: (row: SqlRow) => boolean
  readonly tell: (row: SqlRow) => string
}

async function ask(checking: BootChecking, question: Question): Promise<void> {
  const { code, what, run, isBad, tell } = question
  try {
    const [row] = await run()
    if (row !== undefined && isBad(row)) add(checking, code, `${what}: ${tell(row)}`)
  } catch (error) {
    judge(checking, error, { code, what })
  }
}

/** Damage, or something that kept the check from looking. Fails: source.failed when the server is gone. */
function judge(
  checking: BootChecking,
  error: unknown,
  { code, what }: { readonly code: FindingCode; readonly what: string },
): void {
  throwIfCancelled(checking.signal)
  if (!isFailure(error, 'source.failed') || isGone(error)) throw error
  const { sqlstate } = error.facts
  const words = wordsOf(error)
  const isDamage = typeof sqlstate === 'string' && DAMAGE.test(sqlstate) && !LACKING.test(words)
  if (isDamage) add(checking, code, `${what}: ${words}`)
  else add(checking, 'not-checked', `${what}: ${words}`, 'warning')
}

/** Tables, materialized views and TOAST, which PostgreSQL's own storage holds. */
async function heapsOf(session: SqlSession): Promise<Relation[]> {
  const rows = await runSql(
    session,
    `select c.oid, format('%I.%I', n.nspname, c.relname) from pg_class c
      join pg_namespace n on n.oid = c.relnamespace join pg_am a on a.oid = c.relam
      where a.amname = 'heap' and c.relkind in ('r', 'm', 't') and c.relpersistence = 'p' order by c.oid`,
  )
  return rows.map(relationOf)
}

function relationOf([oid, name]: SqlRow): Relation {
  return { oid: oid ?? '', name: name ?? '' }
}

function isGone({ facts: { sqlstate } }: Failure): boolean {
  return typeof sqlstate !== 'string' || GONE.test(sqlstate)
}

/** What the server said, without whom we asked. */
function wordsOf(error: Failure): string {
  return describeError(error.cause ?? error)
}

function once(checking: BootChecking, text: string, severity: Severity): void {
  if (checking.said.has(text)) return
  checking.said.add(text)
  add(checking, 'not-checked', text, severity)
}

function add(checking: BootChecking, code: FindingCode, text: string, severity?: Severity): void {
  const { findings, source, snapshot } = checking
  if (code === 'not-checked' && severity !== 'info') checking.counts.unchecked++
  const message = `"${source}": ${code === 'not-checked' ? `not checked: ${text}` : text}`
  const of = { snapshots: [snapshot], ...(severity === undefined ? {} : { severity }) }
  addFinding(findings, code, message, of)
}
