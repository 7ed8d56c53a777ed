/**
 * What stands between a server and its backup: a pure function from facts to findings, each with the command
 * that mends it. docs/guide/postgres.md has a row for each code.
 */
import { quoteShell } from '../../base/shell.ts'
import {
  MANAGED_ROLES,
  type ArchiverFacts,
  type ServerFacts,
  type SettingName,
  type SlotFacts,
} from './server-facts.ts'

/** What the configuration wants of the server. */
export interface ServerWish {
  readonly logs: 'none' | 'stream' | 'archive'
  /** `logical`: neither pages nor log are asked for. */
  readonly mode?: 'physical' | 'logical'
  /** Of the log, when it is streamed. */
  readonly slot: string
  /** As which we log in to stream: who holds the slot under this name is ourselves. */
  readonly applicationName: string
  /** How the server hands its log over, with `logs: archive`. */
  readonly archiveCommand?: string
}

/** `error`: no backup, or no log. `warning`: it goes, at a risk. `info`: good to know. */
export const SERVER_FINDINGS = {
  version: 'error',
  managed: 'error',
  replication: 'error',
  'replication-privilege': 'error',
  'replication-login': 'error',
  'sql-login': 'warning',
  'wal-level': 'error',
  'wal-senders': 'error',
  'slot-count': 'error',
  'slot-lost': 'error',
  'slot-kind': 'error',
  'slot-busy': 'error',
  'slot-behind': 'warning',
  'slot-unbounded': 'warning',
  'archive-off': 'error',
  'archive-command': 'warning',
  'archive-failing': 'error',
  'full-page-writes': 'warning',
  'standby-page-writes': 'error',
  checksums: 'warning',
  fsync: 'warning',
  'page-size': 'warning',
  'config-outside': 'info',
  collation: 'warning',
  unread: 'info',
} as const satisfies Record<string, 'error' | 'warning' | 'info'>

export type ServerFindingCode = keyof typeof SERVER_FINDINGS

export interface ServerFinding {
  readonly code: ServerFindingCode
  readonly is: string
  readonly mustBe: string
  /** SQL statements (they end with ";"), or commands for a shell of the server's host. */
  readonly mend: readonly string[]
}

const MAJOR_MIN = 13
const MAJOR_MAX = 18
const BLOCK_SIZE = '8192'
const SEGMENT_SIZE = '1GB'
const RELOAD = 'SELECT pg_reload_conf();'
/** SQLSTATEs of a refused login. */
const NO_LOGIN_RULE = '28000'
const NO_PRIVILEGE = '42501'
const TOO_MANY = '53300'

/** What concerns dumps too: the rest is about pages and log. */
const OF_DUMPS: ReadonlySet<ServerFindingCode> = new Set(['sql-login', 'checksums', 'fsync', 'collation'])

/** Worst first. */
export function checkServer(facts: ServerFacts, wish: ServerWish): ServerFinding[] {
  const findings = [
    ...checkKind(facts),
    ...checkReplication(facts),
    ...checkLog(facts, wish),
    ...checkSlot(facts, wish),
    ...checkPages(facts),
    ...checkReading(facts),
  ]
  const ranks = { error: 0, warning: 1, info: 2 }
  const counting = wish.mode === 'logical' ? findings.filter(({ code }) => OF_DUMPS.has(code)) : findings
  return counting.toSorted((a, b) => ranks[SERVER_FINDINGS[a.code]] - ranks[SERVER_FINDINGS[b.code]])
}

function checkKind({ version }: ServerFacts): ServerFinding[] {
  const major = Math.floor(version / 10_000)
  if (version === 0 || (major >= MAJOR_MIN && major <= MAJOR_MAX)) return []
  const mustBe = `${MAJOR_MIN} to ${MAJOR_MAX}`
  const mend = major < MAJOR_MIN ? 'pg_upgradecluster or pg_upgrade' : 'a newer Backstock'
  return [{ code: 'version', is: `the server is PostgreSQL ${major}`, mustBe, mend: [mend] }]
}

