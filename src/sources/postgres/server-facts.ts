/**
 * What a server says of itself, as far as the role may ask: by SQL, and by the replication protocol where SQL
 * is refused. What cannot be read is listed, it fails nothing. Not here: what is wrong with it
 * (server-check.ts).
 */
import { Failure, isFailure } from '../../base/failure.ts'
import { connectReplication, connectSql } from './connect.ts'
import { listDatabases, type DatabaseFacts } from './database-facts.ts'
import { shownPlace } from './log-in.ts'
import { closeReplication, runCommand, type Replication, type ServerPlace } from './replication.ts'
import type { ServerTarget } from './server-place.ts'
import { askSql, type Asking } from './sql-asking.ts'
import { closeSql, runSql, type SqlRow, type SqlSession } from './sql-session.ts'

export interface RoleFacts {
  readonly name: string
  readonly isSuperuser: boolean
  readonly canReplicate: boolean
  /** pg_read_all_settings, also through another role. */
  readonly readsSettings: boolean
  /** pg_read_all_stats, also through another role. */
  readonly readsStats: boolean
}

export interface SlotFacts {
  readonly name: string
  readonly kind: 'physical' | 'logical'
  readonly isTemporary: boolean
  /** Who streams from it, when somebody does; '' if the role may not know. */
  readonly activeBy: string | undefined
  /** undefined: it has never kept anything, or has lost what it kept. */
  readonly restartLsn: string | undefined
  /** `reserved`, `extended`, `unreserved`, `lost`. */
  readonly walStatus: string | undefined
}

/** What pg_stat_archiver says of the files that the server hands over. */
export interface ArchiverFacts {
  /** The last attempt failed, and nothing was handed over since. */
  readonly isFailing: boolean
  /** Attempts, since the statistics were reset. */
  readonly failedCount: number
  /** As the server writes them; undefined: there was none. */
  readonly failedFile: string | undefined
  readonly failedAt: string | undefined
}

/** A file that configures the server. */
export interface ConfigFile {
  readonly path: string
  /** A base backup does not hold it. undefined: the role may not know where the data folder is. */
  readonly isOutside: boolean | undefined
}

export interface TablespaceFacts {
  readonly number: number
  readonly name: string
  readonly location: string
}

/** Why a way to ask the server is closed. */
export interface Refusal {
  readonly sqlstate: string | undefined
  readonly message: string
}

export interface ServerFacts {
  readonly place: string
  readonly user: string
  readonly host: string
  /** Ours, as the server sees it; undefined by Unix socket. */
  readonly clientAddress: string | undefined
  /** As 150018 for 15.18; 0: not known. */
  readonly version: number
  readonly isStandby: boolean | undefined
  readonly systemId: string | undefined
  readonly timeline: number | undefined
  readonly catalogVersion: number | undefined
  /** As SHOW writes them: "16MB", "on". One that is not there may not be read, or is of another version. */
  readonly settings: Readonly<Partial<Record<SettingName, string>>>
  readonly role: RoleFacts | undefined
  /** Connections that stream, without ours. */
  readonly senderCount: number | undefined
  readonly slots: readonly SlotFacts[] | undefined
  readonly archiver: ArchiverFacts | undefined
  readonly configFiles: readonly ConfigFile[]
  readonly tablespaces: readonly TablespaceFacts[]
  readonly databases: readonly DatabaseFacts[]
  /** Roles that only a managed service makes. */
  readonly managedRoles: readonly string[]
  readonly replicationRefusal: Refusal | undefined
  readonly sqlRefusal: Refusal | undefined
  readonly unread: readonly { readonly what: string; readonly why: string }[]
}

export const SETTINGS = [
  'server_version_num',
  'server_encoding',
  'wal_level',
  'max_wal_senders',
  'max_replication_slots',
  'max_slot_wal_keep_size',
  'wal_keep_size',
  'wal_segment_size',
  'block_size',
  'segment_size',
  'data_checksums',
  'full_page_writes',
  'fsync',
  'archive_mode',
  'archive_command',
  'archive_library',
  'synchronous_commit',
  'synchronous_standby_names',
  'shared_preload_libraries',
  'data_directory',
  'config_file',
  'hba_file',
  'ident_file',
  'lc_collate',
] as const

export type SettingName = (typeof SETTINGS)[number]

export const MANAGED_ROLES = {
  rds_superuser: 'Amazon RDS',
  cloudsqlsuperuser: 'Google Cloud SQL',
  alloydbsuperuser: 'Google AlloyDB',
  azure_pg_admin: 'Azure Database',
  neon_superuser: 'Neon',
} as const satisfies Record<string, string>

/** Before it `isStandby` is not said to a replication connection. */
const SAYS_STANDBY = 140_000

