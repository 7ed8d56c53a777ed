/** `check --boot` of real PostgreSQL clusters: what is whole is proven, what is damaged is named. */
import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  query,
  sql,
  startPostgres,
  stopPostgres,
  type PostgresOptions,
  type PostgresServer,
} from '../harness/postgres.ts'
import { mountDisk, unmountDisk } from '../harness/small-disk.ts'
import { dropHost, eventsOf, here, makeHost, start, type Event, type ShopHost } from '../harness/shop-host.ts'
import { flip } from '../harness/tampering.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
const NEWEST = 18
const skipNewest = postgresFolder(NEWEST) === undefined ? `PostgreSQL ${NEWEST} is not here` : false
const PAGE_BYTES = 8192
const PAGE_HEADER_BYTES = 24

interface World {
  readonly server: PostgresServer
  readonly host: ShopHost
  /** Where copies are made; the server's user reaches it. */
  readonly scratch: string
}

async function inWorld(options: PostgresOptions, use: (world: World) => Promise<void>): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), 'backstock-scratch-'))
  chmodSync(scratch, 0o755)
  const server = await makePostgres(options)
  const url = `postgres://postgres@127.0.0.1:${server.port}/postgres?sslmode=disable`
  const host = makeHost({ sources: `  orders: { kind: postgres, url: '${url}', checkpoint: fast }\n` })
  try {
    assert.equal((await here(host, ['init'])).exit, 0)
    await use({ server, host, scratch })
  } finally {
    dropHost(host)
    rmSync(scratch, { recursive: true, force: true })
    await dropPostgres(server)
  }
}

async function backUp({ host }: World, exit = 0): Promise<void> {
  const outcome = await here(host, ['backup', 'orders'])
  assert.equal(outcome.exit, exit, outcome.stderr)
}

interface Booted {
  readonly exit: number
  /** Of the boot only. */
  readonly findings: readonly Event[]
  readonly boot: Event | undefined
  readonly text: string
}

function bootFlags({ scratch }: World, flags: readonly string[]): string[] {
  return ['check', '--boot', '--no-server', '--scratch', scratch, '--json', ...flags]
}

async function boot(world: World, ...flags: string[]): Promise<Booted> {
  const outcome = await here(world.host, bootFlags(world, flags))
  assert.deepEqual(readdirSync(world.scratch), [], 'nothing is left')
  const events = eventsOf(outcome)
  const findings = events.filter(({ type, code }) => type === 'finding' && code !== 'log.none')
  const text = outcome.stdout + outcome.stderr
  return { exit: outcome.exit, findings, boot: events.find(({ type }) => type === 'boot'), text }
}

function codesOf(findings: readonly Event[]): string[] {
  return findings.map(({ severity, code }) => `${String(severity)} ${String(code)}`).toSorted()
}

function messageOf(findings: readonly Event[], code: string): string {
  return findings.flatMap((found) => (found.code === code ? [String(found['message'])] : [])).join('\n')
}

/** Changes a file of the server's while it is stopped. */
async function damage(
  { server }: World,
  changes: Readonly<Record<string, (bytes: Buffer) => void>>,
): Promise<void> {
  await stopPostgres(server)
  for (const [path, change] of Object.entries(changes)) {
    const bytes = readFileSync(join(server.data, path))
    change(bytes)
    writeFileSync(join(server.data, path), bytes)
  }
  await startPostgres(server)
}

function fileOf({ server }: World, relation: string): string {
  return sql(server, `select pg_relation_filepath('${relation}')`)[0] ?? ''
}

function swapItems(bytes: Buffer, block: number, [a, b]: readonly [number, number]): void {
  const at = (nth: number): number => block * PAGE_BYTES + PAGE_HEADER_BYTES + 4 * nth
  const [first, second] = [bytes.readUInt32LE(at(a)), bytes.readUInt32LE(at(b))]
  bytes.writeUInt32LE(second, at(a))
  bytes.writeUInt32LE(first, at(b))
}

const STEPS = [
  'restore',
  'recover',
  'pages',
  'prepare',
  'databases',
  'tables',
  'indexes',
  'visibility',
  'collations',
]

