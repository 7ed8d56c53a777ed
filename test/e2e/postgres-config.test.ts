/** A cluster whose configuration lies elsewhere, as Debian keeps it: backed up and started from its folder. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, test } from 'node:test'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  runAs,
  sql,
  startPostgres,
  stopPostgres,
  type PostgresServer,
} from '../harness/postgres.ts'
import { dropHost, eventOf, here, makeHost, writeConfig, type ShopHost } from '../harness/shop-host.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
let server: PostgresServer
let etc: string
let host: ShopHost

/** As the service of a distribution starts it: the data folder by its name, the configuration by its own. */
async function startDebian(): Promise<void> {
  const { uid, gid } = statSync(server.data)
  const args = ['-D', server.data, '-c', `config_file=${join(etc, 'postgresql.conf')}`]
  const stdio = ['ignore', 'ignore', 'pipe'] as const
  const child = spawn(join(postgresFolder()!, 'postgres'), args, { uid, gid, cwd: '/', stdio: [...stdio] })
  server.process = child
  assert.ok(child.stderr)
  for await (const line of createInterface({ input: child.stderr })) {
    if (!/ready to accept connections/.test(line)) continue
    child.stderr.resume()
    return
  }
  assert.fail('the server does not start')
}

function writeOwned(path: string, text: string): void {
  writeFileSync(path, text)
  const { uid, gid } = statSync(server.data)
  chownSync(path, uid, gid)
}

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres()
    sql(server, 'CREATE TABLE orders (id int)', 'INSERT INTO orders SELECT generate_series(1, 1000)')
    sql(server, 'CREATE ROLE small LOGIN REPLICATION', 'GRANT pg_read_all_settings TO small')
    await stopPostgres(server)
    etc = join(server.dir, 'etc')
    mkdirSync(join(etc, 'conf.d'), { recursive: true })
    const { uid, gid } = statSync(server.data)
    for (const folder of [etc, join(etc, 'conf.d')]) chownSync(folder, uid, gid)
    for (const name of ['postgresql.conf', 'pg_hba.conf', 'pg_ident.conf'])
      renameSync(join(server.data, name), join(etc, name))
    const config = readFileSync(join(etc, 'postgresql.conf'), 'utf8')
    const lines = [
      `data_directory = '${server.data}'`,
      `hba_file = '${join(etc, 'pg_hba.conf')}'`,
      `ident_file = '${join(etc, 'pg_ident.conf')}'`,
      `external_pid_file = '${join(server.dir, 'main.pid')}'`,
      "include_dir = 'conf.d'",
      "work_mem = '9MB'",
    ]
    writeOwned(join(etc, 'postgresql.conf'), `${config}\n${lines.join('\n')}\n`)
    writeOwned(join(etc, 'conf.d', 'memory.conf'), "work_mem = '8MB'\nmaintenance_work_mem = '17MB'\n")
    // Nobody else may log in by network: without the names nobody could.
    writeOwned(join(etc, 'admins'), 'postgres, @more # people\n')
    writeOwned(join(etc, 'more'), '"small"\n')
    writeOwned(
      join(etc, 'pg_hba.conf'),
      [
        'local all,replication all trust',
        'host all,replication @admins 127.0.0.1/32 trust',
        'host all,replication @admins ::1/128 trust',
        '',
      ].join('\n'),
    )
    await startDebian()
    host = makeHost()
    configure('postgres')
    assert.equal((await here(host, ['init'])).exit, 0)
  },
  { timeout: 60_000 },
)

after(async () => {
  if (skip !== false) return
  dropHost(host)
  await dropPostgres(server)
})

/** By which role the server is asked, and by which name of this host. */
function configure(user: string, name = '127.0.0.1'): void {
  const place = name.startsWith('/') ? `?host=${name}&port=${server.port}` : '?sslmode=disable'
  const at = name.startsWith('/') ? '' : `${name}:${server.port}`
  const url = `postgres://${user}@${at}/postgres${place}`
  writeConfig(host, { sources: `  orders: { kind: postgres, url: '${url}', checkpoint: fast }\n` })
}

/** Backs up, and tells what the run warned of. */
async function backUp(): Promise<string> {
  const done = await here(host, ['backup', 'orders'])
  assert.equal(done.exit, 0, done.stderr)
  return done.stderr
}

async function restoredState(name: string): Promise<{ to: string; summary: Record<string, unknown> }> {
  const to = join(server.dir, name)
  const done = await here(host, ['restore', 'orders', '--to', to, '--snapshot', 'latest', '--json'])
  assert.equal(done.exit, 0, done.stderr)
  return { to, summary: eventOf(done, 'summary') }
}

