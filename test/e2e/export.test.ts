/** `backstock export` as users run it: what it writes is read by PostgreSQL's own programs and by tar. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chownSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  runAs,
  sql,
  type PostgresServer,
} from '../harness/postgres.ts'
import { whileStarted } from '../harness/postgres-cluster.ts'
import {
  dropHost,
  eventOf,
  here,
  makeHost,
  packNames,
  putFile,
  run,
  type ShopHost,
} from '../harness/shop-host.ts'
import { mountDisk, unmountDisk } from '../harness/small-disk.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
let server: PostgresServer
let host: ShopHost
let space: string

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres()
    space = join(server.dir, 'space')
    mkdirSync(space)
    own(space)
    sql(
      server,
      `CREATE TABLESPACE cold LOCATION '${space}'`,
      'CREATE TABLE orders (id bigint PRIMARY KEY, note text)',
      'INSERT INTO orders SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 20000) AS n',
      'CREATE TABLE archive (id int) TABLESPACE cold',
      'INSERT INTO archive SELECT generate_series(1, 20000)',
    )
    const url = `postgres://postgres@127.0.0.1:${server.port}/postgres?sslmode=disable`
    host = makeHost({ sources: `  orders: { kind: postgres, url: '${url}', checkpoint: fast }\n` })
    putFile(host, 'media/a.txt', 'hello')
    linkSync(join(host.media, 'a.txt'), join(host.media, 'b.txt'))
    symlinkSync('a.txt', join(host.media, 'link'))
    putFile(host, `media/${'deep/'.repeat(30)}${'n'.repeat(150)}`, Buffer.alloc(300_000, 'x'))
    assert.equal((await here(host, ['init'])).exit, 0)
    const done = await here(host, ['backup'])
    assert.equal(done.exit, 0, done.stderr)
  },
  { timeout: 120_000 },
)

after(async () => {
  if (skip !== false) return
  dropHost(host)
  await dropPostgres(server)
})

/** The user that runs servers gets it. */
function own(path: string): void {
  const { uid, gid } = statSync(server.data)
  chownSync(path, uid, gid)
}

/** A new folder that the server's user may use. */
function newFolder(): string {
  const path = mkdtempSync(join(server.dir, 'export-'))
  own(path)
  return path
}

async function startsWhole(data: string): Promise<void> {
  runAs('pg_verifybackup', [data])
  await whileStarted({ ...server, data, process: undefined }, server.port + 1, (back) => {
    assert.deepEqual(sql(back, 'SELECT count(*), max(id) FROM orders'), ['20000|20000'])
    assert.deepEqual(sql(back, 'SELECT count(*) FROM archive'), ['20000'])
  })
}

test('a cluster becomes a folder that starts, with its tablespace', { skip, timeout: 120_000 }, async () => {
  const to = join(newFolder(), 'out')
  const done = await here(host, ['export', 'orders:latest', '--to', to, '--json'])
  assert.equal(done.exit, 0, done.stderr)
  const summary = eventOf(done, 'summary')
  assert.deepEqual(summary['names'], ['data', 'server.json', 'tablespaces'])
  assert.match(String(summary['start']), new RegExp(`pg_ctl start -D ${to}/data$`))
  assert.deepEqual(readdirSync(to), ['data', 'server.json', 'tablespaces'])
  assert.equal(statSync(join(to, 'data')).mode & 0o777, 0o700)
  await startsWhole(join(to, 'data'))
})

test('a tablespace may go elsewhere', { skip, timeout: 120_000 }, async () => {
  const to = newFolder()
  const elsewhere = newFolder()
  const map = ['--tablespace-map', `${space}=${elsewhere}`]
  const done = await here(host, ['export', 'orders:latest', '--to', to, ...map])
  assert.equal(done.exit, 0, done.stderr)
  assert.deepEqual(readdirSync(to), ['data', 'server.json'])
  assert.match(readdirSync(elsewhere).join(), /^PG_/)
  await startsWhole(join(to, 'data'))
  const unknown = ['--tablespace-map', `/nowhere=${elsewhere}`]
  assert.equal((await here(host, ['export', 'orders:latest', '--to', newFolder(), ...unknown])).exit, 25)
})

test('a cluster becomes the tars of pg_basebackup', { skip, timeout: 120_000 }, async () => {
  const to = newFolder()
  const elsewhere = newFolder()
  const map = ['--tablespace-map', `${space}=${elsewhere}`]
  const done = await here(host, ['export', 'orders:latest', '--to', to, '--format', 'tar', ...map])
  assert.equal(done.exit, 0, done.stderr)
  const [oid = ''] = sql(server, "SELECT oid FROM pg_tablespace WHERE spcname = 'cold'")
  const names = [`${oid}.tar`, 'backup_manifest', 'base.tar', 'pg_wal.tar', 'server.json']
  assert.deepEqual(readdirSync(to), names)
  const data = newFolder()
  const untar = (name: string, into: string): Buffer =>
    execFileSync('tar', ['-xpf', join(to, name), '-C', into])
  untar('base.tar', data)
  untar('pg_wal.tar', join(data, 'pg_wal'))
  untar(`${oid}.tar`, elsewhere)
  copyFileSync(join(to, 'backup_manifest'), join(data, 'backup_manifest'))
  own(join(data, 'backup_manifest'))
  await startsWhole(data)
  const listed = execFileSync('tar', ['-tf', join(to, 'base.tar')], { encoding: 'utf8' })
    .trim()
    .split('\n')
  assert.equal(listed.at(-1), 'global/pg_control')
  assert.ok(listed.includes('pg_wal/'))
})

