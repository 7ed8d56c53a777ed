/** The PostgreSQL part of the page and of the text on the terminal, from its record; pure. */
import type { PostgresRecord } from '../postgres-record.ts'
import { spread, type Spread } from './judgement.ts'
import { judgePostgres, samplesOf, type ClusterJudgement, type ClusterUnit } from './postgres-judgement.ts'
import { markdownTable, plainTable, ratioText, type Table } from './tables.ts'

const missing = '–'
const method = `One server on 127.0.0.1 with page checksums, nobody writing: pgbench tables and \`orders\`
with three indexes. Everything lies on one disk, repositories are new in each round, and both programs fsync
what they write before they end. After an unmeasured turn of each the turns alternate; before each turn what
it reads is read once and the memory that it may take is used once. pgBackRest has two
processes, zstd level 1 and \`start-fast\`; it reads the data folder itself, and its log goes to its
repository by \`archive_command\`. Backstock has two workers and \`checkpoint: fast\`; it takes everything,
the log included, from the server over TCP, whose processor time is shown beside. Both check pages. Each
cluster that Backstock restored passes \`pg_verifybackup\`. Restored files are durable, and not replayed yet.
Log is parsed from memory by one thread in a process of its own.

Shipping: \`pgbench -c 8 -R 500\` writes for 20 s a round, and a ninth client commits one row after another.
For it alone the shipper counts as a synchronous standby, so that the server says when the spool had the
commit: the time is from the beginning of the commit to its answer, the server's own fsync included. In the
repository it is when \`ship\` says so. Replay: a backup of 0.2 GB and the log of 400 000 transactions behind
it, from the command to restore until the server takes connections, against the same backup with
\`restore_command = 'cp …'\`.`

/** The chapter of bench/RESULTS.md. */
export function formatPostgresPage(record: PostgresRecord): string {
  const head = '## PostgreSQL'
  if (record.missing !== '') return `${head}\n\nNot measured: ${record.missing}.`
  return [
    head,
    'Raw samples: [results/postgres.json](results/postgres.json).',
    markdownTable(conditionTable(record)),
    markdownTable(promiseTable(record)),
    markdownTable(stepTable(record)),
    method,
  ].join('\n\n')
}

/** What a terminal shows. */
export function formatPostgresText(record: PostgresRecord): string {
  if (record.missing !== '') return `PostgreSQL: not measured, ${record.missing}\n`
  return `${plainTable(promiseTable(record))}\n\n${plainTable(stepTable(record))}\n`
}

function conditionTable(record: PostgresRecord): Table {
  const { machine } = record
  return [
    ['', ''],
    ['date', record.date],
    ['processor', `${machine.processor}, ${machine.cores} cores`],
    ['memory', `${(machine.memoryBytes / 1e9).toFixed(1)} GB`],
    ['kernel', machine.kernel],
    ...Object.entries(record.versions),
    ['command', `\`${record.command}\``],
    ['rounds', String(record.rounds)],
    ['cluster', `${(record.clusterBytes / 1e9).toFixed(2)} GB`],
  ]
}

function promiseTable(record: PostgresRecord): Table {
  const rows = judgePostgres(record).map((row) => [
    row.title,
    spreadText(row.unit, row.ours),
    row.isRatio ? spreadText(row.unit, row.theirs) : missing,
    row.isRatio ? ratioText(row.value) : missing,
    boundText(row, row.must),
    boundText(row, row.aim),
    row.verdict,
  ])
  return [['measure', 'backstock', 'pgbackrest', 'ratio', 'must', 'aim', 'verdict'], ...rows]
}

function stepTable(record: PostgresRecord): Table {
  const rows = (['full', 'restore'] as const).flatMap((step) =>
    (['backstock', 'pgbackrest'] as const).flatMap((peer) => {
      const samples = samplesOf(record, step, peer)
      if (samples.length === 0) return []
      const medianOf = (name: 'wallSeconds' | 'cpuSeconds' | 'serverCpuSeconds') =>
        valueText('seconds', spread(samples.map((sample) => sample[name]))?.median)
      const bytesOf = (name: 'rssBytes' | 'repositoryBytes') =>
        valueText('bytes', spread(samples.map((sample) => sample[name]))?.median)
      const title = step === 'full' ? 'full backup' : 'restore'
      const times = [medianOf('wallSeconds'), medianOf('cpuSeconds'), medianOf('serverCpuSeconds')]
      return [[title, peer, ...times, bytesOf('rssBytes'), bytesOf('repositoryBytes')]]
    }),
  )
  const head = ['step', 'peer', 'wall', 'processor', 'of the server', 'peak memory', 'repository']
  return [head, ...rows]
}

function boundText(row: ClusterJudgement, bound: number): string {
  return `${row.isFloor ? '≥' : '≤'} ${row.isRatio ? bound.toFixed(2) : valueText(row.unit, bound)}`
}

function spreadText(unit: ClusterUnit, value: Spread | undefined): string {
  if (value === undefined) return missing
  const bare = (number: number) => valueText(unit, number).replace(/ .*$/, '')
  return `${valueText(unit, value.median)} (${bare(value.least)}–${bare(value.most)})`
}

function valueText(unit: ClusterUnit, value: number | undefined): string {
  if (value === undefined) return missing
  if (unit === 'bytes') return `${(value / 1e6).toFixed(0)} MB`
  if (unit === 'bytesPerSecond') return `${(value / 1e6).toFixed(0)} MB/s`
  if (unit === 'ratio') return value.toFixed(2)
  return value < 1 ? `${(value * 1000).toFixed(0)} ms` : `${value.toFixed(2)} s`
}
