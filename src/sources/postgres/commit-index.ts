/**
 * Reads log as it comes and notes what people will ask of it: which transaction ended where and when, restore
 * points, drops, how many rows were written. Memory is bounded by how much log lies between two takeNotes()
 * calls: at most one commit in 40 bytes, of relations CHANGED_RELATIONS_MAX, of drops DROPS_MAX.
 */
import { Failure } from '../../base/failure.ts'
import {
  NO_CHANGES,
  type ChangeNote,
  type DropNote,
  type LogNotes,
  type RecordSpan,
  type RowCounts,
  type TransactionNote,
  type XidRun,
} from './log-notes.ts'
import { formatLsn, type Lsn } from './lsn.ts'
import { unixMicroseconds } from './pg-time.ts'
import { eventOf, rowChange, type TransactionEnd, type WalEvent } from './wal-events.ts'
import { feedWal, newWalReader, recordLsn, type WalReader } from './wal-reader.ts'
import { decodeRecord, MANAGER_INFO, newWalRecord, RM, type WalRecord } from './wal-record.ts'

/** Relations that are counted apart between two takeNotes() calls. */
export const CHANGED_RELATIONS_MAX = 4096
export const DROPS_MAX = 50_000
/** Runs of subtransactions between two takeNotes() calls; above it a transaction keeps only their bounds. */
export const XID_RUNS_MAX = 32_768

const PAGE = 8192n
const PAGE_HEADER_BYTES = 24n
const FIRST_PAGE_HEADER_BYTES = 40n
const PREVIOUS_AT = 8
const INFO_AT = 16
const MANAGER_AT = 17
const XACT_OPERATION = 0x70
const XACT_PREPARE = 0x10
const XLOG_BACKUP_END = 0x50
/** Numbers below it are those of catalogs (FirstNormalObjectId). */
const USER_RELATION_MIN = 16_384
const NO_RUNS: readonly XidRun[] = []

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] }

/** What is noted since the last takeNotes(), by the lists of LogNotes. */
interface Gathered {
  span: Mutable<RecordSpan> | undefined
  readonly ends: TransactionNote[]
  readonly prepares: LogNotes['prepares'][number][]
  readonly points: LogNotes['points'][number][]
  readonly drops: DropNote[]
  dropsOmitted: number
  readonly truncates: LogNotes['truncates'][number][]
  /** By the number of the relation; of several with one number the others follow in `next`. */
  readonly changes: Map<number, Change>
  readonly otherChanges: Mutable<RowCounts>
  readonly checkpoints: LogNotes['checkpoints'][number][]
  readonly promotions: LogNotes['promotions'][number][]
  readonly backupEnds: LogNotes['backupEnds'][number][]
  runCount: number
}

interface Change extends Mutable<ChangeNote> {
  next: Change | undefined
}

export interface LogIndexer {
  readonly reader: WalReader
  readonly major: number
  readonly record: WalRecord
  gathered: Gathered
  changeCount: number
  /** Reading failed, and will not go on. */
  hasFailed: boolean
  /** The last record: its position is worked out when it is asked for, a bigint for each would cost. */
  lastBase: Lsn
  lastOffset: number
  lastBytes: number
  /** When the last transaction ended. */
  lastEndAt: bigint
}

/**
 * An indexer of log from the page of `at` on; a record that began before that page is passed over. `major` is
 * the server's version. Without `checkCrc` it is faster, for log that was checked before.
 */
export function newIndexer(options: {
  readonly at: Lsn
  readonly segmentBytes: number
  readonly major: number
  readonly checkCrc: boolean
}): LogIndexer {
  const { at: from, segmentBytes, major, checkCrc } = options
  const reader = newWalReader({
    from,
    segmentBytes,
    checkCrc,
    onRecord: (bytes, at, length) => takeRecord(indexer, bytes, at, length),
  })
  const indexer: LogIndexer = {
    reader,
    major,
    record: newWalRecord(),
    gathered: nothing(),
    changeCount: 0,
    hasFailed: false,
    lastBase: 0n,
    lastOffset: 0,
    lastBytes: 0,
    lastEndAt: 0n,
  }
  return indexer
}

/**
 * Reads on: `bytes` are those at `indexer.reader.next`. Keeps no view of them. Fails: source.failed when the
 * bytes are no log, a record's checksum is wrong, or the log had ended before them.
 */
export function feedIndexer(indexer: LogIndexer, bytes: Buffer): void {
  const { endedAt, next } = indexer.reader
  const is = indexer.hasFailed ? 'reading it failed before' : 'it had ended before'
  if (indexer.hasFailed || (endedAt !== undefined && bytes.length > 0)) {
    indexer.hasFailed = true
    throw new Failure('source.failed', `Cannot read the log at ${formatLsn(next)}: ${is}`)
  }
  indexer.hasFailed = true
  feedWal(indexer.reader, bytes)
  indexer.hasFailed = false
}

