/** What the bench promises, and the judgement of a record by it; pure. 1 MB is 1 000 000 bytes everywhere. */
import type { PeerName } from '../peers/peer.ts'
import type { BenchRecord, GrowthSample, GrowthSeries, Sample, Step } from '../record.ts'

export type Quantity = 'wallSeconds' | 'cpuSeconds' | 'rssBytes' | 'newBytes'
export type Verdict = 'aim reached' | 'as it must be' | 'missed' | 'not measured'

/** Median, least and most of some samples. */
export interface Spread {
  median: number
  least: number
  most: number
}

/** A row of promises. With a peer, `must` and `aim` bound the ratio of medians; without, our own bytes. */
export interface Judgement {
  title: string
  quantity: Quantity
  peer: PeerName | undefined
  ours: Spread | undefined
  theirs: Spread | undefined
  /** What is compared with `must` and `aim`. */
  value: number | undefined
  must: number
  aim: number
  verdict: Verdict
}

/** How a backup of ours grows from the second largest size to the largest. */
export interface GrowthJudgement {
  title: string
  /** Time grows as size to this power: 1 is linear. */
  exponent: number
  exponentMust: number
  /** Peak memory at the largest size, relative to that before it. */
  memoryFactor: number
  memoryFactorMust: number
  verdict: Verdict
}

type Target = Pick<Judgement, 'title' | 'quantity' | 'must' | 'aim'> & { step: Step; peer?: PeerName }

const wall = 'wallSeconds'
const targets: Target[] = [
  { title: 'first backup, wall', step: 'first', quantity: wall, peer: 'restic', must: 0.5, aim: 0.38 },
  {
    title: 'first backup, processor',
    step: 'first',
    quantity: 'cpuSeconds',
    peer: 'borg',
    must: 1.1,
    aim: 0.9,
  },
  {
    title: 'unchanged second backup, wall',
    step: 'second',
    quantity: wall,
    peer: 'restic',
    must: 0.6,
    aim: 0.3,
  },
  { title: 'day 2, new bytes', step: 'day2', quantity: 'newBytes', peer: 'restic', must: 0.75, aim: 0.6 },
  {
    title: 'day 2, new bytes, database files alone',
    step: 'day2-database',
    quantity: 'newBytes',
    peer: 'restic',
    must: 0.2,
    aim: 0.1,
  },
  { title: 'full restore, wall', step: 'restore', quantity: wall, peer: 'restic', must: 0.75, aim: 0.5 },
  { title: 'check of all data, wall', step: 'check', quantity: wall, peer: 'restic', must: 1, aim: 0.6 },
  { title: 'peak memory, 2 workers', step: 'memory', quantity: 'rssBytes', must: 256e6, aim: 200e6 },
]
const indexTarget = { title: 'index memory, 4 million chunks', must: 64e6, aim: 16e6 }
const indexChunksFull = 4_000_000

/** A single run of a growing series is no median: a tenth is left to the noise of the machine. */
const growthExponentMust = 1.1
const memoryFactorMust = 1.25

/** Judges every promise. */
export function judge(record: BenchRecord): Judgement[] {
  const rows = targets.map((target) => judgeTarget(record, target))
  const index = record.indexMemory
  const isWhole = index !== null && index.chunks === indexChunksFull
  const ours = isWhole ? spread([index.residentBytes]) : undefined
  const { title, must, aim } = indexTarget
  const value = ours?.median
  const verdict = verdictOf(value, must, aim)
  rows.push({
    title,
    quantity: 'rssBytes',
    peer: undefined,
    ours,
    theirs: undefined,
    value,
    must,
    aim,
    verdict,
  })
  return rows
}

function judgeTarget(record: BenchRecord, target: Target): Judgement {
  const { title, quantity, peer, must, aim } = target
  const spreadOf = (name: PeerName) =>
    spread(samplesOf(record, target.step, name).map((sample) => sample[quantity]))
  const ours = spreadOf('backstock')
  const theirs = peer === undefined ? undefined : spreadOf(peer)
  const value = peer === undefined ? ours?.median : ratioOf(ours, theirs)
  return { title, quantity, peer, ours, theirs, value, must, aim, verdict: verdictOf(value, must, aim) }
}

/** Samples of a step; where memory had no run of its own, the first backup is its measure. */
function samplesOf(record: BenchRecord, step: Step, peer: PeerName): Sample[] {
  const found = record.samples.filter((sample) => sample.step === step && sample.peer === peer)
  return found.length === 0 && step === 'memory' ? samplesOf(record, 'first', peer) : found
}

/** Judges how first and second backups of both series grow. Nothing for a series of fewer than two sizes. */
export function judgeGrowth(record: BenchRecord): GrowthJudgement[] {
  const words = {
    bytes: 'shop data',
    files: 'small files',
    first: 'first backup',
    second: 'unchanged second backup',
  }
  return (['bytes', 'files'] as const).flatMap((series) =>
    (['first', 'second'] as const).flatMap((step) => {
      const [before, last] = growthCurve(record, series, step, 'backstock').slice(-2)
      if (before === undefined || last === undefined) return []
      const exponent = Math.log(last.wallSeconds / before.wallSeconds) / Math.log(last.size / before.size)
      const memoryFactor = last.rssBytes / before.rssBytes
      const isGood = exponent <= growthExponentMust && memoryFactor <= memoryFactorMust
      const verdict: Verdict = isGood ? 'as it must be' : 'missed'
      const title = `${words[series]}, ${words[step]}`
      return [{ title, exponent, exponentMust: growthExponentMust, memoryFactor, memoryFactorMust, verdict }]
    }),
  )
}

/** One point of a curve: medians of the rounds at one size. */
export interface GrowthPoint {
  size: number
  wallSeconds: number
  cpuSeconds: number
  rssBytes: number
}

/** A peer's medians by size, small to large. */
export function growthCurve(
  record: BenchRecord,
  series: GrowthSeries,
  step: GrowthSample['step'],
  peer: PeerName,
): GrowthPoint[] {
  const samples = record.growth.filter(
    (sample) => sample.series === series && sample.step === step && sample.peer === peer,
  )
  const sizes = [...new Set(samples.map((sample) => sample.size))].toSorted((a, b) => a - b)
  return sizes.map((size) => {
    const rounds = samples.filter((sample) => sample.size === size)
    const medianOf = (quantity: 'wallSeconds' | 'cpuSeconds' | 'rssBytes') =>
      spread(rounds.map((sample) => sample[quantity]))?.median ?? NaN
    return {
      size,
      wallSeconds: medianOf('wallSeconds'),
      cpuSeconds: medianOf('cpuSeconds'),
      rssBytes: medianOf('rssBytes'),
    }
  })
}

/** Undefined for no values. The median of an even count is the mean of the two in the middle. */
export function spread(values: number[]): Spread | undefined {
  const sorted = values.toSorted((a, b) => a - b)
  const least = sorted[0]
  const most = sorted.at(-1)
  if (least === undefined || most === undefined) return undefined
  const middle = sorted.slice(Math.ceil(sorted.length / 2) - 1, Math.floor(sorted.length / 2) + 1)
  return { median: middle.reduce((sum, value) => sum + value, 0) / middle.length, least, most }
}

function ratioOf(ours: Spread | undefined, theirs: Spread | undefined): number | undefined {
  return ours === undefined || theirs === undefined ? undefined : ours.median / theirs.median
}

function verdictOf(value: number | undefined, must: number, aim: number): Verdict {
  if (value === undefined || Number.isNaN(value)) return 'not measured'
  if (value <= aim) return 'aim reached'
  return value <= must ? 'as it must be' : 'missed'
}
