import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { archiveCommand } from './archive-command.ts'
import { checkServer, SERVER_FINDINGS, type ServerFinding, type ServerWish } from './server-check.ts'
import type { ServerFacts, SlotFacts } from './server-facts.ts'

const wish: ServerWish = { logs: 'stream', slot: 'ours', applicationName: 'backstock' }
const role = { name: 'b', isSuperuser: false, canReplicate: true, readsSettings: true, readsStats: true }
const slot: SlotFacts = {
  name: 'ours',
  kind: 'physical',
  isTemporary: false,
  activeBy: undefined,
  restartLsn: '0/3000000',
  walStatus: 'reserved',
}
const sound: ServerFacts = {
  place: 'db:5432 as b',
  user: 'b',
  host: 'db',
  clientAddress: '10.0.0.5',
  version: 180_004,
  isStandby: false,
  systemId: '7',
  timeline: 1,
  catalogVersion: 1,
  settings: {
    wal_level: 'replica',
    max_wal_senders: '10',
    max_replication_slots: '10',
    max_slot_wal_keep_size: '20GB',
    block_size: '8192',
    segment_size: '1GB',
    data_checksums: 'on',
    full_page_writes: 'on',
    fsync: 'on',
    archive_mode: 'off',
    archive_command: '',
    data_directory: '/data',
    hba_file: "/etc/it's/pg_hba.conf",
  },
  role,
  senderCount: 0,
  slots: [slot],
  archiver: { isFailing: false, failedCount: 3, failedFile: '000000010000000000000002', failedAt: '2026' },
  configFiles: [{ path: '/data/postgresql.conf', isOutside: false }],
  tablespaces: [],
  databases: [],
  managedRoles: [],
  replicationRefusal: undefined,
  sqlRefusal: undefined,
  unread: [],
}
const raised = new Set<string>()

function check(facts: Partial<ServerFacts>, wanted: Partial<ServerWish> = {}): ServerFinding[] {
  const found = checkServer({ ...sound, ...facts }, { ...wish, ...wanted })
  for (const { code } of found) raised.add(code)
  return found
}

/** The only finding must have this code and these commands. */
function finds(
  facts: Partial<ServerFacts>,
  [code, ...mend]: readonly [string, ...string[]],
  wanted: Partial<ServerWish> = {},
): void {
  const found = check(facts, wanted)
  assert.deepEqual(
    found.map((finding) => [finding.code, ...finding.mend]),
    [[code, ...mend]],
  )
}

function settings(changes: ServerFacts['settings']): Partial<ServerFacts> {
  return { settings: { ...sound.settings, ...changes } }
}

const RELOAD = 'SELECT pg_reload_conf();'
const RESTART = 'pg_ctl -D /data restart'

test('checkServer() finds nothing at a sound server', () => {
  assert.deepEqual(check({}), [])
  assert.deepEqual(check({ slots: [] }), [])
  assert.deepEqual(check({ managedRoles: ['rds_superuser'] }), [], 'a role alone says nothing')
})

test('checkServer() refuses versions that it does not know', () => {
  finds({ version: 120_022 }, ['version', 'pg_upgradecluster or pg_upgrade'])
  finds({ version: 190_000 }, ['version', 'a newer Backstock'])
  assert.deepEqual(check({ version: 130_000 }), [])
})

test('checkServer() tells why replication is refused, and how to allow it', () => {
  const refused = (sqlstate: string | undefined): Pick<ServerFacts, 'replicationRefusal'> => ({
    replicationRefusal: { sqlstate, message: 'no' },
  })
  const cannot = { ...role, canReplicate: false }
  finds({ ...refused('42501'), role: undefined }, ['replication-privilege', 'ALTER ROLE "b" REPLICATION;'])
  finds({ ...refused(undefined), role: cannot, user: 'a"b' }, [
    'replication-privilege',
    'ALTER ROLE "a""b" REPLICATION;',
  ])
  const quoted = String.raw`'/etc/it'\''s/pg_hba.conf'`
  finds(refused('28000'), [
    'replication-login',
    `echo 'host replication b 10.0.0.5/32 scram-sha-256' >> ${quoted}`,
    RELOAD,
  ])
  finds({ ...refused('28000'), host: '/run', settings: {}, user: 'Shop' }, [
    'replication-login',
    `echo 'local replication "Shop" scram-sha-256' >> "$(psql -AtXc 'SHOW hba_file')"`,
    RELOAD,
  ])
  finds({ ...refused('28000'), clientAddress: '::1', settings: { hba_file: '/h' } }, [
    'replication-login',
    "echo 'host replication b ::1/128 scram-sha-256' >> /h",
    RELOAD,
  ])
  finds({ ...refused('53300'), senderCount: 10 }, [
    'wal-senders',
    "ALTER SYSTEM SET max_wal_senders = '14';",
    RESTART,
  ])
  finds(refused('28P01'), ['replication'])
  const managed = check({ ...refused('28000'), managedRoles: ['rds_superuser'], role: cannot })
  assert.deepEqual(
    managed.map(({ code }) => code),
    ['managed'],
  )
  assert.match(managed[0]?.is ?? '', /Amazon RDS/)
  assert.match(managed[0]?.mend[0] ?? '', /^mode: logical/)
})

