/**
 * The story of a cluster that every kind of recovery target is taken from: two backups, a fail-over that
 * loses a commit, two restores that become the source. Each step is a row; a target says which rows must be
 * there.
 */
import assert from 'node:assert/strict'
import { query, stopPostgres, type PostgresServer } from './postgres.ts'
import {
  backUpWorld,
  dropWorld,
  makeWorld,
  quietMoment,
  refusedWorld,
  restoreWorld,
  standbyOfWorld,
  startPrinted,
  timelineOf,
  untilTrue,
  type PitrWorld,
  type StartedCluster,
} from './postgres-pitr.ts'
import { promote } from './postgres-standby.ts'
import { here } from './shop-host.ts'

/** Before makeWorld() ships: what has a name when it is dropped. */
const STORY_TABLES: readonly string[] = [
  'create table steps (step int primary key)',
  'create table orders as select generate_series(1, 10) id',
  'create table carts as select generate_series(1, 10) id',
  'create table poke (id int)',
]

interface Target {
  readonly title: string
  readonly argv: readonly string[]
  readonly steps: readonly number[]
  /** The backup that must be taken. */
  readonly base?: string
  /** Prepared transactions that must wait, and the steps that they hold. */
  readonly prepared?: readonly (readonly [name: string, steps: readonly number[]])[]
  /** Rows that a table must have, by its name; undefined: it must not be there. */
  readonly rows?: Readonly<Record<string, number | undefined>>
  /** Part of the sample. */
  readonly isSample?: boolean
}

interface Story {
  readonly targets: readonly Target[]
  readonly backups: Readonly<Record<'early' | 'late', string>>
  /** What lies before the first backup. */
  readonly beginning: string
  /** How many timelines there are. */
  readonly timelines: number
}

interface Telling {
  readonly world: PitrWorld
  server: Pick<PostgresServer, 'port'>
  steps: number[]
  readonly targets: Target[]
  base: string
}

type More = Partial<Omit<Target, 'title' | 'argv' | 'steps'>>

/** Returns how many targets were reached. */
export async function provePitr(
  version: number,
  { onlySample }: { readonly onlySample: boolean },
  say: (done: string) => void,
): Promise<number> {
  const settings = ['max_prepared_transactions = 5']
  const world = await makeWorld({ version, settings }, ...STORY_TABLES)
  try {
    const story = await tellStory(world)
    say('the story is told')
    const targets = story.targets.filter(({ isSample }) => !onlySample || isSample === true)
    for (const target of targets) {
      await proveTarget(world, story, target)
      say(target.title)
    }
    await proveRefusals(world, story)
    return targets.length
  } finally {
    await dropWorld(world)
  }
}

/** Ends with no server running, and all of it in the repository. */
async function tellStory(world: PitrWorld): Promise<Story> {
  const telling: Telling = { world, server: world.first, steps: [], targets: [], base: '' }
  await step(telling, 1)
  const beginning = await quietMoment(world.first)
  await step(telling, 2)
  const early = await backUpWorld(world)
  await untilNamed(telling)
  telling.base = early
  const standby = await standbyOfWorld(world, early)
  await tellPositions(telling)
  await tellTransactions(telling)
  const late = await tellSecondBackup(telling)
  await tellDrops(telling)
  await failOver(telling, standby)
  await restoreTwice(telling, standby)
  // What is started from now on is no source.
  await world.ship.stop()
  return { targets: telling.targets, backups: { early, late }, beginning, timelines: 4 }
}

/** A transaction of one row. */
async function step(telling: Telling, number: number): Promise<void> {
  await query(telling.server, `insert into steps values (${number})`)
  telling.steps = [...telling.steps, number]
}

function aim(telling: Telling, title: string, argv: readonly string[], more: More = {}): void {
  const { targets, steps, base } = telling
  targets.push({ title, argv, steps, base, ...more })
}

/** Ends when the log says what the tables are called. */
async function untilNamed({ world, server }: Telling): Promise<void> {
  for (;;) {
    await query(server, 'insert into poke values (0)')
    await world.ship.caughtUp(server)
    const { exit, stdout } = await here(world.host, ['timeline', 'orders', '--json'])
    assert.equal(exit, 0, stdout)
    if (stdout.includes('postgres.public.poke')) return
  }
}

