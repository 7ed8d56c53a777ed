/**
 * A server on a restored copy that reaches nothing outside of its scratch folder: it is started with a
 * configuration of its own, never with that of the copy; it listens on a Unix socket in that folder only, no
 * background worker of an extension runs in it, and it archives and replicates nothing. Whoever cancels must
 * end it by endServer(): functions here only look whether they were cancelled.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Failure } from '../base/failure.ts'
import { randomHex } from '../base/random.ts'
import type { ReplayLimits } from '../sources/postgres/control-file.ts'
import type { ServerPlace } from '../sources/postgres/replication.ts'
import type { ServerUser } from './boot-programs.ts'
import { throwIfCancelled } from './check-threads.ts'

export interface BootServer {
  /** The folder of `postgres`. */
  readonly bin: string
  readonly major: number
  readonly user: ServerUser | undefined
  /** Holds the data folder and all else (boot-folder.ts). */
  readonly folder: string
  readonly limits: ReplayLimits
  /** Superuser of the copy, made by prepareServer(). */
  readonly role: string
  /** shared_preload_libraries that this host has; fewer after startServer() has left some out. */
  preload: readonly string[]
  process: ChildProcess | undefined
  /** The last lines that it said. */
  readonly said: string[]
}

const PORT = 5432
const READY = /database system is ready to accept connections/
const REDO = /redo starts|starting .*recovery/
const NO_LIBRARY = /could not (?:access file|load library) "([^"]+)"/
const PROBLEM = /\b(?:FATAL|PANIC|ERROR):/
const SAID_MAX = 200
const CONNECT_MS_MAX = 30_000
/** Of util-linux, on each Linux that is no container image cut to the bone. */
const SETPRIV = '/usr/bin/setpriv'
/** Sockets have short names: 107 bytes on Linux, 103 elsewhere. */
const SOCKET_BYTES_MAX = 103
/** From then on it takes `event_triggers`, which also stops triggers on login. */
const HAS_EVENT_SETTING = 17
/** Single-user mode lets itself in everywhere, but the database must be there. */
const DATABASES = ['template1', 'template0', 'postgres']

/** Nothing runs yet. Fails: host.unsupported when the folder's name is too long for a socket. */
export function newBootServer(
  of: Pick<BootServer, 'bin' | 'major' | 'user' | 'folder' | 'limits' | 'preload'>,
): BootServer {
  const socket = join(socketFolder(of), `.s.PGSQL.${PORT}`)
  if (Buffer.byteLength(socket) > SOCKET_BYTES_MAX)
    throw new Failure(
      'host.unsupported',
      `Cannot start a server in "${of.folder}": its socket has a name of more than ${SOCKET_BYTES_MAX} bytes`,
      { facts: { hint: 'Choose a folder with a shorter name: --scratch FOLDER.' } },
    )
  return { ...of, role: `backstock_boot_${randomHex(6)}`, process: undefined, said: [] }
}

export function dataFolder({ folder }: Pick<BootServer, 'folder'>): string {
  return join(folder, 'data')
}

export function socketFolder({ folder }: Pick<BootServer, 'folder'>): string {
  return join(folder, 's')
}

/** The server only reads there. */
export function configFolder({ folder }: Pick<BootServer, 'folder'>): string {
  return join(folder, 'c')
}

/** Where it is found, once it is prepared and started. */
export function bootPlace(server: BootServer): ServerPlace {
  const { role: user } = server
  const connectTimeoutMs = CONNECT_MS_MAX
  return { host: socketFolder(server), port: PORT, user, password: undefined, tls: false, connectTimeoutMs }
}

/**
 * Resolves when it has recovered and takes connections. Preload libraries that keep it from starting are left
 * out: `server.preload` says which are left. Fails: source.failed with what it said, cancelled.
 */
export async function startServer(server: BootServer, signal: AbortSignal | undefined): Promise<void> {
  for (;;) {
    writeSettings(server)
    if (await tryStart(server)) return
    throwIfCancelled(signal)
    const { said } = server
    const lacking = said.map((line) => NO_LIBRARY.exec(line)?.[1]).find((name) => name !== undefined)
    const left = server.preload.filter((name) => name !== lacking)
    const isLibrary = left.length < server.preload.length
    if (server.preload.length === 0 || (!isLibrary && said.some((line) => REDO.test(line))))
      throw new Failure('source.failed', `the server does not start: ${lastWords(server)}`)
    server.preload = isLibrary ? left : []
  }
}

/** Ends it in order, so that all it knows is in its files. Fails: source.failed, cancelled. */
export async function stopServer(server: BootServer, signal: AbortSignal | undefined): Promise<void> {
  const child = server.process
  if (child === undefined) return
  await endProcess(child, 'SIGINT')
  server.process = undefined
  throwIfCancelled(signal)
  if (child.exitCode !== 0)
    throw new Failure('source.failed', `the server does not stop in order: ${lastWords(server)}`)
}

/** Tells it to end at once, whatever it does, and does not wait. */
export function endServer(server: BootServer): void {
  server.process?.kill('SIGQUIT')
}

/** Ends it at once; harmless when it has ended. */
export async function killServer(server: BootServer): Promise<void> {
  const child = server.process
  server.process = undefined
  if (child !== undefined) await endProcess(child, 'SIGQUIT')
}

/**
 * Makes the stopped copy enterable: a superuser whose name nobody has, all databases open, no settings of
 * roles and databases, no subscriptions. Fails: source.failed, cancelled.
 */
