/** `backstock ship` as users run it, beside a real server. */
import assert from 'node:assert/strict'
import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '../../src/base/clock.ts'
import { runHere } from '../harness/cli-world.ts'
import { dropPostgres, makePostgres, postgresFolder, sql, type PostgresServer } from '../harness/postgres.ts'
import { growDisk, mountDisk, unmountDisk } from '../harness/small-disk.ts'
import {
  dropHost,
  eventOf,
  here,
  makeHost,
  run,
  start,
  writeConfig,
  type ShopHost,
} from '../harness/shop-host.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
let server: PostgresServer
let host: ShopHost

function configOf(of: { port: number; slot?: string; spool?: string; user?: string }) {
  const { port, slot = 'backstock', spool = 'spool', user = 'postgres' } = of
  const url = `postgres://${user}@127.0.0.1:${port}/postgres?sslmode=disable`
  return {
    repository: `store: repo, identity: identity.age, spool: ${spool}`,
    sources: `  orders: { kind: postgres, url: '${url}', logs: stream, slot: ${slot} }\n`,
  }
}

before(async () => {
  if (skip !== false) return
  server = await makePostgres()
  sql(server, 'create table orders (id int)')
  host = makeHost(configOf(server))
  assert.equal((await here(host, ['init'])).exit, 0)
})

after(async () => {
  if (skip !== false) return
  dropHost(host)
  await dropPostgres(server)
})

interface Running {
  readonly child: ChildProcessWithoutNullStreams
  /** Everything it printed. */
  readonly text: () => string
  /** Waits until it has printed this, `times` times. */
  readonly until: (what: RegExp, times?: number) => Promise<void>
  /** Resolves to the exit status. */
  readonly end: (signal: NodeJS.Signals) => Promise<number | null>
}

function startShip(argv: readonly string[] = ['ship', '--json']): Running {
  const child = start(host, argv)
  let text = ''
  const waiting = new Set<() => void>()
  const take = (data: Buffer): void => {
    text += data.toString()
    for (const check of waiting) check()
  }
  child.stdout.on('data', take)
  child.stderr.on('data', take)
  const closed = once(child, 'close') as Promise<[number | null]>
  const until = async (what: RegExp, times = 1): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const check = (): void => {
      if ([...text.matchAll(new RegExp(what, 'g'))].length >= times) resolve()
    }
    waiting.add(check)
    check()
    const early = closed.then(() => assert.fail(`it ended before ${what}:\n${text}`))
    early.catch(() => undefined)
    await Promise.race([promise, early]).finally(() => waiting.delete(check))
  }
  const end = async (signal: NodeJS.Signals): Promise<number | null> => {
    child.kill(signal)
    return (await closed)[0]
  }
  return { child, text: () => text, until, end }
}

async function withShip(ship: Running, body: (ship: Running) => Promise<void>): Promise<void> {
  try {
    await body(ship)
  } finally {
    await ship.end('SIGKILL')
  }
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`ship ends with 0 on ${signal}, with all it had stored`, { skip }, async () => {
    await withShip(startShip(), async (ship) => {
      await ship.until(/"kind":"connected"/)
      sql(server, 'insert into orders values (1)')
      const [end] = sql(server, 'select pg_current_wal_flush_lsn()')
      await ship.until(/"kind":"shipped".*"object":"tail"/)
      assert.equal(await ship.end(signal), 0)
      const events = ship.text().trimEnd().split('\n')
      assert.ok(
        events.some((line) => line.includes(`"lsn":"${end}"`)),
        ship.text(),
      )
      assert.equal(events.at(-1), '{"type":"summary","command":"ship","sources":1,"exit":0}')
    })
  })
}

test('ship ends with 0 also while it begins', { skip }, async () => {
  for (const turns of [0, 1, 2, 4, 8, 16, 32, 64]) {
    const stop = new AbortController()
    const { dir: cwd, env } = host
    const running = runHere(['ship', '--json'], { cwd, env, clock: systemClock, signal: stop.signal })
    for (let nth = 0; nth < turns; nth++) await new Promise((resolve) => setImmediate(resolve))
    stop.abort()
    const outcome = await running
    assert.equal(outcome.exit, 0, `after ${turns} turns: ${outcome.stdout}`)
    assert.deepEqual(eventOf(outcome, 'summary'), { type: 'summary', command: 'ship', sources: 1, exit: 0 })
  }
})

test('ship refuses a source that is shipped already', { skip }, async () => {
  await withShip(startShip(), async (ship) => {
    await ship.until(/"kind":"connected"/)
    const second = run(host, ['ship', '--json'])
    assert.equal(second.exit, 11)
    assert.equal(eventOf(second, 'error')['code'], 'repo.busy')
    assert.equal(await ship.end('SIGTERM'), 0)
  })
})

test('ship says that the server does not answer, and tries again', { skip }, async () => {
  writeConfig(host, configOf({ port: 1, spool: 'dead' }), 'dead.yaml')
  await withShip(startShip(['--config', 'dead.yaml', 'ship']), async (ship) => {
    await ship.until(/warning: orders: Cannot talk to PostgreSQL .*ECONNREFUSED.*; trying again/, 2)
    assert.equal(await ship.end('SIGTERM'), 0)
  })
})

test('ship says that the server refuses the login, and tries again', { skip }, async () => {
  writeConfig(host, configOf({ ...server, spool: 'nobody', user: 'nobody' }), 'nobody.yaml')
  await withShip(startShip(['--config', 'nobody.yaml', 'ship']), async (ship) => {
    await ship.until(/warning: orders: .*role "nobody" does not exist; trying again/)
    assert.equal(await ship.end('SIGTERM'), 0)
  })
})

test('ship waits for a store that is gone, and says when all is well again', { skip }, async () => {
  const repo = join(host.dir, 'repo')
  await withShip(startShip(['ship', '--verbose']), async (ship) => {
    await ship.until(/orders: receives the log from/)
    renameSync(repo, `${repo}.away`)
    try {
      sql(server, 'insert into orders values (2)')
      await ship.until(/warning: orders: .*its folder is gone.*; the log waits on this host/)
    } finally {
      renameSync(`${repo}.away`, repo)
    }
    await ship.until(/orders: the repository has all of the log again/)
    assert.match(ship.text(), /orders: stored up to 0\/[0-9A-F]+, tail of/)
    assert.equal(await ship.end('SIGTERM'), 0)
  })
})

test('ship waits while the disk of its spool is full', { skip }, async (t) => {
  const disk = join(host.dir, 'disk')
  mkdirSync(disk)
  if (!mountDisk(disk, '2m')) {
    t.skip('this user may not mount')
    return
  }
  try {
    writeConfig(host, configOf({ ...server, spool: 'disk', slot: 'small' }), 'small.yaml')
    await withShip(startShip(['--config', 'small.yaml', 'ship']), async (ship) => {
      sql(server, "select pg_logical_emit_message(false, 'fill', repeat('y', 4000000))")
      await ship.until(
        /warning: orders: .*(no space left|free on its disk).*; the server keeps its log as long as it has/,
      )
      growDisk(disk, '80m')
      await ship.until(/orders: receives the log from(?![^]*the server keeps its log)/)
      assert.equal(await ship.end('SIGTERM'), 0)
    })
  } finally {
    unmountDisk(disk)
  }
})

test('ship refuses what has no log', { skip }, async () => {
  writeConfig(host, {}, 'none.yaml')
  for (const argv of [['ship'], ['ship', 'media'], ['ship', 'other']]) {
    const { exit, stderr } = await here(host, ['--config', 'none.yaml', ...argv])
    assert.equal(exit, 20, stderr)
  }
})
