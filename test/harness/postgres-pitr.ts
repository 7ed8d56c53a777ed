/**
 * A host that backs up, ships and restores a cluster by the program's own commands, and starts what came back
 * with the command that it prints. The source may move from server to server, on two ports.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseLsn } from '../../src/sources/postgres/lsn.ts'
import {
  dropPostgres,
  freePort,
  makePostgres,
  postgresFolder,
  query,
  type PostgresOptions,
  type PostgresServer,
} from './postgres.ts'
import { startStandby } from './postgres-standby.ts'
import {
  dropHost,
  eventOf,
  here,
  makeHost,
  start,
  type ConfigText,
  type Event,
  type ShopHost,
} from './shop-host.ts'

export interface PitrWorld {
  readonly host: ShopHost
  readonly version: number
  /** The first server of all; what is restored lies beside its data folder. */
  readonly first: PostgresServer
  /** The second port that the source is looked for. */
  readonly otherPort: number
  /** The one that runs now. */
  ship: ShipProgram
}

export interface ShipProgram {
  /** Resolves when the repository has all that the server has flushed. */
  readonly caughtUp: (server: Pick<PostgresServer, 'port'>) => Promise<void>
  readonly stop: () => Promise<void>
  /** Resolves when it ends by itself, to what it said last of an error. */
  readonly ended: () => Promise<Event>
}

/** A cluster that a printed command has started. */
export interface StartedCluster {
  readonly data: string
  readonly port: number
  readonly stop: () => Promise<void>
}

const READY = /database system is ready to accept connections/

export interface WorldOptions extends PostgresOptions {
  readonly version: number
}

/** A server with `statements` run on it, and its shipper. End with dropWorld(). */
export async function makeWorld(
  { version, ...options }: WorldOptions,
  ...statements: readonly string[]
): Promise<PitrWorld> {
  const first = await makePostgres({ version, ...options })
  await query(first, ...statements)
  const otherPort = await freePort()
  const host = makeHost(worldConfig(first.port, otherPort))
  assert.equal((await here(host, ['init'])).exit, 0)
  return { host, version, first, otherPort, ship: startShipProgram(host) }
}

/** The source is the server that takes writes on one of the ports. */
export function worldConfig(...ports: readonly number[]): ConfigText {
  const hosts = ports.map((port) => `127.0.0.1:${port}`).join(',')
  const url = `postgres://postgres@${hosts}/postgres?sslmode=disable&target_session_attrs=read-write`
  return {
    repository: 'store: repo, identity: identity.age, spool: spool',
    sources: `  orders: { kind: postgres, url: '${url}', checkpoint: fast, logs: stream }\n`,
  }
}

export async function dropWorld({ host, first, ship }: PitrWorld): Promise<void> {
  try {
    await ship.stop()
  } finally {
    dropHost(host)
    await dropPostgres(first)
  }
}

export function startShipProgram(host: ShopHost): ShipProgram {
  const child = start(host, ['ship', '--json'])
  const closed = once(child, 'close')
  let stored = 0n
  let said = ''
  const waiting = new Set<() => void>()
  createInterface({ input: child.stdout }).on('line', (line) => {
    said += `${line}\n`
    const event = JSON.parse(line) as Event
    if (event['kind'] === 'shipped') stored = BigInt(event['to'] as string | number)
    for (const look of waiting) look()
  })
  child.stderr.on('data', (text: Buffer) => void (said += text.toString()))
  const reached = async (lsn: bigint): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const look = (): void => {
      if (stored >= lsn) resolve()
    }
    waiting.add(look)
    look()
    const early = closed.then(() => assert.fail(`ship has ended:\n${said}`))
    early.catch(() => undefined)
    await Promise.race([promise, early]).finally(() => waiting.delete(look))
  }
  return {
    caughtUp: async (server) => {
      const [end = ''] = await query(server, 'select pg_current_wal_flush_lsn()')
      await reached(parseLsn(end))
    },
    stop: async () => {
      child.kill('SIGTERM')
      await closed
      assert.equal(child.exitCode, 0, said)
    },
    ended: async () => {
      await closed
      const events = said
        .split('\n')
        .flatMap((line) => (line.startsWith('{') ? [JSON.parse(line) as Event] : []))
      return events.findLast(({ type }) => type === 'error') ?? {}
    },
  }
}

/** Returns the id of the new snapshot. */
export async function backUpWorld({ host }: PitrWorld): Promise<string> {
  const outcome = await here(host, ['backup', 'orders', '--json'])
  assert.equal(outcome.exit, 0, outcome.stdout + outcome.stderr)
  return String(eventOf(outcome, 'summary')['snapshot'])
}