async function tellPositions(telling: Telling): Promise<void> {
  const { server } = telling
  aim(telling, 'the earlier backup alone', ['--immediate', '--snapshot', telling.base])
  await step(telling, 3)
  const [end = ''] = await query(server, 'select pg_current_wal_insert_lsn()')
  aim(telling, 'a position between commits', ['--lsn', end, '--exclusive'])
  await query(server, 'begin', 'insert into steps values (99)', 'rollback')
  const [commit = ''] = await query(
    server,
    'begin',
    'insert into steps values (4)',
    "select set_config('story.lsn', pg_current_wal_insert_lsn()::text, false)",
    'commit',
    'show story.lsn',
  )
  aim(telling, 'without the commit at a position', ['--lsn', commit, '--exclusive'])
  telling.steps = [...telling.steps, 4]
  aim(telling, 'with the commit at a position', ['--lsn', commit])
  const gap = await quietMoment(server)
  aim(telling, 'a time in an idle gap', ['--at', gap], { isSample: true })
  aim(telling, 'before a time in an idle gap', ['--at', gap, '--exclusive'])
  const elsewhere = new Date(Date.parse(gap) + 9_000_000).toISOString().replace('Z', '+02:30')
  aim(telling, 'the same time in another zone', ['--at', elsewhere])
  await step(telling, 5)
  await query(server, "select pg_create_restore_point('sale')")
  aim(telling, 'the first of two restore points', ['--name', 'sale', '--snapshot', telling.base])
  await step(telling, 6)
}

/** Savepoints and prepared transactions; one of these is open while the second backup is made. */
async function tellTransactions(telling: Telling): Promise<void> {
  const { server } = telling
  const xidOf = async (number: number): Promise<string> =>
    (await query(server, `select xmin from steps where step = ${number}`))[0] ?? ''
  const before = telling.steps
  await query(
    server,
    'begin',
    'insert into steps values (7)',
    'savepoint kept',
    'insert into steps values (8)',
    'savepoint dropped',
    'insert into steps values (98)',
    'rollback to dropped',
    'commit',
  )
  const without = { ...telling, steps: before }
  aim(without, 'before a transaction with savepoints', ['--before-xid', await xidOf(7)])
  aim(without, 'before the transaction of a savepoint', ['--before-xid', await xidOf(8)], { isSample: true })
  telling.steps = [...before, 7, 8]
  await query(server, 'begin', 'insert into steps values (9)', "prepare transaction 'p'")
  const [prepared = ''] = await query(server, 'select transaction from pg_prepared_xacts')
  await step(telling, 10)
  const open = { prepared: [['p', [9]]] as const }
  aim(telling, 'between PREPARE and COMMIT PREPARED', ['--at', await quietMoment(server)], open)
  aim(telling, 'before a prepared transaction', ['--before-xid', prepared], { ...open, isSample: true })
  await query(server, "commit prepared 'p'")
  telling.steps = [...telling.steps, 9]
  aim(telling, 'behind COMMIT PREPARED', ['--at', await quietMoment(server)])
  // A recovery stops before a commit; what is only prepared until then is there.
  await step(telling, 18)
  await query(server, 'begin', 'insert into steps values (11)', "prepare transaction 'q'")
}

async function tellSecondBackup(telling: Telling): Promise<string> {
  const { world, server, base } = telling
  const open = { prepared: [['q', [11]]] as const }
  await step(telling, 12)
  aim(telling, 'between the backups', ['--at', await quietMoment(server)], open)
  telling.base = await backUpWorld(world)
  aim(telling, 'the later backup alone', ['--immediate', '--snapshot', telling.base], open)
  await step(telling, 13)
  const moment = await quietMoment(server)
  aim(telling, 'behind the later backup', ['--at', moment], open)
  const [place = ''] = await query(server, 'select pg_current_wal_insert_lsn()')
  const argv = ['--lsn', place, '--exclusive', '--snapshot', base]
  aim(telling, 'the same from the earlier backup', argv, { ...open, base })
  await query(server, "commit prepared 'q'")
  telling.steps = [...telling.steps, 11]
  await query(server, "select pg_create_restore_point('sale')")
  aim(telling, 'the second of two restore points', ['--name', 'sale'], { isSample: true })
  await step(telling, 14)
  return telling.base
}

async function tellDrops(telling: Telling): Promise<void> {
  const { server } = telling
  await query(server, 'truncate carts')
  aim(telling, 'before a TRUNCATE', ['--before', 'TRUNCATE carts'], { rows: { carts: 10, orders: 10 } })
  await step(telling, 15)
  await query(server, 'begin', 'insert into steps values (16)', 'drop table orders', 'commit')
  const rows = { carts: 0, orders: 10 }
  aim(telling, 'before a DROP', ['--before', 'DROP public.orders'], { rows, isSample: true })
  telling.steps = [...telling.steps, 16]
  aim(telling, 'behind a DROP', ['--at', await quietMoment(server)], { rows: { orders: undefined } })
  await step(telling, 17)
}

/** The first server is lost with a commit that its standby never saw; the standby goes on. */
async function failOver(telling: Telling, standby: PostgresServer): Promise<void> {
  const { world } = telling
  const { first, ship } = world
  const sent = (await query(first, 'select pg_current_wal_flush_lsn()'))[0] ?? ''
  await untilTrue(standby, `select pg_last_wal_replay_lsn() >= '${sent}'`)
  await query(standby, "alter system set primary_conninfo = ''", 'select pg_reload_conf()')
  await untilTrue(standby, 'select count(*) = 0 from pg_stat_wal_receiver')
  const shared = telling.steps
  await step(telling, 50)
  await ship.caughtUp(first)
  aim(telling, 'the end of the timeline that was left', ['--timeline', '1'], { isSample: true })
  telling.steps = shared
  await stopPostgres(first, 'SIGQUIT')
  promote(standby)
  telling.server = standby
  assert.equal(await timelineOf(standby), 2)
  await step(telling, 20)
  const moment = await quietMoment(standby)
  aim(telling, 'a time behind a promotion', ['--at', moment, '--timeline', '2'], { isSample: true })
  await step(telling, 21)
  await ship.caughtUp(standby)
  aim(telling, 'the end of the timeline of a promotion', ['--timeline', '2'])
}