/** Fails: source.failed when no server takes a connection of either kind. */
export async function readServerFacts(target: ServerTarget): Promise<ServerFacts> {
  let session: SqlSession | undefined
  let sqlRefusal: Refusal | undefined
  try {
    session = await connectSql(target)
  } catch (error) {
    sqlRefusal = refusalOf(error)
  }
  const asking: Asking = { unread: [] }
  try {
    const facts = session === undefined ? undefined : await readBySql(session, asking)
    const places = session === undefined ? target.places : [session.place]
    // The kind of the server is known by now; SQL chose it.
    const kind = session === undefined ? target.session : 'any'
    const asked = await readByReplication({ ...target, places, session: kind }, facts === undefined)
    if (facts === undefined && asked.place === undefined)
      throw new Failure('source.failed', `${sqlRefusal?.message}\n${asked.refusal?.message}`)
    return {
      ...placeFacts(asked.place ?? session?.place),
      ...NOTHING,
      ...facts,
      ...asked.facts,
      settings: { ...asked.settings, ...facts?.settings },
      replicationRefusal: asked.refusal,
      sqlRefusal,
      unread: asking.unread,
    }
  } finally {
    if (session !== undefined) await closeSql(session)
  }
}

type Facts = Omit<ServerFacts, 'place' | 'user' | 'host' | 'replicationRefusal' | 'sqlRefusal' | 'unread'>

const NOTHING: Facts = {
  clientAddress: undefined,
  version: 0,
  isStandby: undefined,
  systemId: undefined,
  timeline: undefined,
  catalogVersion: undefined,
  settings: {},
  role: undefined,
  senderCount: undefined,
  slots: undefined,
  archiver: undefined,
  configFiles: [],
  tablespaces: [],
  databases: [],
  managedRoles: [],
}

function placeFacts(place: ServerPlace | undefined): Pick<ServerFacts, 'place' | 'user' | 'host'> {
  return place === undefined
    ? { place: '', user: '', host: '' }
    : { place: shownPlace(place), user: place.user, host: place.host }
}

async function readBySql(session: SqlSession, asking: Asking): Promise<Facts> {
  const settings = await readSettings(session)
  const version = Number(settings.server_version_num ?? 0)
  // Two answers of one server that nobody refuses.
  const [own] = await runSql(session, 'select pg_is_in_recovery(), host(inet_client_addr())')
  const [control] = await askSql(asking, 'the identity of the cluster', async () =>
    runSql(
      session,
      `select s.system_identifier, c.timeline_id, s.catalog_version_no
        from pg_control_system() s, pg_control_checkpoint() c`,
    ),
  )
  return {
    clientAddress: own?.[1] ?? undefined,
    version,
    isStandby: own?.[0] === 't',
    systemId: control?.[0] ?? undefined,
    timeline: numberOf(control?.[1]),
    catalogVersion: numberOf(control?.[2]),
    settings,
    role: await readRole(session),
    senderCount: await readSenders(session, asking),
    slots: await readSlots(session, asking),
    archiver: await readArchiver(session, asking),
    configFiles: await readConfigFiles(session, settings, asking),
    tablespaces: await readTablespaces(session, asking),
    databases: await listDatabases(session, { version, asking }),
    managedRoles: await readManagedRoles(session),
  }
}

/** Settings that the role may not see are no rows of the view. */
async function readSettings(session: SqlSession): Promise<Facts['settings']> {
  const text = 'select name, current_setting(name) from pg_settings where name = any($1)'
  const rows = await runSql(session, text, [SETTINGS])
  const known = new Map(rows.map(([name, value]) => [name, value]))
  return Object.fromEntries(
    SETTINGS.flatMap((name) => {
      const value = known.get(name)
      return typeof value === 'string' ? [[name, value]] : []
    }),
  )
}

async function readRole(session: SqlSession): Promise<RoleFacts | undefined> {
  const [row] = await runSql(
    session,
    `select rolname, rolsuper, rolreplication, pg_has_role(oid, 'pg_read_all_settings', 'usage'),
      pg_has_role(oid, 'pg_read_all_stats', 'usage') from pg_roles where rolname = current_user`,
  )
  if (row === undefined) return undefined
  const [name, isSuperuser, canReplicate, readsSettings, readsStats] = row
  return {
    name: name ?? '',
    isSuperuser: isSuperuser === 't',
    canReplicate: canReplicate === 't',
    readsSettings: readsSettings === 't',
    readsStats: readsStats === 't',
  }
}

async function readSenders(session: SqlSession, asking: Asking): Promise<number | undefined> {
  const text = 'select count(*) from pg_stat_get_wal_senders()'
  const rows = await askSql(asking, 'the number of WAL senders', async () => runSql(session, text))
  return numberOf(rows[0]?.[0])
}

async function readSlots(session: SqlSession, asking: Asking): Promise<SlotFacts[] | undefined> {
  const before = asking.unread.length
  const rows = await askSql(asking, 'the replication slots', async () =>
    runSql(
      session,
      `select slot_name, slot_type, temporary, active, a.application_name, restart_lsn, wal_status
        from pg_replication_slots s left join pg_stat_activity a on a.pid = s.active_pid`,
    ),
  )
  if (asking.unread.length > before) return undefined
  return rows.map(([name, kind, isTemporary, isActive, by, restartLsn, walStatus]) => ({
    name: name ?? '',
    kind: kind === 'physical' ? 'physical' : 'logical',
    isTemporary: isTemporary === 't',
    activeBy: isActive === 't' ? (by ?? '') : undefined,
    restartLsn: restartLsn ?? undefined,
    walStatus: walStatus ?? undefined,
  }))
}