function checkReplication(facts: ServerFacts): ServerFinding[] {
  const { replicationRefusal: refusal, managedRoles, role } = facts
  if (refusal === undefined) return []
  const [managed] = managedRoles
  if (managed !== undefined) {
    const name = Object.entries(MANAGED_ROLES).find(([known]) => known === managed)?.[1] ?? managed
    return [
      {
        code: 'managed',
        is: `this is ${name} (it has the role ${managed}), which lets nobody replicate pages and log`,
        mustBe: 'a server that you run yourself, or mode: logical',
        mend: ['mode: logical   # in backstock.yaml: dumps, always full, no point in time between'],
      },
    ]
  }
  if (refusal.sqlstate === TOO_MANY) return [sendersFinding(facts, refusal.message)]
  const lacksRight = role !== undefined && !role.canReplicate && !role.isSuperuser
  if (refusal.sqlstate === NO_PRIVILEGE || lacksRight)
    return [
      {
        code: 'replication-privilege',
        is: `the role ${facts.user} may not replicate`,
        mustBe: 'a role with REPLICATION',
        mend: [`ALTER ROLE ${quoteName(facts.user)} REPLICATION;`],
      },
    ]
  if (refusal.sqlstate === NO_LOGIN_RULE)
    return [
      {
        code: 'replication-login',
        is: refusal.message,
        mustBe: 'a line of pg_hba.conf for the database "replication" (the word "all" does not mean it)',
        mend: loginRule(facts, 'replication'),
      },
    ]
  return [{ code: 'replication', is: refusal.message, mustBe: 'a replication connection', mend: [] }]
}

/** The line, and the command that adds it to the file. */
function loginRule(facts: ServerFacts, database: string): string[] {
  const { clientAddress, host, user, settings } = facts
  const file = settings.hba_file ?? '"$(psql -AtXc \'SHOW hba_file\')"'
  const isLocal = host.startsWith('/')
  const address = clientAddress ?? 'ADDRESS-OF-THIS-HOST'
  const net = `${address}/${address.includes(':') ? 128 : 32}`
  const from = isLocal ? 'local' : 'host'
  const rule = [from, database, quoteRuleName(user), ...(isLocal ? [] : [net]), 'scram-sha-256'].join(' ')
  const path = settings.hba_file === undefined ? file : quoteShell(file)
  return [`echo ${quoteShell(rule)} >> ${path}`, RELOAD]
}

function sendersFinding({ settings, senderCount = 0 }: ServerFacts, is?: string): ServerFinding {
  const most = Number(settings.max_wal_senders ?? 0)
  return {
    code: 'wal-senders',
    is: is ?? `${senderCount} of max_wal_senders = ${most} are in use`,
    mustBe: 'one for a backup and one more to stream the log',
    mend: [set('max_wal_senders', String(Math.max(10, most + 4))), ...restart(settings)],
  }
}

function checkLog(facts: ServerFacts, wish: ServerWish): ServerFinding[] {
  const { settings, senderCount, slots, replicationRefusal } = facts
  const findings: ServerFinding[] = []
  if (settings.wal_level === 'minimal')
    findings.push({
      code: 'wal-level',
      is: 'wal_level is minimal',
      mustBe: 'replica or logical',
      mend: [set('wal_level', 'replica'), ...restart(settings)],
    })
  // One for the backup; a stream that is under way has its own already.
  const isStreaming =
    slots?.some(({ name, activeBy }) => name === wish.slot && activeBy !== undefined) === true
  const needed = wish.logs === 'stream' && !isStreaming ? 2 : 1
  const free = Number(settings.max_wal_senders ?? Infinity) - (senderCount ?? 0)
  if (free < needed && replicationRefusal?.sqlstate !== TOO_MANY) findings.push(sendersFinding(facts))
  return wish.logs === 'archive' ? [...findings, ...checkArchive(facts, wish)] : findings
}

/** Whether the server hands its log over, and to us. */
function checkArchive({ settings, archiver }: ServerFacts, { archiveCommand }: ServerWish): ServerFinding[] {
  const { archive_mode: mode, archive_command: command = '', archive_library: library = '' } = settings
  const setCommand = archiveCommand === undefined ? [] : [set('archive_command', archiveCommand)]
  const hasCommand = command !== '' || library !== ''
  if (mode === 'off' || !hasCommand)
    return [
      {
        code: 'archive-off',
        is: `archive_mode is ${mode}, archive_command is ${hasCommand ? 'set' : 'empty'}`,
        mustBe: 'archive_mode on and an archive_command, for logs: archive',
        mend: [set('archive_mode', 'on'), ...setCommand, ...restart(settings)],
      },
    ]
  const failing = archiver?.isFailing === true ? [failingFinding(archiver)] : []
  if (archiveCommand === undefined || command.includes(archiveCommand)) return failing
  const isLibrary = library !== ''
  return [
    {
      code: 'archive-command',
      is: isLibrary ? `archive_library is ${library}` : `archive_command is ${command}`,
      mustBe: archiveCommand,
      mend: [...(isLibrary ? [set('archive_library', '')] : []), ...setCommand, RELOAD],
    },
    ...failing,
  ]
}

