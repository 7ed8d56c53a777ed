/** A receiver of log for tests: what it says can be awaited, and what it holds compared with a server's own. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { systemClock } from '../../src/base/clock.ts'
import { formatLsn, parseLsn, parseSegmentName, type Lsn } from '../../src/sources/postgres/lsn.ts'
import {
  openReplication,
  type Replication,
  type ServerPlace,
} from '../../src/sources/postgres/replication.ts'
import { timelineFolder } from '../../src/sources/postgres/spool-files.ts'
import {
  closeSpool,
  openSpool,
  type LogPosition,
  type Spool,
  type SpoolOptions,
} from '../../src/sources/postgres/spool.ts'
import {
  receiveWal,
  type ReceiverSettings,
  type ReceiverState,
  type TimelineSwitch,
} from '../../src/sources/postgres/wal-receiver.ts'
import type { CoverageMark } from '../../src/sources/postgres/wal-stream.ts'
import { postgresFolder, sql, type PostgresServer } from './postgres.ts'

export interface Receiving {
  readonly durable: LogPosition[]
  readonly marks: CoverageMark[]
  readonly switches: TimelineSwitch[]
  readonly states: ReceiverState[]
  /** Rejects with what the receiver fails with. */
  readonly ended: Promise<void>
  /** Resolves when `is` holds after an event; rejects when the receiver ends before. */
  readonly until: (is: () => boolean) => Promise<void>
  readonly stop: () => Promise<void>
}

/** A line that receive-worker.ts prints: up to here it is durable. */
export interface WorkerLine {
  readonly timeline: number
  readonly lsn: string
}

export const SLOT = 'backstock'
const QUICK = { tickMs: 50, markMs: 200, silenceMs: 20_000, pauseMsMin: 20, pauseMsMax: 200 }

export function placeOf({ port }: { readonly port: number }): ServerPlace {
  return {
    host: '127.0.0.1',
    port,
    user: 'postgres',
    password: undefined,
    tls: false,
    connectTimeoutMs: 10_000,
  }
}

const running = new Map<Spool, Set<Receiving>>()

/** Opens a spool for `body`; receivers that it left running are stopped. */
export async function withSpool(
  folder: string,
  body: (spool: Spool) => Promise<void> | void,
  options: Partial<SpoolOptions> = {},
): Promise<void> {
  const spool = openSpool(folder, { bytesMax: 1 << 30, systemId: undefined, ...options })
  running.set(spool, new Set())
  try {
    await body(spool)
  } finally {
    for (const receiving of running.get(spool) ?? []) await receiving.stop().catch(() => undefined)
    running.delete(spool)
    closeSpool(spool)
  }
}

/** Receives from the server that `choose` gives at each connect. */
export function receiveFrom(
  choose: () => { readonly port: number },
  spool: Spool,
  settings: Partial<ReceiverSettings> = {},
): Receiving {
  const control = new AbortController()
  const waiting = new Set<() => void>()
  const told = <T>(list: T[]) => {
    return (one: T): void => {
      list.push(one)
      for (const check of waiting) check()
    }
  }
  const durable: LogPosition[] = []
  const marks: CoverageMark[] = []
  const switches: TimelineSwitch[] = []
  const states: ReceiverState[] = []
  const connect = (): Promise<Replication> => openReplication(placeOf(choose()))
  const ended = receiveWal(
    connect,
    spool,
    { slot: SLOT, start: undefined, clock: systemClock, signal: control.signal, timing: QUICK, ...settings },
    { onDurable: told(durable), onMark: told(marks), onTimeline: told(switches), onState: told(states) },
  )
  // Who awaits it is told; who does not is told by until().
  ended.catch(() => undefined)
  const until = async (is: () => boolean): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const check = (): void => {
      if (is()) resolve()
    }
    waiting.add(check)
    check()
    const early = ended.then(() => assert.fail('the receiver ended before it came to what was awaited'))
    await Promise.race([promise, early]).finally(() => waiting.delete(check))
    early.catch(() => undefined)
  }
  const stop = async (): Promise<void> => {
    control.abort()
    await ended
  }
  const receiving: Receiving = { durable, marks, switches, states, ended, until, stop }
  running.get(spool)?.add(receiving)
  return receiving
}

/** Waits until what the server has written by now is durable. */
export async function untilCaughtUp(receiving: Receiving, server: PostgresServer): Promise<Lsn> {
  const end = flushedEnd(server)
  await receiving.until(() => (receiving.durable.at(-1)?.lsn ?? 0n) >= end)
  return end
}

export function flushedEnd(server: PostgresServer): Lsn {
  return parseLsn(sql(server, 'select pg_current_wal_flush_lsn()')[0]!)
}

/** Compares what the spool holds of a timeline with the server's own files; returns how many bytes. */
export function compareWithServer(spool: Spool, server: PostgresServer, timeline: number, to: Lsn): number {
  assert.ok(spool.system)
  const { segmentBytes } = spool.system
  const folder = timelineFolder(spool.system, timeline)
  let compared = 0
  const names = readdirSync(folder).sort()
  for (const [nth, name] of names.entries()) {
    const segment = parseSegmentName(name, segmentBytes)
    assert.ok(segment, name)
    const held = readFileSync(join(folder, name))
    if (nth < names.length - 1) assert.equal(held.length, segmentBytes, name)
    const own = readFileSync(join(server.data, 'pg_wal', name))
    const length = Math.min(held.length, Math.max(0, Number(to - segment.start)))
    assert.equal(held.compare(own, 0, length, 0, length), 0, `${name} differs before ${formatLsn(to)}`)
    compared += length
  }
  return compared
}

/** A receiver in a process of its own, which can be killed. */
export function spawnReceiver(
  folder: string,
  server: { readonly port: number },
): {
  child: ChildProcess
  lines: AsyncIterable<WorkerLine>
} {
  const job = JSON.stringify({ folder, port: server.port })
  const child = spawn(process.execPath, [join(import.meta.dirname, 'receive-worker.ts'), job], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const input = createInterface({ input: child.stdout })
  const parse = async function* (): AsyncIterable<WorkerLine> {
    for await (const line of input) yield JSON.parse(line) as WorkerLine
  }
  return { child, lines: parse() }
}

/** Four sessions that run one statement again and again. */
export function spawnLoad(
  server: { readonly port: number; readonly dir: string },
  statement: string,
): ChildProcess {
  const script = join(server.dir, 'load.sql')
  writeFileSync(script, `${statement};\n`)
  const place = ['--host', '127.0.0.1', '--port', String(server.port), '--username', 'postgres']
  const load = ['--no-vacuum', '--client', '4', '--time', '100', '--file', script, 'postgres']
  return spawn(join(postgresFolder() ?? '', 'pgbench'), [...place, ...load], { stdio: 'ignore' })
}

export async function killChild(child: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill(signal)
  await ended
}
