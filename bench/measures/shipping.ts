/**
 * Shipping under load: how long a commit takes until it is durable in the spool, and until it is in the
 * repository; what memory the shipper takes. One more client commits now and then and waits for the spool as
 * for a synchronous standby, so that the server itself says when the spool had it; the load does not wait.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'pg'
import { addSettings, fillCluster, placeOf, runSql, startCluster, type Cluster } from '../data/cluster.ts'
import { measure, type Command } from '../measure.ts'
import type { LoggedRepository } from '../peers/backstock-cluster.ts'
import type { LogRowName, LogSample } from '../postgres-record.ts'

export interface ShippedMeasure {
  cluster: Cluster
  /** Of the repository, the spool and what else there is beside it. */
  folder: string
  repository: LoggedRepository
  scale: number
  rounds: number
  samples: LogSample[]
  note: (text: string) => void
}

/** Of the cluster of the other measures: a base that is restored fast beside a log that is long. */
const clusterShare = 0.1
/** As the server is to know the shipper: its name by default. */
const shipperName = 'backstock'
const loadSeconds = 20
const loadClients = 8
const loadRate = 500
const probePauseMs = 15
const lateMsMax = 60_000

/** Fills and starts the cluster, which keeps its log in `archive` of the folder too, and makes a backup. */
export async function beginShipped({ cluster, folder, repository, scale }: ShippedMeasure): Promise<void> {
  const archive = archiveOf(folder)
  mkdirSync(archive, { recursive: true })
  chmodSync(archive, 0o777)
  addSettings(cluster, ['archive_mode = on', `archive_command = 'cp %p ${archive}/%f'`])
  await startCluster(cluster)
  fillCluster(cluster, scale * clusterShare)
  runSql(cluster, ['create table probe (id bigserial primary key, at timestamptz not null default now())'])
  await measure(cluster.scratch, repository.init)
}

/** Where the server copies its log to. */
export function archiveOf(folder: string): string {
  return join(folder, 'archive')
}

/** Fails if the shipper ends before it is told to. */
export async function measureShipping(given: ShippedMeasure): Promise<void> {
  const { cluster, rounds, samples, note } = given
  const shipper = await startShipper(given)
  await measure(cluster.scratch, given.repository.full)
  runSql(cluster, [
    `alter system set synchronous_standby_names = '${shipperName}'`,
    'select pg_reload_conf()',
  ])
  for (let round = 1; round <= rounds; round++) {
    const load = startLoad(cluster)
    const found = await probe(cluster, shipper, load.ended)
    const p99 = { commitToSpool: percentile(found.spool), commitToRepository: percentile(found.repository) }
    for (const row of ['commitToSpool', 'commitToRepository'] as const)
      samples.push({ row, round, value: p99[row] })
    const spool = `${(p99.commitToSpool * 1000).toFixed(1)} ms`
    const count = `${found.spool.length} commits`
    const stored = `${p99.commitToRepository.toFixed(2)} s`
    note(`round ${round}/${rounds} commit to spool ${spool}, to repository ${stored}, ${count}`)
  }
  runSql(cluster, ['alter system reset synchronous_standby_names', 'select pg_reload_conf()'])
  const value = peakBytes(shipper)
  samples.push({ row: 'shippingMemory' satisfies LogRowName, round: 1, value })
  note(`shipping: ${(value / 1e6).toFixed(0)} MB`)
  await stopShipper(shipper)
}

export interface Shipper {
  process: ChildProcess
  /** Resolves when all before `lsn` is in the repository. */
  reached: (lsn: bigint) => Promise<void>
}

/** Resolves when it receives. */
export async function startShipper({ repository, cluster }: ShippedMeasure): Promise<Shipper> {
  const child = spawnCommand(cluster, repository.ship)
  let [shipped, isReceiving, hasEnded] = [0n, false, false]
  const waiting = new Set<() => void>()
  const wake = () => {
    for (const look of waiting) look()
  }
  const until = async (holds: () => boolean) => {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const look = () => {
      if (holds()) resolve()
      else if (hasEnded) reject(new Error('The shipper has ended'))
    }
    waiting.add(look)
    look()
    await promise.finally(() => waiting.delete(look))
  }
  createInterface({ input: child.stdout! }).on('line', (line) => {
    const event: unknown = JSON.parse(line)
    if (typeof event !== 'object' || event === null) return
    const [kind, to] = [Reflect.get(event, 'kind'), Reflect.get(event, 'to')]
    if (kind === 'connected') isReceiving = true
    if (kind === 'shipped') shipped = BigInt(String(to))
    wake()
  })
  child.on('exit', () => {
    hasEnded = true
    wake()
  })
  await until(() => isReceiving)
  return { process: child, reached: (lsn) => until(() => shipped >= lsn) }
}

export async function stopShipper({ process: child }: Shipper): Promise<void> {
  if (child.exitCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  const [code] = await ended
  if (code !== 0) throw new Error(`The shipper ended with ${code}`)
}

/** In a process group that ends with the bench. */
function spawnCommand(
  cluster: Cluster,
  { argv: [program = '', ...args], env, folder }: Command,
): ChildProcess {
  const child = spawn(program, args, {
    cwd: folder,
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  })
  const { groups } = cluster.scratch
  const group = child.pid
  if (group !== undefined) {
    groups.add(group)
    child.on('exit', () => groups.delete(group))
  }
  return child
}

/** pgbench, whose commits wait for the server's own disk only. */
function startLoad(cluster: Cluster): { ended: Promise<void> } {
  const { uid, gid } = cluster.user
  const load = [`--client=${loadClients}`, `--rate=${loadRate}`, `--time=${loadSeconds}`, '--no-vacuum']
  const child = spawn(join(cluster.programs, 'pgbench'), [...placeOf(cluster), ...load, 'postgres'], {
    uid,
    gid,
    cwd: cluster.folder,
    env: { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', PGOPTIONS: '-c synchronous_commit=local' },
    stdio: 'ignore',
  })
  const ended = once(child, 'exit').then(([code]) => {
    if (code !== 0) throw new Error(`pgbench ended with ${String(code)}`)
  })
  return { ended }
}

/** Seconds from the beginning of each commit. */
async function probe(
  { port }: Cluster,
  shipper: Shipper,
  loadEnded: Promise<void>,
): Promise<{ spool: number[]; repository: number[] }> {
  const client = new Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' })
  await client.connect()
  const found: { spool: number[]; repository: number[] } = { spool: [], repository: [] }
  const arriving: Promise<void>[] = []
  const end = new AbortController()
  const over = loadEnded.finally(() => end.abort())
  while (!end.signal.aborted) {
    const begun = performance.now()
    await client.query('insert into probe default values')
    found.spool.push((performance.now() - begun) / 1000)
    const { rows } = await client.query<{ at: string }>(
      "select (pg_current_wal_flush_lsn() - '0/0')::text as at",
    )
    const arrived = shipper.reached(BigInt(rows[0]?.at ?? 0)).then(() => {
      found.repository.push((performance.now() - begun) / 1000)
    })
    arriving.push(arrived)
    await sleep(probePauseMs)
  }
  await over
  await client.end()
  const late = sleep(lateMsMax, 'late', { ref: false })
  if ((await Promise.race([Promise.all(arriving), late])) === 'late')
    throw new Error('The shipper does not ship what was committed')
  return found
}

/** The 99th. */
function percentile(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.ceil(sorted.length * 0.99) - 1] ?? NaN
}

/** The most it had in memory since it started. */
function peakBytes({ process: { pid } }: Shipper): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024
}