/** The reason is in the server's log alone. */
function failingFinding({ failedCount, failedFile = 'a file', failedAt }: ArchiverFacts): ServerFinding {
  const when = failedAt === undefined ? '' : ` at ${failedAt}`
  return {
    code: 'archive-failing',
    is: `the server could not hand over ${failedFile}${when}, nor since (${failedCount} failures in all)`,
    mustBe: 'handed over: look into its log for "archive command failed"; until then it keeps what it writes',
    mend: ['SELECT * FROM pg_stat_archiver;'],
  }
}

function checkSlot(facts: ServerFacts, wish: ServerWish): ServerFinding[] {
  const { settings, slots } = facts
  if (wish.logs !== 'stream') return []
  const findings: ServerFinding[] = []
  const slot = slots?.find(({ name }) => name === wish.slot)
  const most = Number(settings.max_replication_slots ?? Infinity)
  if (slot !== undefined) findings.push(...checkOwnSlot(slot, wish))
  else if (slots !== undefined && slots.length >= most)
    findings.push({
      code: 'slot-count',
      is: `all ${most} replication slots are taken (${slots.map(({ name }) => name).join(', ')})`,
      mustBe: 'one that is free',
      mend: [set('max_replication_slots', String(most + 4)), ...restart(settings)],
    })
  if (settings.max_slot_wal_keep_size === '-1')
    findings.push({
      code: 'slot-unbounded',
      is: 'max_slot_wal_keep_size is -1: log that we do not fetch fills the disk of the server',
      mustBe: 'what the disk of pg_wal can spare',
      mend: [set('max_slot_wal_keep_size', '20GB'), RELOAD],
    })
  return findings
}

function checkOwnSlot(slot: SlotFacts, { applicationName }: ServerWish): ServerFinding[] {
  const shown = `the replication slot ${slot.name}`
  if (slot.kind !== 'physical' || slot.isTemporary)
    return [
      {
        code: 'slot-kind',
        is: `${shown} is ${slot.isTemporary ? 'temporary' : slot.kind}`,
        mustBe: 'a permanent physical one: name another slot',
        mend: [`slot: ${slot.name}_physical   # in backstock.yaml`],
      },
    ]
  const drop = `SELECT pg_drop_replication_slot(${quoteText(slot.name)});`
  if (slot.walStatus === 'lost')
    return [
      {
        code: 'slot-lost',
        is: `${shown} is lost: the server removed log that we had not fetched`,
        mustBe: 'a new one, and a full backup after it: the log has a gap',
        mend: [drop],
      },
    ]
  const findings: ServerFinding[] = []
  if (slot.activeBy !== undefined && slot.activeBy !== applicationName)
    findings.push({
      code: 'slot-busy',
      is: `${shown} is in use by ${slot.activeBy === '' ? 'somebody' : `"${slot.activeBy}"`}`,
      mustBe: 'ours alone: name another slot, or end the other',
      mend: [
        'SELECT pid, usename, client_addr FROM pg_stat_activity WHERE pid =' +
          ` (SELECT active_pid FROM pg_replication_slots WHERE slot_name = ${quoteText(slot.name)});`,
      ],
    })
  if (slot.walStatus === 'unreserved')
    findings.push({
      code: 'slot-behind',
      is: `${shown} is about to be lost: the server keeps its log only until the next checkpoint`,
      mustBe: 'fetched at once, or a larger max_slot_wal_keep_size',
      mend: [set('max_slot_wal_keep_size', '40GB'), RELOAD],
    })
  return findings
}