test(
  'configuration from elsewhere comes back, and the folder starts',
  { skip, timeout: 60_000 },
  async () => {
    assert.doesNotMatch(await backUp(), /GRANT/)
    const listed = await here(host, ['ls', 'orders:latest', '/config', '--recursive'])
    assert.match(listed.stdout, /conf\.d\/memory\.conf/)
    // What the old host had is not there any more.
    await stopPostgres(server)
    const away = join(server.dir, 'away')
    renameSync(etc, away)
    const { to, summary } = await restoredState('back')
    assert.equal(summary['configuration'], 'placed')
    const back = { ...server, data: to, process: undefined }
    await startPostgres(back)
    try {
      assert.deepEqual(sql(back, 'SELECT count(*) FROM orders'), ['1000'])
      assert.deepEqual(sql(back, 'SHOW work_mem', 'SHOW maintenance_work_mem').at(-1), '17MB')
      assert.deepEqual(sql(back, 'SHOW work_mem'), ['9MB'])
      assert.deepEqual(sql(back, 'SHOW hba_file'), [join(to, 'pg_hba.conf')])
      assert.deepEqual(sql(back, 'SHOW external_pid_file'), [])
    } finally {
      await stopPostgres(back)
      renameSync(away, etc)
      await startDebian()
    }
  },
)

test('an export holds it beside the data', { skip, timeout: 60_000 }, async () => {
  await backUp()
  const to = join(server.dir, 'plain')
  assert.equal((await here(host, ['export', 'orders:latest', '--to', to])).exit, 0)
  runAs('pg_verifybackup', [join(to, 'data')])
  assert.ok(readFileSync(join(to, 'config', etc, 'postgresql.conf'), 'utf8').includes('external_pid_file'))
  const tars = join(server.dir, 'tars')
  assert.equal((await here(host, ['export', 'orders:latest', '--to', tars, '--format', 'tar'])).exit, 0)
  assert.ok(statSync(join(tars, 'config.tar')).size > 0)
})

test('a role that may not read it is told what it lacks', { skip, timeout: 60_000 }, async () => {
  configure('small', 'localhost')
  // From this host's disk it is readable; where it is not, a statement would help.
  for (const name of ['postgresql.conf', 'pg_hba.conf', 'pg_ident.conf']) chmodSync(join(etc, name), 0o600)
  const isRoot = process.geteuid?.() === 0
  const direct = await backUp()
  if (isRoot) assert.doesNotMatch(direct, /GRANT/)
  sql(server, 'SET client_min_messages = error', 'REVOKE pg_read_all_settings FROM small')
  assert.match(await backUp(), /GRANT pg_read_all_settings TO "small"/)
  const { summary } = await restoredState('bare')
  assert.equal(summary['configuration'], 'missing')
  rmSync(join(server.dir, 'bare'), { recursive: true })
})

test('the statements that are named help', { skip, timeout: 60_000 }, async () => {
  const functions = 'pg_read_binary_file(text, bigint, bigint, boolean), pg_ls_dir(text, boolean, boolean)'
  sql(
    server,
    'GRANT pg_read_all_settings TO small',
    'GRANT pg_read_server_files TO small',
    `GRANT EXECUTE ON FUNCTION ${functions} TO small`,
  )
  configure('small')
  assert.doesNotMatch(await backUp(), /GRANT/)
  const listed = await here(host, ['ls', 'orders:latest', '/config', '--recursive'])
  assert.match(listed.stdout, /conf\.d\/memory\.conf/)
  // A file of names that is not there is said, as any other.
  renameSync(join(etc, 'more'), join(etc, 'less'))
  assert.match(await backUp(), /etc\/more is not in the backup/)
  renameSync(join(etc, 'less'), join(etc, 'more'))
})

test(
  'a postgresql.conf in the data folder, with files elsewhere, starts on its own folder',
  { skip, timeout: 60_000 },
  async () => {
    await stopPostgres(server)
    const lines = readFileSync(join(etc, 'postgresql.conf'), 'utf8').split('\n')
    const text = lines.filter((line) => !line.startsWith('data_directory')).join('\n')
    writeOwned(join(server.data, 'postgresql.conf'), text)
    const included = join(server.data, 'conf.d')
    mkdirSync(included)
    writeOwned(join(included, 'place.conf'), `data_directory = '${server.data}'\n`)
    await startPostgres(server)
    configure('postgres')
    assert.doesNotMatch(await backUp(), /GRANT/)
    await stopPostgres(server)
    const away = join(server.dir, 'away')
    renameSync(etc, away)
    const { to, summary } = await restoredState('mixed')
    assert.equal(summary['configuration'], 'placed')
    const back = { ...server, data: to, process: undefined }
    try {
      await startPostgres(back)
      assert.deepEqual(sql(back, 'SHOW data_directory'), [to])
      assert.deepEqual(sql(back, 'SHOW external_pid_file'), [])
      assert.deepEqual(sql(back, 'SHOW hba_file'), [join(to, 'pg_hba.restored.conf')])
      assert.deepEqual(sql(back, 'SELECT count(*) FROM orders'), ['1000'])
    } finally {
      await stopPostgres(back)
      renameSync(away, etc)
    }
  },
)
