/**
 * One cluster with all that is odd: backed up and restored by the program as users start it. What a copy may
 * not do to others, and what comes back as it was.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  watch,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { readAutoConf } from '../../src/recovery/auto-conf.ts'
import { PAGE_BYTES, pageChecksum } from '../../src/sources/postgres/page-checksum.ts'
import {
  dropPostgres,
  freePort,
  makePostgres,
  postgresFolder,
  query,
  runAs,
  sql,
  type PostgresServer,
} from '../harness/postgres.ts'
import { whileStarted } from '../harness/postgres-cluster.ts'
import {
  dropHost,
  eventOf,
  eventsOf,
  here,
  makeHost,
  start,
  writeConfig,
  type ShopHost,
} from '../harness/shop-host.ts'

const skip = postgresFolder(15) === undefined ? 'PostgreSQL 15 is not installed' : false
const given = { skip, timeout: 60_000 }
/** No text in UTF-8. */
const ODD = Buffer.from('odd-\xfe\xff', 'latin1')
/** The first page of a relation's second file. */
const SECOND_GIB = 131_072
let server: PostgresServer
let host: ShopHost
let space = ''
/** With nothing in it. */
let empty = ''

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres({
      version: 15,
      initdb: ['--allow-group-access'],
      settings: [
        'allow_in_place_tablespaces = on',
        'archive_mode = on',
        "archive_command = 'cp %p ../archive/%f'",
      ],
    })
    space = ownFolder('a=b "näher"')
    empty = ownFolder('empty')
    ownFolder('archive')
    writeOwned(Buffer.concat([Buffer.from(`${server.data}/`), ODD]), Buffer.from('kept'))
    sql(
      server,
      "CREATE TABLESPACE inside LOCATION ''",
      `CREATE TABLESPACE apart LOCATION '${space}'`,
      `CREATE TABLESPACE empty LOCATION '${empty}'`,
      'CREATE TABLE orders AS SELECT n, repeat(md5(n::text), 4) AS note FROM generate_series(1, 100000) AS n',
      'CREATE TABLE near TABLESPACE inside AS SELECT n, md5(n::text) FROM generate_series(1, 5000) AS n',
      'CREATE TABLE far TABLESPACE apart AS SELECT n, md5(n::text) FROM generate_series(1, 5000) AS n',
      'VACUUM',
      'CHECKPOINT',
    )
    host = makeHost()
    const url = `postgres://postgres@127.0.0.1:${server.port}/postgres?sslmode=disable`
    writeConfig(host, { sources: `  orders: { kind: postgres, url: '${url}', checkpoint: fast }\n` })
    assert.equal((await here(host, ['init'])).exit, 0)
  },
  { timeout: 60_000 },
)

after(async () => {
  if (skip !== false) return
  dropHost(host)
  await dropPostgres(server)
})

/** Beside the data folder, of the server's user. */
function ownFolder(name: string): string {
  const path = join(server.dir, name)
  mkdirSync(path)
  const { uid, gid } = statSync(server.data)
  chownSync(path, uid, gid)
  return path
}

function writeOwned(path: string | Buffer, bytes: Uint8Array): void {
  writeFileSync(path, bytes, { mode: 0o640 })
  const { uid, gid } = statSync(server.data)
  chownSync(path, uid, gid)
}

function restoreArgs(name: string): string[] {
  const to = join(server.dir, name)
  const map = [mapTo(space, `${to}-space`), mapTo(empty, `${to}-empty`)].flat()
  return ['restore', 'orders', '--to', join(to, 'data'), '--snapshot', 'latest', ...map]
}

function mapTo(from: string, to: string): string[] {
  return ['--tablespace-map', [from, to].map((path) => path.replaceAll('=', '\\=')).join('=')]
}

function restored(name: string): PostgresServer {
  const dir = join(server.dir, name)
  const { uid, gid } = statSync(server.data)
  chownSync(dir, uid, gid)
  return { ...server, dir, data: join(dir, 'data'), process: undefined }
}

/** Damage that a backup names, by path. */
async function backUpDamage(): Promise<Map<string, string>> {
  const done = await here(host, ['backup', 'orders', '--json'])
  assert.ok([0, 3].includes(done.exit), done.stderr)
  const found = eventsOf(done).filter(
    ({ facts }) => (facts as { errno?: string } | undefined)?.errno === 'ECHECKSUM',
  )
  return new Map(found.map(({ message, facts }) => [(facts as { path: string }).path, String(message)]))
}