function checkPages({ settings, isStandby }: ServerFacts): ServerFinding[] {
  const folder = folderOf(settings)
  const findings: ServerFinding[] = []
  if (settings.full_page_writes === 'off')
    findings.push({
      code: isStandby === true ? 'standby-page-writes' : 'full-page-writes',
      is:
        isStandby === true
          ? 'full_page_writes is off: torn pages are possible, so that a standby refuses the backup'
          : 'full_page_writes is off: a crash of the server may leave torn pages that no log mends',
      mustBe: isStandby === true ? 'on, on the primary' : 'on',
      mend: [set('full_page_writes', 'on'), RELOAD],
    })
  if (settings.fsync === 'off')
    findings.push({
      code: 'fsync',
      is: 'fsync is off: a crash may damage the server, and then its backups',
      mustBe: 'on',
      mend: [set('fsync', 'on'), RELOAD],
    })
  if (settings.data_checksums === 'off')
    findings.push({
      code: 'checksums',
      is: 'page checksums are off: a page that the disk damaged is backed up as it is',
      mustBe: 'on (the server is stopped while all pages are written)',
      mend: [
        `pg_ctl -D ${folder} stop`,
        `pg_checksums -D ${folder} --enable --progress`,
        `pg_ctl -D ${folder} start`,
      ],
    })
  const { block_size: block = BLOCK_SIZE, segment_size: segment = SEGMENT_SIZE } = settings
  if (block !== BLOCK_SIZE || segment !== SEGMENT_SIZE)
    findings.push({
      code: 'page-size',
      is: `the server was built with pages of ${block} bytes in files of ${segment}`,
      mustBe: 'pages of 8192 bytes in files of 1GB; of others only full backups are made',
      mend: [],
    })
  return findings
}

function checkReading(facts: ServerFacts): ServerFinding[] {
  const { role, sqlRefusal, databases, configFiles, unread, user } = facts
  const findings: ServerFinding[] = []
  if (sqlRefusal !== undefined)
    findings.push({
      code: 'sql-login',
      is: sqlRefusal.message,
      mustBe: 'a login for SQL too: slots, extensions and collations are not known without it',
      mend: sqlRefusal.sqlstate === NO_LOGIN_RULE ? loginRule(facts, 'all') : [],
    })
  const outside = configFiles.filter(({ isOutside }) => isOutside === true).map(({ path }) => path)
  if (outside.length > 0)
    findings.push({
      code: 'config-outside',
      is: `a base backup does not hold ${outside.join(', ')}`,
      mustBe: 'backed up on their own, by a source of kind files on the host of the server',
      mend: [],
    })
  for (const { name, collationVersion, collationActual } of databases) {
    if (collationActual === undefined || collationVersion === undefined) continue
    if (collationActual === collationVersion) continue
    findings.push({
      code: 'collation',
      is: `database ${name} has collation version ${collationVersion}, its host ${collationActual}`,
      mustBe: 'the same: indexes on text may be wrong, and a backup holds them as they are',
      mend: [
        `REINDEX DATABASE ${quoteName(name)};`,
        `ALTER DATABASE ${quoteName(name)} REFRESH COLLATION VERSION;`,
      ],
    })
  }
  const lacking = [
    ...(role?.readsSettings === false ? ['pg_read_all_settings'] : []),
    ...(role?.readsStats === false ? ['pg_read_all_stats'] : []),
  ]
  if (lacking.length + unread.length > 0)
    findings.push({
      code: 'unread',
      is:
        unread.length > 0
          ? `the role ${user} could not read ${unread.map(({ what }) => what).join(', ')}`
          : `the role ${user} is no member of ${lacking.join(', ')}`,
      mustBe: 'readable, to be known after a disaster',
      mend: lacking.map((name) => `GRANT ${name} TO ${quoteName(user)};`),
    })
  return findings
}

type Settings = ServerFacts['settings']

function set(name: SettingName, value: string): string {
  return `ALTER SYSTEM SET ${name} = ${quoteText(value)};`
}

function restart(settings: Settings): string[] {
  return [`pg_ctl -D ${folderOf(settings)} restart`]
}

function folderOf({ data_directory: folder }: Settings): string {
  return folder === undefined ? '"$PGDATA"' : quoteShell(folder)
}

function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** Of pg_hba.conf, where a bare word may be a keyword. */
function quoteRuleName(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) && name !== 'all' ? name : quoteName(name)
}

function quoteText(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}