async function readArchiver(session: SqlSession, asking: Asking): Promise<ArchiverFacts | undefined> {
  const [row] = await askSql(asking, 'what became of archived files', async () =>
    runSql(
      session,
      `select coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false),
        failed_count, last_failed_wal, to_char(last_failed_time, 'YYYY-MM-DD HH24:MI:SS TZ')
        from pg_stat_archiver`,
    ),
  )
  if (row === undefined) return undefined
  const [isFailing, failedCount, failedFile, failedAt] = row
  return {
    isFailing: isFailing === 't',
    failedCount: Number(failedCount),
    failedFile: failedFile ?? undefined,
    failedAt: failedAt ?? undefined,
  }
}

/** The three named files, and those that they include. */
async function readConfigFiles(
  session: SqlSession,
  settings: Facts['settings'],
  asking: Asking,
): Promise<ConfigFile[]> {
  const { data_directory: folder, config_file: config, hba_file: hba, ident_file: ident } = settings
  const text = 'select distinct sourcefile from pg_settings where sourcefile is not null order by 1'
  const rows = await runSql(session, text)
  const named = [config, hba, ident].filter((path) => path !== undefined)
  if (named.length < 3)
    asking.unread.push({
      what: 'where the configuration lies',
      why: 'the role is no member of pg_read_all_settings',
    })
  const included = rows.flatMap(([path]) => (typeof path === 'string' ? [path] : []))
  return [...new Set([...named, ...included])].map((path) => ({
    path,
    isOutside: folder === undefined ? undefined : !path.startsWith(`${folder.replace(/\/+$/, '')}/`),
  }))
}

async function readTablespaces(session: SqlSession, asking: Asking): Promise<TablespaceFacts[]> {
  const text = `select oid, spcname, pg_tablespace_location(oid) from pg_tablespace
    where spcname not in ('pg_default', 'pg_global') order by oid`
  const rows = await askSql(asking, 'the tablespaces', async () => runSql(session, text))
  return rows.map(([number, name, location]) => ({
    number: Number(number),
    name: name ?? '',
    location: location ?? '',
  }))
}

async function readManagedRoles(session: SqlSession): Promise<string[]> {
  const text = 'select rolname from pg_roles where rolname = any($1) order by 1'
  const rows = await runSql(session, text, [Object.keys(MANAGED_ROLES)])
  return rows.map(([name]) => name ?? '')
}

interface Asked {
  readonly place: ServerPlace | undefined
  readonly refusal: Refusal | undefined
  readonly facts: Partial<Facts>
  readonly settings: Facts['settings']
}

/** The replication protocol knows settings too, but is slow at it: a round trip each. */
async function readByReplication(target: ServerTarget, wantsSettings: boolean): Promise<Asked> {
  let replication: Replication
  try {
    replication = await connectReplication(target)
  } catch (error) {
    return { place: undefined, refusal: refusalOf(error), facts: {}, settings: {} }
  }
  try {
    const [system] = await runCommand(replication, 'IDENTIFY_SYSTEM')
    const identity = { systemId: system?.[0] ?? undefined, timeline: numberOf(system?.[1]) }
    const { place } = replication
    if (!wantsSettings) return { place, refusal: undefined, facts: identity, settings: {} }
    const settings = await showSettings(replication)
    const version = Number(settings.server_version_num ?? 0)
    const isStandby = await showStandby(replication, version)
    return { place, refusal: undefined, facts: { ...identity, version, isStandby }, settings }
  } finally {
    closeReplication(replication)
  }
}

async function showSettings(replication: Replication): Promise<Facts['settings']> {
  const shown: Partial<Record<SettingName, string>> = {}
  for (const name of SETTINGS) {
    const value = await show(replication, name)
    if (value !== undefined) shown[name] = value
  }
  return shown
}

async function showStandby(replication: Replication, version: number): Promise<boolean | undefined> {
  return version < SAYS_STANDBY ? undefined : (await show(replication, 'in_hot_standby')) === 'on'
}

/** undefined: not known to this version, or not for this role. */
async function show(replication: Replication, name: string): Promise<string | undefined> {
  try {
    return (await runCommand(replication, `SHOW ${name}`))[0]?.[0] ?? undefined
  } catch (error) {
    if (isFailure(error, 'source.failed') && replication.ended === undefined) return undefined
    throw error
  }
}

function refusalOf(error: unknown): Refusal {
  if (!isFailure(error, 'source.failed')) throw error
  const { sqlstate } = error.facts
  return { sqlstate: typeof sqlstate === 'string' ? sqlstate : undefined, message: error.message }
}

function numberOf(text: SqlRow[number] | undefined): number | undefined {
  return typeof text === 'string' ? Number(text) : undefined
}