/**
 * What ended in the bytes fed since the last call. Names and marks are empty: they come from elsewhere.
 * Records that are not whole yet will be in the next notes. After a failure they say that log is unread.
 */
export function takeNotes(indexer: LogIndexer): LogNotes {
  const { gathered, reader } = indexer
  indexer.gathered = nothing()
  indexer.changeCount = 0
  const { runCount: _, span, changes, ...lists } = gathered
  if (span !== undefined) {
    span.last = indexer.lastBase + BigInt(indexer.lastOffset)
    span.end = recordEnd(span.last, indexer.lastBytes, reader.segmentBytes)
  }
  const isUnread = indexer.hasFailed
  return { ...lists, span, isUnread, changes: listChanges(changes), names: [], marks: [] }
}

function nothing(): Gathered {
  return {
    span: undefined,
    ends: [],
    prepares: [],
    points: [],
    drops: [],
    dropsOmitted: 0,
    truncates: [],
    changes: new Map(),
    otherChanges: { ...NO_CHANGES },
    checkpoints: [],
    promotions: [],
    backupEnds: [],
    runCount: 0,
  }
}

/**
 * Where a record of `length` bytes at `lsn` ends, as the server counts it (XLogBytePosToEndRecPtr): at a
 * multiple of 8, and before the header of a page that it leaves to the next record.
 */
export function recordEnd(lsn: Lsn, length: number, segmentBytes: number): Lsn {
  let at = lsn
  let left = BigInt((length + 7) & ~7)
  for (;;) {
    const room = PAGE - (at % PAGE)
    if (left <= room) return at + left
    left -= room
    at += room
    at += at % BigInt(segmentBytes) === 0n ? FIRST_PAGE_HEADER_BYTES : PAGE_HEADER_BYTES
  }
}

function takeRecord(indexer: LogIndexer, bytes: Buffer, at: number, length: number): void {
  noteSpan(indexer, bytes, at, length)
  const manager = bytes[at + MANAGER_AT]!
  if (manager === RM.heap || manager === RM.heap2) {
    decodeRecord(indexer.record, bytes, { at, length }, indexer.major)
    countRows(indexer)
    return
  }
  if (manager !== RM.xact && manager !== RM.xlog && manager !== RM.smgr && manager !== RM.database) return
  const { record, reader, major } = indexer
  decodeRecord(record, bytes, { at, length }, major)
  const lsn = recordLsn(reader)
  const info = bytes[at + INFO_AT]!
  if (manager === RM.xact && (info & XACT_OPERATION) === XACT_PREPARE) notePrepare(indexer, lsn)
  else if (manager === RM.xlog && (info & MANAGER_INFO) === XLOG_BACKUP_END) {
    const end = recordEnd(lsn, length, reader.segmentBytes)
    indexer.gathered.backupEnds.push({ lsn, end, start: mainBytes(record, 0, 8).readBigUInt64LE(0) })
  } else {
    const event = eventOf(record, major)
    if (event !== undefined) noteEvent(indexer, event, lsn, length)
  }
}

function noteSpan(indexer: LogIndexer, bytes: Buffer, at: number, length: number): void {
  const { gathered, reader } = indexer
  indexer.lastBase = reader.base
  indexer.lastOffset = reader.recordOffset
  indexer.lastBytes = length
  if (gathered.span !== undefined) return
  const [lsn, previous] = [recordLsn(reader), bytes.readBigUInt64LE(at + PREVIOUS_AT)]
  gathered.span = { first: lsn, previous, last: lsn, end: lsn }
}

function noteEvent(indexer: LogIndexer, event: WalEvent, lsn: Lsn, length: number): void {
  const { gathered } = indexer
  switch (event.kind) {
    case 'commit':
    case 'abort':
      noteEnd(indexer, { kind: event.kind, end: event.end, lsn, length })
      return
    case 'restore-point':
      gathered.points.push({ lsn, at: event.at, name: event.name })
      return
    case 'checkpoint':
      gathered.checkpoints.push({ lsn, at: event.at, redo: event.redo, timeline: event.timeline })
      return
    case 'end-of-recovery':
      gathered.promotions.push({ lsn, at: event.at, timeline: event.timeline, before: event.before })
      return
    case 'drop-database': {
      const files = { tablespace: 0, database: event.database, relation: 0 }
      noteDrop(gathered, { lsn, at: indexer.lastEndAt, xid: event.xid, files })
      return
    }
    case 'truncate':
      if (gathered.truncates.length >= DROPS_MAX) gathered.dropsOmitted++
      else gathered.truncates.push({ lsn, xid: event.xid, files: event.files, block: event.block })
      return
    case 'create-database':
    case 'wal-level':
  }
}

