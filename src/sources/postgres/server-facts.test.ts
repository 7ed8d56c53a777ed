/** Against a real server, as a role that has what the guide says and nothing else. */
import assert from 'node:assert/strict'
import { chownSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import { randomHex } from '../../base/random.ts'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  sql,
  type PostgresServer,
} from '../../../test/harness/postgres.ts'
import { makeStandby } from '../../../test/harness/postgres-standby.ts'
import { enableTls, hasOpenssl, setPostgres, writeLoginRules } from '../../../test/harness/postgres-tls.ts'
import { connectReplication } from './connect.ts'
import { closeReplication, runCommand } from './replication.ts'
import { checkServer } from './server-check.ts'
import { readServerFacts } from './server-facts.ts'
import { findServer, type ServerTarget } from './server-place.ts'

const skip =
  postgresFolder() === undefined
    ? 'PostgreSQL is not installed'
    : hasOpenssl()
      ? false
      : 'openssl is not installed'
const GUIDE = join(import.meta.dirname, '../../../docs/guide/postgres.md')
const wish = { logs: 'stream', slot: 'ours', applicationName: 'backstock' } as const
const password = randomHex(12)
let server: PostgresServer
let rules: string[] = []
let root = ''
let space = ''

/** Blocks of the section "The role", as people copy them. */
function guideBlocks(language: string): string[] {
  const [, section = ''] = /^## The role\n([\s\S]*?)^## /m.exec(readFileSync(GUIDE, 'utf8')) ?? []
  const fence = new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm')
  return [...section.matchAll(fence)].map(([, text = '']) => text)
}

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres({ settings: ['max_slot_wal_keep_size = 1GB'] })
    space = join(server.dir, 'space')
    mkdirSync(space)
    const { uid, gid } = statSync(server.data)
    chownSync(space, uid, gid)
    root = enableTls(server, 'unused').root
    const [role = '', optional = ''] = guideBlocks('sql')
    assert.match(role, /'choose-one'/)
    sql(server, role.replace('choose-one', password), optional)
    rules = (guideBlocks('conf')[0] ?? '').replaceAll('10.0.0.5/32', '127.0.0.1/32').trim().split('\n')
    assert.equal(rules.length, 2)
    sql(server, 'create database shop', 'create role weak login replication', 'create role mute login')
  },
  { timeout: 60_000 },
)
beforeEach(() => {
  if (skip === false) writeLoginRules(server, rules)
})
after(async () => {
  if (skip === false) await dropPostgres(server)
})

function target(user = 'backstock', more: { env?: Record<string, string> } = {}): ServerTarget {
  const query = `sslmode=verify-full&sslrootcert=${root}`
  const url = `postgres://${user}@localhost:${server.port}/?${query}`
  return findServer({ url, password, env: more.env ?? {}, systemUser: 'nobody' })
}

test('the role of the guide reads all facts of a server', { skip }, async () => {
  sql(server, `create tablespace elsewhere location '${space}'`)
  const facts = await readServerFacts(target())
  // A standby on the same host could not have it too.
  sql(server, 'drop tablespace elsewhere')
  assert.deepEqual(facts.unread, [])
  assert.deepEqual([facts.sqlRefusal, facts.replicationRefusal], [undefined, undefined])
  assert.equal(Math.floor(facts.version / 10_000), server.major)
  const [control = ''] = sql(
    server,
    `select system_identifier || ' ' || timeline_id || ' ' || catalog_version_no
      from pg_control_system(), pg_control_checkpoint()`,
  )
  assert.equal(`${facts.systemId} ${facts.timeline} ${facts.catalogVersion}`, control)
  assert.deepEqual([facts.isStandby, facts.senderCount, facts.slots], [false, 0, []])
  const expected = {
    server_encoding: 'UTF8',
    wal_level: 'replica',
    wal_segment_size: '16MB',
    wal_keep_size: '0',
    block_size: '8192',
    segment_size: '1GB',
    data_checksums: 'on',
    full_page_writes: 'on',
    max_slot_wal_keep_size: '1GB',
    fsync: 'off',
    archive_mode: 'off',
    synchronous_commit: 'on',
    synchronous_standby_names: '',
    shared_preload_libraries: '',
    data_directory: server.data,
    hba_file: join(server.data, 'pg_hba.conf'),
  }
  assert.deepEqual({ ...facts.settings, ...expected }, facts.settings)
  assert.deepEqual(facts.role, {
    name: 'backstock',
    isSuperuser: false,
    canReplicate: true,
    readsSettings: true,
    readsStats: true,
  })
  assert.equal(facts.clientAddress, '127.0.0.1')
  const files = ['postgresql.conf', 'pg_hba.conf', 'pg_ident.conf', 'postgresql.auto.conf']
  assert.deepEqual(
    facts.configFiles,
    files.map((name) => ({ path: join(server.data, name), isOutside: false })),
  )
  assert.deepEqual(
    facts.tablespaces.map(({ name, location }) => [name, location]),
    [['elsewhere', space]],
  )
  assert.deepEqual(facts.databases.map(({ name }) => name).toSorted(), ['postgres', 'shop', 'template1'])
  for (const database of facts.databases) {
    assert.deepEqual([database.encoding, database.collate], ['UTF8', 'C'])
    assert.ok((database.bytes ?? 0) > 1_000_000)
    assert.deepEqual(
      database.extensions?.map(({ name }) => name),
      ['plpgsql'],
    )
    assert.ok(database.collations.length > 0)
    for (const { version, actual } of database.collations) assert.equal(version, actual)
  }
  assert.deepEqual(
    checkServer(facts, wish).map(({ code }) => code),
    ['fsync'],
  )
})

