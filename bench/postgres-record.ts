/** What the PostgreSQL part of the bench found, as bench/results/postgres.json keeps it. */
import type { Usage } from './measure.ts'
import type { Machine } from './record.ts'

export type ClusterPeerName = 'backstock' | 'pgbackrest'
export type ClusterStep = 'full' | 'restore'

/** One run of one step by one peer. */
export interface ClusterSample extends Usage {
  step: ClusterStep
  peer: ClusterPeerName
  round: number
  /** Of the server's processes that ended meanwhile: what it sent a backup with. */
  serverCpuSeconds: number
  /** Of the repository after the step, the log in it included. */
  repositoryBytes: number
}

/** Log read once by one thread. */
export interface WalSample {
  checksCrc: boolean
  round: number
  bytes: number
  records: number
  seconds: number
}

/**
 * One run of a measure of the log that other programs make, by the name of its row: how long a commit took to
 * be durable, how long a replay took. Rows without samples are shown as not measured.
 */
export interface LogSample {
  row: LogRowName
  round: number
  /** What is compared with the row's bounds: seconds, bytes, or the ratio to the peer. */
  value: number
}

/** What is promised about a log: seconds at the 99th percentile, bytes, ratio to cp. */
export type LogRowName = 'commitToSpool' | 'commitToRepository' | 'shippingMemory' | 'replayRatio'

export interface PostgresRecord {
  date: string
  command: string
  machine: Machine
  versions: Record<string, string>
  rounds: number
  scale: number
  clusterBytes: number
  samples: ClusterSample[]
  wal: WalSample[]
  log: LogSample[]
  /** Why it was not measured; empty: it was. */
  missing: string
}