test('tables that are made, emptied, shrunk and dropped meanwhile disturb no backup', given, async (t) => {
  const running = here(host, ['backup', 'orders', '--json'])
  let done: Awaited<typeof running> | undefined
  let rounds = 0
  while (done === undefined) {
    rounds++
    // A backup that never ends must not keep the process.
    t.signal.throwIfAborted()
    await query(
      server,
      `CREATE TABLE brief${rounds} AS SELECT n, md5(n::text) FROM generate_series(1, 20000) AS n`,
      'CHECKPOINT',
      rounds % 2 === 0 ? `TRUNCATE brief${rounds}` : `DELETE FROM brief${rounds} WHERE n > 10`,
      `VACUUM brief${rounds}`,
      `DROP TABLE brief${rounds}`,
    )
    done = await Promise.race([running, Promise.resolve(undefined)])
  }
  assert.equal(done.exit, 0, done.stderr)
  assert.ok(rounds > 1, `${rounds} rounds`)
  const back = await here(host, restoreArgs('busy'))
  assert.equal(back.exit, 0, back.stderr)
  runAs('pg_verifybackup', [restored('busy').data])
  await whileStarted(restored('busy'), await freePort(), (at) => {
    assert.deepEqual(sql(at, 'SELECT count(*) FROM orders WHERE note = repeat(md5(n::text), 4)'), ['100000'])
  })
})

