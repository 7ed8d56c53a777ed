/**
 * What a bench found, as bench/results/latest.json keeps it: the raw samples and all that is needed to judge
 * them.
 */
import type { IndexMemory } from './measures/index-memory.ts'
import type { Usage } from './measure.ts'
import type { PeerName } from './peers/peer.ts'

/** A step of a round that is measured. */
export type Step = 'first' | 'second' | 'restore' | 'check' | 'day2' | 'day2-database' | 'memory'

/**
 * One run of one step by one peer. Bytes are of the repository after the step, and how many the step added.
 */
export interface Sample extends Usage {
  step: Step
  peer: PeerName
  round: number
  repositoryBytes: number
  newBytes: number
}

/** How a series of growth is counted: bytes of shop data, or small files. */
export type GrowthSeries = 'bytes' | 'files'

/** One backup of a data set of one size. */
export interface GrowthSample extends Usage {
  series: GrowthSeries
  size: number
  step: 'first' | 'second'
  peer: PeerName
  round: number
}

export interface Machine {
  processor: string
  cores: number
  memoryBytes: number
  kernel: string
}

export interface BenchRecord {
  date: string
  command: string
  machine: Machine
  versions: Record<string, string>
  rounds: number
  scale: number
  shop: { files: number; bytes: number }
  samples: Sample[]
  growth: GrowthSample[]
  /** Null when it was not measured, with the reason. */
  indexMemory: IndexMemory | null
  indexMemoryMissing: string
}