test('the role of the guide takes a base backup, and makes and drops a slot', { skip }, async () => {
  const replication = await connectReplication(target())
  try {
    await runCommand(replication, 'CREATE_REPLICATION_SLOT "ours" PHYSICAL RESERVE_WAL')
    const { slots } = await readServerFacts(target())
    assert.equal(slots?.[0]?.name, 'ours')
    assert.equal(slots[0].kind, 'physical')
    assert.equal(slots[0].activeBy, undefined)
    await runCommand(replication, 'DROP_REPLICATION_SLOT "ours"')
    let bytes = 0
    await runCommand(replication, "BASE_BACKUP (LABEL 'guide', CHECKPOINT 'fast', WAL false)", {
      onData: (payload) => void (bytes += payload.length),
    })
    assert.ok(bytes > 20_000_000)
  } finally {
    closeReplication(replication)
  }
})

test('the optional lines of the guide allow what they name', { skip }, () => {
  const as = (statement: string): string[] => sql(server, 'set role backstock', statement)
  assert.match(as("select pg_create_restore_point('a')")[0] ?? '', /^[0-9A-F]+\/[0-9A-F]+$/)
  assert.match(as('select pg_switch_wal()')[0] ?? '', /^[0-9A-F]+\/[0-9A-F]+$/)
  assert.deepEqual(as("select has_table_privilege('pg_authid', 'select')"), ['f'])
})

test('a role without any grant still reads most, and is told what it lacks', { skip }, async () => {
  writeLoginRules(server, [
    ...rules,
    'host postgres weak 127.0.0.1/32 trust',
    'host replication weak 127.0.0.1/32 trust',
  ])
  const facts = await readServerFacts(target('weak'))
  assert.equal(facts.settings.data_directory, undefined)
  assert.equal(facts.settings.wal_level, 'replica')
  assert.match(facts.systemId ?? '', /^\d+$/)
  const what = facts.unread.map((one) => one.what).join()
  assert.match(what, /where the configuration lies/)
  assert.match(what, /the extensions of database shop/)
  assert.equal(facts.databases.find(({ name }) => name === 'shop')?.extensions, undefined)
  const finding = checkServer(facts, wish).find(({ code }) => code === 'unread')
  assert.deepEqual(finding?.mend, [
    'GRANT pg_read_all_settings TO "weak";',
    'GRANT pg_read_all_stats TO "weak";',
  ])
  sql(server, ...finding.mend)
  const after = await readServerFacts(target('weak'))
  assert.equal(after.settings.data_directory, server.data)
  sql(server, 'revoke pg_read_all_settings, pg_read_all_stats from weak')
})

test('what mends a refused replication is what the check says', { skip }, async () => {
  writeLoginRules(server, ['host all mute 127.0.0.1/32 trust', 'host replication mute 127.0.0.1/32 trust'])
  const codes = async (): Promise<string[]> => {
    const facts = await readServerFacts(target('mute'))
    return checkServer(facts, wish).map(({ code }) => code)
  }
  assert.ok((await codes()).includes('replication-privilege'))
  sql(server, 'alter role mute replication')
  assert.ok(!(await codes()).some((code) => code.startsWith('replication')))
  writeLoginRules(server, ['host all mute 127.0.0.1/32 trust'])
  assert.ok((await codes()).includes('replication-login'))
  sql(server, 'create role rds_superuser')
  assert.ok((await codes()).includes('managed'))
  sql(server, 'drop role rds_superuser')
})

test('where SQL is refused the replication protocol answers', { skip }, async () => {
  writeLoginRules(server, ['host replication weak 127.0.0.1/32 trust'])
  const facts = await readServerFacts(target('weak'))
  assert.equal(facts.sqlRefusal?.sqlstate, '28000')
  assert.equal(Math.floor(facts.version / 10_000), server.major)
  assert.deepEqual([facts.isStandby, facts.timeline, facts.slots], [false, 1, undefined])
  assert.equal(facts.settings.wal_segment_size, '16MB')
  assert.equal(facts.settings.data_directory, undefined)
  const codes = checkServer(facts, wish).map(({ code }) => code)
  assert.deepEqual(codes, ['fsync', 'sql-login'])
  writeLoginRules(server, [])
  await assert.rejects(
    readServerFacts(target('weak')),
    (error) => isFailure(error, 'source.failed') && /no pg_hba.conf entry/.test(error.message),
  )
})

test('a slot that the server gave up is found as lost', { skip, timeout: 60_000 }, async () => {
  sql(server, "select pg_create_physical_replication_slot('ours', true)")
  setPostgres(server, 'max_slot_wal_keep_size', '1MB')
  try {
    for (let round = 0; round < 3; round++) sql(server, 'select txid_current()', 'select pg_switch_wal()')
    sql(server, 'checkpoint')
    const facts = await readServerFacts(target())
    assert.equal(facts.slots?.[0]?.walStatus, 'lost')
    const lost = checkServer(facts, wish).find(({ code }) => code === 'slot-lost')
    sql(server, ...(lost?.mend ?? []))
    assert.deepEqual((await readServerFacts(target())).slots, [])
  } finally {
    setPostgres(server, 'max_slot_wal_keep_size', '1GB')
  }
})

test('a standby says that it is one', { skip, timeout: 60_000 }, async () => {
  writeLoginRules(server, [...rules, 'host replication postgres 127.0.0.1/32 trust'])
  const standby = await makeStandby(server)
  try {
    const url = `postgres://postgres@127.0.0.1:${standby.port}/?sslmode=disable`
    const facts = await readServerFacts(findServer({ url, env: {}, systemUser: 'nobody' }))
    assert.equal(facts.isStandby, true)
    assert.match(facts.systemId ?? '', /^\d+$/)
  } finally {
    await dropPostgres(standby)
  }
})
