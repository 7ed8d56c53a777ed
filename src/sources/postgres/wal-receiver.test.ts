/** The receiver against real servers: every byte that it says is durable is the server's own. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { systemClock } from '../../base/clock.ts'
import { isFailure } from '../../base/failure.ts'
import { randomBytes } from '../../base/random.ts'
import {
  copyBoth,
  fakePostgres,
  logData,
  refusal,
  row,
  type Answer,
} from '../../../test/harness/fake-postgres.ts'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  sql,
  startPostgres,
  type PostgresServer,
} from '../../../test/harness/postgres.ts'
import { killPostgres } from '../../../test/harness/postgres-standby.ts'
import {
  compareWithServer,
  flushedEnd,
  killChild,
  placeOf,
  receiveFrom,
  SLOT,
  spawnLoad,
  spawnReceiver,
  untilCaughtUp,
  withSpool,
} from '../../../test/harness/receive-log.ts'
import { growDisk, mountDisk, unmountDisk } from '../../../test/harness/small-disk.ts'
import { parseLsn, segmentName, type Lsn } from './lsn.ts'
import { openReplication, type Replication } from './replication.ts'
import { readSpool, releaseSpool, spoolPosition, spoolRanges } from './spool.ts'
import { eventOf } from './wal-events.ts'
import { feedWal, newWalReader } from './wal-reader.ts'
import { receiveWal } from './wal-receiver.ts'
import { decodeRecord, newWalRecord } from './wal-record.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
const SEGMENT_BYTES = 1n << 20n
let folder: string
let isMounted = false
let server: PostgresServer | undefined

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'backstock-spool-'))
})
afterEach(async () => {
  if (server !== undefined) await dropPostgres(server)
  server = undefined
  if (isMounted) unmountDisk(folder)
  isMounted = false
  rmSync(folder, { recursive: true })
})

async function makeServer(segmentMegabytes = 1, ...settings: string[]): Promise<PostgresServer> {
  server = await makePostgres({
    initdb: [`--wal-segsize=${segmentMegabytes}`],
    settings: ['wal_keep_size = 4GB', 'max_wal_size = 4GB', ...settings],
  })
  return server
}

for (const megabytes of [1, 64]) {
  test(
    `receiveWal() makes the log durable as the server has it, in segments of ${megabytes} MiB`,
    { skip, timeout: 120_000 },
    async () => {
      const from = await makeServer(megabytes)
      await withSpool(folder, async (spool) => {
        const receiving = receiveFrom(() => from, spool)
        await receiving.until(() => receiving.durable.length > 0)
        sql(from, 'create table t as select i, repeat(i::text, 10) from generate_series(1, 100000) i')
        sql(from, 'select pg_switch_wal()', 'insert into t select * from t limit 1000')
        const end = await untilCaughtUp(receiving, from)
        await receiving.until(() => receiving.marks.some(({ lsn }) => lsn >= end))
        const mark = receiving.marks.at(-1)!
        const drift = Number(mark.serverTime / 1000n) - mark.receivedAt
        assert.ok(Math.abs(drift) < 5000, `${drift} ms`)
        const [restart = ''] = sql(from, 'select restart_lsn from pg_replication_slots')
        assert.ok(parseLsn(restart) > 0n && parseLsn(restart) <= spool.logs[0]!.durable)
        await receiving.stop()
        assert.equal(receiving.states[0]?.kind, 'connected')
        assert.equal(receiving.states.length, 1)
        assert.ok(compareWithServer(spool, from, 1, end) > 10_000_000)
        const lsns = receiving.durable.map(({ lsn }) => lsn)
        assert.ok(lsns.every((lsn, nth) => nth === 0 || lsn > lsns[nth - 1]!))
        assert.deepEqual(sql(from, 'select slot_name, active from pg_replication_slots'), [`${SLOT}|f`])
      })
    },
  )
}

test('a receiver that is started again goes on where it was', { skip, timeout: 60_000 }, async () => {
  const from = await makeServer()
  const ends: Lsn[] = []
  for (const round of [1, 2, 3]) {
    await withSpool(folder, async (spool) => {
      if (round > 1) assert.ok(spoolPosition(spool)!.lsn >= ends.at(-1)!)
      const receiving = receiveFrom(() => from, spool)
      sql(from, `create table t${round} as select generate_series(1, 20000)`)
      // The end of a segment is the place where nothing of the next one is held.
      if (round === 2) sql(from, 'select pg_switch_wal()')
      ends.push(await untilCaughtUp(receiving, from))
      await receiving.stop()
    })
  }
  await withSpool(folder, (spool) => {
    compareWithServer(spool, from, 1, ends.at(-1)!)
    assert.equal(spoolRanges(spool).length, 1)
  })
})

test('a lost server is told and waited for', { skip, timeout: 60_000 }, async () => {
  const from = await makeServer()
  await withSpool(folder, async (spool) => {
    const receiving = receiveFrom(() => from, spool)
    sql(from, 'create table t as select generate_series(1, 50000) i')
    await untilCaughtUp(receiving, from)
    await killPostgres(from)
    await receiving.until(() => receiving.states.some(({ kind }) => kind === 'disconnected'))
    await startPostgres(from)
    sql(from, 'insert into t select i from t')
    const end = await untilCaughtUp(receiving, from)
    await receiving.stop()
    const kinds = receiving.states.map(({ kind }) => kind)
    assert.equal(kinds[0], 'connected')
    assert.equal(kinds.at(-1), 'connected')
    compareWithServer(spool, from, 1, end)
  })
})

test(
  'what a killed receiver said is durable is there, nothing is skipped, nothing is doubled',
  { skip, timeout: 120_000 },
  async (t) => {
    const from = await makeServer()
    sql(from, 'create table t (i serial, note text)')
    let said: Lsn = 0n
    for (let round = 0; round < 5; round++) {
      const load = spawnLoad(from, "insert into t (note) select repeat('x', (random() * 3000)::int)")
      const { child, lines } = spawnReceiver(folder, from)
      t.after(() => Promise.all([killChild(child), killChild(load)]))
      // Amid the load, at another place each time.
      const killAt = 1 + randomBytes(1)[0]!
      t.diagnostic(`round ${round}: killed after ${killAt} times`)
      let count = 0
      for await (const { lsn } of lines) {
        said = parseLsn(lsn)
        if (++count !== killAt) continue
        // By turns the receiver, the server, both.
        if (round % 3 !== 1) child.kill('SIGKILL')
        if (round % 3 !== 0) await killPostgres(from)
        if (round % 3 === 1) child.kill('SIGTERM')
      }
      await Promise.all([killChild(child), killChild(load)])
      if (round % 3 !== 0) await startPostgres(from)
      await withSpool(folder, (spool) => {
        // Half of a record has no checksum: it is there, but only sound when it came again.
        const { received, end } = spool.logs[0]!
        assert.ok(end >= said && received <= end, 'what was said is there')
        compareWithServer(spool, from, 1, end)
      })
    }
    await withSpool(folder, async (spool) => {
      const receiving = receiveFrom(() => from, spool)
      const end = await untilCaughtUp(receiving, from)
      await receiving.stop()
      assert.ok(compareWithServer(spool, from, 1, end) > 1_000_000)
    })
  },
)

test(
  'a torn end is found and mended; any other difference is refused',
  { skip, timeout: 60_000 },
  async () => {
    const from = await makeServer()
    let end = 0n
    await withSpool(folder, async (spool) => {
      const receiving = receiveFrom(() => from, spool)
      sql(from, 'create table t as select i, repeat(i::text, 9) from generate_series(1, 30000) i')
      end = await untilCaughtUp(receiving, from)
      await receiving.stop()
    })
    const last = segmentEnd(folder)
    const { size } = statSync(last)
    for (const round of [1, 2, 3]) {
      const held = readFileSync(last)
      // Sectors of the last pages that never reached the disk.
      const sector = Math.max(0, Math.floor(size / 512) - 7 * round)
      held.fill(0, sector * 512, (sector + 1 + round) * 512)
      writeFileSync(last, held)
      await withSpool(folder, async (spool) => {
        const { received, end: held } = spool.logs[0]!
        assert.ok(received < held && Number(received % SEGMENT_BYTES) <= (sector + 1) * 512)
        const receiving = receiveFrom(() => from, spool)
        await untilCaughtUp(receiving, from)
        await receiving.stop()
        compareWithServer(spool, from, 1, end)
      })
    }
    const held = readFileSync(last)
    held[size - 3000]! ^= 0xff
    writeFileSync(last, held)
    await withSpool(folder, async (spool) => {
      const receiving = receiveFrom(() => from, spool)
      await assert.rejects(receiving.ended, (error) => isFailure(error, 'source.diverged'))
    })
  },
)

/** The newest file of the spool's only timeline. */
function segmentEnd(spoolFolder: string): string {
  const [system = ''] = readdirSync(spoolFolder).filter((name) => name !== 'lock')
  const timeline = join(spoolFolder, system, '00000001')
  return join(timeline, readdirSync(timeline).sort().at(-1)!)
}

