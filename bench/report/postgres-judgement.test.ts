import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ClusterSample, PostgresRecord } from '../postgres-record.ts'
import { judgePostgres } from './postgres-judgement.ts'
import { formatPostgresPage, formatPostgresText } from './postgres-page.ts'

const usage = { wallSeconds: 1, cpuSeconds: 1, rssBytes: 200e6, loadAverage: 0 }

test('judgePostgres() compares medians with pgBackRest, and speeds with floors', () => {
  const verdicts = (wallSeconds: number, megabytes: number) => {
    const samples = [sampleOf('backstock', wallSeconds), sampleOf('pgbackrest', 10)]
    const wal = [{ checksCrc: true, round: 1, bytes: megabytes * 1e6, records: 1, seconds: 1 }]
    const rows = judgePostgres(recordOf({ samples, wal }))
    return ['full backup, wall', 'log parsing with checksums'].map(
      (title) => rows.find((row) => row.title === title)?.verdict,
    )
  }
  assert.deepEqual(verdicts(9, 300), ['aim reached', 'aim reached'])
  assert.deepEqual(verdicts(11, 120), ['as it must be', 'as it must be'])
  assert.deepEqual(verdicts(11.1, 119), ['missed', 'missed'])
})

test('judgePostgres() takes what others measured of a log by its row', () => {
  const log = [{ row: 'commitToSpool', round: 1, value: 0.02 }] as const
  const row = judgePostgres(recordOf({ log: [...log] })).find((one) => one.title === 'commit to spool, p99')
  assert.equal(row?.verdict, 'as it must be')
})

test('the chapter shows what was measured, what was not, and why', () => {
  const page = formatPostgresPage(recordOf({ samples: [sampleOf('backstock', 9)] }))
  assert.match(page, /\| full backup \| backstock \| 9\.00 s \|/)
  assert.match(page, /restore until fsynced, wall .* not measured/)
  assert.doesNotMatch(page, /NaN|undefined/)
  const missing = 'pgBackRest is missing (install it: apt-get install pgbackrest)'
  for (const text of [formatPostgresPage(recordOf({ missing })), formatPostgresText(recordOf({ missing }))])
    assert.match(text, /not measured.*apt-get install pgbackrest/i)
})

function sampleOf(peer: ClusterSample['peer'], wallSeconds: number): ClusterSample {
  return { step: 'full', peer, round: 1, ...usage, wallSeconds, serverCpuSeconds: 1, repositoryBytes: 1e6 }
}

function recordOf(parts: Partial<PostgresRecord>): PostgresRecord {
  return {
    date: '2026-01-01 00:00 UTC',
    command: 'npm run bench -- postgres',
    machine: { processor: 'test', cores: 2, memoryBytes: 1e9, kernel: 'test' },
    versions: {},
    rounds: 3,
    scale: 1,
    clusterBytes: 2e9,
    samples: [],
    wal: [],
    log: [],
    missing: '',
    ...parts,
  }
}
