/**
 * What a restore of a cluster refuses, what it leaves when it cannot finish, and a server that ends a backup.
 */
import assert from 'node:assert/strict'
import { chownSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '../../src/base/clock.ts'
import { isFailure } from '../../src/base/failure.ts'
import { exportSnapshot } from '../../src/recovery/export-cluster.ts'
import { beginMarker, leaveMarker } from '../../src/recovery/restore-marker.ts'
import {
  backUp,
  dropRepository,
  makeRepository,
  snapshotsOf,
  type TestRepository,
} from '../harness/engine.ts'
import {
  dropPostgres,
  freePort,
  makePostgres,
  postgresFolder,
  sql,
  startPostgres,
  type PostgresServer,
} from '../harness/postgres.ts'
import { clusterSource, restoreBeside, whileStarted } from '../harness/postgres-cluster.ts'
import { killPostgres } from '../harness/postgres-standby.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
const within = { skip, timeout: 60_000 }
let server: PostgresServer
let repository: TestRepository
let snapshot: string | undefined
let space = ''

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres()
    space = join(server.dir, 'space')
    mkdirSync(space)
    const { uid, gid } = statSync(server.data)
    chownSync(space, uid, gid)
    sql(
      server,
      `CREATE TABLESPACE cold LOCATION '${space}'`,
      'CREATE TABLE orders AS SELECT n, repeat(md5(n::text), 4) AS note FROM generate_series(1, 20000) AS n',
      'CREATE TABLE archive TABLESPACE cold AS SELECT n FROM generate_series(1, 1000) AS n',
    )
    repository = await makeRepository()
    snapshot = (
      await backUp(
        repository,
        clusterSource(() => server),
      )
    ).snapshot
  },
  { timeout: 60_000 },
)

after(async () => {
  if (skip !== false) return
  dropRepository(repository)
  await dropPostgres(server)
})

function freshSpace(name: string): ReadonlyMap<string, string> {
  return new Map([[space, join(server.dir, name)]])
}

test('a folder in use is refused, and nothing is written anywhere', within, async () => {
  const used = join(server.dir, 'used')
  mkdirSync(used)
  writeFileSync(join(used, 'letter'), 'keep me')
  const running = join(server.dir, 'running')
  mkdirSync(running)
  writeFileSync(join(running, 'postmaster.pid'), `${process.pid}\n`)
  const tablespaceMap = freshSpace('not-made')
  const cases = [
    [{ to: used, tablespaceMap }, /"[^"]+used": it is not empty/],
    [{ to: running, tablespaceMap }, /holds a postmaster.pid: a server runs on it, or was killed/],
    // The tablespace would go where the running server has its own.
    [{ to: join(server.dir, 'new') }, /space": it is not empty/],
    [
      { to: join(server.dir, 'new'), tablespaceMap: new Map([['/nowhere', '/else']]) },
      /no tablespace in "\/nowhere" \(there is: [^)]+space\)/,
    ],
    [
      { to: join(server.dir, 'new'), tablespaceMap: new Map([[space, 'relative']]) },
      /must get an absolute path/,
    ],
  ] as const
  for (const [options, message] of cases) {
    await assert.rejects(restoreBeside(repository, server, snapshot, options), (error) => {
      assert.ok(isFailure(error, 'restore.refused'))
      assert.match(error.message, message)
      return true
    })
  }
  assert.deepEqual(readdirSync(used), ['letter'])
  assert.deepEqual(readdirSync(running), ['postmaster.pid'])
  assert.equal(existsSync(join(server.dir, 'new')), false)
  assert.equal(existsSync(join(server.dir, 'not-made')), false)
})

test('a folder that another restore works in is refused until that has ended', within, async () => {
  const to = join(server.dir, 'busy')
  const [stored] = await snapshotsOf(repository)
  const options = { paths: [], exclude: [], noOwner: false, delta: false, overwrite: false }
  const held = beginMarker(to, stored ?? assert.fail('there is no snapshot'), options)
  try {
    const second = restoreBeside(repository, server, snapshot, {
      to,
      tablespaceMap: freshSpace('busy-space'),
    })
    await assert.rejects(second, (error) => {
      assert.ok(isFailure(error, 'restore.refused'))
      assert.match(error.message, /another restore into it is running$/)
      // Of a cluster --delta and --overwrite would be refused too.
      assert.equal(error.facts['hint'], 'Wait for it to end, or choose another folder.')
      return true
    })
  } finally {
    leaveMarker(held)
  }
})

