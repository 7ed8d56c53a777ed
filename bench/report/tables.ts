/** The tables of a record as rows of text, for the terminal and for the page alike; pure. */
import type { PeerName } from '../peers/peer.ts'
import type { BenchRecord, GrowthSeries, Step } from '../record.ts'
import {
  growthCurve,
  judge,
  judgeGrowth,
  spread,
  type Judgement,
  type Quantity,
  type Spread,
} from './judgement.ts'

/** A table: its first row is the head. */
export type Table = string[][]

const missing = '–'
const steps: [Step, string][] = [
  ['first', 'first backup'],
  ['second', 'unchanged second backup'],
  ['restore', 'full restore'],
  ['check', 'check of all data'],
  ['day2', 'day 2'],
  ['day2-database', 'day 2, database files alone'],
  ['memory', 'first backup on 2 processors'],
]
const peers: PeerName[] = ['backstock', 'restic', 'borg']

/** What was promised and what came of it: medians, and in brackets least and most. */
export function promiseTable(record: BenchRecord): Table {
  const head = ['measure', 'backstock', 'peer', 'ratio', 'must', 'aim', 'verdict']
  const rows = judge(record).map((row) => [
    row.title,
    spreadText(row.quantity, row.ours),
    row.peer === undefined
      ? missing
      : `${row.peer} ${spreadText(row.quantity, row.theirs)}`.replace(` ${missing}`, ''),
    row.peer === undefined ? missing : ratioText(row.value),
    boundText(row, row.must),
    boundText(row, row.aim),
    row.verdict,
  ])
  return [head, ...rows]
}

/** Every step of every peer, also those that nothing was promised about. */
export function stepTable(record: BenchRecord): Table {
  const rows = steps.flatMap(([step, title]) =>
    peers.flatMap((peer) => {
      const samples = record.samples.filter((sample) => sample.step === step && sample.peer === peer)
      if (samples.length === 0) return []
      const text = (quantity: Quantity | 'repositoryBytes') =>
        quantityText(quantity, spread(samples.map((sample) => sample[quantity]))?.median)
      return [
        [
          title,
          peer,
          text('wallSeconds'),
          text('cpuSeconds'),
          text('rssBytes'),
          text('newBytes'),
          text('repositoryBytes'),
        ],
      ]
    }),
  )
  return [['step', 'peer', 'wall', 'processor', 'peak memory', 'new bytes', 'repository'], ...rows]
}

/** First and second backups by size. */
export function growthTable(record: BenchRecord): Table {
  const rows = (['bytes', 'files'] as const).flatMap((series) =>
    (['first', 'second'] as const).flatMap((step) =>
      (['backstock', 'restic'] as const).flatMap((peer) =>
        growthCurve(record, series, step, peer).map((point) => [
          sizeText(series, point.size),
          step === 'first' ? 'first backup' : 'unchanged second backup',
          peer,
          quantityText('wallSeconds', point.wallSeconds),
          quantityText('cpuSeconds', point.cpuSeconds),
          quantityText('rssBytes', point.rssBytes),
        ]),
      ),
    ),
  )
  return [['data', 'step', 'peer', 'wall', 'processor', 'peak memory'], ...rows]
}

/** Whether time grows no faster than the data, and memory stays flat, at the largest size. */
export function growthJudgementTable(record: BenchRecord): Table {
  const rows = judgeGrowth(record).map((row) => [
    row.title,
    row.exponent.toFixed(2),
    `≤ ${row.exponentMust.toFixed(2)}`,
    row.memoryFactor.toFixed(2),
    `≤ ${row.memoryFactorMust.toFixed(2)}`,
    row.verdict,
  ])
  return [['growth at the largest size', 'wall ~ size^', 'must', 'memory ×', 'must', 'verdict'], ...rows]
}

/** For a terminal: columns padded, two spaces between. */
export function plainTable(table: Table): string {
  const widths = (table[0] ?? []).map((_, column) =>
    Math.max(...table.map((row) => (row[column] ?? '').length)),
  )
  const line = (row: string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd()
  const rule = widths.map((width) => '-'.repeat(width)).join('  ')
  const [head = [], ...rows] = table
  return [line(head), rule, ...rows.map(line)].join('\n')
}

/** For a page in Markdown. */
export function markdownTable(table: Table): string {
  const line = (row: string[]) => `| ${row.join(' | ')} |`
  const [head = [], ...rows] = table
  return [line(head), `|${head.map(() => '---|').join('')}`, ...rows.map(line)].join('\n')
}

/** A size of a growth series in words. */
export function sizeText(series: GrowthSeries, size: number): string {
  if (series === 'bytes') return size < 1e9 ? `${trim(size / 1e6)} MB` : `${trim(size / 1e9)} GB`
  if (size < 1000) return `${size} files`
  return size < 1e6 ? `${trim(size / 1e3)}k files` : `${trim(size / 1e6)}M files`
}

/** A ratio with two digits after the point. */
export function ratioText(value: number | undefined): string {
  return value === undefined ? missing : value.toFixed(2)
}

function trim(value: number): string {
  return String(Number(value.toPrecision(3)))
}

function boundText(row: Judgement, bound: number): string {
  return `≤ ${row.peer === undefined ? `${bound / 1e6} MB` : bound.toFixed(2)}`
}

function spreadText(quantity: Quantity, value: Spread | undefined): string {
  if (value === undefined) return missing
  const bare = (number: number) => quantityText(quantity, number).replace(/ .*$/, '')
  return `${quantityText(quantity, value.median)} (${bare(value.least)}–${bare(value.most)})`
}

function quantityText(quantity: Quantity | 'repositoryBytes', value: number | undefined): string {
  if (value === undefined) return missing
  if (quantity === 'wallSeconds' || quantity === 'cpuSeconds') return `${value.toFixed(2)} s`
  return `${(value / 1e6).toFixed(quantity === 'rssBytes' ? 0 : 1)} MB`
}
