/**
 * What people ask of the log: commits with their time, what was dropped, restore points, ends of timelines.
 * Layouts: xact.h and xactdesc.c, xlog.h, pg_control.h, dbcommands_xlog.h, heapam_xlog.h.
 */
import { Failure } from '../../base/failure.ts'
import { unixMicroseconds } from './pg-time.ts'
import { MANAGER_INFO, RM, type WalRecord } from './wal-record.ts'

/** Numbers that name the files of a relation. */
export interface RelationFiles {
  readonly tablespace: number
  readonly database: number
  readonly relation: number
}

/** `at` is Unix time in microseconds. */
export type WalEvent =
  | { readonly kind: 'commit' | 'abort'; readonly end: TransactionEnd }
  | { readonly kind: 'restore-point'; readonly at: bigint; readonly name: string }
  | { readonly kind: 'checkpoint'; readonly at: bigint; readonly timeline: number; readonly redo: bigint }
  | {
      readonly kind: 'end-of-recovery'
      readonly at: bigint
      readonly timeline: number
      readonly before: number
    }
  | { readonly kind: 'wal-level'; readonly level: number }
  | { readonly kind: 'create-database' | 'drop-database'; readonly database: number; readonly xid: number }
  | { readonly kind: 'truncate'; readonly files: RelationFiles; readonly block: number; readonly xid: number }

export interface TransactionEnd {
  /** The top-level transaction, also of one that was prepared before. */
  readonly xid: number
  readonly at: bigint
  readonly subtransactions: readonly number[]
  /** Relations whose files go with this end: dropped, truncated or rewritten ones. */
  readonly dropped: readonly RelationFiles[]
  readonly isPrepared: boolean
}

/** What a heap record did to the rows of block 0's relation. */
export interface RowChange {
  readonly kind: 'insert' | 'update' | 'delete'
  readonly rows: number
}

const OPERATION = 0x70
const XACT = { commit: 0x00, abort: 0x20, commitPrepared: 0x30, abortPrepared: 0x40 } as const
const XACT_HAS_INFO = 0x80
const XINFO = {
  database: 1,
  subtransactions: 2,
  relations: 4,
  invalidations: 8,
  twoPhase: 16,
  stats: 256,
} as const
const XLOG = {
  checkpointShutdown: 0x00,
  checkpointOnline: 0x10,
  parameterChange: 0x60,
  restorePoint: 0x70,
  endOfRecovery: 0x90,
} as const
const SMGR_TRUNCATE = 0x20
const HEAP = { insert: 0x00, delete: 0x10, update: 0x20, hotUpdate: 0x40 } as const
const HEAP2_MULTI_INSERT = 0x50
const INVALIDATION_BYTES = 16
const RELATION_BYTES = 12
/** pg_control.h CheckPoint: seconds of Unix time. */
const CHECKPOINT_TIME_AT = 64
const CREATE_BY_COPY = 0x00
const CREATE_BY_LOG = 0x10
const DROP_DATABASE = { before15: 0x10, since15: 0x20 } as const

/** What the record tells of, or undefined: most records only change pages. Fails: source.failed. */
export function eventOf(record: WalRecord, major: number): WalEvent | undefined {
  switch (record.manager) {
    case RM.xact:
      return transactionEnd(record, major)
    case RM.xlog:
      return xlogEvent(record)
    case RM.database:
      return databaseEvent(record, major)
    case RM.smgr:
      return (record.info & MANAGER_INFO) === SMGR_TRUNCATE ? truncation(record) : undefined
    default:
      return undefined
  }
}

/** Rows that a heap record adds, changes or takes away; undefined for all others. */
export function rowChange(record: WalRecord): RowChange | undefined {
  const operation = record.info & OPERATION
  if (record.manager === RM.heap2)
    return operation === HEAP2_MULTI_INSERT
      ? { kind: 'insert', rows: record.bytes.readUInt16LE(record.mainAt + 2) }
      : undefined
  if (record.manager !== RM.heap) return undefined
  if (operation === HEAP.insert) return INSERTED
  if (operation === HEAP.delete) return DELETED
  return operation === HEAP.update || operation === HEAP.hotUpdate ? UPDATED : undefined
}

const INSERTED: RowChange = { kind: 'insert', rows: 1 }
const UPDATED: RowChange = { kind: 'update', rows: 1 }
const DELETED: RowChange = { kind: 'delete', rows: 1 }

