/**
 * Reads what `global/pg_control` says of a cluster (pg_control.h). The fields read here have been at the same
 * places in versions 13 to 18; a number that no other layout would show there tells that they still are.
 */
import { Failure } from '../../base/failure.ts'

/** In the order in which pg_control, and a record of their change (xl_parameter_change), has them. */
const LIMITS = [
  'max_connections',
  'max_worker_processes',
  'max_wal_senders',
  'max_prepared_transactions',
  'max_locks_per_transaction',
] as const

/** By setting: that the server which wrote the log ran with; one that replays it needs as many. */
export type ReplayLimits = Readonly<Record<(typeof LIMITS)[number], number>>

export interface ControlFile {
  readonly limits: ReplayLimits
  readonly pageBytes: number
  /** Pages in one file of a relation. */
  readonly fileBlocks: number
  readonly segmentBytes: number
  readonly hasChecksums: boolean
}

const LIMITS_AT = 180
/** FLOATFORMAT_VALUE, which tells the layout of numbers. */
const FLOAT_AT = 208
const FLOAT = 1_234_567
const PAGE_BYTES_AT = 216
const FILE_BLOCKS_AT = 220
const SEGMENT_BYTES_AT = 228
const CHECKSUM_VERSION_AT = 252
const BYTES_MIN = 256

/** Fails: repo.corrupt. */
export function parseControlFile(bytes: Buffer): ControlFile {
  if (bytes.length < BYTES_MIN || bytes.readDoubleLE(FLOAT_AT) !== FLOAT)
    throw new Failure('repo.corrupt', 'Cannot read pg_control: it is not that of PostgreSQL 13 to 18')
  return {
    limits: readReplayLimits(bytes, LIMITS_AT),
    pageBytes: bytes.readUInt32LE(PAGE_BYTES_AT),
    fileBlocks: bytes.readUInt32LE(FILE_BLOCKS_AT),
    segmentBytes: bytes.readUInt32LE(SEGMENT_BYTES_AT),
    hasChecksums: bytes.readUInt32LE(CHECKSUM_VERSION_AT) !== 0,
  }
}

/** `at`: where the first of them lies, each an i32. */
export function readReplayLimits(bytes: Buffer, at: number): ReplayLimits {
  const values = LIMITS.map((name, nth) => [name, bytes.readInt32LE(at + 4 * nth)])
  return Object.fromEntries(values) as ReplayLimits
}
