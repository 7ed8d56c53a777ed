/** `mode: logical`: dumps of real databases, brought into a new server by the commands that a restore prints. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  query,
  sql,
  type PostgresServer,
} from '../harness/postgres.ts'
import {
  dropHost,
  eventOf,
  eventsOf,
  here,
  makeHost,
  run,
  writeConfig,
  type Event,
  type ShopHost,
} from '../harness/shop-host.ts'
import { enableTls, hasOpenssl, writeLoginRules } from '../harness/postgres-tls.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
const within = { skip, timeout: 120_000 }
const folder = postgresFolder() ?? ''
/** Names that a shell, a path, a connection string or SQL would take for something else. */
const ODD = [
  'it\'s "quoted"',
  'two words; $(id)',
  'größe 日本',
  'a/b\\c',
  "dbname='x' host=y",
  '-f',
  'Upper.dump',
]
const IMAGE_BYTES = 100_000
let server: PostgresServer
let host: ShopHost

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres()
    sql(
      server,
      "CREATE ROLE clerk LOGIN PASSWORD 'secret'",
      'CREATE TABLE shop AS SELECT n, md5(n::text) AS note FROM generate_series(1, 30000) AS n',
      'ALTER TABLE shop OWNER TO clerk',
    )
    for (const name of ODD) await query(server, `CREATE DATABASE ${quoted(name)} OWNER clerk`)
    for (const [nth, name] of ODD.entries())
      psql(server, name, [
        `CREATE TABLE "odd ""table" AS SELECT n, '${nth}' || n AS note FROM generate_series(1, 500) AS n`,
        `SELECT lo_from_bytea(${4000 + nth}, repeat('${nth}', ${IMAGE_BYTES})::bytea)`,
      ])
    host = makeHost()
    configure({})
    assert.equal((await here(host, ['init'])).exit, 0)
  },
  { timeout: 60_000 },
)

after(async () => {
  if (skip !== false) return
  dropHost(host)
  await dropPostgres(server)
})

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

function variables({ port }: PostgresServer, database = 'postgres'): Record<string, string> {
  const place = { PGHOST: '127.0.0.1', PGPORT: `${port}`, PGUSER: 'postgres', PGDATABASE: database }
  return { ...place, PATH: `${folder}:/usr/bin:/bin`, LC_ALL: 'C.UTF-8' }
}

function psql(of: PostgresServer, database: string, statements: readonly string[]): string {
  const commands = statements.flatMap((statement) => ['--command', statement])
  const flags = ['--no-psqlrc', '--no-align', '--tuples-only', '--set=ON_ERROR_STOP=1']
  const env = variables(of, database)
  return execFileSync(join(folder, 'psql'), [...flags, ...commands], { env, encoding: 'utf8' })
}

/** How the server is asked, and by whom. */
function configure(wanted: { user?: string; more?: string; tls?: string }): void {
  const { user = 'postgres', more = '', tls = 'disable' } = wanted
  const url = `postgres://${user}@127.0.0.1:${server.port}/postgres?sslmode=${tls}`
  writeConfig(host, { sources: `  orders: { kind: postgres, mode: logical, url: '${url}'${more} }\n` })
}

/** A folder of programs, of which pg_dump is a script. */
function fakeDump(name: string, script: string): string {
  const programs = join(host.dir, name)
  mkdirSync(programs)
  const dump = join(programs, 'pg_dump')
  writeFileSync(dump, `#!/bin/sh\n${script}\n`)
  chmodSync(dump, 0o755)
  symlinkSync(join(folder, 'pg_dumpall'), join(programs, 'pg_dumpall'))
  return dump
}

/** Rows, owners and large objects of each database, as text. */
function contentOf(of: PostgresServer): string {
  const rows = `SELECT string_agg(format('%s %s', n, note), ',' ORDER BY n) FROM "odd ""table"`
  const images = "SELECT string_agg(md5(lo_get(oid)), ',' ORDER BY oid) FROM pg_largeobject_metadata"
  const parts = ODD.map((name) => psql(of, name, [rows, images]))
  const shop = "SELECT tableowner, (SELECT md5(string_agg(note, ',' ORDER BY n)) FROM shop) FROM pg_tables"
  const roles = 'SELECT rolname, rolcanlogin, rolpassword FROM pg_authid ORDER BY 1'
  const owners = 'SELECT datname, datdba::regrole FROM pg_database ORDER BY 1'
  return [...parts, psql(of, 'postgres', [`${shop} WHERE tablename = 'shop'`, roles, owners])].join('\n')
}

async function snapshotCount(): Promise<number> {
  const listed = await here(host, ['snapshots', 'orders', '--json'])
  return eventsOf(listed).filter(({ type }) => type === 'snapshot').length
}

async function refused(pattern: RegExp): Promise<void> {
  const before = await snapshotCount()
  const done = await here(host, ['backup', 'orders', '--json'])
  const { message, exit } = eventOf(done, 'error') as Event & { message: string }
  assert.match(message, pattern)
  assert.notEqual(exit, 0)
  assert.equal(await snapshotCount(), before)
}