export async function prepareServer(server: BootServer, signal: AbortSignal | undefined): Promise<void> {
  const statements = [
    'set default_transaction_read_only = off',
    `create role "${server.role}" superuser login`,
    // -2: a database whose removal was cut off.
    'update pg_catalog.pg_database set datallowconn = true where datconnlimit <> -2',
    'delete from pg_catalog.pg_db_role_setting',
    'update pg_catalog.pg_subscription set subenabled = false',
  ]
  for (const database of DATABASES) {
    if (await runSingle(server, database, statements)) return
    throwIfCancelled(signal)
  }
  throw new Failure('source.failed', `the server does not run in single-user mode: ${lastWords(server)}`)
}

/** What it said last that tells of a problem; else the last line. */
export function lastWords({ said }: BootServer): string {
  const problems = said.filter((line) => PROBLEM.test(line))
  const lines = problems.length === 0 ? said.slice(-1) : problems.slice(-2)
  const text = lines.map((line) => line.replace(/^.*?(?=\b(?:FATAL|PANIC|ERROR):)/, '')).join('; ')
  return text === '' ? 'it says nothing' : text
}

/** Resolves to whether it is ready; when it is not, it has ended. */
async function tryStart(server: BootServer): Promise<boolean> {
  const child = spawnServer(server, ['-D', dataFolder(server)], 'ignore')
  server.process = child
  const isReady = await new Promise<boolean>((resolve) => {
    listen(server, child, (line) => {
      if (READY.test(line)) resolve(true)
    })
    child.once('close', () => resolve(false))
  })
  if (!isReady) server.process = undefined
  return isReady
}

/** Resolves to whether the server ran; statements that failed are in `said` only. */
async function runSingle(
  server: BootServer,
  database: string,
  statements: readonly string[],
): Promise<boolean> {
  const child = spawnServer(server, ['--single', '-D', dataFolder(server)], 'pipe', database)
  server.process = child
  listen(server, child, () => undefined)
  // It may end before it has read them.
  child.stdin?.on('error', () => undefined)
  child.stdin?.end(statements.map((text) => `${text}\n`).join(''))
  await new Promise((resolve) => child.once('close', resolve))
  server.process = undefined
  return child.exitCode === 0
}

function spawnServer(
  { bin, user, folder }: BootServer,
  flags: readonly string[],
  stdin: 'ignore' | 'pipe',
  ...rest: readonly string[]
): ChildProcess {
  const settings = ['-c', `config_file=${join(configFolder({ folder }), 'postgresql.conf')}`]
  const program = join(bin, 'postgres')
  // Where there is such a program, the server ends even if we are killed.
  const [first = program, ...words] = existsSync(SETPRIV) ? [SETPRIV, '--pdeathsig', 'QUIT', program] : []
  return spawn(first, [...words, ...flags, ...settings, ...rest], {
    ...user,
    cwd: folder,
    env: { LC_ALL: 'C', TZ: 'UTC' },
    stdio: [stdin, 'ignore', 'pipe'],
    // A Ctrl-C at the terminal is for us; we end it in our order.
    detached: true,
  })
}

function listen(server: BootServer, child: ChildProcess, onLine: (line: string) => void): void {
  const { said } = server
  said.length = 0
  child.once('error', (error) => said.push(`FATAL: ${error.message}`))
  if (child.stderr === null) return
  createInterface({ input: child.stderr }).on('line', (line) => {
    said.push(line)
    if (said.length > SAID_MAX) said.shift()
    onLine(line)
  })
}

async function endProcess(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill(signal)
  await ended
}

/** The configuration of the copy counts for nothing but its preload libraries, and what its log demands. */
function writeSettings(server: BootServer): void {
  const { limits, preload, role, major } = server
  const folder = configFolder(server)
  const settings: Record<string, string | number> = {
    listen_addresses: '',
    unix_socket_directories: socketFolder(server),
    unix_socket_permissions: '0700',
    port: PORT,
    hba_file: join(folder, 'pg_hba.conf'),
    ident_file: join(folder, 'pg_ident.conf'),
    // Before it has recovered nobody has business in it; so no limits of the primary's count but these two.
    hot_standby: 'off',
    max_prepared_transactions: limits.max_prepared_transactions,
    max_locks_per_transaction: limits.max_locks_per_transaction,
    max_connections: 20,
    shared_preload_libraries: preload.map((name) => `"${name}"`).join(', '),
    // None of them, of the server or of an extension (cron jobs, subscriptions, parallel queries).
    max_worker_processes: 0,
    max_logical_replication_workers: 0,
    max_wal_senders: 0,
    autovacuum: 'off',
    session_replication_role: 'replica',
    archive_mode: 'off',
    restart_after_crash: 'off',
    // The copy is thrown away.
    fsync: 'off',
    synchronous_commit: 'off',
    full_page_writes: 'off',
    jit: 'off',
    lc_messages: 'C',
    log_timezone: 'UTC',
  }
  if (major >= HAS_EVENT_SETTING) settings['event_triggers'] = 'off'
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${quoted(String(value))}\n`)
  const texts = {
    'postgresql.conf': lines.join(''),
    'pg_hba.conf': `local all "${role}" trust\n`,
    'pg_ident.conf': '',
  }
  for (const [name, text] of Object.entries(texts)) {
    writeFileSync(join(folder, name), text)
    // Whatever the umask is: the server is another user.
    chmodSync(join(folder, name), 0o644)
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`
}