/** What was restored becomes the source, and what was restored from that too. */
async function restoreTwice(telling: Telling, standby: PostgresServer): Promise<void> {
  const { world } = telling
  await stopPostgres(standby)
  const third = await becomeSource(telling, [], 3)
  await step(telling, 30)
  telling.base = await backUpWorld(world)
  await step(telling, 31)
  const moment = await quietMoment(third)
  const upTo = telling.steps
  await step(telling, 32)
  await world.ship.caughtUp(third)
  aim(telling, 'the end of the timeline of a restore', ['--timeline', '3'])
  await third.stop()
  telling.steps = upTo
  const fourth = await becomeSource(telling, ['--at', moment], 4)
  await step(telling, 40)
  aim(telling, 'a time behind two restores', ['--at', await quietMoment(fourth)])
  await step(telling, 41)
  await world.ship.caughtUp(fourth)
  aim(telling, 'all of the log', [], { isSample: true })
  await fourth.stop()
}

async function becomeSource(
  telling: Telling,
  argv: readonly string[],
  timeline: number,
): Promise<StartedCluster> {
  const cluster = await startPrinted(telling.world, await restoreWorld(telling.world, argv))
  telling.server = cluster
  assert.equal(await timelineOf(cluster), timeline)
  return cluster
}

/** Restores to the target, starts what came back, and looks whether it is what the story says. */
async function proveTarget(world: PitrWorld, story: Story, target: Target): Promise<void> {
  const restored = await restoreWorld(world, target.argv)
  if (target.base !== undefined) assert.equal(restored.summary['snapshot'], target.base, target.title)
  const back = await startPrinted(world, restored)
  try {
    const wanted = [...target.steps]
    assert.deepEqual(await stepsOf(back), wanted.toSorted(ascending), target.title)
    const isPromoted = target.argv.includes('--immediate') ? 1 : story.timelines + 1
    assert.equal(await timelineOf(back), isPromoted, target.title)
    assert.deepEqual(await query(back, 'select pg_is_in_recovery()'), ['f'])
    for (const [name, count] of Object.entries(target.rows ?? {})) {
      const [is] = await query(back, `select to_regclass('${name}') is not null`)
      assert.equal(is, count === undefined ? 'f' : 't', `${target.title}: ${name}`)
      if (count !== undefined)
        assert.deepEqual(await query(back, `select count(*) from ${name}`), [`${count}`])
    }
    const waiting = (target.prepared ?? []).map(([name]) => name)
    assert.deepEqual(await query(back, 'select gid from pg_prepared_xacts order by 1'), waiting, target.title)
    for (const [name, steps] of target.prepared ?? []) {
      await query(back, `commit prepared '${name}'`)
      wanted.push(...steps)
    }
    await query(back, 'insert into steps values (1000)')
    assert.deepEqual(await stepsOf(back), [...wanted, 1000].toSorted(ascending), target.title)
  } finally {
    await back.stop()
  }
}

/** Each says what can be had instead. */
async function proveRefusals(world: PitrWorld, { beginning, backups }: Story): Promise<void> {
  const { early, late } = backups
  const cases: [readonly string[], RegExp][] = [
    [['--at', '2099-01-01T00:00:00Z'], /the log is complete until .*nearest: .*end of log/],
    [['--at', '2026-02-31T12:00'], /a time such as/],
    [['--lsn', 'FF/0'], /beyond|the log ends at/],
    [['--name', 'sail', '--snapshot', late], /the log has none .*nearest: .*restore point .*sale/],
    [['--before-xid', '4000000000'], /the log has none .*nearest: /],
    [['--before', 'DROP nothing', '--snapshot', late], /the log has none .*nearest: .*public\.orders/],
    [['--timeline', '9'], /timeline 9\b/],
    [['--at', beginning], /before/],
    [['--lsn', '0/100', '--snapshot', early], /the base is consistent at .*nearest: base/],
    [['--name', 'sale', '--snapshot', late, '--timeline', '9'], /timeline 9\b/],
  ]
  for (const [argv, message] of cases) {
    const { said } = await refusedWorld(world, argv)
    assert.match(String(said), message, argv.join(' '))
  }
}

async function stepsOf(server: Pick<PostgresServer, 'port'>): Promise<number[]> {
  return (await query(server, 'select step from steps order by step')).map(Number)
}

function ascending(a: number, b: number): number {
  return a - b
}