test(
  'a restore that was cut off goes on by the same call, and only then has pg_control',
  within,
  async () => {
    const to = join(server.dir, 'resumed')
    const tablespaceMap = freshSpace('resumed-space')
    const stop = new AbortController()
    const options = { to, tablespaceMap, signal: stop.signal, onProgress: () => stop.abort() }
    await assert.rejects(restoreBeside(repository, server, snapshot, options), { code: 'cancelled' })
    assert.equal(existsSync(join(to, '.backstock-restore')), true)
    assert.equal(existsSync(join(to, 'global/pg_control')), false)
    const { back } = await restoreBeside(repository, server, snapshot, { to, tablespaceMap })
    assert.equal(existsSync(join(to, '.backstock-restore')), false)
    await whileStarted({ ...back, data: to }, await freePort(), (at) => {
      assert.deepEqual(sql(at, 'SELECT count(*) FROM orders'), ['20000'])
      assert.deepEqual(sql(at, 'SELECT count(*) FROM archive'), ['1000'])
    })
  },
)

test('an export that is stopped says so, and leaves nothing', within, async () => {
  const [stored] = await snapshotsOf(repository)
  for (const format of ['plain', 'tar'] as const) {
    const to = join(server.dir, `export-${format}`)
    const stop = new AbortController()
    const stopped = exportSnapshot(
      repository.access,
      repository.host,
      stored ?? assert.fail('there is no snapshot'),
      {
        to,
        format,
        tablespaceMap: new Map(),
        noOwner: false,
        workers: 0,
        clock: systemClock,
        signal: stop.signal,
        onProgress: () => stop.abort(),
      },
    )
    await assert.rejects(stopped, {
      code: 'cancelled',
      message: /^Cannot finish the export: it was cancelled$/,
    })
    assert.equal(existsSync(to), false)
  }
})

test('what is damaged is named, and without pg_control no server starts on the rest', within, async () => {
  const packs = [...repository.disk.keys()].filter((name) => /\/packs\//.test(name))
  const largest = packs.toSorted(
    (a, b) => repository.disk.get(b)!.bytes.length - repository.disk.get(a)!.bytes.length,
  )[0]!
  const object = repository.disk.get(largest)!
  repository.disk.set(largest, { ...object, bytes: Buffer.from(object.bytes).fill(0, 100, 5000) })
  try {
    const to = join(server.dir, 'damaged')
    const { summary } = await restoreBeside(repository, server, snapshot, {
      to,
      tablespaceMap: freshSpace('damaged-space'),
    })
    const damaged = summary.parts.flatMap((part) => part.damaged)
    assert.ok(damaged.length > 0)
    assert.equal(existsSync(join(to, 'global/pg_control')), false)
  } finally {
    repository.disk.set(largest, object)
  }
})

test(
  'a server that ends the connection, or dies, leaves no snapshot; the next run takes over its packs',
  within,
  async () => {
    const count = (await snapshotsOf(repository)).length
    const terminate = (): void => {
      sql(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE state = 'backup'")
    }
    for (const end of [terminate, () => void killPostgres(server)]) {
      let isEnded = false
      const onProgress = ({ bytesRead }: { bytesRead: number }): void => {
        if (isEnded || bytesRead < 8 * 1024 * 1024) return
        isEnded = true
        end()
      }
      await assert.rejects(
        backUp(
          repository,
          clusterSource(() => server),
          { onProgress },
        ),
        { code: 'source.failed' },
      )
    }
    assert.equal((await snapshotsOf(repository)).length, count)
    await startPostgres(server)
    const summary = await backUp(
      repository,
      clusterSource(() => server),
    )
    assert.ok(summary.adoptedPacks > 0)
    assert.deepEqual(summary.problems, [])
  },
)
