import assert from 'node:assert/strict'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '../base/clock.ts'
import { parseLsn } from '../sources/postgres/lsn.ts'
import {
  backUp,
  dropRepository,
  makeRepository,
  snapshotsOf,
  type TestRepository,
} from '../../test/harness/engine.ts'
import { clusterSource, logEnd, startShip } from '../../test/harness/postgres-cluster.ts'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  sql,
  type PostgresServer,
  startPostgres,
  stopPostgres,
} from '../../test/harness/postgres.ts'
import { bootSnapshot, type BootOptions, type BootReport } from './boot.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false

interface World {
  readonly server: PostgresServer
  readonly repository: TestRepository
  /** Makes a snapshot. */
  readonly save: () => Promise<unknown>
  readonly scratch: string
  /** Of its one snapshot; nothing of it is left. */
  readonly boot: (options?: Partial<BootOptions>) => Promise<BootReport>
}

async function inWorld(use: (world: World) => Promise<void>): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), 'backstock-scratch-'))
  chmodSync(scratch, 0o755)
  const server = await makePostgres()
  const repository = await makeRepository()
  const boot = async (options: Partial<BootOptions> = {}): Promise<BootReport> => {
    const { access, host } = repository
    const [snapshot] = await snapshotsOf(repository)
    assert.ok(snapshot !== undefined)
    const report = await bootSnapshot(access, host, snapshot, {
      scratch,
      bin: undefined,
      path: '',
      replaysLog: true,
      timeoutSeconds: 60,
      workers: 0,
      clock: systemClock,
      signal: new AbortController().signal,
      ...options,
    })
    assert.deepEqual(readdirSync(scratch), [])
    return report
  }
  try {
    await use({
      server,
      repository,
      save: () =>
        backUp(
          repository,
          clusterSource(() => server),
        ),
      scratch,
      boot,
    })
  } finally {
    dropRepository(repository)
    rmSync(scratch, { recursive: true, force: true })
    await dropPostgres(server)
  }
}

function codesOf({ findings }: BootReport): string[] {
  return findings.map(({ code, severity }) => `${severity} ${code}`)
}

/** A folder with a `postgres` that runs the lines of a shell before the real one. */
function wrapServer({ server }: World, lines: readonly string[]): string {
  const bin = join(server.dir, 'bin')
  const real = join(postgresFolder() ?? '', 'postgres')
  const text = ['#!/bin/sh', `[ "$1" = --version ] && exec ${real} --version`, ...lines, `exec ${real} "$@"`]
  mkdirSync(bin)
  writeFileSync(join(bin, 'postgres'), `${text.join('\n')}\n`, { mode: 0o755 })
  return bin
}

test(
  'bootSnapshot() recovers all of the log, but none that reaches out',
  { skip, timeout: 120_000 },
  async () => {
    await inWorld(async ({ server, repository, save, boot }) => {
      const running = startShip(repository, () => server)
      try {
        sql(server, 'create table orders (id bigint primary key)')
        await save()
        await stopPostgres(server)
        appendFileSync(join(server.data, 'postgresql.conf'), 'max_prepared_transactions = 4\n')
        await startPostgres(server)
        sql(server, 'begin', 'insert into orders values (1)', "prepare transaction 'half'")
        sql(server, 'create table later as select n from generate_series(1, 5000) n', 'checkpoint')
        const end = logEnd(server)
        await running.reached(end)
        const alone = await boot({ replaysLog: false })
        const whole = await boot()
        assert.deepEqual([alone.findings, alone.recoveredTo], [[], undefined])
        assert.deepEqual([whole.findings, whole.proven], [[], true])
        assert.ok(parseLsn(whole.recoveredTo ?? '0/0') <= end)
        assert.equal(whole.counts.tables, alone.counts.tables + 1, 'the table of the log is there')

        const space = join(server.dir, 'space')
        mkdirSync(space)
        const { uid, gid } = statSync(server.data)
        chownSync(space, uid, gid)
        sql(server, `create tablespace fast location '${space}'`, 'create table quick () tablespace fast')
        await running.reached(logEnd(server))
        const mine = join(space, readdirSync(space)[0] ?? '', 'kept')
        writeFileSync(mine, '')
        const report = await boot()
        assert.deepEqual([report.proven, codesOf(report)], [false, ['error not-checked']])
        const [{ message } = { message: '' }] = report.findings
        assert.ok(message.includes(`Cannot start a copy: its log makes a tablespace in "${space}"`), message)
        assert.ok(existsSync(mine), 'the tablespace of the source is as it was')
      } finally {
        await running.stop()
      }
    })
  },
)