export interface RestoredWorld {
  readonly data: string
  readonly summary: Event
  /** Events, and what people are told. */
  readonly said: string
}

/** `backstock restore` into a new folder that the server's user may enter. */
export async function restoreWorld(
  { host, first }: PitrWorld,
  argv: readonly string[],
): Promise<RestoredWorld> {
  const data = join(newFolder(first), 'data')
  const outcome = await here(host, ['restore', 'orders', '--to', data, '--json', ...argv])
  assert.equal(outcome.exit, 0, outcome.stdout + outcome.stderr)
  return { data, summary: eventOf(outcome, 'summary'), said: outcome.stdout + outcome.stderr }
}

/** Returns what was said when the same is refused: nothing may have been written. */
export async function refusedWorld({ host, first }: PitrWorld, argv: readonly string[]): Promise<Event> {
  const data = join(newFolder(first), 'data')
  const outcome = await here(host, ['restore', 'orders', '--to', data, '--json', ...argv])
  assert.ok(!existsSync(data), 'a refused restore has written')
  const summary = eventOf(outcome, 'summary')
  assert.equal(summary['exit'], outcome.exit)
  return { ...summary, said: outcome.stdout }
}

function newFolder({ dir, data }: PostgresServer): string {
  const folder = mkdtempSync(join(dir, 'back-'))
  const { uid, gid } = statSync(data)
  chownSync(folder, uid, gid)
  return folder
}

/** By the printed command and nothing else; resolves when the server takes writes. */
export async function startPrinted(
  { version }: PitrWorld,
  { data, summary }: RestoredWorld,
): Promise<StartedCluster> {
  const env = { ...process.env, PATH: `${postgresFolder(version)}:${process.env['PATH']}` }
  const command = String(summary['start'])
  const stdio = ['ignore', 'pipe', 'ignore'] as const
  const child = spawn('sh', ['-c', `exec 2>&1; ${command}`], { cwd: '/', env, stdio: [...stdio] })
  const exited = once(child, 'exit')
  // The server holds the pipe too.
  const closed = once(child, 'close')
  const said: string[] = []
  const stop = async (): Promise<void> => {
    const file = join(data, 'postmaster.pid')
    if (existsSync(file)) process.kill(Number.parseInt(readFileSync(file, 'utf8')), 'SIGINT')
    await closed
  }
  for await (const line of createInterface({ input: child.stdout })) {
    said.push(line)
    if (!READY.test(line)) continue
    child.stdout.resume()
    const [status] = (await exited) as [number | null]
    const port = Number(readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')[3])
    if (status === 0) return { data, port, stop }
    await stop()
    break
  }
  throw new Error(`${command}\n${said.join('\n')}`)
}

/** A hot standby of the first server, made from a snapshot, on the other port. Ended by stopPostgres(). */
export async function standbyOfWorld(world: PitrWorld, snapshot: string): Promise<PostgresServer> {
  const { first, otherPort } = world
  const { data } = await restoreWorld(world, ['--snapshot', snapshot])
  const primary = `host=127.0.0.1 port=${first.port} user=postgres`
  const settings = [`port = ${otherPort}`, `primary_conninfo = '${primary}'`, '']
  // Behind what the restore has set aside there.
  appendFileSync(join(data, 'postgresql.auto.conf'), settings.join('\n'))
  writeFileSync(join(data, 'standby.signal'), '')
  const standby = { dir: first.dir, data, port: otherPort, major: world.version, process: undefined }
  await startStandby(standby)
  return standby
}

/** A moment of the server's clock with milliseconds between it and what was done before and is done next. */
export async function quietMoment(server: Pick<PostgresServer, 'port'>): Promise<string> {
  const gap = 'select pg_sleep(0.02)'
  const shown = `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`
  const [moment = ''] = await query(server, gap, shown)
  await query(server, gap)
  return moment
}

/** Asks until the answer is yes. */
export async function untilTrue(server: Pick<PostgresServer, 'port'>, question: string): Promise<void> {
  for (;;) if ((await query(server, question))[0] === 't') return
}

/** Along which timeline the server writes. */
export async function timelineOf(server: Pick<PostgresServer, 'port'>): Promise<number> {
  const [name = ''] = await query(server, 'select pg_walfile_name(pg_current_wal_lsn())')
  return Number.parseInt(name.slice(0, 8), 16)
}
