/**
 * Customers of the demo's live shop: orders come in all the time, and each that was acknowledged is written
 * down.
 */
import { setTimeout } from 'node:timers/promises'
import { isFailure } from '../../base/failure.ts'
import { closeSql, openSql, runSql, type SqlSession } from '../../sources/postgres/sql-session.ts'
import type { Cluster } from './cluster.ts'

export interface LiveShop {
  /** Ids of acknowledged orders. */
  readonly acknowledged: Set<number>
  /** Ends the customers; those under way are answered, or not. */
  readonly close: () => Promise<void>
}

const TABLE = `create table public.orders (
  id bigint primary key, at timestamptz not null default clock_timestamp(), total int not null, note text)`
const ORDER = 'insert into public.orders values ($1::bigint, default, $2, repeat(md5($1::bigint::text), 8))'
const PAUSE_MS = 2

export async function connectShop({ port }: Cluster): Promise<SqlSession> {
  const place = { host: '127.0.0.1', port, user: 'postgres', password: undefined, tls: false } as const
  return await openSql({ ...place, connectTimeoutMs: 10_000 }, 'postgres')
}

/** Opens with `count` orders that were placed before. */
export async function openLiveShop(cluster: Cluster, count: number): Promise<LiveShop> {
  const session = await connectShop(cluster)
  await runSql(session, TABLE)
  const rows = 'select n, clock_timestamp(), n % 90, repeat(md5(n::text), 8)'
  const before = `insert into public.orders ${rows} from generate_series(1, $1) n`
  await runSql(session, before, [count])
  const acknowledged = new Set(Array.from({ length: count }, (_, n) => n + 1))
  const end = new AbortController()
  const running = takeOrders(session, acknowledged, end.signal)
  return {
    acknowledged,
    close: async () => {
      end.abort()
      await running
      await closeSql(session)
    },
  }
}

/** One after the other; a server that is gone ends it. */
async function takeOrders(
  session: SqlSession,
  acknowledged: Set<number>,
  signal: AbortSignal,
): Promise<void> {
  try {
    for (let id = acknowledged.size + 1; !signal.aborted; id++) {
      await runSql(session, ORDER, [id, id % 90])
      acknowledged.add(id)
      await setTimeout(PAUSE_MS)
    }
  } catch (error) {
    if (!isFailure(error)) throw error
  }
}

/** Ids of the orders that a server has. */
export async function ordersOf(cluster: Cluster): Promise<Set<number>> {
  const session = await connectShop(cluster)
  try {
    const rows = await runSql(session, 'select id from public.orders where note = repeat(md5(id::text), 8)')
    return new Set(rows.map(([id]) => Number(id)))
  } finally {
    await closeSql(session)
  }
}
