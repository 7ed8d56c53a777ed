/** The options of the bench, read from its command line. */
import { parseArgs } from 'node:util'

export const measureNames = [
  'first',
  'second',
  'day2',
  'restore',
  'check',
  'memory',
  'index',
  'growth',
  'postgres',
] as const
export type MeasureName = (typeof measureNames)[number]

export interface Options {
  only: Set<MeasureName>
  scale: number
  rounds: number
  growthRounds: number
  isQuick: boolean
  isRecorded: boolean
  backstockPath: string | undefined
}

export const usageText = `npm run bench -- [options] [measures]

Measures backstock against restic and borg, in turns on the same machine, in a folder on tmpfs;
for PostgreSQL (the measure postgres) against pgBackRest, on disk.

  --only A,B         only these measures, which may also stand alone: ${measureNames.join(', ')}
  --scale S          size of the data, 1 = 1.6 GB, of a cluster 2.1 GB (default 1)
  --rounds N         how often each peer has its turn (default 3)
  --growth-rounds N  the same for the growth measure (default 1)
  --quick            scale 0.1, one round, growth up to 100 000 files: to try the bench, not to judge by
  --record           write bench/RESULTS.md and what was measured to bench/results/; else bench/results/draft/
  --backstock PATH   another backstock to measure, an executable or its main.js
  --help             this text

Exit code: 0 all that was measured is as good as it must be, 1 the bench failed or a restored file differs,
2 a measure is worse than it must be (never below scale 1, where start-up times would decide).
`

const scaleMax = 20
const roundsMax = 50

/** Reads the options, or throws an Error with a sentence for the user. Undefined when help was asked for. */
export function parseOptions(argv: string[]): Options | undefined {
  const { values, positionals } = parseArgs({
    args: argv,
    allowPositionals: true,
    options: {
      only: { type: 'string' },
      scale: { type: 'string' },
      rounds: { type: 'string' },
      'growth-rounds': { type: 'string', default: '1' },
      quick: { type: 'boolean', default: false },
      record: { type: 'boolean', default: false },
      backstock: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return undefined
  if (values.quick && values.record)
    throw new Error('Cannot record a quick run: leave out --quick or --record')
  const rounds = values.rounds ?? (values.quick ? '1' : '3')
  const options: Options = {
    only: parseOnly([values.only ?? [], positionals].flat().join(',')),
    scale: parseNumber('--scale', values.scale ?? (values.quick ? '0.1' : '1'), {
      low: 0.001,
      high: scaleMax,
    }),
    rounds: Math.trunc(parseNumber('--rounds', rounds, { low: 1, high: roundsMax })),
    growthRounds: Math.trunc(
      parseNumber('--growth-rounds', values['growth-rounds'], { low: 1, high: roundsMax }),
    ),
    isQuick: values.quick,
    isRecorded: values.record,
    backstockPath: values.backstock,
  }
  refuseUnfitRecord(options)
  return options
}

/** What the repository keeps as its results must be of its own program, and large enough to judge by. */
function refuseUnfitRecord(options: Options): void {
  if (!options.isRecorded) return
  if (options.scale < 1) throw new Error('Cannot record a run below scale 1: start-up times would decide')
  if (options.backstockPath !== undefined) throw new Error('Cannot record another backstock than this one')
}

function parseOnly(text: string): Set<MeasureName> {
  if (text === '') return new Set(measureNames)
  const names = text.split(',').map((name) => name.trim())
  const unknown = names.find((name) => !measureNames.some((known) => known === name))
  if (unknown !== undefined) {
    throw new Error(`Cannot measure "${unknown}": --only takes ${measureNames.join(', ')}`)
  }
  return new Set(measureNames.filter((name) => names.includes(name)))
}

function parseNumber(option: string, text: string, range: { low: number; high: number }): number {
  const value = Number(text)
  if (text.trim() !== '' && value >= range.low && value <= range.high) return value
  throw new Error(`Cannot use ${option} ${text}: it must be a number from ${range.low} to ${range.high}`)
}