test('checkServer() looks at what the log needs', () => {
  finds(settings({ wal_level: 'minimal' }), ['wal-level', "ALTER SYSTEM SET wal_level = 'replica';", RESTART])
  const senders = ['wal-senders', "ALTER SYSTEM SET max_wal_senders = '14';", RESTART] as const
  finds({ senderCount: 9 }, senders)
  finds({ senderCount: 10 }, senders, { logs: 'none' })
  assert.deepEqual(check({ senderCount: 9 }, { logs: 'none' }), [])
  assert.deepEqual(check({ senderCount: 9, slots: [{ ...slot, activeBy: 'backstock' }] }), [])
  const archive = ['archive-off', "ALTER SYSTEM SET archive_mode = 'on';", RESTART] as const
  finds({}, archive, { logs: 'archive' })
  finds(settings({ archive_mode: 'on' }), archive, { logs: 'archive' })
  assert.deepEqual(check(settings({ archive_mode: 'on', archive_command: 'x' }), { logs: 'archive' }), [])
})

test('checkServer() prints the archive_command that hands the log to the inbox', () => {
  const ours = archiveCommand('/bin/client', "/it's/inbox")
  const wanted = { logs: 'archive', archiveCommand: ours } as const
  const command = String.raw`ALTER SYSTEM SET archive_command = '/bin/client ''/it''\''''s/inbox'' %p %f';`
  finds({}, ['archive-off', "ALTER SYSTEM SET archive_mode = 'on';", command, RESTART], wanted)
  const on = (changes: ServerFacts['settings']): Partial<ServerFacts> =>
    settings({ archive_mode: 'on', ...changes })
  finds(on({ archive_command: 'cp %p /old/%f' }), ['archive-command', command, RELOAD], wanted)
  const noLibrary = "ALTER SYSTEM SET archive_library = '';"
  finds(on({ archive_library: 'basic_archive' }), ['archive-command', noLibrary, command, RELOAD], wanted)
  assert.deepEqual(check(on({ archive_command: `log; ${ours}` }), wanted), [])
})

test('checkServer() tells that the server cannot hand its log over, to whom the log comes that way', () => {
  const file = '000000010000000000000002'
  const archiver = { isFailing: true, failedCount: 7, failedFile: file, failedAt: '2026-11-22 14:00:00 UTC' }
  const facts = { ...settings({ archive_mode: 'on', archive_command: 'x' }), archiver }
  finds(facts, ['archive-failing', 'SELECT * FROM pg_stat_archiver;'], { logs: 'archive' })
  const [finding] = check(facts, { logs: 'archive' })
  assert.match(finding!.is, new RegExp(`hand over ${file} at 2026-11-22 14:00:00 UTC, .*7 failures`))
  assert.deepEqual(check(facts), [], 'another may archive too')
  const codes = check(facts, { logs: 'archive', archiveCommand: 'y' }).map(({ code }) => code)
  assert.deepEqual(codes, ['archive-failing', 'archive-command'])
})

test('archiveCommand() doubles what PostgreSQL would put something in for', () => {
  assert.equal(archiveCommand('/b/c', '/100%/inbox'), "/b/c '/100%%/inbox' %p %f")
})