test('the printed commands bring databases of any name into a new server', within, async () => {
  configure({})
  const done = await here(host, ['backup', 'orders'])
  assert.equal(done.exit, 0, done.stderr)
  const to = join(host.dir, "it's back")
  const restored = await here(host, ['restore', 'orders', '--to', to, '--json'])
  assert.equal(restored.exit, 0, restored.stderr)
  const commands = eventOf(restored, 'summary')['commands'] as string[]
  assert.equal(readdirSync(join(to, 'databases')).length, ODD.length + 2)
  const copy = await makePostgres()
  try {
    for (const command of commands) {
      const env = variables(copy)
      execFileSync('/bin/sh', ['-c', command], { env, stdio: ['ignore', 'ignore', 'ignore'] })
    }
    assert.equal(contentOf(copy), contentOf(server))
  } finally {
    await dropPostgres(copy)
  }
})

test('a snapshot of dumps is called logical, and has no moments in between', within, async () => {
  configure({})
  const made = await here(host, ['backup', 'orders', '--kind', 'incremental'])
  assert.equal(made.exit, 0)
  assert.match(made.stdout, / full \(logical\) /)
  const refused = await here(host, ['export', 'orders:latest', '--to', join(host.dir, 'dumps')])
  assert.equal(refused.exit, 25)
  assert.match(refused.stderr, /it holds dumps .*\n.*--format tar/)
  const listed = await here(host, ['snapshots', 'orders'])
  assert.match(listed.stdout, / full \(logical\) /)
  assert.match((await here(host, ['status'])).stdout, / full \(logical\) /)
  const { bytes } = run(host, ['cat', 'orders:latest', '/server.json'])
  const record = JSON.parse(bytes.toString('utf8')) as Event
  assert.equal(record['mode'], 'logical')
  const names = (record['dumps'] as { database: string }[]).map(({ database }) => database)
  assert.deepEqual(names.toSorted(), [...ODD, 'postgres', 'template1'].toSorted())
  for (const option of [['--at', '2030-01-01'], ['--lsn', '0/1'], ['--immediate']]) {
    const to = join(host.dir, 'moment')
    const tried = await here(host, ['restore', 'orders', '--to', to, '--json', ...option])
    assert.equal(eventOf(tried, 'error')['code'], 'usage.invalid')
    assert.ok(!readdirSync(host.dir).includes('moment'))
  }
})

test(
  'a role without superuser is enough; hashes of passwords come where it may read them',
  within,
  async () => {
    sql(server, 'CREATE ROLE reader LOGIN')
    const grant = 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader'
    sql(server, grant)
    for (const [nth, name] of ODD.entries())
      psql(server, name, [grant, `GRANT SELECT ON LARGE OBJECT ${4000 + nth} TO reader`])
    configure({ user: 'reader' })
    const done = await here(host, ['backup', 'orders'])
    assert.equal(done.exit, 0, done.stderr)
    assert.match(done.stderr, /passwords of roles are not in the backup/)
    const globals = (await here(host, ['cat', 'orders:latest', '/globals.sql'])).stdout
    assert.match(globals, /CREATE ROLE clerk;/)
    assert.doesNotMatch(globals, /PASSWORD/)
    sql(server, 'GRANT pg_read_all_data TO reader')
    const all = await here(host, ['backup', 'orders'])
    assert.doesNotMatch(all.stderr, /passwords of roles/)
    assert.match((await here(host, ['cat', 'orders:latest', '/globals.sql'])).stdout, /clerk .*PASSWORD/)
  },
)

test('a database or a table that the role may not read fails the backup', within, async () => {
  sql(server, 'CREATE ROLE small LOGIN')
  configure({ user: 'small' })
  await refused(/permission denied/)
  await query(server, `REVOKE CONNECT ON DATABASE ${quoted(ODD[0] ?? '')} FROM PUBLIC`)
  try {
    const done = await here(host, ['backup', 'orders'])
    assert.match(done.stderr, /small may not connect to the database "it's "quoted""/)
    assert.match(done.stderr, /GRANT CONNECT ON DATABASE "it's ""quoted""" TO small; or name it in exclude/)
  } finally {
    await query(server, `GRANT CONNECT ON DATABASE ${quoted(ODD[0] ?? '')} TO PUBLIC`)
  }
})

