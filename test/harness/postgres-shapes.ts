/** Clusters of unusual shape, each through the whole way: backup, shipped log, restore, start, comparison. */
import assert from 'node:assert/strict'
import { chownSync, mkdirSync, mkdtempSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parseLsn } from '../../src/sources/postgres/lsn.ts'
import { backUp, dropRepository, makeRepository } from './engine.ts'
import {
  dropPostgres,
  freePort,
  makePostgres,
  query,
  type PostgresOptions,
  type PostgresServer,
} from './postgres.ts'
import { clusterSource, restoreBeside, startShip, whileStarted } from './postgres-cluster.ts'
import { checkPages, tableHashes } from './postgres-state.ts'

export interface Shape {
  readonly options: PostgresOptions
  /** Names of folders beside the data folder, each a tablespace `space0`, `space1`, … */
  readonly tablespaces: readonly string[]
  /** Statements before the backup. */
  readonly before: readonly string[]
  /** Those that only the log brings. */
  readonly behind: readonly string[]
  /** What the restored cluster has to say. */
  readonly answers: Readonly<Record<string, string>>
}

export const FILL: readonly string[] = [
  'create table orders (id int primary key, note text)',
  'insert into orders select n, md5(n::text) from generate_series(1, 20000) n',
]
export const MORE: readonly string[] = [
  'update orders set note = note || id where id % 3 = 0',
  'delete from orders where id % 7 = 0',
]
export const PLAIN: Shape = { options: {}, tablespaces: [], before: FILL, behind: MORE, answers: {} }

/** With segments of log of another size. */
export function segmentShape(megabytes: number): Shape {
  const sizes = [`min_wal_size = ${2 * megabytes}MB`, `max_wal_size = ${16 * megabytes}MB`]
  const more = 'insert into orders select -n from generate_series(1, 9000) n'
  return {
    ...PLAIN,
    options: { initdb: [`--wal-segsize=${megabytes}`], settings: sizes },
    behind: [...MORE, 'select pg_switch_wal()', more],
    answers: { 'show wal_segment_size': `${megabytes}MB` },
  }
}

/** The end of the log: equal in all tables. */
export async function proveShape(shape: Shape): Promise<void> {
  const server = await makePostgres({ version: 15, ...shape.options })
  const repository = await makeRepository()
  const running = startShip(repository, () => server)
  try {
    const tablespaceMap = await makeTablespaces(server, shape.tablespaces)
    await query(server, ...shape.before)
    const { snapshot, problems } = await backUp(
      repository,
      clusterSource(() => server),
      { workers: 2 },
    )
    assert.deepEqual(problems, [])
    await query(server, ...shape.behind)
    const [end = ''] = await query(server, 'select pg_current_wal_flush_lsn()')
    await running.reached(parseLsn(end))
    const goal = { kind: 'latest' } as const
    const { back, summary } = await restoreBeside(repository, server, snapshot, { tablespaceMap, goal })
    for (const part of summary.parts)
      assert.deepEqual([part.problems, part.damaged, part.failed], [[], [], []])
    await whileStarted(back, await freePort(), async (at) => {
      assert.deepEqual(await tableHashes(at), await tableHashes(server))
      for (const [question, answer] of Object.entries(shape.answers))
        assert.deepEqual(await query(at, question), [answer], question)
    })
    if (shape.options.checksums !== false) checkPages(back)
  } finally {
    await running.stop().catch(() => undefined)
    dropRepository(repository)
    await dropPostgres(server)
  }
}

/** Returns where a restore beside the server must put them. */
async function makeTablespaces(
  server: PostgresServer,
  names: readonly string[],
): Promise<Map<string, string>> {
  const { uid, gid } = statSync(server.data)
  const map = new Map<string, string>()
  for (const [nth, name] of names.entries()) {
    const path = join(server.dir, name)
    mkdirSync(path)
    chownSync(path, uid, gid)
    await query(server, `create tablespace space${nth} location '${path.replaceAll("'", "''")}'`)
    map.set(path, mkdtempSync(join(server.dir, `${name} moved `)))
  }
  return map
}
