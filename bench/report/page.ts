/** The page bench/RESULTS.md, the text on the terminal, and the raw samples, all from one record; pure. */
import type { PostgresRecord } from '../postgres-record.ts'
import type { BenchRecord } from '../record.ts'
import { formatPostgresPage } from './postgres-page.ts'
import {
  growthJudgementTable,
  growthTable,
  markdownTable,
  plainTable,
  promiseTable,
  sizeText,
  stepTable,
  type Table,
} from './tables.ts'

const method = `Each peer has its turn in every step of every round, in the same order, so that noise
falls on all. A ratio is that of the medians of the rounds; brackets give the least and the most.
Processor time is user and system time of all processes of a command, peak memory that of its largest
process. 1 MB is 1 000 000 bytes.

Everything lies on tmpfs: data, repositories, caches, temporary files and restored trees. Homes and
caches are new in each round. restic runs with its defaults, borg with \`repokey-blake2\` and
\`zstd,1\`, Backstock in its published form with its defaults and without parity. The first backup is a
full, the others are incremental. Every restored tree is compared with its source
(\`rsync -aHAXn --checksum\`).

The shop: 70 % product images that do not compress, 20 % exports and logs, 10 % PostgreSQL pages, in
files of 3 KB to 64 MB. Day 2: 1 % of the files replaced, renamed or deleted and as many new, one export
edited in its middle, three logs appended, 1 % of one relation's pages rewritten and 200 appended.`

/** The page, with a chapter on PostgreSQL if that was measured. Links to the plots in results/ beside it. */
export function formatPage(record: BenchRecord, postgres?: PostgresRecord): string {
  const parts = [
    '# Results of the bench',
    'Written by `npm run bench -- --record`. Raw samples: [results/latest.json](results/latest.json).',
    markdownTable(conditionTable(record)),
    '## Promises',
    markdownTable(promiseTable(record)),
    indexText(record),
    '![Ratios to the peers](results/ratios.svg)',
    '## All steps, medians',
    markdownTable(stepTable(record)),
  ]
  if (record.growth.length > 0) {
    parts.push(
      '## Growth',
      'Time must grow no faster than the data (size^1; a tenth is left to noise), and memory must stay flat.',
      markdownTable(growthJudgementTable(record)),
      '![Growth with the data](results/growth.svg)',
      markdownTable(growthTable(record)),
    )
  }
  parts.push('## How it is measured', method)
  if (postgres !== undefined) parts.push(formatPostgresPage(postgres))
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`
}

/** What a terminal shows. */
export function formatText(record: BenchRecord): string {
  const parts = [plainTable(promiseTable(record)), indexText(record), plainTable(stepTable(record))]
  if (record.growth.length > 0)
    parts.push(plainTable(growthJudgementTable(record)), plainTable(growthTable(record)))
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`
}

function conditionTable(record: BenchRecord): Table {
  const { machine, shop } = record
  const versions = Object.entries(record.versions).map(([name, version]) => [name, version])
  return [
    ['', ''],
    ['date', record.date],
    ['processor', `${machine.processor}, ${machine.cores} cores`],
    ['memory', `${(machine.memoryBytes / 1e9).toFixed(1)} GB`],
    ['kernel', machine.kernel],
    ...versions,
    ['command', `\`${record.command}\``],
    ['rounds', String(record.rounds)],
    ['shop', `${sizeText('bytes', shop.bytes)} in ${shop.files} files`],
  ]
}

function indexText(record: BenchRecord): string {
  const index = record.indexMemory
  if (index === null)
    return record.indexMemoryMissing === '' ? '' : `Index memory: ${record.indexMemoryMissing}.`
  const held = `${(index.residentBytes / 1e6).toFixed(1)} MB for ${index.chunks} chunks`
  const peak = `${(index.peakBytes / 1e6).toFixed(1)} MB at most meanwhile`
  const rate = `${index.lookupsPerSecond} lookups a second`
  return `Index memory, code and session tables included: ${held}, ${peak}, ${rate}.`
}