test('checkServer() looks at the slot', () => {
  const drop = "SELECT pg_drop_replication_slot('ours');"
  finds({ slots: [{ ...slot, walStatus: 'lost', restartLsn: undefined }] }, ['slot-lost', drop])
  const other = 'slot: ours_physical   # in backstock.yaml'
  finds({ slots: [{ ...slot, kind: 'logical' }] }, ['slot-kind', other])
  finds({ slots: [{ ...slot, isTemporary: true }] }, ['slot-kind', other])
  const who =
    'SELECT pid, usename, client_addr FROM pg_stat_activity WHERE pid =' +
    " (SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'ours');"
  finds({ slots: [{ ...slot, activeBy: 'walreceiver' }] }, ['slot-busy', who])
  finds({ slots: [{ ...slot, walStatus: 'unreserved' }] }, [
    'slot-behind',
    "ALTER SYSTEM SET max_slot_wal_keep_size = '40GB';",
    RELOAD,
  ])
  const changed = settings({ max_replication_slots: '1' })
  finds({ ...changed, slots: [{ ...slot, name: 'theirs' }] }, [
    'slot-count',
    "ALTER SYSTEM SET max_replication_slots = '5';",
    RESTART,
  ])
  finds(settings({ max_slot_wal_keep_size: '-1' }), [
    'slot-unbounded',
    "ALTER SYSTEM SET max_slot_wal_keep_size = '20GB';",
    RELOAD,
  ])
  assert.deepEqual(check(settings({ max_slot_wal_keep_size: '-1' }), { logs: 'none' }), [])
})

test('checkServer() looks at what makes pages sound', () => {
  const mended = ["ALTER SYSTEM SET full_page_writes = 'on';", RELOAD]
  finds(settings({ full_page_writes: 'off' }), ['full-page-writes', ...mended])
  finds({ ...settings({ full_page_writes: 'off' }), isStandby: true }, ['standby-page-writes', ...mended])
  finds(settings({ fsync: 'off' }), ['fsync', "ALTER SYSTEM SET fsync = 'on';", RELOAD])
  finds(settings({ data_checksums: 'off' }), [
    'checksums',
    'pg_ctl -D /data stop',
    'pg_checksums -D /data --enable --progress',
    'pg_ctl -D /data start',
  ])
  finds(settings({ block_size: '16384' }), ['page-size'])
  finds(settings({ segment_size: '2GB' }), ['page-size'])
})

test('checkServer() says what cannot be read, what lies elsewhere, and what collates otherwise', () => {
  const sqlRefusal = { sqlstate: '28000', message: 'no' }
  const [finding] = check({ sqlRefusal })
  assert.deepEqual([finding?.code, finding?.mend.length], ['sql-login', 2])
  finds({ configFiles: [{ path: '/etc/p.conf', isOutside: true }] }, ['config-outside'])
  const database = {
    name: 'shop',
    number: 5,
    encoding: 'UTF8',
    collate: 'C',
    ctype: 'C',
    collationVersion: '2.31',
    collationActual: '2.36',
    bytes: 1,
    extensions: [],
    collations: [],
  }
  finds({ databases: [database] }, [
    'collation',
    'REINDEX DATABASE "shop";',
    'ALTER DATABASE "shop" REFRESH COLLATION VERSION;',
  ])
  assert.deepEqual(check({ databases: [{ ...database, collationActual: '2.31' }] }), [])
  finds({ role: { ...role, readsStats: false } }, ['unread', 'GRANT pg_read_all_stats TO "b";'])
  finds({ unread: [{ what: 'x', why: 'y' }] }, ['unread'])
})

test('checkServer() puts the worst first', () => {
  const found = check({
    ...settings({ fsync: 'off', wal_level: 'minimal' }),
    unread: [{ what: 'x', why: 'y' }],
  })
  assert.deepEqual(
    found.map(({ code }) => code),
    ['wal-level', 'fsync', 'unread'],
  )
})

test('docs/guide/postgres.md explains every finding with its severity, and each is raised here', () => {
  const page = readFileSync(join(import.meta.dirname, '../../../docs/guide/postgres.md'), 'utf8')
  const rows = [...page.matchAll(/^\| `([a-z-]+)` \| (error|warning|info) \|/gm)]
  assert.deepEqual(Object.fromEntries(rows.map(([, code, severity]) => [code, severity])), SERVER_FINDINGS)
  assert.deepEqual([...raised].toSorted(), Object.keys(SERVER_FINDINGS).toSorted())
})
