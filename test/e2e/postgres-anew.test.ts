/**
 * A source that has to begin anew: behind a gap, as another cluster, with a record that a crash has cut. What
 * was stored before stays, and nothing of two logs is mixed.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  query,
  startPostgres,
  stopPostgres,
  type PostgresServer,
} from '../harness/postgres.ts'
import {
  backUpWorld,
  dropWorld,
  makeWorld,
  quietMoment,
  refusedWorld,
  restoreWorld,
  startPrinted,
  startShipProgram,
  worldConfig,
  type PitrWorld,
} from '../harness/postgres-pitr.ts'
import { writeConfig } from '../harness/shop-host.ts'

const skip = postgresFolder(15) === undefined ? 'PostgreSQL 15 is not installed' : false
const skipNewer = skip === false && postgresFolder(18) === undefined ? 'PostgreSQL 18 is not installed' : skip
const given = { timeout: 120_000 }
const SMALL = ['min_wal_size = 2MB', 'max_wal_size = 4MB', 'max_slot_wal_keep_size = 1MB']
/** XLP_FIRST_IS_OVERWRITE_CONTRECORD, of the header of a page. */
const OVERWRITTEN = 8
const FILL = 'create table more as select n, md5(n::text) from generate_series(1, 60000) n'

async function step(server: PostgresServer, number: number): Promise<void> {
  await query(server, `insert into steps values (${number})`)
}

/** As the guide says: the old spool goes aside, and a new one begins. */
function putSpoolAside({ host }: PitrWorld): void {
  const spools = join(host.dir, 'spool')
  const [repository = ''] = readdirSync(spools)
  renameSync(join(spools, repository, 'orders'), join(spools, 'aside'))
}

async function stepsBehind(world: PitrWorld, argv: readonly string[]): Promise<string> {
  const back = await startPrinted(world, await restoreWorld(world, argv))
  try {
    return (await query(back, 'select step from steps order by 1')).join(' ')
  } finally {
    await back.stop()
  }
}

test('behind a gap a new spool, a new slot and a backup begin anew', { ...given, skip }, async () => {
  const options = { version: 15, initdb: ['--wal-segsize=1'], settings: SMALL }
  const world = await makeWorld(options, 'create table steps (step int)')
  const { first } = world
  try {
    await step(first, 1)
    await backUpWorld(world)
    await step(first, 2)
    const before = await quietMoment(first)
    await step(first, 3)
    await world.ship.caughtUp(first)
    await world.ship.stop()
    await query(first, FILL, 'checkpoint')
    await step(first, 4)
    const within = await quietMoment(first)
    assert.deepEqual(await query(first, 'select wal_status from pg_replication_slots'), ['lost'])
    world.ship = startShipProgram(world.host)
    assert.equal((await world.ship.ended())['code'], 'source.gap')

    putSpoolAside(world)
    await query(first, "select pg_drop_replication_slot('backstock')")
    world.ship = startShipProgram(world.host)
    await world.ship.caughtUp(first)
    await backUpWorld(world)
    await step(first, 5)
    await world.ship.caughtUp(first)
    await world.ship.stop()
    await stopPostgres(first)
    assert.equal(await stepsBehind(world, ['--at', before]), '1 2')
    assert.equal(await stepsBehind(world, []), '1 2 3 4 5')
    assert.match(String((await refusedWorld(world, ['--at', within]))['said']), /before|missing/)
  } finally {
    await dropWorld(world)
  }
})

test(
  'another cluster under the name of a source is refused until it begins anew',
  { ...given, skip: skipNewer },
  async () => {
    const world = await makeWorld({ version: 15 }, 'create table steps (step int)')
    const { first } = world
    let upgraded: PostgresServer | undefined
    try {
      await step(first, 1)
      const old = await backUpWorld(world)
      await step(first, 2)
      const before = await quietMoment(first)
      await step(first, 3)
      await world.ship.caughtUp(first)
      await world.ship.stop()
      await stopPostgres(first)

      // As pg_upgrade leaves it: another system, and its log begins anew.
      upgraded = await makePostgres({ version: 18 })
      await query(upgraded, 'create table steps as select generate_series(1, 3) step')
      writeConfig(world.host, worldConfig(upgraded.port))
      world.ship = startShipProgram(world.host)
      assert.equal((await world.ship.ended())['code'], 'source.foreign')
      const between = await backUpWorld(world)
      putSpoolAside(world)
      world.ship = startShipProgram(world.host)
      await world.ship.caughtUp(upgraded)
      await step(upgraded, 4)
      const after = await quietMoment(upgraded)
      await step(upgraded, 5)
      await world.ship.caughtUp(upgraded)
      await world.ship.stop()
      await stopPostgres(upgraded)
      const newer = { ...world, version: 18 }
      const { said } = await restoreWorld(newer, ['--dry-run'])
      assert.match(said, new RegExp(`several clusters: .* others are of \\d+ \\(--snapshot ${old}\\)`))
      assert.equal(await stepsBehind(newer, []), '1 2 3 4 5')
      assert.equal(await stepsBehind(newer, ['--at', after]), '1 2 3 4')
      assert.equal(await stepsBehind(newer, ['--immediate', '--snapshot', between]), '1 2 3')
      assert.equal(await stepsBehind(world, ['--at', before]), '1 2')
      const argv = ['--lsn', 'FF/0', '--snapshot', old]
      assert.match(String((await refusedWorld(world, argv))['said']), /the log ends at 0\/[34]/)
    } finally {
      if (upgraded !== undefined) await dropPostgres(upgraded)
      await dropWorld(world)
    }
  },
)

test('a record that a crash has cut is written over, and the log goes on', { ...given, skip }, async () => {
  const options = { version: 15, initdb: ['--wal-segsize=1'] }
  const world = await makeWorld(options, 'create table steps (step int)')
  const { first } = world
  try {
    await step(first, 1)
    await backUpWorld(world)
    await step(first, 2)
    await world.ship.caughtUp(first)
    await world.ship.stop()
    // Longer than two segments; what lies behind the first of them is lost in the crash.
    const [from = ''] = await query(first, 'select pg_walfile_name(pg_current_wal_insert_lsn())')
    await query(first, "select pg_logical_emit_message(true, 'long', repeat('x', 2500000))")
    await stopPostgres(first, 'SIGQUIT')
    const log = join(first.data, 'pg_wal')
    const names = readdirSync(log).toSorted()
    const lost = names.filter((name) => /^[0-9A-F]{24}$/.test(name) && name > from)
    assert.ok(lost.length >= 2)
    for (const name of lost) rmSync(join(log, name))
    await startPostgres(first)
    const page = readFileSync(join(log, lost[0]!))
    assert.equal(page.readUInt16LE(2) & OVERWRITTEN, OVERWRITTEN)
    world.ship = startShipProgram(world.host)
    await step(first, 3)
    const moment = await quietMoment(first)
    await step(first, 4)
    await world.ship.caughtUp(first)
    await world.ship.stop()
    await stopPostgres(first)
    assert.equal(await stepsBehind(world, []), '1 2 3 4')
    assert.equal(await stepsBehind(world, ['--at', moment]), '1 2 3')
  } finally {
    await dropWorld(world)
  }
})
