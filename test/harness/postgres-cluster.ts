/** A cluster backed up, shipped, restored and started again, for tests of the whole way. */
import { appendFileSync, chownSync, mkdtempSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { ship, type ShipEvent } from '../../src/backup/ship.ts'
import { systemClock } from '../../src/base/clock.ts'
import {
  restoreCluster,
  type ClusterRestoreOptions,
  type ClusterRestoreSummary,
} from '../../src/recovery/restore-cluster.ts'
import { parseLsn, type Lsn } from '../../src/sources/postgres/lsn.ts'
import { postgresSource } from '../../src/sources/postgres/postgres.ts'
import { openReplication, type Replication } from '../../src/sources/postgres/replication.ts'
import { walSource } from '../../src/sources/postgres/wal-feed.ts'
import type { Source } from '../../src/sources/source.ts'
import { snapshotOf, type TestRepository } from './engine.ts'
import { sql, startPostgres, stopPostgres, type PostgresServer } from './postgres.ts'

const STOP_MS_MAX = 20_000

/** Of the server that `current` says now. */
export function clusterSource(current: () => PostgresServer, name = 'orders'): Source {
  return postgresSource(name, {
    connect: () => connectTo(current()),
    checkpoint: 'fast',
    rateBytesMax: undefined,
    now: () => Date.now(),
  })
}

async function connectTo({ port }: PostgresServer): Promise<Replication> {
  const place = { host: '127.0.0.1', port, user: 'postgres', password: undefined, tls: false } as const
  return await openReplication({ ...place, connectTimeoutMs: 5000 })
}

export interface RunningShip {
  /** Resolves when the repository has the log up to there. */
  readonly reached: (lsn: Lsn) => Promise<void>
  readonly stop: () => Promise<void>
}

/** Ships the log of the server that `current` says, or of the inbox of the spool, until it is stopped. */
export function startShip(
  repository: TestRepository,
  current: () => PostgresServer,
  { isArchived = false } = {},
): RunningShip {
  const end = new AbortController()
  let shipped = 0n
  let failure: unknown
  const waiting = new Set<() => void>()
  const wake = (): void => {
    for (const call of waiting) call()
  }
  const onEvent = (event: ShipEvent): void => {
    if (event.kind === 'shipped' && event.to > shipped) shipped = event.to
    wake()
  }
  const source = walSource('orders', {
    server: isArchived ? undefined : { connect: () => connectTo(current()), slot: 'backstock' },
    spoolBytesMax: 4 * 1024 ** 3,
    readNames: undefined,
    clock: systemClock,
  })
  const options = { spool: spoolOf(repository), clock: systemClock, signal: end.signal, onEvent }
  const timing = { flushMs: 100, retryMsMin: 20 }
  const running = ship(repository.access, source, { ...options, timing }).catch((error: unknown) => {
    failure = error
    wake()
  })
  return {
    reached: async (lsn) => {
      await new Promise<void>((resolve) => {
        const look = (): void => {
          if (shipped < lsn && failure === undefined) return
          waiting.delete(look)
          resolve()
        }
        waiting.add(look)
        look()
      })
      if (failure !== undefined) throw failure
    },
    stop: async () => {
      end.abort()
      const late = new Promise<'late'>((resolve) => {
        setTimeout(resolve, STOP_MS_MAX, 'late').unref()
      })
      if ((await Promise.race([running, late])) === 'late') throw new Error('the shipper does not stop')
      if (failure !== undefined) throw failure
    },
  }
}

/** The spool of startShip(). */
export function spoolOf(repository: TestRepository): string {
  return join(repository.folder, 'spool')
}

/** Where the log of the server ends now. */
export function logEnd(server: PostgresServer): Lsn {
  return parseLsn(sql(server, 'SELECT pg_current_wal_flush_lsn()')[0] ?? '')
}

/** Restores into a new folder beside the server's, with tablespaces below it. */
export async function restoreBeside(
  repository: TestRepository,
  server: PostgresServer,
  snapshot: string | undefined,
  options: Partial<ClusterRestoreOptions> = {},
): Promise<{ back: PostgresServer; summary: ClusterRestoreSummary }> {
  const dir = mkdtempSync(join(server.dir, 'back-'))
  const { uid, gid } = statSync(server.data)
  chownSync(dir, uid, gid)
  const data = join(dir, 'data')
  const { access, host } = repository
  const summary = await restoreCluster(access, host, await snapshotOf(repository, snapshot), {
    to: data,
    tablespaceMap: new Map(),
    goal: undefined,
    timeline: undefined,
    dryRun: false,
    noOwner: false,
    workers: 0,
    clock: systemClock,
    ...options,
  })
  return { back: { ...server, dir, data, process: undefined }, summary }
}

/** Starts a restored cluster on a port of its own, waits until it takes writes, looks, and stops it. */
export async function whileStarted(
  back: PostgresServer,
  port: number,
  look: (server: PostgresServer) => void | Promise<void>,
): Promise<void> {
  const settings = [`port = ${port}`, "unix_socket_directories = ''", '']
  appendFileSync(join(back.data, 'postgresql.conf'), settings.join('\n'))
  const server = { ...back, port }
  await startPostgres(server)
  try {
    await look(server)
  } finally {
    await stopPostgres(server)
  }
}