interface EndedTransaction {
  readonly kind: 'commit' | 'abort'
  readonly end: TransactionEnd
  readonly lsn: Lsn
  readonly length: number
}

function noteEnd(indexer: LogIndexer, { kind, end, lsn, length }: EndedTransaction): void {
  const { gathered, reader, record } = indexer
  const { xid, at, isPrepared } = end
  const runs = listRuns(end.subtransactions, XID_RUNS_MAX - gathered.runCount)
  const subtransactions = runs ?? [boundsOf(end.subtransactions)]
  gathered.runCount += subtransactions.length
  gathered.ends.push({
    kind,
    lsn,
    end: recordEnd(lsn, length, reader.segmentBytes),
    previous: record.bytes.readBigUInt64LE(record.at + PREVIOUS_AT),
    at,
    xid,
    isPrepared,
    subtransactions,
    isThinned: runs === undefined,
  })
  indexer.lastEndAt = at
  // What an abort removes are relations that nobody has seen.
  if (kind === 'commit') for (const files of end.dropped) noteDrop(gathered, { lsn, at, xid, files })
}

function noteDrop(gathered: Gathered, drop: DropNote): void {
  if (gathered.drops.length < DROPS_MAX) gathered.drops.push(drop)
  else gathered.dropsOmitted++
}

/** Numbers that follow each other as runs, since savepoints come in rows; undefined if there are too many. */
function listRuns(xids: readonly number[], countMax: number): readonly XidRun[] | undefined {
  if (xids.length === 0) return NO_RUNS
  const runs: Mutable<XidRun>[] = []
  let last: Mutable<XidRun> | undefined
  for (const xid of xids) {
    if (last !== undefined && xid === last.first + last.count) last.count++
    else if (runs.length >= countMax) return undefined
    else runs.push((last = { first: xid, count: 1 }))
  }
  return runs
}

function boundsOf(xids: readonly number[]): XidRun {
  let [low, high] = [0xffff_ffff, 0]
  for (const xid of xids) {
    low = Math.min(low, xid)
    high = Math.max(high, xid)
  }
  return { first: low, count: high - low + 1 }
}

/** xl_xact_prepare: the name lies behind a header that became longer with version 15. */
function notePrepare({ gathered, record, major }: LogIndexer, lsn: Lsn): void {
  const layout = major < 15 ? { lengthAt: 46, bytes: 64 } : { lengthAt: 54, bytes: 72 }
  const header = mainBytes(record, 0, layout.bytes)
  const name = mainBytes(record, layout.bytes, header.readUInt16LE(layout.lengthAt))
  gathered.prepares.push({
    lsn,
    at: unixMicroseconds(header.readBigInt64LE(16)),
    xid: header.readUInt32LE(8),
    name: name.toString('utf8').replace(/\0[^]*$/, ''),
  })
}

/** A view of a record's main data. Fails: source.failed. */
function mainBytes({ bytes, mainAt, end }: WalRecord, from: number, count: number): Buffer {
  if (mainAt + from + count <= end) return bytes.subarray(mainAt + from, mainAt + from + count)
  const is = 'it is shorter than what it should hold'
  throw new Failure('source.failed', `Cannot read a record of the log: ${is}`)
}

function countRows(indexer: LogIndexer): void {
  const { record } = indexer
  const change = rowChange(record)
  if (change === undefined || record.blockCount === 0) return
  const { relation } = record.blocks[0]!
  if (relation < USER_RELATION_MIN) return
  const counts = changeOf(indexer)
  if (change.kind === 'insert') counts.inserted += change.rows
  else if (change.kind === 'update') counts.updated += change.rows
  else counts.deleted += change.rows
}

/** Where the rows of the record's relation are counted. */
function changeOf(indexer: LogIndexer): Mutable<RowCounts> {
  const { gathered, record } = indexer
  const { tablespace, database, relation } = record.blocks[0]!
  const first = gathered.changes.get(relation)
  for (let change = first; change !== undefined; change = change.next) {
    const { files } = change
    if (files.database === database && files.tablespace === tablespace) return change
  }
  if (indexer.changeCount >= CHANGED_RELATIONS_MAX) return gathered.otherChanges
  indexer.changeCount++
  const change = { files: { tablespace, database, relation }, ...NO_CHANGES, next: first }
  gathered.changes.set(relation, change)
  return change
}

/** In the order of their names, which packs well. */
function listChanges(changes: ReadonlyMap<number, Change>): ChangeNote[] {
  const list: ChangeNote[] = []
  for (const first of changes.values())
    for (let change: Change | undefined = first; change !== undefined; change = change.next) {
      const { files, inserted, updated, deleted } = change
      list.push({ files, inserted, updated, deleted })
    }
  return list.sort(
    (a, b) =>
      a.files.database - b.files.database ||
      a.files.relation - b.files.relation ||
      a.files.tablespace - b.files.tablespace,
  )
}
