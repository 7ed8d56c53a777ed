/**
 * Rounds of `backstock ship` beside a real server under load, in which the shipper, the server or both are
 * killed with SIGKILL at a random moment; shared by test/e2e and test/long. In the end the log is read out of
 * the repository and taken apart: each acknowledged commit is in it once.
 */
import assert from 'node:assert/strict'
import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { openRepository, type Access } from '../../src/repo/keys.ts'
import { parseKit } from '../../src/repo/kit.ts'
import { coverage, type PositionRange } from '../../src/repo/log-coverage.ts'
import { readLog } from '../../src/repo/log-reader.ts'
import { rangesOf, type LogTable } from '../../src/repo/log-table.ts'
import { listLogs } from '../../src/repo/logs.ts'
import { eventOf } from '../../src/sources/postgres/wal-events.ts'
import { feedWal, newWalReader, recordLsn } from '../../src/sources/postgres/wal-reader.ts'
import { decodeRecord, newWalRecord } from '../../src/sources/postgres/wal-record.ts'
import { localStore } from '../../src/storage/local.ts'
import { seeded } from './engine.ts'
import {
  dropPostgres,
  makePostgres,
  sql,
  startPostgres,
  stopPostgres,
  type PostgresServer,
} from './postgres.ts'
import { flushedEnd } from './receive-log.ts'
import { dropHost, here, makeHost, start, type ShopHost } from './shop-host.ts'

const SEGMENT_BYTES = 16 * 1024 * 1024
const CLIENTS = 2
/** Where a record says where the one before it begins. */
const PREVIOUS_AT = 8
/** Between two commits now and then, so that segments fill while a round lasts. */
const FILL = `select pg_logical_emit_message(false, 'fill', repeat('y', 600000))`
const FILL_EVERY = 100
const ROUND_MS = { min: 300, max: 4000 }
const START_TRIES = 20

export interface ShipKillCounts {
  shipKills: number
  serverKills: number
  commits: number
  /** Bytes of log that were read back. */
  bytes: number
}

interface Ship {
  readonly child: ChildProcessWithoutNullStreams
  /** What it said last is durable in the repository. */
  told: bigint
  stderr: string
  /** Resolves once it receives. */
  readonly connected: Promise<void>
}

interface Scene {
  readonly server: PostgresServer
  readonly host: ShopHost
  readonly access: Access
  /** Transactions whose commit was acknowledged. */
  readonly acknowledged: Set<number>
  told: bigint
  isOver: boolean
}

export async function runShipKillRounds(
  rounds: number,
  seed: number,
  say: (progress: string) => void = () => undefined,
): Promise<ShipKillCounts> {
  const random = seeded(seed)
  const counts: ShipKillCounts = { shipKills: 0, serverKills: 0, commits: 0, bytes: 0 }
  const scene = await makeScene()
  let ship = startShip(scene)
  try {
    await ship.connected
    const load = Promise.all(Array.from({ length: CLIENTS }, () => runClient(scene)))
    for (let round = 0; round < rounds; round++) {
      await sleep(ROUND_MS.min + random() * (ROUND_MS.max - ROUND_MS.min))
      const what = Math.floor(random() * 3)
      if (what !== 1) {
        await killShip(ship)
        counts.shipKills++
      }
      if (what !== 0) {
        await stopPostgres(scene.server, 'SIGKILL')
        counts.serverKills++
        await startAgain(scene.server)
      }
      if (what !== 1) {
        // Who is killed at once has told nothing.
        if (scene.told > 0n) await assertStored(scene)
        ship = startShip(scene)
        await ship.connected
      }
      say(`${round + 1} of ${rounds} rounds, ${scene.acknowledged.size} commits`)
    }
    scene.isOver = true
    await load
    await endShip(scene, ship)
    counts.bytes = await assertComplete(scene)
    counts.commits = scene.acknowledged.size
  } finally {
    scene.isOver = true
    ship.child.kill('SIGKILL')
    await scene.access.store.close()
    await dropPostgres(scene.server)
    dropHost(scene.host)
  }
  return counts
}

async function makeScene(): Promise<Scene> {
  const server = await makePostgres()
  sql(server, 'create table orders (id bigserial primary key, note text)')
  const url = `postgres://postgres@127.0.0.1:${server.port}/postgres?sslmode=disable`
  const host = makeHost({
    repository: 'store: repo, identity: identity.age, spool: spool',
    sources: `  orders: { kind: postgres, url: '${url}', logs: stream }\n`,
  })
  assert.equal((await here(host, ['init'])).exit, 0)
  const kit = parseKit(readFileSync(join(host.dir, 'identity.age')), 'identity.age')
  const access = await openRepository(await localStore(join(host.dir, 'repo')), kit)
  return { server, host, access, acknowledged: new Set(), told: 0n, isOver: false }
}

