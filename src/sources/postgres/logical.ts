/**
 * The source of kind `postgres-logical` (`mode: logical`): dumps of a server whose pages and log are not to
 * be had, such as a managed service. Each database is of one moment, not all of them of the same one, and
 * there is no log: nothing in between can be restored.
 *
 * The tree: `/globals.sql` roles and tablespaces, `/databases/<name>.dump` each database, its name escaped by
 * `%`, in pg_dump's custom format, not compressed, since the repository does that better; `/server.json`.
 */
import { Failure } from '../../base/failure.ts'
import { madeEntry } from '../files/stream-source.ts'
import type { Source, SourceEvent, SourceView } from '../source.ts'
import { connectSql } from './connect.ts'
import { readDump, stopDumps, type DumpJob, type DumpRunner } from './logical-dump.ts'
import { findDumpPrograms, type DumpPrograms } from './logical-programs.ts'
import { LOGICAL_KIND, LOGICAL_PATHS, type DumpRecord } from './logical-paths.ts'
import { libpqEnvironment } from './libpq-environment.ts'
import type { ServerPlace } from './replication.ts'
import { readServerFacts, type ServerFacts } from './server-facts.ts'
import type { ServerTarget } from './server-place.ts'
import { closeSql, runSql, type SqlRow } from './sql-session.ts'

export interface LogicalSettings {
  readonly target: ServerTarget
  /** The program; undefined: the newest on this host. */
  readonly pgDump: string | undefined
  /** Left out, as the record says. */
  readonly excludeDatabases: readonly string[]
  /** Of this process: PATH and HOME are looked at. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** Milliseconds since 1970. */
  readonly now: number
  readonly warn: (text: string) => void
  readonly signal: AbortSignal | undefined
}

interface Server {
  readonly place: ServerPlace
  readonly major: number
  readonly databases: readonly string[]
  /** Not dumped. */
  readonly left: readonly string[]
  /** Whether the role may read the hashes of passwords. */
  readonly readsPasswords: boolean
}

interface Reading {
  readonly settings: LogicalSettings
  readonly server: Server
  readonly programs: DumpPrograms
  readonly facts: ServerFacts
  readonly runner: DumpRunner
}

/** The server's own database for maintenance, as pg_dumpall knows it. */
const MAINTENANCE = 'postgres'
/** Of managed services (RDS, Cloud SQL, Azure), whose customers may not enter them. */
const PROVIDERS: readonly string[] = ['rdsadmin', 'cloudsqladmin', 'azure_maintenance', 'azure_sys']

export function logicalSource(name: string, settings: LogicalSettings): Source {
  return {
    name,
    kind: LOGICAL_KIND,
    increments: false,
    begin: async () => viewOf(await openServer(settings)),
  }
}

function viewOf(reading: Reading): SourceView {
  return {
    roots: ['/'],
    excludes: [],
    entries: () => dumpEvents(reading),
    pageBytesOf: () => 0,
    ignoreInode: true,
    owners: () => ({ users: {}, groups: {} }),
    logRange: () => undefined,
    rootCounts: () => ({}),
    end: () => {
      stopDumps(reading.runner)
      return Promise.resolve([])
    },
  }
}

/** Fails: source.failed, host.unsupported, host.file. */
async function openServer(settings: LogicalSettings): Promise<Reading> {
  const { target, pgDump, env, warn, signal } = settings
  const server = await askServer(target, settings.excludeDatabases)
  const wish = { named: pgDump, path: env['PATH'] ?? '', major: server.major }
  const programs = await findDumpPrograms(wish)
  const facts = await readServerFacts({ ...target, places: [server.place], session: 'any' })
  if (!server.readsPasswords)
    warn(`passwords of roles are not in the backup: "${server.place.user}" may not read pg_authid`)
  return { settings, server, programs, facts, runner: { signal, warn, running: new Set() } }
}

