/**
 * A PostgreSQL cluster of a shop, made and run by the bench: pgbench tables, and `orders` with its indexes.
 * The server is the user postgres where the bench is root, listens on 127.0.0.1 alone, and fsyncs. Its
 * settings are PostgreSQL's own except for those that keep it from working beside what is measured.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { endGroup, type Scratch } from '../scratch.ts'

export interface Cluster {
  scratch: Scratch
  folder: string
  data: string
  port: number
  programs: string
  user: ServerUser
  process: ChildProcess | undefined
}

/** Who the server and the programs that read its files are. */
export interface ServerUser {
  uid: number
  gid: number
  /** What a command that runs as this user begins with. */
  prefix: string[]
}

const debianFolder = '/usr/lib/postgresql'
const readyText = /database system is ready to accept connections/
const pgbenchScaleFull = 100
const orderCountFull = 2_500_000
const fieldCount = 4

/** The folder of Debian's newest server. Fails, saying how to get it. */
export function findPostgres(): string {
  const versions = existsSync(debianFolder) ? readdirSync(debianFolder) : []
  const found = versions
    .filter((name) => existsSync(join(debianFolder, name, 'bin/postgres')))
    .toSorted((a, b) => Number(a) - Number(b))
    .at(-1)
  if (found === undefined) throw new Error('Cannot find PostgreSQL (install it: apt-get install postgresql)')
  return join(debianFolder, found, 'bin')
}

/** Makes the cluster, empty, with page checksums. */
export async function makeCluster(scratch: Scratch, folder: string): Promise<Cluster> {
  const user = serverUser()
  mkdirSync(folder)
  chownSync(folder, user.uid, user.gid)
  const data = join(folder, 'data')
  const cluster: Cluster = {
    scratch,
    folder,
    data,
    port: await freePort(),
    programs: findPostgres(),
    user,
    process: undefined,
  }
  const flags = [
    '--username',
    'postgres',
    '--auth=trust',
    '--encoding=UTF8',
    '--no-locale',
    '--data-checksums',
  ]
  runProgram(cluster, 'initdb', ['--pgdata', data, ...flags])
  addSettings(cluster, [
    `port = ${cluster.port}`,
    "listen_addresses = '127.0.0.1'",
    `unix_socket_directories = '${folder}'`,
    'autovacuum = off',
    'max_wal_size = 8GB',
    'checkpoint_timeout = 1h',
  ])
  return cluster
}

/** Lines of postgresql.conf, for the next start. */
export function addSettings(cluster: Cluster, lines: string[]): void {
  appendFileSync(join(cluster.data, 'postgresql.conf'), `${lines.join('\n')}\n`)
}

/** Resolves when it takes connections. Ended by stopCluster(), at the latest with the bench. */
export async function startCluster(cluster: Cluster): Promise<void> {
  const { uid, gid } = cluster.user
  const child = spawn(join(cluster.programs, 'postgres'), ['-D', cluster.data], {
    uid,
    gid,
    cwd: cluster.folder,
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
  })
  cluster.process = child
  if (child.pid !== undefined) cluster.scratch.groups.add(child.pid)
  const lines: string[] = []
  for await (const line of createInterface({ input: child.stderr })) {
    lines.push(line)
    if (!readyText.test(line)) continue
    child.stderr.resume()
    return
  }
  throw new Error(`Cannot start PostgreSQL:\n${lines.join('\n')}`)
}

/** Ends connections and writes a checkpoint. */
export async function stopCluster(cluster: Cluster): Promise<void> {
  const child = cluster.process
  cluster.process = undefined
  if (child?.pid === undefined || child.exitCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGINT')
  await ended
  cluster.scratch.groups.delete(child.pid)
  endGroup(child.pid)
}

/** Fills it: 2.1 GB at scale 1, written to disk when it returns. */
export function fillCluster(cluster: Cluster, scale: number): void {
  const pgbenchScale = Math.max(1, Math.round(pgbenchScaleFull * scale))
  const orderCount = Math.round(orderCountFull * scale)
  runProgram(cluster, 'pgbench', [...placeOf(cluster), '--initialize', '--quiet', `--scale=${pgbenchScale}`])
  runSql(cluster, [
    `create table orders (id bigint primary key, customer int not null, created timestamptz not null,
       status text not null, total numeric(10, 2) not null, reference text not null, note text)`,
    `insert into orders select n, (n * 7919::bigint) % 200000, timestamptz '2026-01-01' + n * interval '7 s',
       (array['new', 'paid', 'shipped', 'done'])[1 + n % 4], (n % 50000) / 100.0, md5(n::text),
       'order ' || md5((n * 31)::text) from generate_series(1, ${orderCount}) n`,
    'create index on orders (customer)',
    'create index on orders (created)',
    'create index on orders (reference)',
    'vacuum analyze',
    'checkpoint',
  ])
}

/** Runs statements and gives the rows of the last, columns joined by "|". */
export function runSql(cluster: Cluster, statements: string[]): string[] {
  const commands = statements.flatMap((statement) => ['--command', statement])
  const flags = ['--no-psqlrc', '--no-align', '--tuples-only', '--quiet', '--set=ON_ERROR_STOP=1']
  const out = runProgram(cluster, 'psql', [...placeOf(cluster), ...flags, ...commands])
  return out.split('\n').filter((line) => line !== '')
}

/** Runs a program of the server's package as the server's user. */
export function runProgram(cluster: Cluster, program: string, args: string[]): string {
  const { uid, gid } = cluster.user
  return execFileSync(join(cluster.programs, program), args, {
    uid,
    gid,
    cwd: cluster.folder,
    env: { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8' },
    encoding: 'utf8',
    maxBuffer: 1 << 26,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/** Options that lead a client to it. */
export function placeOf(cluster: Cluster): string[] {
  return ['--host', '127.0.0.1', '--port', String(cluster.port), '--username', 'postgres']
}

/** Processor time of the server's processes that have ended. */
export function endedCpuSeconds(cluster: Cluster): number {
  const pid = cluster.process?.pid
  if (pid === undefined) return 0
  // Behind the name in brackets: state, ppid, ..., utime, stime, cutime, cstime in hundredths of a second.
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ')
  const [user = 0, system = 0] = fields.slice(13, 15).map(Number)
  return (user + system) / 100
}

function serverUser(): ServerUser {
  const [uid = 0, gid = 0] = [process.getuid?.(), process.getgid?.()]
  if (uid !== 0) return { uid, gid, prefix: [] }
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith('postgres:'))
  const fields = line?.split(':') ?? []
  if (fields.length < fieldCount) throw new Error('Cannot run PostgreSQL: there is no user postgres')
  const prefix = ['/usr/bin/setpriv', '--reuid=postgres', '--regid=postgres', '--init-groups', '--']
  return { uid: Number(fields[2]), gid: Number(fields[3]), prefix }
}

/** Nobody listens there now. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const address = probe.address()
  probe.close()
  await once(probe, 'close')
  return typeof address === 'object' && address !== null ? address.port : 0
}