test(
  'tablespaces inside and with "=", a name that is no UTF-8, and group access come back',
  given,
  async () => {
    assert.equal((await backUpDamage()).size, 0)
    const done = await here(host, restoreArgs('odd'))
    assert.equal(done.exit, 0, done.stderr)
    const back = restored('odd')
    for (const folder of ['data', '../odd-space']) {
      const from = folder === 'data' ? server.data : space
      const to = join(back.dir, folder)
      for (const name of ['', ...readdirSync(to, { recursive: true, encoding: 'latin1' })]) {
        const stats = lstatSync(Buffer.from(join(to, name), 'latin1'))
        if (stats.isSymbolicLink()) continue
        assert.equal(stats.mode & 0o7777, stats.isDirectory() ? 0o750 : 0o640, `${from}: ${name}`)
      }
    }
    const odd = Buffer.concat([Buffer.from(`${back.data}/`), ODD])
    assert.equal(readFileSync(odd, 'utf8'), 'kept')
    await whileStarted(back, await freePort(), (at) => {
      assert.deepEqual(
        sql(at, 'SELECT count(*), max(md5) FROM near'),
        sql(server, 'SELECT count(*), max(md5) FROM near'),
      )
      assert.deepEqual(
        sql(at, 'SELECT count(*), max(md5) FROM far'),
        sql(server, 'SELECT count(*), max(md5) FROM far'),
      )
      assert.deepEqual(
        sql(at, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'apart'"),
        [`${back.dir}-space`],
      )
    })
    const plain = join(server.dir, 'plain')
    assert.equal((await here(host, ['export', 'orders:latest', '--to', plain])).exit, 0)
    runAs('pg_verifybackup', [join(plain, 'data')])
    assert.equal(readFileSync(Buffer.concat([Buffer.from(`${plain}/data/`), ODD]), 'utf8'), 'kept')
  },
)

test('a tablespace whose path no archive can hold is the server’s refusal, in words', given, async () => {
  const long = ownFolder('long-'.padEnd(120, 'x'))
  sql(server, `CREATE TABLESPACE long LOCATION '${long}'`)
  try {
    const done = await here(host, ['backup', 'orders'])
    assert.equal(done.exit, 24, done.stderr)
    assert.match(done.stderr, /symbolic link target too long/)
  } finally {
    sql(server, 'DROP TABLESPACE long')
  }
})

test('folders that lie in each other are refused before anything is written', given, async () => {
  const to = join(server.dir, 'nested/data')
  const args = ['restore', 'orders', '--to', to, '--snapshot', 'latest']
  const apart = join(server.dir, 'nested/space')
  for (const [one, other] of [
    [to, apart],
    [`${to}/space`, apart],
    [join(server.dir, 'nested'), apart],
    [apart, apart],
    [apart, `${apart}/below`],
  ] as const) {
    const done = await here(host, [...args, ...mapTo(space, one), ...mapTo(empty, other)])
    assert.equal(done.exit, 25, done.stderr)
    assert.match(done.stderr, /must be folders apart/)
  }
  assert.equal(existsSync(join(server.dir, 'nested')), false)
})

test('damage is counted in each file, beyond the first GiB by the page in its relation', given, async () => {
  const [orders = '', near = ''] = ['orders', 'near'].map(
    (name) => sql(server, `SELECT pg_relation_filepath('${name}')`)[0],
  )
  const second = `${orders}.1`
  const files = [orders, near].map((path) => ({ path, bytes: readFileSync(join(server.data, path)) }))
  // As if the relation went on: its pages, with the checksums that they have there.
  const pages = Int32Array.from(
    new Int32Array(Uint8Array.from(files[0]!.bytes.subarray(0, 40 * PAGE_BYTES)).buffer),
  )
  for (let page = 0; page < 40; page++) {
    const at = (page * PAGE_BYTES) / 4
    pages[at + 2] = (pages[at + 2]! & 0xffff0000) | pageChecksum(pages, at, SECOND_GIB + page)
  }
  const good = new Uint8Array(pages.buffer)
  try {
    writeOwned(join(server.data, second), good)
    assert.deepEqual(await backUpDamage(), new Map())
    const bad = Uint8Array.from(good)
    bad[17 * PAGE_BYTES + 4000]! ^= 1
    writeOwned(join(server.data, second), bad)
    for (const [nth, { path, bytes }] of files.entries()) {
      const hurt = Uint8Array.from(bytes)
      for (let page = 0; page < 12 + nth; page++) hurt[page * PAGE_BYTES + 4000]! ^= 1
      writeOwned(join(server.data, path), hurt)
    }
    const damage = await backUpDamage()
    assert.deepEqual(
      [...damage.keys()].toSorted(),
      [orders, near, second].map((path) => `/data/${path}`).toSorted(),
    )
    assert.match(damage.get(`/data/${orders}`)!, /: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … \(12 in all\)/)
    assert.match(damage.get(`/data/${near}`)!, /\(13 in all\)/)
    assert.match(damage.get(`/data/${second}`)!, /by number in the file: 17$/)
  } finally {
    for (const { path, bytes } of files) writeOwned(join(server.data, path), bytes)
    rmSync(join(server.data, second), { force: true })
  }
  assert.deepEqual(await backUpDamage(), new Map())
})

test('a restore that is killed leaves no pg_control; the same command completes it', given, async (t) => {
  const args = restoreArgs('killed')
  const data = join(server.dir, 'killed/data')
  mkdirSync(data, { recursive: true })
  const child = start(host, args)
  child.stdout.resume()
  child.stderr.resume()
  const closed = once(child, 'close')
  const watcher = watch(data)
  try {
    while (!existsSync(join(data, 'PG_VERSION')) && child.exitCode === null)
      await Promise.race([once(watcher, 'change', { signal: t.signal }), closed])
  } finally {
    watcher.close()
    child.kill('SIGKILL')
  }
  await closed
  assert.equal(child.signalCode, 'SIGKILL')
  assert.equal(existsSync(join(data, 'global/pg_control')), false)
  const done = await here(host, args)
  assert.equal(done.exit, 0, done.stderr)
  await whileStarted(restored('killed'), await freePort(), (at) => {
    assert.deepEqual(sql(at, 'SELECT count(*) FROM orders'), ['100000'])
  })
})

test(
  'a copy neither archives nor waits for a standby, until what was named puts it back',
  given,
  async () => {
    sql(server, "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (nobody)'")
    assert.deepEqual(await backUpDamage(), new Map())
    sql(server, 'ALTER SYSTEM RESET synchronous_standby_names')
    const done = await here(host, restoreArgs('copy'))
    assert.equal(done.exit, 0, done.stderr)
    assert.match(
      done.stdout,
      /disturbs no other server: archive_mode, synchronous_standby_names, max_logical/,
    )
    const statements = /run these and restart it: (.*);$/m.exec(done.stdout)?.[1]?.split('; ') ?? []
    const back = restored('copy')
    await whileStarted(back, await freePort(), (at) => {
      // It would wait for ever.
      sql(at, 'CREATE TABLE new (n int)', 'SELECT pg_switch_wal()')
      assert.deepEqual(sql(at, 'SHOW archive_mode'), ['off'])
      assert.deepEqual(sql(at, 'SHOW max_logical_replication_workers'), ['0'])
      sql(at, ...statements)
    })
    assert.equal(existsSync(join(back.dir, 'archive')), false)
    await whileStarted(back, await freePort(), (at) => {
      assert.deepEqual(sql(at, 'SHOW archive_mode'), ['on'])
      assert.deepEqual(sql(at, 'SHOW synchronous_standby_names'), ['FIRST 1 (nobody)'])
      assert.deepEqual(sql(at, 'SHOW max_logical_replication_workers'), ['4'])
    })
    const kept = await here(host, [...restoreArgs('kept'), '--keep-settings', '--json'])
    assert.deepEqual(eventOf(kept, 'summary')['setAside'], [])
    const [copied, own] = [restored('kept').data, server.data].map((folder) => readAutoConf(folder).lines)
    assert.deepEqual(copied, [...own!, "synchronous_standby_names = 'FIRST 1 (nobody)'"])
  },
)