test(
  'a full spool stalls, says how long the server waits, and goes on',
  { skip, timeout: 60_000 },
  async () => {
    const from = await makeServer(1, 'max_slot_wal_keep_size = 1GB')
    await withSpool(
      folder,
      async (spool) => {
        const receiving = receiveFrom(() => from, spool)
        await receiving.until(() => receiving.durable.length > 0)
        const [begin] = spoolRanges(spool)
        sql(from, 'create table t as select i, repeat(i::text, 9) from generate_series(1, 60000) i')
        const end = flushedEnd(from)
        assert.ok(end - begin!.from > 6_000_000n)
        let read = begin!.from
        const stalls = (): number => receiving.states.filter(({ kind }) => kind === 'stalled').length
        for (let seen = 0; read < end; seen = stalls()) {
          await receiving.until(() => stalls() > seen || receiving.durable.at(-1)!.lsn >= end)
          const [range] = spoolRanges(spool)
          assert.ok(range!.from <= read && spool.bytes <= 3_145_728)
          const [kept = ''] = sql(from, 'select restart_lsn from pg_replication_slots')
          assert.ok(parseLsn(kept) <= range!.to)
          read = range!.to
          releaseSpool(spool, { timeline: 1, lsn: read })
        }
        const stalled = receiving.states.find((state) => state.kind === 'stalled')
        assert.ok(stalled?.hoursLeft !== undefined && stalled.hoursLeft > 0 && stalled.hoursLeft < 100)
        assert.ok(stalls() > 1 && isFailure(stalled.reason, 'host.full'))
        await receiving.stop()
        compareWithServer(spool, from, 1, end)
      },
      { bytesMax: 3 << 20 },
    )
  },
)