async function askServer(target: ServerTarget, excluded: readonly string[]): Promise<Server> {
  const session = await connectSql(target)
  try {
    const [own] = await runSql(
      session,
      `select current_setting('server_version_num'), has_table_privilege('pg_catalog.pg_authid', 'select')`,
    )
    const rows = await runSql(
      session,
      `select datname, has_database_privilege(oid, 'connect'), quote_ident(datname), quote_ident(current_user)
        from pg_database where datallowconn and datconnlimit <> -2`,
    )
    const isLeft = ([name, mayConnect]: SqlRow): boolean =>
      excluded.includes(name ?? '') || (mayConnect !== 't' && PROVIDERS.includes(name ?? ''))
    const wanted = rows.filter((row) => !isLeft(row))
    const unknown = excluded.find((name) => !rows.some(([known]) => known === name))
    if (unknown !== undefined)
      throw new Failure('source.failed', `Cannot leave out the database "${unknown}": the server has none`)
    const closed = wanted.find(([, mayConnect]) => mayConnect !== 't')
    if (closed !== undefined) {
      const [name, , quotedName, quotedRole] = closed
      const grant = `GRANT CONNECT ON DATABASE ${quotedName} TO ${quotedRole}`
      const is = `${session.place.user} may not connect to the database "${name}"`
      throw new Failure('source.failed', `Cannot back up the server: ${is} (every database is dumped)`, {
        facts: { hint: `Run: ${grant}; or name it in excludeDatabases.` },
      })
    }
    return {
      place: session.place,
      major: Math.floor(Number(own?.[0]) / 10_000),
      databases: wanted.map(([name]) => name ?? ''),
      left: rows.filter(isLeft).map(([name]) => name ?? ''),
      readsPasswords: own?.[1] === 't',
    }
  } finally {
    await closeSql(session)
  }
}

/** In the order of bytes of their paths; a dump begins when its turn comes. */
function* dumpEvents(reading: Reading): Generator<SourceEvent, void, undefined> {
  const { settings, server, runner } = reading
  const { databases: folder, globals, server: record } = LOGICAL_PATHS
  yield { kind: 'made', path: '/', entry: madeEntry('', 'directory', settings) }
  yield { kind: 'made', path: folder, entry: madeEntry(folder.slice(1), 'directory', settings) }
  for (const { file, database } of filesOf(server.databases)) {
    const content = readDump(runner, databaseJob(reading, database))
    yield { kind: 'stream', path: `${folder}/${file}`, entry: madeEntry(file, 'file', settings), content }
  }
  yield { kind: 'leave', path: folder }
  const roles = readDump(runner, globalsJob(reading))
  yield {
    kind: 'stream',
    path: globals,
    entry: madeEntry(globals.slice(1), 'file', settings),
    content: roles,
  }
  const content = recordOf(reading)
  yield { kind: 'stream', path: record, entry: madeEntry(record.slice(1), 'file', settings), content }
  yield { kind: 'leave', path: '/' }
}

function filesOf(databases: readonly string[]): DumpRecord['dumps'] {
  const files = databases.map((database) => ({ file: `${escapeName(database)}.dump`, database }))
  return files.toSorted((a, b) => (a.file < b.file ? -1 : 1))
}

/** Letters, digits, "_" and "-" as they are, other bytes as %XX. */
function escapeName(name: string): string {
  const bytes = Buffer.from(name, 'utf8').toString('latin1')
  return bytes.replace(
    /[^\w-]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  )
}

/** The name of the database is no argument, where it could be taken for a connection string. */
function databaseJob({ settings, server, programs }: Reading, database: string): DumpJob {
  const args = ['--format=custom', '--compress=0', '--no-password']
  const env = { ...libpqEnvironment(settings.target, server.place, database), ...ownVariables(settings) }
  return { what: `the database "${database}"`, program: programs.dump, args, env }
}

function globalsJob({ settings, server, programs }: Reading): DumpJob {
  const { database } = settings.target
  const args = ['--globals-only', '--no-password', `--database=${connectionString(database)}`]
  if (!server.readsPasswords) args.push('--no-role-passwords')
  const env = { ...libpqEnvironment(settings.target, server.place, MAINTENANCE), ...ownVariables(settings) }
  return { what: 'roles and tablespaces', program: programs.dumpAll, args, env }
}

/** pg_dumpall takes the database from its arguments only; a plain name could be taken for such a string. */
function connectionString(database: string): string {
  return `dbname='${database.replace(/['\\]/g, String.raw`\$&`)}'`
}

/** Messages in English, whatever this host speaks. */
function ownVariables({ env }: LogicalSettings): Record<string, string> {
  const { PATH: path = '', HOME: home } = env
  return { PATH: path, LC_ALL: 'C', ...(home === undefined ? {} : { HOME: home }) }
}

async function* recordOf({ server, programs, facts }: Reading): AsyncGenerator<Uint8Array> {
  const { dump, version } = programs
  const record: DumpRecord & Record<string, unknown> = {
    format: 1,
    mode: 'logical',
    dumpedBy: { program: dump, version },
    dumps: filesOf(server.databases),
    excludedDatabases: server.left,
    hasRolePasswords: server.readsPasswords,
    facts,
  }
  yield Buffer.from(`${JSON.stringify(record, undefined, 2)}\n`)
}
