/** What the commands that look say of a real PostgreSQL server and of its shipped log. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { dropPostgres, makePostgres, postgresFolder, sql, type PostgresServer } from '../harness/postgres.ts'
import {
  dropHost,
  eventsOf,
  here,
  makeHost,
  start,
  writeConfig,
  type Event,
  type ShopHost,
} from '../harness/shop-host.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
let server: PostgresServer
let host: ShopHost

function configOf(port: number, more = ', logs: stream'): { sources: string } {
  const url = `postgres://postgres@127.0.0.1:${port}/postgres?sslmode=disable`
  return { sources: `  orders: { kind: postgres, url: '${url}', checkpoint: fast${more} }\n` }
}

/** Ships until `body` is done and the repository has all that it wrote. */
async function whileShipping(body: () => void | Promise<void>): Promise<void> {
  const child = start(host, ['ship', '--json'])
  let [text, wanted] = ['', '"kind":"connected"']
  const { promise: connected, resolve: onConnected } = Promise.withResolvers<void>()
  const { promise: stored, resolve: onStored } = Promise.withResolvers<void>()
  const exit = new Promise<void>((resolve) => void child.once('close', () => resolve()))
  const look = (): void => {
    if (!text.includes(wanted)) return
    onConnected()
    if (wanted.startsWith('"lsn"')) onStored()
  }
  child.stdout.on('data', (data: Buffer) => {
    text += data.toString()
    look()
  })
  child.stderr.resume()
  try {
    await Promise.race([connected, exit])
    await body()
    wanted = `"lsn":"${sql(server, 'select pg_current_wal_flush_lsn()')[0]}"`
    look()
    await Promise.race([stored, exit])
    assert.equal(child.exitCode, null, text)
  } finally {
    child.kill('SIGTERM')
    await exit
  }
}

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres()
    sql(server, 'create table orders (id int)', 'insert into orders select generate_series(1, 1000)')
    sql(server, 'create table carts (id int)')
    host = makeHost(configOf(server.port))
    assert.equal((await here(host, ['init'])).exit, 0)
  },
  { timeout: 60_000 },
)

after(async () => {
  if (skip !== false) return
  dropHost(host)
  await dropPostgres(server)
})

/** Changes rows until the log says what the table is called. */
async function namesAreNoted(): Promise<void> {
  for (let names: unknown[] = []; !names.includes('postgres.public.orders');) {
    sql(server, 'insert into orders values (0)')
    names = eventsOf(await here(host, ['timeline', 'orders', '--json'])).map(({ name }) => name)
  }
}

const findingsOf = (events: readonly Event[]): Event[] => events.filter(({ type }) => type === 'finding')
const codesOf = (events: readonly Event[]): unknown[] => findingsOf(events).map(({ code }) => code)
const isOfServer = (code: unknown): boolean => String(code).startsWith('server.')

test('timeline shows bases, log and events of a real server', { skip, timeout: 120_000 }, async () => {
  const before = await here(host, ['timeline', 'orders'])
  assert.equal(before.exit, 1, before.stderr)
  await whileShipping(async () => {
    assert.equal((await here(host, ['backup', 'orders'])).exit, 0)
    await namesAreNoted()
    sql(server, "select pg_create_restore_point('before sale')", 'delete from orders where id > 100')
    sql(server, 'drop table carts', 'truncate orders')
  })
  const events = eventsOf(await here(host, ['timeline', 'orders', '--json']))
  const kinds = events.filter(({ type }) => type === 'timeline').map(({ event }) => event)
  for (const kind of ['base', 'log', 'point', 'delete', 'relation'])
    assert.ok(kinds.includes(kind), `${kind} in ${kinds.join()}`)
  assert.ok(!kinds.includes('gap'))
  const ofKind = (kind: string) => events.filter(({ event }) => event === kind)
  assert.deepEqual(ofKind('point')[0]?.['names'], ['before sale'])
  assert.deepEqual(
    [ofKind('delete')[0]?.['count'], ofKind('delete')[0]?.['names']],
    [900, ['postgres.public.orders']],
  )
  const gone = ofKind('drop').flatMap(({ names }) => names as string[])
  assert.ok(gone.includes('postgres.public.carts'), gone.join())
  const summary = events.at(-1)
  assert.deepEqual([summary?.['bases'], summary?.['gaps'], summary?.['complete']], [1, 0, true])

  const shown = await here(host, ['timeline', 'orders'])
  assert.match(shown.stdout, /full backup \d{8}t/)
  assert.match(shown.stdout, /restore point before sale\n/)
  assert.match(shown.stdout, /deleted up to here: 900 rows of postgres\.public\.orders\n/)
  assert.match(shown.stdout, /dropped postgres\.public\.carts \(transaction \d+\)\n/)
  assert.match(shown.stdout, /The log ends at 0\/[0-9A-F]+ on timeline 1, stored .*; it has no gap\.\n$/)
  assert.equal((await here(host, ['timeline', 'media'])).exit, 1)
  const span = ['--from', '2030-01-02', '--to', '2030-01-01']
  assert.equal((await here(host, ['timeline', 'orders', ...span])).exit, 20)
})