test('a whole cluster is proven, whatever is set in it', { skip, timeout: 120_000 }, async () => {
  await inWorld({ settings: ['max_prepared_transactions = 7'] }, async (world) => {
    const { server, host, scratch } = world
    const space = join(server.dir, 'space')
    mkdirSync(space)
    const { uid, gid } = statSync(server.data)
    chownSync(space, uid, gid)
    sql(server, `create tablespace fast location '${space}'`)
    sql(server, 'create database closed with connection limit 0 allow_connections false')
    sql(
      server,
      'create table orders (id bigint primary key, note text) tablespace fast',
      'insert into orders select n, repeat(md5(n::text), 100) from generate_series(1, 5000) n',
      'begin',
      'insert into orders values (0)',
      "prepare transaction 'half'",
      // Nothing that the source was told may keep anybody from looking.
      "create function no() returns event_trigger language plpgsql as 'begin raise exception ''no''; end'",
      'create event trigger never on ddl_command_start execute function no()',
      'alter event trigger never enable always',
    )
    sql(server, 'alter database postgres set default_transaction_read_only = on')
    await backUp(world)
    const { exit, findings, boot: report, text } = await boot(world)
    assert.deepEqual([exit, findings, report?.['proven']], [0, [], true], text)
    const steps = report?.['steps'] as { step: string; seconds: number }[]
    assert.deepEqual(
      steps.map(({ step }) => step),
      STEPS,
    )
    assert.ok(steps.every(({ seconds }) => seconds > 0))
    const counts = report?.['counts'] as Record<string, number>
    assert.equal(counts['databases'], 4)
    assert.ok(counts['tables']! > 300 && counts['indexes']! > 400 && counts['pages']! > 2000, text)
    assert.deepEqual(readdirSync(space).length, 1, 'the tablespace of the source is as it was')

    const shown = await here(host, ['check', '--boot', 'orders', '--no-server', '--scratch', scratch])
    assert.match(
      shown.stdout,
      /Proven: "orders" from \S+ starts in PostgreSQL 15, up to the end of the backup/,
    )
    assert.match(shown.stdout, /restore .*, recover .*, pages .*, visibility /)
  })
})

test('damage of tables, indexes and maps is named', { skip, timeout: 120_000 }, async () => {
  await inWorld({ checksums: false }, async (world) => {
    const { server } = world
    sql(
      server,
      'create table worn (id int, note text)',
      'insert into worn select n, md5(n::text) from generate_series(1, 2000) n',
      'create table sorted (id int constraint sorted_key primary key)',
      'insert into sorted select generate_series(1, 100)',
      'create table twice (id int)',
      'insert into twice values (1), (1)',
      'create table seen (id int)',
      'insert into seen select generate_series(1, 100)',
    )
    sql(server, 'create database hollow')
    const [hollow = ''] = sql(server, "select oid from pg_database where datname = 'hollow'")
    sql(server, 'vacuum seen')
    sql(server, 'delete from seen where id < 10')
    assert.throws(() => sql(server, 'create unique index concurrently twice_key on twice (id)'))
    const [collation = ''] = sql(
      server,
      `update pg_collation set collversion = '0' where oid = (select min(oid) from pg_collation
        where collversion is not null and collencoding = -1) returning collname`,
    )
    const files = [fileOf(world, 'worn'), fileOf(world, 'sorted_key'), `${fileOf(world, 'seen')}_vm`] as const
    await damage(world, {
      // The first row of the second page begins a byte later than rows may.
      [files[0]]: (bytes) =>
        void bytes.writeUInt8(bytes[PAGE_BYTES + PAGE_HEADER_BYTES]! + 1, PAGE_BYTES + 24),
      [files[1]]: (bytes) => swapItems(bytes, 1, [10, 11]),
      // All of the first page is visible and frozen, says the map.
      [files[2]]: (bytes) => void bytes.writeUInt8(bytes[PAGE_HEADER_BYTES]! | 3, PAGE_HEADER_BYTES),
    })
    rmSync(join(server.data, 'base', hollow, 'PG_VERSION'))
    // The server does not load them before its next start.
    const preload = "shared_preload_libraries = 'pg_stat_statements, gone_library'\n"
    appendFileSync(join(server.data, 'postgresql.conf'), preload)
    await backUp(world)
    const { exit, findings, boot: report, text } = await boot(world)
    assert.equal(exit, 1, text)
    assert.equal(report?.['proven'], false)
    assert.deepEqual(codesOf(findings), [
      'error boot.database',
      'error boot.index',
      'error boot.table',
      'error boot.visibility',
      'info not-checked',
      'warning boot.collation',
      'warning boot.invalid',
      'warning not-checked',
    ])
    assert.match(
      messageOf(findings, 'boot.table'),
      /"orders": table public\.worn of database postgres: 1 problems/,
    )
    assert.match(
      messageOf(findings, 'boot.index'),
      /index public\.sorted_key of database postgres: item order/,
    )
    assert.match(
      messageOf(findings, 'boot.visibility'),
      /public\.seen .* wrong about 9 rows as visible and 100 as/,
    )
    assert.match(
      messageOf(findings, 'boot.database'),
      /database hollow cannot be entered: .* valid data directory/,
    )
    assert.match(messageOf(findings, 'boot.invalid'), /public\.twice_key/)
    assert.ok(messageOf(findings, 'boot.collation').includes(collation.replaceAll('"', '')), collation)
    assert.match(messageOf(findings, 'not-checked'), /do not load on this host: gone_library$/m)
    assert.match(messageOf(findings, 'not-checked'), /checksums of pages: it has none/)
  })
})