function startShip(scene: Scene): Ship {
  const child = start(scene.host, ['ship', '--json'])
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const ship: Ship = { child, told: 0n, stderr: '', connected: promise }
  child.stderr.on('data', (text: Buffer) => (ship.stderr += text.toString()))
  createInterface({ input: child.stdout }).on('line', (line) => {
    const event = JSON.parse(line) as { kind?: string; type: string; to?: string }
    if (event.type === 'error') reject(new Error(line))
    if (event.kind === 'connected') resolve()
    if (event.kind === 'shipped') ship.told = BigInt(event.to ?? 0)
    if (ship.told > scene.told) scene.told = ship.told
  })
  child.once('exit', () => reject(new Error(`it ended: ${ship.stderr}`)))
  promise.catch(() => undefined)
  return ship
}

async function killShip({ child, stderr }: Ship): Promise<void> {
  assert.equal(child.exitCode, null, `it never ends by itself: ${stderr}`)
  const closed = once(child, 'close')
  child.kill('SIGKILL')
  await closed
}

/** Waits until all that the server has is told to be stored, then stops it. */
async function endShip({ server }: Scene, ship: Ship): Promise<void> {
  const end = flushedEnd(server)
  while (ship.told < end) {
    assert.equal(ship.child.exitCode, null, `it never ends by itself: ${ship.stderr}`)
    await sleep(50)
  }
  const closed = once(ship.child, 'close') as Promise<[number | null]>
  ship.child.kill('SIGTERM')
  assert.equal((await closed)[0], 0, ship.stderr)
}

/** A killed server's sessions need a moment to be gone. */
async function startAgain(server: PostgresServer): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await startPostgres(server)
      return
    } catch (error) {
      if (tries === START_TRIES) throw error
      await sleep(100)
    }
  }
}

/** Commits one transaction after the other, and notes each once the server has said that it is done. */
async function runClient(scene: Scene): Promise<void> {
  const { server, acknowledged } = scene
  while (!scene.isOver) {
    const client = new pg.Client({
      host: '127.0.0.1',
      port: server.port,
      user: 'postgres',
      database: 'postgres',
    })
    client.on('error', () => undefined)
    try {
      await client.connect()
      for (let turn = 1; !scene.isOver; turn++) {
        const { rows } = await client.query<{ xid: string }>(
          'insert into orders (note) values (random()::text) returning pg_current_xact_id()::text as xid',
        )
        acknowledged.add(Number(rows[0]?.xid))
        if (turn % FILL_EVERY === 0) await client.query(FILL)
      }
    } catch {
      await sleep(50)
    } finally {
      await client.end().catch(() => undefined)
    }
  }
}

/** The one branch, without holes, at least up to what was told. */
async function assertStored({ access, told }: Scene): Promise<{ table: LogTable; range: PositionRange }> {
  const { branches, findings } = await listLogs(access)
  assert.deepEqual(findings, [])
  const [table, ...others] = branches
  assert.ok(table !== undefined && others.length === 0, `${branches.length} branches`)
  const [range, ...more] = coverage(rangesOf(table))
  assert.ok(range !== undefined && more.length === 0, `${more.length} holes`)
  assert.ok(range.to >= told, `stored up to ${range.to}, told ${told}`)
  return { table, range }
}

/** Takes the log apart: all records follow each other, each acknowledged commit is there once. */
async function assertComplete(scene: Scene): Promise<number> {
  const { server, access, acknowledged } = scene
  const { table, range } = await assertStored(scene)
  const commits = new Map<number, number>()
  const record = newWalRecord()
  let last: bigint | undefined
  const reader = newWalReader({
    from: range.from,
    segmentBytes: SEGMENT_BYTES,
    checkCrc: true,
    onRecord: (bytes, at, length) => {
      const previous = bytes.readBigUInt64LE(at + PREVIOUS_AT)
      if (last !== undefined) assert.equal(previous, last, 'each record names the one before it')
      last = recordLsn(reader)
      decodeRecord(record, bytes, { at, length }, server.major)
      const event = eventOf(record, server.major)
      if (event?.kind === 'commit') commits.set(event.end.xid, (commits.get(event.end.xid) ?? 0) + 1)
    },
  })
  for await (const piece of readLog(access, table, range)) feedWal(reader, Buffer.from(piece))
  assert.equal(reader.next, range.to, 'all of it is log')
  assert.equal(reader.endedAt, undefined)
  const lost = [...acknowledged].filter((xid) => commits.get(xid) !== 1)
  assert.deepEqual(lost, [], 'each acknowledged commit is there once')
  assert.deepEqual(
    (await committedRows(server)).filter((xid) => commits.get(xid) !== 1),
    [],
    'each row that the server has was committed once',
  )
  return Number(range.to - range.from)
}

/** The transactions whose rows the server has, acknowledged or not. */
async function committedRows({ port }: PostgresServer): Promise<number[]> {
  const client = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' })
  await client.connect()
  try {
    const { rows } = await client.query<{ xid: string }>('select xmin::text as xid from orders')
    return rows.map(({ xid }) => Number(xid))
  } finally {
    await client.end()
  }
}
