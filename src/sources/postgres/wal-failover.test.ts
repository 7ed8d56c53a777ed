/** The receiver when servers are lost, promoted, swapped or rolled back: it follows, or stops loudly. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { isFailure, type FailureCode } from '../../base/failure.ts'
import {
  copyData,
  killPostgres,
  makeStandby,
  promote,
  restoreData,
  startStandby,
} from '../../../test/harness/postgres-standby.ts'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  sql,
  startPostgres,
  stopPostgres,
  type PostgresServer,
} from '../../../test/harness/postgres.ts'
import {
  compareWithServer,
  receiveFrom,
  SLOT,
  untilCaughtUp,
  withSpool,
} from '../../../test/harness/receive-log.ts'
import { parseHistory, parseLsn, segmentStart } from './lsn.ts'
import { readHistory, readSpool, releaseSpool, spoolPosition, spoolRanges } from './spool.ts'
import type { ReceiverState } from './wal-receiver.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
const SEGMENT_BYTES = 1 << 20
const servers: PostgresServer[] = []
let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'backstock-spool-'))
})
afterEach(async () => {
  for (const server of servers.splice(0)) await dropPostgres(server)
  rmSync(folder, { recursive: true })
})

async function makeServer(...settings: readonly string[]): Promise<PostgresServer> {
  const server = await makePostgres({
    initdb: ['--wal-segsize=1'],
    settings: ['wal_keep_size = 1GB', ...settings],
  })
  servers.push(server)
  return server
}

async function standbyOf(primary: PostgresServer): Promise<PostgresServer> {
  const standby = await makeStandby(primary)
  servers.push(standby)
  return standby
}

function isWaitingForStandby(state: ReceiverState): boolean {
  return state.kind === 'disconnected' && state.reason.message.endsWith('(a standby)')
}

function failsWith(code: FailureCode, pattern: RegExp) {
  return (error: unknown): boolean => isFailure(error, code) && pattern.test(error.message)
}

test('a promoted standby is followed in the stream', { skip, timeout: 60_000 }, async () => {
  const primary = await makeServer()
  sql(primary, 'create table t as select generate_series(1, 30000) i')
  const standby = await standbyOf(primary)
  await withSpool(folder, async (spool) => {
    const receiving = receiveFrom(() => standby, spool)
    await receiving.until(() => receiving.durable.length > 0)
    promote(standby)
    await receiving.until(() => receiving.switches.length > 0)
    sql(standby, 'insert into t select generate_series(1, 30000)')
    const end = await untilCaughtUp(receiving, standby)
    const [step] = receiving.switches
    assert.deepEqual([step!.from, step!.to], [1, 2])
    assert.equal(readHistory(spool, 2), step!.history)
    assert.equal(parseHistory(2, step!.history)[0]!.end, step!.switchLsn)
    compareWithServer(spool, standby, 2, end)
    compareWithServer(spool, standby, 1, step!.switchLsn)
    const [old, now] = spoolRanges(spool)
    assert.equal(old!.to, step!.switchLsn)
    assert.equal(now!.from, segmentStart(step!.switchLsn, SEGMENT_BYTES))
    assert.ok(!receiving.states.some(({ kind }) => kind === 'disconnected'))
    // The old timeline goes whole, the new one never.
    assert.equal(releaseSpool(spool, { timeline: 1, lsn: old!.to }) > 0, true)
    releaseSpool(spool, { timeline: 2, lsn: end })
    assert.deepEqual(
      spoolRanges(spool).map(({ timeline }) => timeline),
      [2],
    )
    await receiving.stop()
  })
  await withSpool(folder, (spool) => assert.equal(spoolPosition(spool)?.timeline, 2))
})

test(
  'what a lost primary sent past the switch stays on its timeline',
  { skip, timeout: 60_000 },
  async () => {
    const primary = await makeServer()
    sql(primary, 'create table t as select generate_series(1, 30000) i')
    const standby = await standbyOf(primary)
    let inCharge = primary
    await withSpool(folder, async (spool) => {
      const receiving = receiveFrom(() => inCharge, spool)
      await untilCaughtUp(receiving, primary)
      await stopPostgres(standby)
      // Three segments that the standby never sees.
      for (let nth = 0; nth < 3; nth++)
        sql(primary, 'insert into t select generate_series(1, 20000)', 'select pg_switch_wal()')
      const lost = await untilCaughtUp(receiving, primary)
      await killPostgres(primary)
      // It comes up as it was; a standby that is behind is waited for.
      await startStandby(standby)
      inCharge = standby
      await receiving.until(() => receiving.states.some(isWaitingForStandby))
      promote(standby)
      sql(standby, 'insert into t select generate_series(1, 1000)')
      await receiving.until(() => receiving.durable.at(-1)!.timeline === 2)
      const end = await untilCaughtUp(receiving, standby)
      compareWithServer(spool, primary, 1, lost)
      compareWithServer(spool, standby, 2, end)
      const [old] = spoolRanges(spool)
      assert.ok(old!.to >= lost && receiving.switches[0]!.switchLsn < segmentStart(lost, SEGMENT_BYTES))
      // The old primary comes back beside the new one.
      await startPostgres(primary)
      inCharge = primary
      await stopPostgres(standby, 'SIGQUIT')
      await assert.rejects(receiving.ended, failsWith('source.diverged', /the server is at .* on timeline 1/))
    })
  },
)

test('another cluster is refused', { skip, timeout: 60_000 }, async () => {
  const [ours, other] = [await makeServer(), await makeServer()]
  await withSpool(folder, async (spool) => {
    const receiving = receiveFrom(() => ours, spool)
    await receiving.until(() => receiving.durable.length > 0)
    await receiving.stop()
    const foreign = receiveFrom(() => other, spool)
    await assert.rejects(foreign.ended, failsWith('source.foreign', /is for the system \d+/))
    assert.deepEqual(sql(other, 'select slot_name from pg_replication_slots'), [])
  })
})

test('a server that went back to a copy of itself is refused', { skip, timeout: 60_000 }, async () => {
  const server = await makeServer()
  sql(server, 'create table t as select generate_series(1, 1000) i')
  await withSpool(folder, async (spool) => {
    let receiving = receiveFrom(() => server, spool)
    await untilCaughtUp(receiving, server)
    await receiving.stop()
    await stopPostgres(server)
    const copy = copyData(server)
    await startPostgres(server)
    receiving = receiveFrom(() => server, spool)
    sql(server, 'insert into t select generate_series(1, 20000)')
    await untilCaughtUp(receiving, server)
    await receiving.stop()
    await stopPostgres(server)
    restoreData(server, copy)
    await startPostgres(server)
    const behind = receiveFrom(() => server, spool)
    await assert.rejects(behind.ended, failsWith('source.diverged', /the server is at/))
    // It has caught up by now, with other content; past the segment that is compared.
    sql(server, 'insert into t select -i from generate_series(1, 40000) i')
    assert.ok(parseLsn(sql(server, 'select pg_current_wal_flush_lsn()')[0]!) > spoolPosition(spool)!.lsn)
    const before = spoolRanges(spool)
    const ahead = receiveFrom(() => server, spool)
    await assert.rejects(ahead.ended, failsWith('source.diverged', /differs from what was received before/))
    assert.deepEqual(ahead.durable, [])
    assert.deepEqual(spoolRanges(spool), before)
  })
})

test('a slot that the server gave up is a gap, and stays', { skip, timeout: 60_000 }, async () => {
  const server = await makeServer('max_slot_wal_keep_size = 1MB', 'max_wal_size = 2MB', 'min_wal_size = 2MB')
  sql(server, "alter system set wal_keep_size = '0'", 'select pg_reload_conf()')
  sql(server, 'create table t (i int)')
  await withSpool(folder, async (spool) => {
    const receiving = receiveFrom(() => server, spool)
    const end = await untilCaughtUp(receiving, server)
    await receiving.stop()
    for (let nth = 0; nth < 6; nth++)
      sql(server, 'insert into t select generate_series(1, 20000)', 'select pg_switch_wal()', 'checkpoint')
    assert.deepEqual(sql(server, 'select wal_status from pg_replication_slots'), ['lost'])
    const gap = receiveFrom(() => server, spool)
    await assert.rejects(
      gap.ended,
      failsWith('source.gap', /a full backup is needed: the server keeps no log/),
    )
    assert.deepEqual(sql(server, 'select slot_name from pg_replication_slots'), [SLOT])
    // Also when somebody drops it: a new one begins too late.
    sql(server, `select pg_drop_replication_slot('${SLOT}')`)
    const dropped = receiveFrom(() => server, spool)
    await assert.rejects(dropped.ended, failsWith('source.gap', /already been removed/))
    assert.ok(spoolPosition(spool)!.lsn >= end)
    assert.ok(readSpool(spool, spoolRanges(spool)[0]!).length > 0)
  })
})