test('a page with a wrong checksum is named', { skip, timeout: 120_000 }, async () => {
  await inWorld({}, async (world) => {
    sql(
      world.server,
      'create table worn (id int, note text)',
      'insert into worn select n, md5(n::text) from generate_series(1, 2000) n',
    )
    const path = fileOf(world, 'worn')
    await damage(world, {
      [path]: (bytes) => void bytes.writeUInt8(bytes[2 * PAGE_BYTES - 1]! ^ 1, 2 * PAGE_BYTES - 1),
    })
    await backUp(world, 3)
    const { exit, findings, text } = await boot(world)
    assert.equal(exit, 1, text)
    assert.deepEqual(codesOf(findings), ['error boot.page', 'error boot.table'], text)
    assert.ok(messageOf(findings, 'boot.page').endsWith(`pages of ${path} whose checksum is wrong: 1`))
    assert.match(messageOf(findings, 'boot.table'), /public\.worn .*invalid page in block 1/)
  })
})

test('a damaged pack is a copy that could not be restored', { skip, timeout: 120_000 }, async () => {
  await inWorld({}, async (world) => {
    await backUp(world)
    const repository = join(world.host.dir, 'repo')
    const objects = readdirSync(repository, { recursive: true, encoding: 'utf8' })
      .map((name) => join(repository, name))
      .filter((path) => statSync(path).isFile())
      .toSorted((a, b) => statSync(b).size - statSync(a).size)
    const [largest = ''] = objects
    chmodSync(largest, 0o600)
    writeFileSync(largest, flip(readFileSync(largest), Math.floor(statSync(largest).size / 2)))
    const { exit, findings, boot: report, text } = await boot(world)
    assert.deepEqual([exit, report?.['proven'], codesOf(findings)], [1, false, ['error boot.failed']], text)
    assert.match(
      messageOf(findings, 'boot.failed'),
      /\(restore\): \d+ files could not be restored, the first: /,
    )
    const { stdout } = await here(world.host, bootFlags(world, ['--read-data']))
    const coverage = /"packs":(\d+),.*"packsCovered":(\d+)/.exec(stdout)?.slice(1).map(Number) ?? []
    assert.equal(coverage[0]! - coverage[1]!, 1, `what is damaged is not proven: ${stdout}`)
  })
})

test('without room nothing is proven', { skip, timeout: 120_000 }, async (t) => {
  await inWorld({}, async (world) => {
    await backUp(world)
    const disk = `${world.scratch}-disk`
    mkdirSync(disk)
    t.after(() => rmSync(disk, { recursive: true, force: true }))
    if (!mountDisk(disk, '40m')) return t.skip('cannot mount a tmpfs here')
    try {
      const { exit, findings } = await boot(world, '--scratch', disk)
      assert.deepEqual([exit, codesOf(findings)], [1, ['error not-checked']])
      assert.match(
        messageOf(findings, 'not-checked'),
        /Cannot restore a copy .* bytes are free, \d+ are needed/,
      )
      assert.deepEqual(readdirSync(disk), [])
    } finally {
      unmountDisk(disk)
    }
  })
})

test('without a server of its version nothing is proven', { skip, timeout: 120_000 }, async () => {
  await inWorld({}, async (world) => {
    await backUp(world)
    const { exit, findings, boot: report } = await boot(world, '--postgres-bin', world.host.media)
    assert.deepEqual([exit, report?.['proven'], codesOf(findings)], [1, false, ['error not-checked']])
    assert.match(
      messageOf(findings, 'not-checked'),
      /no "postgres" of it was found \(there is none in .*media\)/,
    )
    const missing = await boot(world, '--scratch', join(world.scratch, 'not-there'))
    assert.deepEqual([missing.exit, codesOf(missing.findings)], [1, ['error not-checked']])
    const unused = await here(world.host, ['check', '--postgres-bin', '/usr/bin'])
    assert.equal(unused.exit, 20)
    assert.match(unused.stderr, /Cannot use --postgres-bin: it must come with --boot/)
    const files = await here(world.host, ['check', '--boot', 'media'])
    assert.equal(files.exit, 1, 'there is no snapshot of it')
  })
})