test('check tells what the server lacks, and what mends it', { skip, timeout: 120_000 }, async () => {
  const outcome = await here(host, ['check', '--json'])
  const sound = eventsOf(outcome)
  assert.equal(outcome.exit, 0, outcome.stdout)
  assert.ok(codesOf(sound).includes('server.slot-unbounded'), outcome.stdout)
  const errors = (events: readonly Event[]) =>
    findingsOf(events).filter(({ severity }) => severity === 'error')
  assert.deepEqual(errors(sound), [])
  const minimal = await makePostgres({ settings: ['wal_level = minimal', 'max_wal_senders = 0'] })
  try {
    writeConfig(host, configOf(minimal.port))
    const bad = await here(host, ['check', '--json'])
    assert.equal(bad.exit, 1)
    const found = errors(eventsOf(bad))
    assert.ok(codesOf(found).includes('server.wal-level'), bad.stdout)
    const level = found.find(({ code }) => code === 'server.wal-level')
    assert.match(JSON.stringify(level?.['mend']), /^\["ALTER SYSTEM SET wal_level = 'replica';",/)
    const summary = eventsOf(bad).at(-1)
    assert.deepEqual(
      [summary?.['errors'], summary?.['findings']],
      [found.length, findingsOf(eventsOf(bad)).length],
    )
    const shown = await here(host, ['check'])
    assert.match(
      shown.stdout,
      /^error: server\.wal-level: "orders": wal_level is minimal \(must be: replica/m,
    )
    assert.match(shown.stdout, /^ {2}ALTER SYSTEM SET wal_level = 'replica';$/m)
    const without = await here(host, ['check', '--json', '--no-server'])
    assert.deepEqual([without.exit, codesOf(eventsOf(without)).filter(isOfServer)], [0, []])
  } finally {
    await dropPostgres(minimal)
    writeConfig(host, configOf(server.port))
  }
})

test('check goes on when a server cannot be reached', { skip, timeout: 60_000 }, async () => {
  writeConfig(host, configOf(1))
  const outcome = await here(host, ['check', '--json'])
  writeConfig(host, configOf(server.port))
  const events = eventsOf(outcome)
  assert.equal(outcome.exit, 0, outcome.stdout)
  assert.deepEqual(codesOf(events).filter(isOfServer), ['server.unreachable'])
  assert.equal(findingsOf(events).find(({ code }) => isOfServer(code))?.['severity'], 'warning')
})

test('status tells until when the log is there, and that it is late', { skip, timeout: 60_000 }, async () => {
  const logOf = (events: readonly Event[]) =>
    events.find(({ type, source }) => type === 'source' && source === 'orders')?.['log']
  const outcome = await here(host, ['status', 'orders', '--json'])
  const log = logOf(eventsOf(outcome)) as Record<string, unknown>
  assert.deepEqual([log['timeline'], log['gap']], [1, null])
  assert.ok(Number(log['ageSeconds']) < 120, outcome.stdout)
  assert.ok(!codesOf(eventsOf(outcome)).some((code) => String(code).startsWith('log.')))
  const shown = await here(host, ['status', 'orders'])
  assert.match(shown.stdout, /^Log of orders: until .* ago\), 0\/[0-9A-F]+ on timeline 1, no gap$/m)
})