test('a full disk stalls the receiver and loses nothing', { skip, timeout: 60_000 }, async (t) => {
  if (!mountDisk(folder, '4m')) return t.skip('this user may not mount')
  isMounted = true
  const from = await makeServer()
  await withSpool(folder, async (spool) => {
    const receiving = receiveFrom(() => from, spool)
    sql(from, 'create table t as select i, repeat(i::text, 9) from generate_series(1, 60000) i')
    await receiving.until(() => receiving.states.some(({ kind }) => kind === 'stalled'))
    const full = spoolPosition(spool)!.lsn
    assert.ok(flushedEnd(from) > full)
    compareWithServer(spool, from, 1, full)
    growDisk(folder, '64m')
    const end = await untilCaughtUp(receiving, from)
    await receiving.stop()
    assert.ok(end > full)
    compareWithServer(spool, from, 1, end)
  })
})

/** Answers of a server of version 14, but for START_REPLICATION. */
function answerOf(command: string): Answer {
  const [verb] = command.split(' ')
  if (verb === 'IDENTIFY_SYSTEM') return [row('7001', '1', '0/1000100', null)]
  if (verb === 'READ_REPLICATION_SLOT') return [refusal('XX000', 'cannot execute SQL commands in WAL sender')]
  if (verb === 'CREATE_REPLICATION_SLOT') return [refusal('42710', 'it exists')]
  if (command === 'SHOW server_version_num') return [row('140023')]
  return [row(command === 'SHOW wal_segment_size' ? '1MB' : '-1')]
}

test('log with a hole is refused, and asked for again', { timeout: 60_000 }, async (t) => {
  let starts = 0
  const log = randomBytes(256)
  const server = await fakePostgres((command) => {
    if (!command.startsWith('START_REPLICATION')) return answerOf(command)
    starts++
    const hole = starts === 1 ? 1n : 0n
    return [
      copyBoth(),
      logData(0x1000000n, log.subarray(0, 200)),
      logData(0x10000c8n + hole, log.subarray(200)),
    ]
  })
  t.after(() => server.close())
  await withSpool(folder, async (spool) => {
    const receiving = receiveFrom(() => server, spool)
    await receiving.until(() => receiving.durable.at(-1)?.lsn === 0x1000100n)
    await receiving.stop()
    const refused = receiving.states.find((state) => state.kind === 'disconnected')
    assert.match(refused?.reason.message ?? '', /the server sends 0\/10000C9 \(must be 0\/10000C8\)/)
    assert.equal(starts, 2)
    assert.deepEqual(readSpool(spool, spoolRanges(spool)[0]!), log)
  })
  const starting = server.commands.filter((command) => command.startsWith('START'))
  assert.equal(starting[1], `START_REPLICATION SLOT "${SLOT}" PHYSICAL 0/1000000 TIMELINE 1`)
})

