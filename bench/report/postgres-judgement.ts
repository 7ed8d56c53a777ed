/** What is promised about clusters, and the judgement of a record by it; pure. */
import type {
  ClusterPeerName,
  ClusterSample,
  ClusterStep,
  LogRowName,
  PostgresRecord,
} from '../postgres-record.ts'
import { spread, type Spread, type Verdict } from './judgement.ts'

/** How a value is shown. */
export type ClusterUnit = 'seconds' | 'bytes' | 'bytesPerSecond' | 'ratio'

export interface ClusterJudgement {
  title: string
  unit: ClusterUnit
  ours: Spread | undefined
  /** Of pgBackRest; undefined where ours is compared with the bounds itself. */
  theirs: Spread | undefined
  /** What is compared with `must` and `aim`. */
  value: number | undefined
  /** Whether the bounds are of `value`, a ratio, or of ours. */
  isRatio: boolean
  must: number
  aim: number
  /** More is better: the bounds are floors. */
  isFloor: boolean
  verdict: Verdict
}

type Bounds = Pick<ClusterJudgement, 'title' | 'unit' | 'must' | 'aim'>
type LogTarget = Bounds & { row: LogRowName }

const wallTargets: (Bounds & { step: ClusterStep })[] = [
  { title: 'full backup, wall', step: 'full', unit: 'seconds', must: 1.1, aim: 0.9 },
  { title: 'restore until fsynced, wall', step: 'restore', unit: 'seconds', must: 0.8, aim: 0.5 },
]
const memoryTarget: Bounds = { title: 'peak memory of a full backup', unit: 'bytes', must: 300e6, aim: 256e6 }
const walTargets: (Bounds & { checksCrc: boolean })[] = [
  { title: 'log parsing with checksums', checksCrc: true, unit: 'bytesPerSecond', must: 120e6, aim: 300e6 },
  { title: 'log parsing without', checksCrc: false, unit: 'bytesPerSecond', must: 200e6, aim: 400e6 },
]
const logTargets: LogTarget[] = [
  { title: 'commit to spool, p99', row: 'commitToSpool', unit: 'seconds', must: 0.05, aim: 0.01 },
  { title: 'commit to repository, p99', row: 'commitToRepository', unit: 'seconds', must: 1.5, aim: 1.1 },
  { title: 'peak memory of shipping', row: 'shippingMemory', unit: 'bytes', must: 150e6, aim: 100e6 },
  { title: 'replay, wall, against cp', row: 'replayRatio', unit: 'ratio', must: 1.1, aim: 1 },
]

/** Judges every promise. */
export function judgePostgres(record: PostgresRecord): ClusterJudgement[] {
  const full = samplesOf(record, 'full', 'backstock')
  return [
    ...wallTargets.map((target) => judgeWall(record, target)),
    judgeOwn(memoryTarget, spread(full.map((sample) => sample.rssBytes)), false),
    ...walTargets.map((target) => {
      const samples = record.wal.filter((sample) => sample.checksCrc === target.checksCrc)
      return judgeOwn(target, spread(samples.map((sample) => sample.bytes / sample.seconds)), true)
    }),
    ...logTargets.map((target) => {
      const samples = record.log.filter((sample) => sample.row === target.row)
      return judgeOwn(target, spread(samples.map((sample) => sample.value)), false)
    }),
  ]
}

/** All samples of a step by a peer. */
export function samplesOf(record: PostgresRecord, step: ClusterStep, peer: ClusterPeerName): ClusterSample[] {
  return record.samples.filter((sample) => sample.step === step && sample.peer === peer)
}

function judgeWall(record: PostgresRecord, target: Bounds & { step: ClusterStep }): ClusterJudgement {
  const { title, unit, must, aim } = target
  const of = (peer: ClusterPeerName) =>
    spread(samplesOf(record, target.step, peer).map((sample) => sample.wallSeconds))
  const [ours, theirs] = [of('backstock'), of('pgbackrest')]
  const value = ours === undefined || theirs === undefined ? undefined : ours.median / theirs.median
  const verdict = verdictOf(value, { must, aim }, false)
  return { title, unit, ours, theirs, value, isRatio: true, must, aim, isFloor: false, verdict }
}

function judgeOwn(target: Bounds, ours: Spread | undefined, isFloor: boolean): ClusterJudgement {
  const { title, unit, must, aim } = target
  const value = ours?.median
  const verdict = verdictOf(value, target, isFloor)
  return { title, unit, ours, theirs: undefined, value, isRatio: false, must, aim, isFloor, verdict }
}

function verdictOf(
  value: number | undefined,
  bounds: { must: number; aim: number },
  isFloor: boolean,
): Verdict {
  if (value === undefined || Number.isNaN(value)) return 'not measured'
  const isWithin = (bound: number) => (isFloor ? value >= bound : value <= bound)
  if (isWithin(bounds.aim)) return 'aim reached'
  return isWithin(bounds.must) ? 'as it must be' : 'missed'
}