function transactionEnd(record: WalRecord, major: number): WalEvent | undefined {
  const operation = record.info & OPERATION
  const isCommit = operation === XACT.commit || operation === XACT.commitPrepared
  if (!isCommit && operation !== XACT.abort && operation !== XACT.abortPrepared) return undefined
  const from = { bytes: record.bytes, at: record.mainAt, end: record.end }
  const at = unixMicroseconds(takeInt64(from))
  const xinfo = (record.info & XACT_HAS_INFO) === 0 ? 0 : takeUint32(from)
  if (xinfo & XINFO.database) skip(from, 8)
  const subtransactions = xinfo & XINFO.subtransactions ? takeList(from, 4, takeUint32) : []
  const dropped = xinfo & XINFO.relations ? takeList(from, RELATION_BYTES, takeFiles) : []
  if (xinfo & XINFO.stats) skip(from, takeUint32(from) * (major < 18 ? 12 : 16))
  if (xinfo & XINFO.invalidations) skip(from, takeUint32(from) * INVALIDATION_BYTES)
  const isPrepared = (xinfo & XINFO.twoPhase) !== 0
  const xid = isPrepared ? takeUint32(from) : record.xid
  return { kind: isCommit ? 'commit' : 'abort', end: { xid, at, subtransactions, dropped, isPrepared } }
}

function xlogEvent(record: WalRecord): WalEvent | undefined {
  const from = { bytes: record.bytes, at: record.mainAt, end: record.end }
  switch (record.info & MANAGER_INFO) {
    case XLOG.restorePoint: {
      const at = unixMicroseconds(takeInt64(from))
      const end = from.bytes.indexOf(0, from.at)
      return {
        kind: 'restore-point',
        at,
        name: from.bytes.toString('utf8', from.at, Math.min(end, from.end)),
      }
    }
    case XLOG.endOfRecovery:
      return {
        kind: 'end-of-recovery',
        at: unixMicroseconds(takeInt64(from)),
        timeline: takeUint32(from),
        before: takeUint32(from),
      }
    case XLOG.checkpointShutdown:
    case XLOG.checkpointOnline:
      return checkpoint(from)
    case XLOG.parameterChange:
      skip(from, 20)
      return { kind: 'wal-level', level: takeUint32(from) }
    default:
      return undefined
  }
}

function checkpoint(from: Cursor): WalEvent {
  const start = from.at
  const redo = takeUint64(from)
  const timeline = takeUint32(from)
  from.at = start + CHECKPOINT_TIME_AT
  return { kind: 'checkpoint', redo, timeline, at: takeInt64(from) * 1_000_000n }
}

function databaseEvent(record: WalRecord, major: number): WalEvent | undefined {
  const operation = record.info & MANAGER_INFO
  const from = { bytes: record.bytes, at: record.mainAt, end: record.end }
  const drop = major < 15 ? DROP_DATABASE.before15 : DROP_DATABASE.since15
  const isKnown = operation === drop || operation === CREATE_BY_COPY || operation === CREATE_BY_LOG
  if (!isKnown) return undefined
  const kind = operation === drop ? 'drop-database' : 'create-database'
  return { kind, database: takeUint32(from), xid: record.xid }
}

function truncation(record: WalRecord): WalEvent {
  const from = { bytes: record.bytes, at: record.mainAt, end: record.end }
  const block = takeUint32(from)
  return { kind: 'truncate', block, files: takeFiles(from), xid: record.xid }
}

/** Where in a record's main data the reading stands. */
interface Cursor {
  readonly bytes: Buffer
  at: number
  readonly end: number
}

function takeFiles(from: Cursor): RelationFiles {
  return { tablespace: takeUint32(from), database: takeUint32(from), relation: takeUint32(from) }
}

/** A list that begins with its length; each item has `itemBytes`. */
function takeList<T>(from: Cursor, itemBytes: number, take: (from: Cursor) => T): T[] {
  const count = takeUint32(from)
  if (count * itemBytes > from.end - from.at) throw tooShort()
  return Array.from({ length: count }, () => take(from))
}

function takeUint32(from: Cursor): number {
  const { at } = from
  skip(from, 4)
  return from.bytes.readUInt32LE(at)
}

function takeUint64(from: Cursor): bigint {
  const { at } = from
  skip(from, 8)
  return from.bytes.readBigUInt64LE(at)
}

function takeInt64(from: Cursor): bigint {
  const { at } = from
  skip(from, 8)
  return from.bytes.readBigInt64LE(at)
}

function skip(from: Cursor, bytes: number): void {
  if (bytes > from.end - from.at) throw tooShort()
  from.at += bytes
}

function tooShort(): Failure {
  return new Failure(
    'source.failed',
    'Cannot read a record of the log: it is shorter than what it should hold',
  )
}
