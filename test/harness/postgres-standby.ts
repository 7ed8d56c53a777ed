/** More servers from one: standbys that can be promoted, and copies of a data folder to go back to. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, chownSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, query, runAs, sql, startPostgres, type PostgresServer } from './postgres.ts'

/** With a blank up to version 13. */
const READY_TO_READ = /database system is ready to accept read.only connections/
const REPLAY_MS_MAX = 20_000

/** A hot standby that streams from `primary`. End with dropPostgres(). */
export async function makeStandby(primary: PostgresServer): Promise<PostgresServer> {
  const dir = mkdtempSync(join(tmpdir(), 'backstock-pg-'))
  const { uid, gid } = statSync(primary.data)
  chownSync(dir, uid, gid)
  const data = join(dir, 'data')
  const place = ['--host', '127.0.0.1', '--port', String(primary.port), '--username', 'postgres']
  runAs('pg_basebackup', [
    ...place,
    '--pgdata',
    data,
    '--checkpoint=fast',
    '--write-recovery-conf',
    '--no-sync',
  ])
  const port = await freePort()
  const settings = [`port = ${port}`, `unix_socket_directories = '${dir}'`]
  appendFileSync(join(data, 'postgresql.conf'), `${settings.join('\n')}\n`)
  const standby: PostgresServer = { dir, data, port, major: primary.major, process: undefined }
  await startStandby(standby)
  return standby
}

/** Resolves when it takes connections that read. */
export async function startStandby(standby: PostgresServer): Promise<void> {
  await startPostgres(standby, READY_TO_READ)
}

/** Resolves when the standby has replayed what the primary has written by now; it is asked again and again. */
export async function untilReplayed(standby: PostgresServer, primary: PostgresServer): Promise<void> {
  const [end = ''] = await query(primary, 'select pg_current_wal_lsn()')
  const late = Date.now() + REPLAY_MS_MAX
  while ((await query(standby, `select pg_last_wal_replay_lsn() >= '${end}'`))[0] !== 't')
    if (Date.now() > late) throw new Error(`the standby does not replay up to ${end}`)
}

/** Makes a standby a server of its own, on the next timeline. */
export function promote(standby: PostgresServer): void {
  sql(standby, 'select pg_promote()')
}

/** Kills the server and all its processes, as a crash of the system does. */
export async function killPostgres(server: PostgresServer): Promise<void> {
  const child = server.process
  server.process = undefined
  if (child?.pid === undefined) return
  const { pid } = child
  const ended = once(child, 'exit')
  // Stopped, it starts no more of them meanwhile.
  child.kill('SIGSTOP')
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')
  for (const one of children) process.kill(Number(one), 'SIGKILL')
  child.kill('SIGKILL')
  await ended
}

/** Keeps the data folder of a stopped server beside it; returns where. */
export function copyData(server: PostgresServer): string {
  const copy = join(server.dir, 'copy')
  execFileSync('cp', ['-a', server.data, copy])
  return copy
}

/** Goes back to a copy; the server must be stopped. */
export function restoreData(server: PostgresServer, copy: string): void {
  rmSync(server.data, { recursive: true })
  execFileSync('cp', ['-a', copy, server.data])
}