test('a new slot that is ahead of the log is waited for', { timeout: 60_000 }, async (t) => {
  // As BASE_BACKUP leaves it for a moment: a switch of segments that is not flushed, a checkpoint behind it.
  const ends = ['0/17D4B00', '0/2000100']
  const log = randomBytes(256)
  const server = await fakePostgres((command) => {
    if (command === 'IDENTIFY_SYSTEM') return [row('7001', '1', ends.shift() ?? '0/2000100', null)]
    if (command === 'SHOW server_version_num') return [row('150000')]
    if (command.startsWith('READ_REPLICATION_SLOT')) return [row('physical', '0/2000028', '1')]
    if (!command.startsWith('START_REPLICATION')) return answerOf(command)
    return [copyBoth(), logData(0x2000000n, log)]
  })
  t.after(() => server.close())
  await withSpool(folder, async (spool) => {
    const receiving = receiveFrom(() => server, spool)
    await receiving.until(() => receiving.durable.at(-1)?.lsn === 0x2000100n)
    await receiving.stop()
    const waited = receiving.states.find((state) => state.kind === 'disconnected')
    assert.match(waited?.reason.message ?? '', /from 0\/2000000 .*the slot is ahead of it/)
    assert.deepEqual(readSpool(spool, spoolRanges(spool)[0]!), log)
  })
})

test('a server that falls silent is given up and tried again', { timeout: 60_000 }, async (t) => {
  const server = await fakePostgres((command) =>
    command.startsWith('START_REPLICATION') ? [copyBoth()] : answerOf(command),
  )
  t.after(() => server.close())
  await withSpool(folder, async (spool) => {
    const timing = { tickMs: 5, markMs: 20, silenceMs: 100, pauseMsMin: 5, pauseMsMax: 10 }
    const receiving = receiveFrom(() => server, spool, { timing })
    await receiving.until(() => receiving.states.filter(({ kind }) => kind === 'disconnected').length > 1)
    const silent = receiving.states.find((state) => state.kind === 'disconnected')
    assert.match(silent?.reason.message ?? '', /says nothing for 100 ms/)
    await receiving.stop()
  })
})

test('an event that throws ends the receiver with what it threw', { timeout: 60_000 }, async (t) => {
  const server = await fakePostgres((command) =>
    command.startsWith('START_REPLICATION')
      ? [copyBoth(), logData(0x1000000n, randomBytes(9))]
      : answerOf(command),
  )
  t.after(() => server.close())
  await withSpool(folder, async (spool) => {
    const settings = {
      slot: SLOT,
      start: undefined,
      clock: systemClock,
      signal: new AbortController().signal,
    }
    const silent = (): void => undefined
    const onDurable = (): void => {
      throw new Error('a bug')
    }
    const events = { onDurable, onMark: silent, onTimeline: silent, onState: silent }
    const connect = (): Promise<Replication> => openReplication(placeOf(server))
    await assert.rejects(receiveWal(connect, spool, settings, events), /a bug/)
  })
})

test('a receiver with an empty spool begins where it is told', { skip, timeout: 60_000 }, async () => {
  const from = await makeServer()
  sql(from, `select pg_create_physical_replication_slot('${SLOT}')`, 'create table t (i int)')
  const lsn = flushedEnd(from)
  sql(from, 'insert into t select generate_series(1, 60000)', 'select pg_switch_wal()', 'checkpoint')
  // The slot was not used yet: it keeps nothing, but nothing was promised either.
  await withSpool(folder, async (spool) => {
    const fresh = receiveFrom(() => from, spool)
    await untilCaughtUp(fresh, from)
    await fresh.stop()
    assert.ok(spoolRanges(spool)[0]!.from > lsn)
  })
  rmSync(folder, { recursive: true })
  await withSpool(folder, async (spool) => {
    const told = receiveFrom(() => from, spool, { start: { timeline: 1, lsn } })
    const end = await untilCaughtUp(told, from)
    await told.stop()
    assert.equal(spoolRanges(spool)[0]!.from, lsn - (lsn % SEGMENT_BYTES))
    compareWithServer(spool, from, 1, end)
  })
})