test('any tree goes to standard output as one tar', { skip, timeout: 120_000 }, () => {
  const cluster = run(host, ['export', 'orders:latest', '--to', '-'])
  assert.equal(cluster.exit, 0, cluster.stderr)
  const names = execFileSync('tar', ['-tf', '-'], { input: cluster.bytes, encoding: 'utf8' }).split('\n')
  for (const name of ['data/PG_VERSION', 'data/backup_manifest', 'server.json', 'tablespaces/'])
    assert.ok(names.includes(name), name)
  const files = run(host, ['export', 'media:latest', '--to', '-'])
  assert.match(files.stderr, /2 names of files with several/)
  const back = newFolder()
  execFileSync('tar', ['-xf', '-', '-C', back], { input: files.bytes })
  execFileSync('diff', ['-r', '--no-dereference', host.media, join(back, host.media)])
})

test('files go as a tar, and not as a folder', { skip }, async () => {
  const to = newFolder()
  const refused = await here(host, ['export', 'media:latest', '--to', to])
  assert.deepEqual([refused.exit, readdirSync(to)], [25, []])
  assert.match(refused.stderr, /--format tar/)
  assert.equal((await here(host, ['export', 'media:latest', '--to', to, '--format', 'tar'])).exit, 0)
  execFileSync('tar', ['-xf', join(to, 'files.tar'), '-C', to])
  execFileSync('diff', ['-r', '--no-dereference', host.media, join(to, host.media)])
})

test('a folder with something in it is refused, leftovers of a killed export are not', { skip }, async () => {
  const to = newFolder()
  const args = ['export', 'media:latest', '--to', to, '--format', 'tar']
  mkdirSync(join(to, '.backstock-export'))
  writeFileSync(join(to, '.backstock-export', 'files.tar'), 'half')
  assert.equal((await here(host, args)).exit, 0)
  assert.deepEqual(readdirSync(to), ['files.tar'])
  const size = statSync(join(to, 'files.tar')).size
  const again = await here(host, args)
  assert.equal(again.exit, 25)
  assert.match(again.stderr, /it is not empty/)
  assert.equal(statSync(join(to, 'files.tar')).size, size)
  const inside = await here(host, [...args.slice(0, 3), join(host.dir, 'repo', 'x'), ...args.slice(4)])
  assert.equal(inside.exit, 25, inside.stderr)
})

test('nothing stays on a disk that fills up', { skip, timeout: 120_000 }, async (t) => {
  const to = newFolder()
  if (!mountDisk(to, '8m')) {
    t.skip('this user may not mount')
    return
  }
  try {
    for (const format of ['tar', 'plain']) {
      const full = await here(host, ['export', 'orders:latest', '--to', to, '--format', format])
      assert.equal(full.exit, 1, full.stderr)
      assert.match(full.stderr, /disk is full|ENOSPC|no space/i, format)
      assert.deepEqual(readdirSync(to), [])
    }
  } finally {
    unmountDisk(to)
    rmSync(to, { recursive: true })
  }
})

test(
  'nothing stays of a damaged backup, not in mapped places either',
  { skip, timeout: 120_000 },
  async () => {
    const [to, elsewhere] = [newFolder(), newFolder()]
    const map = ['--tablespace-map', `${space}=${elsewhere}`]
    const packs = packNames(host).map((name) => join(host.dir, 'repo', name))
    for (const pack of packs) renameSync(pack, `${pack}.away`)
    try {
      for (const format of ['tar', 'plain']) {
        const args = ['export', 'orders:latest', '--to', to, '--format', format, ...map]
        const done = await here(host, args)
        assert.ok(done.exit === 23 || done.exit === 1, done.stderr)
        assert.match(done.stderr, /backstock: Cannot/)
        assert.deepEqual([readdirSync(to), readdirSync(elsewhere)], [[], []], format)
      }
    } finally {
      for (const pack of packs) renameSync(`${pack}.away`, pack)
    }
  },
)

test('the record of the server says what it is', { skip, timeout: 120_000 }, async () => {
  const done = await here(host, ['cat', 'orders:latest', '/server.json'])
  const record = JSON.parse(done.stdout) as {
    settings: Record<string, { value: string }>
    facts: { systemId: string; databases: { name: string; extensions: { name: string }[] }[] }
  }
  assert.equal(record.settings['port']?.value, String(server.port))
  assert.match(record.facts.systemId, /^\d+$/)
  const database = record.facts.databases.find(({ name }) => name === 'postgres')
  assert.deepEqual(
    database?.extensions.map(({ name }) => name),
    ['plpgsql'],
  )
  assert.ok(readFileSync(join(server.data, 'PG_VERSION'), 'utf8').startsWith(String(server.major)))
})
