/**
 * A real PostgreSQL server for tests, Debian's or npm's: on a free port of 127.0.0.1, with a data folder of
 * its own, run as the user `postgres` where the test is root (the server refuses root), ended by its pid.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Client } from 'pg'
import { packagedFolder } from './postgres-packages.ts'

export interface PostgresServer {
  readonly dir: string
  readonly data: string
  readonly port: number
  /** Version before the first dot. */
  readonly major: number
  /** Variables that the server runs with, besides ours. */
  readonly env?: Readonly<Record<string, string>>
  /** Of the server itself, while it runs. */
  process: ChildProcess | undefined
}

export interface PostgresOptions {
  /** Before the first dot; undefined: Debian's newest. */
  readonly version?: number
  /** Of pages: undefined is yes. */
  readonly checksums?: boolean
  /** Lines for postgresql.conf. */
  readonly settings?: readonly string[]
  readonly initdb?: readonly string[]
  readonly env?: PostgresServer['env']
}

const DEBIAN = '/usr/lib/postgresql'
/** From then on initdb makes them unless it is told not to. */
const CHECKSUMS_USUAL = 18
const READY = /database system is ready to accept connections/
/** A program that waits for ever must fail its test, whose own time-out cannot end it. */
const PROGRAM_MS_MAX = 60_000

/**
 * The folder of Debian's newest server, or of one of that version; undefined if there is none: then tests
 * that need it are skipped.
 */
export function postgresFolder(version?: number): string | undefined {
  if (version !== undefined) {
    const folder = join(DEBIAN, String(version), 'bin')
    return existsSync(join(folder, 'postgres')) ? folder : packagedFolder(version)
  }
  if (!existsSync(DEBIAN)) return undefined
  const versions = readdirSync(DEBIAN).filter((name) => existsSync(join(DEBIAN, name, 'bin/postgres')))
  const newest = versions.toSorted((a, b) => Number(a) - Number(b)).at(-1)
  return newest === undefined ? undefined : join(DEBIAN, newest, 'bin')
}

/** Makes a cluster and starts it. End with dropPostgres(). */
export async function makePostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const dir = mkdtempSync(join(tmpdir(), 'backstock-pg-'))
  const { uid, gid } = serverUser()
  chownSync(dir, uid, gid)
  const data = join(dir, 'data')
  const { version, checksums = true, initdb = [] } = options
  const flags = ['--pgdata', data, '--username', 'postgres', '--no-sync', '--auth=trust']
  if (checksums) flags.push('--data-checksums')
  else if (version !== undefined && version >= CHECKSUMS_USUAL) flags.push('--no-data-checksums')
  runAs('initdb', [...flags, '--encoding=UTF8', '--no-locale', ...initdb], version)
  const port = await freePort()
  const settings = [
    `port = ${port}`,
    "listen_addresses = '127.0.0.1'",
    `unix_socket_directories = '${dir}'`,
    'fsync = off',
    'wal_level = replica',
    'autovacuum = off',
    ...(options.settings ?? []),
  ]
  appendFileSync(join(data, 'postgresql.conf'), `${settings.join('\n')}\n`)
  const major = Number.parseInt(readFileSync(join(data, 'PG_VERSION'), 'utf8'))
  const { env = {} } = options
  const server: PostgresServer = { dir, data, port, major, env, process: undefined }
  await startPostgres(server)
  return server
}

/** Resolves when it takes connections, or says what `ready` looks for. */
export async function startPostgres(server: PostgresServer, ready = READY): Promise<void> {
  const child = spawn(programPath('postgres', server.major), ['-D', server.data], {
    ...serverUser(),
    cwd: server.dir,
    env: { ...process.env, ...server.env },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  server.process = child
  const lines: string[] = []
  for await (const line of createInterface({ input: child.stderr })) {
    lines.push(line)
    if (!ready.test(line)) continue
    child.stderr.resume()
    return
  }
  throw new Error(`PostgreSQL does not start:\n${lines.join('\n')}`)
}

/** SIGINT: ends connections and writes a checkpoint ("fast"). */
export async function stopPostgres(server: PostgresServer, signal: NodeJS.Signals = 'SIGINT'): Promise<void> {
  const child = server.process
  server.process = undefined
  if (child === undefined || child.exitCode !== null) return
  const ended = once(child, 'exit')
  child.kill(signal)
  await ended
}

export async function dropPostgres(server: PostgresServer): Promise<void> {
  await stopPostgres(server, 'SIGQUIT')
  rmSync(server.dir, { recursive: true, force: true })
}

/** Runs statements in one session and gives the rows of the last, columns joined by "|". */
export function sql(server: PostgresServer, ...statements: readonly string[]): string[] {
  const commands = statements.flatMap((statement) => ['--command', statement])
  const flags = ['--no-psqlrc', '--no-align', '--tuples-only', '--quiet', '--set=ON_ERROR_STOP=1']
  const place = ['--host', '127.0.0.1', '--port', String(server.port), '--username', 'postgres']
  const out = execFileSync(programPath('psql'), [...flags, ...place, ...commands], {
    timeout: PROGRAM_MS_MAX,
    encoding: 'utf8',
    env: { PATH: process.env['PATH'] },
  })
  return out.split('\n').filter((line) => line !== '')
}

/** Likewise, by the library `pg`, for where there is no psql; each statement by itself. */
export async function query(
  { port }: Pick<PostgresServer, 'port'>,
  ...statements: readonly string[]
): Promise<string[]> {
  const client = new Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' })
  await client.connect()
  try {
    let rows: (string | null)[][] = []
    const types = { getTypeParser: () => (value: string) => value }
    for (const text of statements)
      ({ rows } = await client.query<(string | null)[]>({ text, rowMode: 'array', types }))
    return rows.map((row) => row.map((column) => column ?? '').join('|'))
  } finally {
    await client.end()
  }
}

/** Runs a program of the server's package, as of that version, and gives what it prints. */
export function runAs(program: string, args: readonly string[], version?: number): string {
  return execFileSync(programPath(program, version), args, {
    ...serverUser(),
    cwd: '/',
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

function programPath(program: string, version?: number): string {
  const folder = postgresFolder(version)
  if (folder === undefined) throw new Error(`PostgreSQL ${version ?? ''} is not installed`)
  return join(folder, program)
}

function serverUser(): { uid: number; gid: number } {
  const [uid = 0, gid = 0] = [process.getuid?.(), process.getgid?.()]
  if (uid !== 0) return { uid, gid }
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith('postgres:'))
  const fields = line?.split(':') ?? []
  return { uid: Number(fields[2]), gid: Number(fields[3]) }
}

/** Of 127.0.0.1, as the system gives it out. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const address = probe.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  probe.close()
  await once(probe, 'close')
  return port
}
