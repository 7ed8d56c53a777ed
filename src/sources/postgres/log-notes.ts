/**
 * What is known of a stretch of log without reading it: transactions with their times, restore points, drops,
 * counts of changed rows, names of relations, coverage marks. The record, and merging; its bytes are
 * notes-codec.ts.
 */
import type { Lsn } from './lsn.ts'
import type { RelationFiles } from './wal-events.ts'

/** All times are Unix time in microseconds, by the clock of the server, unless said otherwise. */
export interface LogNotes {
  /** undefined: no record ended in the stretch. */
  readonly span: RecordSpan | undefined
  /** Log of the stretch could not be read, from some record on: nobody knows what it holds. */
  readonly isUnread: boolean
  /** Commits and aborts in the order of the log, which need not be that of their times. */
  readonly ends: readonly TransactionNote[]
  readonly prepares: readonly PrepareNote[]
  readonly points: readonly RestorePointNote[]
  readonly drops: readonly DropNote[]
  /** Drops beyond DROPS_MAX: the log has them, the notes do not. */
  readonly dropsOmitted: number
  readonly truncates: readonly TruncateNote[]
  /** Rows that were written, whether their transactions committed or not. Catalogs are not counted. */
  readonly changes: readonly ChangeNote[]
  /** Of relations beyond CHANGED_RELATIONS_MAX. */
  readonly otherChanges: RowCounts
  readonly checkpoints: readonly CheckpointNote[]
  readonly promotions: readonly PromotionNote[]
  readonly backupEnds: readonly BackupEndNote[]
  /** Those that are new or changed since the notes before. */
  readonly names: readonly NameNote[]
  readonly marks: readonly MarkNote[]
}

/**
 * The first and the last record that ended in the stretch. That of the next notes names this `last` as its
 * `previous`, so that no record between them can be missing unseen.
 */
export interface RecordSpan {
  readonly first: Lsn
  readonly previous: Lsn
  readonly last: Lsn
  /** Behind the last one, as the server counts it: a multiple of 8. */
  readonly end: Lsn
}

export interface TransactionNote {
  readonly kind: 'commit' | 'abort'
  /** Where the record begins: recovery_target_lsn compares with this. */
  readonly lsn: Lsn
  /** Behind it: once the log is durable up to here, so is the transaction. */
  readonly end: Lsn
  /** Where the record before it begins. */
  readonly previous: Lsn
  readonly at: bigint
  /** The top-level transaction, also of one that was prepared before. */
  readonly xid: number
  readonly isPrepared: boolean
  /** Committed or aborted together with it. */
  readonly subtransactions: readonly XidRun[]
  /** There were too many: the one run only says between which they lie. */
  readonly isThinned: boolean
}

/** `count` transactions from `first` on. */
export interface XidRun {
  readonly first: number
  readonly count: number
}

/** PREPARE TRANSACTION: in doubt until an end with the same xid comes. */
export interface PrepareNote {
  readonly lsn: Lsn
  readonly at: bigint
  readonly xid: number
  /** The name that COMMIT PREPARED takes. */
  readonly name: string
}

export interface RestorePointNote {
  readonly lsn: Lsn
  readonly at: bigint
  readonly name: string
}

/** Files that went with a commit: a drop, or a TRUNCATE, VACUUM FULL or rewrite that made new ones. */
export interface DropNote {
  /** Of the commit; for a database (relation 0) of the record that removes it. */
  readonly lsn: Lsn
  /** Of the commit; for a database of the last transaction before. 0: there was none. */
  readonly at: bigint
  readonly xid: number
  readonly files: RelationFiles
}

/** A relation became shorter in place: VACUUM, or TRUNCATE in the transaction that made it. */
export interface TruncateNote {
  readonly lsn: Lsn
  readonly xid: number
  readonly files: RelationFiles
  /** First block that is gone. */
  readonly block: number
}

export interface RowCounts {
  readonly inserted: number
  readonly updated: number
  readonly deleted: number
}

export interface ChangeNote extends RowCounts {
  readonly files: RelationFiles
}

export interface CheckpointNote {
  readonly lsn: Lsn
  readonly at: bigint
  readonly redo: Lsn
  readonly timeline: number
}

export interface PromotionNote {
  readonly lsn: Lsn
  readonly at: bigint
  readonly timeline: number
  readonly before: number
}

/** Where a cluster recovered from a base backup becomes consistent. */
export interface BackupEndNote {
  readonly lsn: Lsn
  readonly end: Lsn
  /** Where that backup began. */
  readonly start: Lsn
}

/** From `lsn` on these files are those of a relation; relation 0: `name` is that of the database. */
export interface NameNote {
  readonly lsn: Lsn
  readonly files: RelationFiles
  readonly schema: string
  readonly name: string
}

/** A moment at which the server had sent its log up to `lsn`. */
export interface MarkNote {
  readonly lsn: Lsn
  readonly serverTime: bigint
  /** Clock of the receiving host, milliseconds of Unix time. */
  readonly receivedAt: number
}

export const NO_CHANGES: RowCounts = { inserted: 0, updated: 0, deleted: 0 }

/** Notes of an empty stretch. */
export const NO_NOTES: LogNotes = {
  span: undefined,
  isUnread: false,
  ends: [],
  prepares: [],
  points: [],
  drops: [],
  dropsOmitted: 0,
  truncates: [],
  changes: [],
  otherChanges: NO_CHANGES,
  checkpoints: [],
  promotions: [],
  backupEnds: [],
  names: [],
  marks: [],
}

/** Notes of stretches that follow each other, as those of the whole. */
export function mergeNotes(parts: readonly LogNotes[]): LogNotes {
  const changes = new Map<string, ChangeNote>()
  for (const change of parts.flatMap((part) => part.changes)) {
    const { tablespace, database, relation } = change.files
    const key = `${tablespace}/${database}/${relation}`
    const known = changes.get(key)
    changes.set(key, known === undefined ? change : { files: change.files, ...addRows(known, change) })
  }
  return {
    span: mergeSpans(parts.flatMap(({ span }) => span ?? [])),
    isUnread: parts.some((part) => part.isUnread),
    ends: parts.flatMap((part) => part.ends),
    prepares: parts.flatMap((part) => part.prepares),
    points: parts.flatMap((part) => part.points),
    drops: parts.flatMap((part) => part.drops),
    dropsOmitted: parts.reduce((sum, part) => sum + part.dropsOmitted, 0),
    truncates: parts.flatMap((part) => part.truncates),
    changes: [...changes.values()],
    otherChanges: parts.reduce((sum, part) => addRows(sum, part.otherChanges), NO_CHANGES),
    checkpoints: parts.flatMap((part) => part.checkpoints),
    promotions: parts.flatMap((part) => part.promotions),
    backupEnds: parts.flatMap((part) => part.backupEnds),
    names: parts.flatMap((part) => part.names),
    marks: parts.flatMap((part) => part.marks),
  }
}

/** Where records are missing in between it begins behind them: whoever follows the chain will see it. */
function mergeSpans(spans: readonly RecordSpan[]): RecordSpan | undefined {
  return spans.reduce<RecordSpan | undefined>((whole, span) => {
    if (whole === undefined || (span.previous !== whole.last && span.first > whole.last)) return span
    if (span.last <= whole.last) return whole
    return { ...span, first: whole.first, previous: whole.previous }
  }, undefined)
}

export function addRows(a: RowCounts, b: RowCounts): RowCounts {
  return {
    inserted: a.inserted + b.inserted,
    updated: a.updated + b.updated,
    deleted: a.deleted + b.deleted,
  }
}