test('databases that are named, and those of a provider, are left out and recorded', within, async () => {
  await query(server, 'CREATE DATABASE rdsadmin')
  await query(server, 'REVOKE CONNECT ON DATABASE rdsadmin FROM PUBLIC')
  sql(server, 'CREATE ROLE customer LOGIN', 'GRANT pg_read_all_data TO customer')
  try {
    configure({ user: 'customer', more: ', excludeDatabases: [postgres, template1]' })
    // Large objects need a right of their own.
    for (const [nth, name] of ODD.entries())
      psql(server, name, [`GRANT SELECT ON LARGE OBJECT ${4000 + nth} TO customer`])
    const done = await here(host, ['backup', 'orders'])
    assert.equal(done.exit, 0, done.stderr)
    const { bytes } = run(host, ['cat', 'orders:latest', '/server.json'])
    const record = JSON.parse(bytes.toString('utf8')) as Event
    assert.deepEqual((record['excludedDatabases'] as string[]).toSorted(), [
      'postgres',
      'rdsadmin',
      'template1',
    ])
    assert.equal((record['dumps'] as object[]).length, ODD.length)
    configure({ more: ', excludeDatabases: [nowhere]' })
    await refused(/Cannot leave out the database "nowhere": the server has none/)
  } finally {
    await query(server, 'DROP DATABASE rdsadmin')
  }
})

test('a dump that is killed, fails or gives nothing makes no snapshot', within, async () => {
  const real = join(folder, 'pg_dump')
  const ask = `[ "$1" = --version ] && exec ${real} --version`
  const scripts = {
    killed: [`${ask}; ${real} "$@" | head -c 3000; kill -9 $$`, /it was ended by SIGKILL/],
    failed: [`${ask}; ${real} "$@"; echo lost it >&2; exit 1`, /it ended with status 1: lost it/],
    empty: [`${ask}; exit 0`, /it gave nothing/],
  } as const
  for (const [name, [script, pattern]] of Object.entries(scripts)) {
    configure({ more: `, pgDump: '${fakeDump(name, script)}'` })
    await refused(pattern)
  }
})

test('a pg_dump that is too old, missing or none is refused with what to install', within, async () => {
  const old = fakeDump('old', "echo 'pg_dump (PostgreSQL) 12.22'")
  configure({ more: `, pgDump: '${old}'` })
  await refused(/old\/pg_dump is of version 12\.22 .*so it must be 15 or newer/)
  assert.match((await here(host, ['backup', 'orders'])).stderr, /postgresql-client-15/)
  configure({ more: ', pgDump: nowhere/pg_dump' })
  await refused(/nowhere\/pg_dump" as pg_dump: .*ENOENT/)
  configure({ more: `, pgDump: '${fakeDump('other', 'echo hello')}'` })
  await refused(/it does not say that it is pg_dump/)
})

test('TLS and passwords reach the programs, these by their environment alone', within, async (context) => {
  if (!hasOpenssl()) return context.skip('openssl is not installed')
  sql(server, "CREATE ROLE locked SUPERUSER LOGIN PASSWORD 'top secret'")
  const { root, otherRoot } = enableTls(server, 'locked')
  writeLoginRules(server, ['hostssl all locked 127.0.0.1/32 scram-sha-256'])
  try {
    const seen = join(host.dir, 'seen')
    const dump = fakeDump(
      'watched',
      `echo "$0 $* $PGSSLMODE" >> ${seen}; exec ${join(folder, 'pg_dump')} "$@"`,
    )
    writeFileSync(join(host.dir, 'password'), 'top secret\n', { mode: 0o600 })
    const more = `, password: { file: password }, pgDump: '${dump}'`
    configure({ user: 'locked', more, tls: `verify-ca&sslrootcert=${root}` })
    const done = await here(host, ['backup', 'orders'])
    assert.equal(done.exit, 0, done.stderr)
    const lines = readFileSync(seen, 'utf8')
    assert.match(lines, /--format=custom .* verify-ca$/m)
    assert.doesNotMatch(lines, /secret/)
    configure({ user: 'locked', more, tls: `verify-ca&sslrootcert=${otherRoot}` })
    await refused(/certificate is not signed/)
  } finally {
    writeLoginRules(server, ['host all all 127.0.0.1/32 trust'])
  }
})

test('the check asks of a server that is dumped neither replication nor log', within, async () => {
  sql(server, 'CREATE ROLE asks LOGIN')
  configure({ user: 'asks' })
  const checked = await here(host, ['check', '--json'])
  const codes = eventsOf(checked).flatMap(({ type, code }) =>
    type === 'finding' && String(code).startsWith('server.') ? [code] : [],
  )
  assert.deepEqual(codes, ['server.fsync'])
})

test('keys that do not go with the mode are refused', { skip }, async () => {
  for (const more of [', logs: stream', ', rateLimit: 1MiB/s']) {
    configure({ more })
    const done = await here(host, ['backup', 'orders', '--json'])
    assert.equal(eventOf(done, 'error')['code'], 'config.invalid')
  }
})

test('where replication is refused the mode without it is named', within, async () => {
  sql(server, 'CREATE ROLE plain LOGIN')
  const url = `postgres://plain@127.0.0.1:${server.port}/postgres?sslmode=disable`
  writeConfig(host, { sources: `  orders: { kind: postgres, url: '${url}' }\n` })
  const done = await here(host, ['backup', 'orders'])
  assert.match(done.stderr, /mode: logical/)
})