test('commits that wait for the receiver are in the spool', { skip, timeout: 60_000 }, async (t) => {
  const from = await makeServer()
  sql(from, 'create table t (i int)')
  const { child, lines } = spawnReceiver(folder, from)
  t.after(() => killChild(child))
  for await (const _ of lines) break
  sql(from, "alter system set synchronous_standby_names = '*'", 'select pg_reload_conf()')
  const acknowledged: number[] = []
  for (let nth = 0; nth < 25; nth++)
    acknowledged.push(
      Number(sql(from, 'begin', 'insert into t values (1)', 'select txid_current()', 'commit')[0]),
    )
  await Promise.all([killChild(child), killPostgres(from)])
  await withSpool(folder, (spool) => {
    const [range] = spoolRanges(spool)
    const record = newWalRecord()
    const commits = new Set<number>()
    const reader = newWalReader({
      from: range!.from,
      segmentBytes: Number(SEGMENT_BYTES),
      checkCrc: true,
      onRecord: (bytes, at, length) => {
        decodeRecord(record, bytes, { at, length }, from.major)
        const event = eventOf(record, from.major)
        if (event?.kind === 'commit') commits.add(event.end.xid)
      },
    })
    feedWal(reader, readSpool(spool, range!))
    assert.deepEqual(
      acknowledged.filter((xid) => !commits.has(xid)),
      [],
    )
  })
})

test('a server may remove the segment that would be compared', { skip, timeout: 60_000 }, async () => {
  const from = await makeServer(1, 'min_wal_size = 2MB')
  sql(from, "alter system set wal_keep_size = '0'", 'select pg_reload_conf()')
  await withSpool(folder, async (spool) => {
    const first = receiveFrom(() => from, spool)
    sql(from, 'create table t as select generate_series(1, 60000) i', 'select pg_switch_wal()')
    sql(from, 'insert into t values (1)')
    await untilCaughtUp(first, from)
    await first.stop()
  })
  // Now it ends with a whole segment, and the server keeps what follows.
  rmSync(segmentEnd(folder))
  sql(from, 'checkpoint', 'select pg_switch_wal()', 'checkpoint')
  await withSpool(folder, async (spool) => {
    const { lsn } = spoolPosition(spool)!
    assert.equal(lsn % SEGMENT_BYTES, 0n)
    assert.ok(!existsSync(join(from.data, 'pg_wal', segmentName(1, lsn - 1n, Number(SEGMENT_BYTES)))))
    const second = receiveFrom(() => from, spool)
    await untilCaughtUp(second, from)
    await second.stop()
    const starts = second.states.map((state) => state.kind === 'connected' && state.from.lsn)
    assert.deepEqual(starts, [lsn - SEGMENT_BYTES, lsn])
  })
})

test('a signal that comes while it connects or begins ends the receiver all the same', async () => {
  const fake = await fakePostgres((command) => {
    if (command === 'IDENTIFY_SYSTEM') end.abort()
    return [row('7000000000000000001', '1', '0/3000000', null)]
  })
  const end = new AbortController()
  const connecting = Promise.withResolvers<Replication>()
  const receive = async (connect: () => Promise<Replication>, signal: AbortSignal): Promise<void> => {
    const nothing = (): void => undefined
    const events = { onDurable: nothing, onMark: nothing, onTimeline: nothing, onState: nothing }
    const settings = { slot: SLOT, start: undefined, clock: systemClock, signal }
    await withSpool(folder, async (spool) => receiveWal(connect, spool, settings, events))
  }
  try {
    const early = new AbortController()
    const waiting = receive(() => connecting.promise, early.signal)
    early.abort()
    await waiting
    // The connection that comes too late is closed.
    const late = await openReplication(placeOf(fake))
    connecting.resolve(late)
    await once(late.socket, 'close')
    await receive(() => openReplication(placeOf(fake)), end.signal)
    assert.ok(end.signal.aborted)
    assert.ok(!fake.commands.some((command) => command.startsWith('START')))
  } finally {
    await fake.close()
  }
})