/** The check of its index does not end: what it calls sleeps by now. */
function makeEndless({ server }: World): void {
  sql(
    server,
    "create function calm(id int) returns int immutable language sql as 'select id'",
    'create table slow (id int)',
    'create index slow_key on slow (calm(id))',
    'insert into slow values (1)',
    `create or replace function calm(id int) returns int immutable language plpgsql
      as 'begin perform pg_catalog.pg_sleep(600); return id; end'`,
  )
}

/** Begins a boot that does not end by itself; `use` gets the server's process once it looks at indexes. */
async function whileBooting(
  use: (world: World, child: ChildProcess, pid: number) => Promise<void>,
): Promise<void> {
  await inWorld({}, async (world) => {
    makeEndless(world)
    await backUp(world)
    const child = start(world.host, bootFlags(world, []))
    try {
      for await (const line of createInterface({ input: child.stdout }))
        if (line.includes('"step":"indexes"')) break
      child.stdout.resume()
      const [lock = ''] = globSync('*/data/postmaster.pid', { cwd: world.scratch })
      const pid = Number.parseInt(readFileSync(join(world.scratch, lock), 'utf8'))
      process.kill(pid, 0)
      const { uid, mode } = statSync(join(world.scratch, lock, '../..'))
      // The server's user, where that is another, may enter it and change nothing there.
      assert.deepEqual([uid, mode & 0o777], [process.geteuid?.(), uid === 0 ? 0o710 : 0o700])
      await use(world, child, pid)
    } finally {
      child.kill('SIGKILL')
    }
  })
}

test('SIGTERM leaves neither a server nor a folder', { skip, timeout: 120_000 }, async () => {
  await whileBooting(async ({ scratch }, child, pid) => {
    child.kill('SIGTERM')
    await once(child, 'close')
    assert.equal(child.exitCode, 130)
    assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
    assert.deepEqual(readdirSync(scratch), [])
  })
})

const skipKill = skip === false && !existsSync('/usr/bin/setpriv') ? 'there is no setpriv' : skip
test('a boot that is killed takes its server along', { skip: skipKill, timeout: 120_000 }, async () => {
  await whileBooting(async (_, child, pid) => {
    const parent = Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
    assert.ok(parent > 1)
    process.kill(parent, 'SIGKILL')
    await once(child, 'close')
    // Nobody is told of its end: it has ended when there is no such process any more.
    while (existsSync(`/proc/${pid}`)) await new Promise((resolve) => setImmediate(resolve))
  })
})

test('a boot that takes too long is ended', { skip, timeout: 120_000 }, async () => {
  await inWorld({}, async (world) => {
    makeEndless(world)
    await backUp(world)
    const { exit, findings } = await boot(world, '--boot-timeout', '10s')
    assert.deepEqual([exit, codesOf(findings)], [1, ['error boot.failed']])
    assert.match(messageOf(findings, 'boot.failed'), /\([a-z]+\): it was not done within 10 s/)
  })
})

test('the newest version is booted too', { skip: skipNewest, timeout: 120_000 }, async () => {
  await inWorld({ version: NEWEST }, async (world) => {
    await query(
      world.server,
      'create table orders (id bigint primary key, note text)',
      'insert into orders select n, repeat(md5(n::text), 100) from generate_series(1, 5000) n',
    )
    await backUp(world)
    const {
      exit,
      findings,
      boot: report,
      text,
    } = await boot(world, '--postgres-bin', postgresFolder(NEWEST) ?? '')
    assert.deepEqual([exit, findings, report?.['proven'], report?.['major']], [0, [], true, NEWEST], text)
    // Programs without PostgreSQL's contrib package.
    const programs = `${world.scratch}-programs`
    cpSync(join(postgresFolder(NEWEST) ?? '', '..'), programs, { recursive: true, verbatimSymlinks: true })
    try {
      rmSync(join(programs, 'share/postgresql/extension/amcheck.control'))
      const bare = await boot(world, '--postgres-bin', join(programs, 'bin'))
      assert.deepEqual([bare.exit, bare.boot?.['proven']], [0, false], bare.text)
      assert.deepEqual(codesOf(bare.findings), ['warning not-checked'])
      assert.match(
        messageOf(bare.findings, 'not-checked'),
        /tables and indexes: the extension amcheck is not on/,
      )
    } finally {
      rmSync(programs, { recursive: true, force: true })
    }
  })
})