test('bootSnapshot() proves nothing by a log with a hole', { skip, timeout: 120_000 }, async () => {
  await inWorld(async ({ server, repository, save, boot }) => {
    const running = startShip(repository, () => server)
    try {
      await save()
      for (let nth = 0; nth < 4; nth++) {
        sql(server, `create table later${nth} ()`, 'select pg_switch_wal()', 'checkpoint')
        await running.reached(logEnd(server))
      }
    } finally {
      await running.stop()
    }
    const whole = await boot()
    assert.deepEqual([whole.findings, whole.proven], [[], true])
    const names = [...repository.disk.keys()].filter((name) => name.includes('/logs/')).toSorted()
    repository.disk.delete(names.at(-2) ?? '')
    const holed = await boot()
    assert.deepEqual([holed.proven, codesOf(holed)], [false, ['warning not-checked']])
    assert.match(holed.findings[0]?.message ?? '', /not checked: its log: .* the log has a gap from/)
    assert.equal(holed.counts.tables, whole.counts.tables - 4, 'it is looked through as it was backed up')
  })
})

test('bootSnapshot() tells a copy that does not start from a host that hinders it', { skip }, async () => {
  await inWorld(async (world) => {
    const { save, boot } = world
    await save()
    const bin = wrapServer(world, ['[ "$1" = -C ] || { echo "FATAL:  it is broken" >&2; exit 1; }'])
    const broken = await boot({ bin })
    assert.deepEqual([broken.proven, codesOf(broken)], [false, ['error boot.failed']])
    assert.match(broken.findings[0]?.message ?? '', /\(recover\): the server does not start: FATAL: +it is/)
  })
})

const skipUser = skip === false && process.geteuid?.() !== 0 ? 'only root has another user' : skip
test(
  'bootSnapshot() as root writes through no link of the server’s user',
  { skip: skipUser, timeout: 120_000 },
  async () => {
    await inWorld(async (world) => {
      const { server, repository, save, scratch, boot } = world
      await save()
      const secret = join(repository.folder, 'secret')
      writeFileSync(secret, 'kept', { mode: 0o600 })
      const seen = join(server.dir, 'seen')
      const bin = wrapServer(world, [
        'for word; do case "$word" in */data) data=$word;; esac; done',
        'top=${data%/data}',
        `plant() { rm -f "$1"; ln -s ${secret} "$1" && echo "$1" >> ${seen}; }`,
        '[ "$1" != -C ] || plant "$data/postgresql.auto.conf"',
        'for name in postgresql.conf pg_hba.conf pg_ident.conf; do',
        '  plant "$top/$name"; plant "$top/c/$name"',
        'done 2> /dev/null',
        `mv "$data" "$top/other" 2> /dev/null && echo moved >> ${seen}`,
      ])
      const modes = new Map<string, string>()
      const onStep = (step: string): void => {
        const { uid, mode } = statSync(join(scratch, readdirSync(scratch)[0] ?? ''))
        modes.set(step, `${uid} ${(mode & 0o777).toString(8)}`)
      }
      const report = await boot({ bin, onStep })
      assert.deepEqual([report.findings, report.proven], [[], true])
      assert.equal(readFileSync(secret, 'utf8'), 'kept')
      assert.deepEqual([modes.get('restore'), modes.get('recover')], ['0 700', '0 710'])
      const planted = new Set(
        readFileSync(seen, 'utf8')
          .trim()
          .split('\n')
          .map((path) => basename(path)),
      )
      assert.deepEqual([...planted], ['postgresql.auto.conf'], 'of all attempts one may succeed')
    })
  },
)
