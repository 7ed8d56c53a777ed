import assert from 'node:assert/strict'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '../base/clock.ts'
import { parseLsn } from '../sources/postgres/lsn.ts'
import { backUp, dropRepository, makeRepository, snapshotOf } from '../../test/harness/engine.ts'
import { clusterSource, logEnd, startShip } from '../../test/harness/postgres-cluster.ts'
import { dropPostgres, makePostgres, postgresFolder, sql } from '../../test/harness/postgres.ts'
import { bootSnapshot, type BootReport } from './boot.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false

test(
  'bootSnapshot() recovers all of the log, but none that reaches out',
  { skip, timeout: 120_000 },
  async () => {
    const scratch = mkdtempSync(join(tmpdir(), 'backstock-scratch-'))
    chmodSync(scratch, 0o755)
    const server = await makePostgres()
    const repository = await makeRepository()
    const running = startShip(repository, () => server)
    let snapshot: string | undefined
    const boot = async (replaysLog: boolean): Promise<BootReport> => {
      const { access, host } = repository
      const report = await bootSnapshot(access, host, await snapshotOf(repository, snapshot), {
        scratch,
        bin: undefined,
        path: '',
        replaysLog,
        timeoutSeconds: 60,
        workers: 0,
        clock: systemClock,
        signal: new AbortController().signal,
      })
      assert.deepEqual(readdirSync(scratch), [])
      return report
    }
    try {
      sql(server, 'create table orders (id bigint primary key)')
      const source = clusterSource(() => server)
      ;({ snapshot } = await backUp(repository, source))
      sql(server, 'create table later as select n from generate_series(1, 5000) n', 'checkpoint')
      const end = logEnd(server)
      await running.reached(end)
      const alone = await boot(false)
      const whole = await boot(true)
      assert.deepEqual([alone.findings, alone.recoveredTo], [[], undefined])
      assert.deepEqual([whole.findings, whole.proven], [[], true])
      assert.ok(parseLsn(whole.recoveredTo ?? '0/0') <= end)
      assert.equal(whole.counts.tables, alone.counts.tables + 1, 'the table of the log is there')

      const space = join(server.dir, 'space')
      mkdirSync(space)
      const { uid, gid } = statSync(server.data)
      chownSync(space, uid, gid)
      sql(server, `create tablespace fast location '${space}'`, 'create table quick (id int) tablespace fast')
      await running.reached(logEnd(server))
      const mine = join(space, readdirSync(space)[0] ?? '', 'kept')
      writeFileSync(mine, '')
      const { proven, findings } = await boot(true)
      assert.deepEqual(
        [proven, findings.map(({ code, severity }) => `${severity} ${code}`)],
        [false, ['error not-checked']],
      )
      assert.ok(findings[0]?.message.includes(`makes a tablespace in "${space}"`), findings[0]?.message)
      assert.ok(existsSync(mine), 'the tablespace of the source is as it was')
    } finally {
      await running.stop()
      dropRepository(repository)
      rmSync(scratch, { recursive: true, force: true })
      await dropPostgres(server)
    }
  },
)
