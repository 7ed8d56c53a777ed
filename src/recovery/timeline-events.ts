/**
 * What happened to a cluster, from the notes of its log: taken piece by piece, called by names at the end,
 * since a name may become known only later. Pure.
 */
import type { ChangeNote, LogNotes, RowCounts } from '../sources/postgres/log-notes.ts'
import type { Lsn } from '../sources/postgres/lsn.ts'
import {
  addNames,
  databaseFiles,
  filesKey,
  nameAt,
  newNameHistory,
  type NameHistory,
} from '../sources/postgres/name-history.ts'
import type { NotesPiece } from '../sources/postgres/target-log.ts'
import type { RelationFiles } from '../sources/postgres/wal-events.ts'

/** Of the relations of one piece, those with the most deleted rows are told, from so many rows on. */
const DELETES_PER_PIECE = 3
const DELETED_ROWS_MIN = 100
/** Kept of a log; more are counted. */
const EVENTS_MAX = 200_000

/**
 * `point`: a restore point. `drop`: files went with a commit. `rewrite`: the same, and its relations had new
 * ones later: TRUNCATE, VACUUM FULL, REINDEX. `shrink`: a relation became shorter in place. `delete`: rows.
 */
export type LogEventKind = 'point' | 'drop' | 'rewrite' | 'shrink' | 'delete'

export interface LogEvent {
  readonly kind: LogEventKind
  readonly timeline: number
  readonly lsn: Lsn
  /** Unix time in microseconds by the server's clock, of the commit or of the next one; if one is known. */
  readonly at: bigint | undefined
  readonly xid: number | undefined
  /** Of the restore point; of relations as DATABASE.SCHEMA.NAME, of a database as DATABASE. */
  readonly names: readonly string[]
  /** Files whose names nobody noted: TOAST, what lived shortly. */
  readonly unnamed: number
  /** Of a delete: rows. Of a shrink: blocks that are left. */
  readonly count: number | undefined
}

export interface RelationTotals extends RowCounts {
  readonly name: string
}

export interface EventGathering {
  readonly names: NameHistory
  /** Microseconds; what is outside is passed over. */
  readonly span: { readonly from: bigint | undefined; readonly to: bigint | undefined }
  /** By timeline, position and kind: pieces may overlap. */
  readonly events: Map<string, RawEvent>
  readonly totals: Map<string, ChangeNote>
  otherChanges: RowCounts
  /** Events that are not there: the notes left them out, or there are too many. */
  omitted: number
}

interface RawEvent {
  readonly kind: LogEventKind
  readonly timeline: number
  readonly lsn: Lsn
  readonly at: bigint | undefined
  readonly xid: number | undefined
  readonly name: string | undefined
  readonly files: Map<string, RelationFiles>
  readonly count: number | undefined
}

export function newEventGathering(span: EventGathering['span']): EventGathering {
  const otherChanges = { inserted: 0, updated: 0, deleted: 0 }
  return { names: newNameHistory(), span, events: new Map(), totals: new Map(), otherChanges, omitted: 0 }
}

/** Takes the pieces of a timeline in order; what lies before `begin` is its parent's. */
export function gatherPiece(gathering: EventGathering, piece: NotesPiece, begin: Lsn): void {
  const { notes, timeline } = piece
  addNames(gathering.names, notes.names)
  const isOwn = ({ lsn }: { readonly lsn: Lsn }): boolean => lsn >= begin
  for (const { lsn, at, name } of notes.points.filter(isOwn))
    addEvent(gathering, { kind: 'point', timeline, lsn, at, name })
  for (const { lsn, at, xid, files } of notes.drops.filter(isOwn))
    addEvent(gathering, { kind: 'drop', timeline, lsn, at, xid, files })
  for (const { lsn, xid, files, block } of notes.truncates.filter(isOwn))
    addEvent(gathering, { kind: 'shrink', timeline, lsn, at: timeOf(notes, lsn), xid, files, count: block })
  // Rows of a piece have no times of their own: those of its last transaction.
  const at = notes.ends.at(-1)?.at
  if (!isWithin(gathering, at)) return
  gathering.omitted += notes.dropsOmitted
  addDeletes(gathering, piece, at)
  for (const change of notes.changes) {
    const key = filesKey(change.files)
    const known = gathering.totals.get(key)
    gathering.totals.set(key, known === undefined ? change : { ...change, ...addRows(known, change) })
  }
  gathering.otherChanges = addRows(gathering.otherChanges, notes.otherChanges)
}

/** In the order of timelines and positions. */
export function listEvents(gathering: EventGathering): LogEvent[] {
  const latest = latestFiles(gathering.names)
  const events = [...gathering.events.values()].map((raw) => namedEvent(gathering.names, latest, raw))
  return events.sort((a, b) => a.timeline - b.timeline || (a.lsn < b.lsn ? -1 : Number(a.lsn > b.lsn)))
}

/** The relations with the most changed rows first. */
export function listTotals({ totals, names }: EventGathering): RelationTotals[] {
  const byName = new Map<string, RelationTotals>()
  for (const { files, inserted, updated, deleted } of totals.values()) {
    const name = latestName(names, files) ?? `files ${filesKey(files)}`
    const known = byName.get(name)
    const rows = { inserted, updated, deleted }
    byName.set(name, { name, ...(known === undefined ? rows : addRows(known, rows)) })
  }
  const all = ({ inserted, updated, deleted }: RowCounts): number => inserted + updated + deleted
  return [...byName.values()].sort((a, b) => all(b) - all(a) || (a.name < b.name ? -1 : 1))
}

interface NewEvent {
  readonly kind: LogEventKind
  readonly timeline: number
  readonly lsn: Lsn
  readonly at: bigint | undefined
  readonly xid?: number
  readonly name?: string
  readonly files?: RelationFiles
  readonly count?: number
}

/** Files that went with one commit are one event. */
function addEvent(gathering: EventGathering, event: NewEvent): void {
  const { kind, timeline, lsn, at, xid, name, files, count } = event
  if (!isWithin(gathering, at)) return
  const own = kind === 'shrink' || kind === 'delete'
  const key = `${timeline}/${lsn}/${kind}/${own && files !== undefined ? filesKey(files) : ''}`
  let known = gathering.events.get(key)
  if (known === undefined) {
    if (gathering.events.size >= EVENTS_MAX) {
      gathering.omitted++
      return
    }
    known = { kind, timeline, lsn, at, xid, name, files: new Map(), count }
    gathering.events.set(key, known)
  }
  if (files !== undefined) known.files.set(filesKey(files), files)
}

function addDeletes(gathering: EventGathering, { notes, timeline, to }: NotesPiece, at?: bigint): void {
  const most = notes.changes
    .filter(({ deleted }) => deleted >= DELETED_ROWS_MIN)
    .toSorted((a, b) => b.deleted - a.deleted)
    .slice(0, DELETES_PER_PIECE)
  const lsn = notes.ends.at(-1)?.lsn ?? to
  for (const { files, deleted } of most)
    addEvent(gathering, { kind: 'delete', timeline, lsn, at, files, count: deleted })
}

/** Of what has no time: nobody knows, so that it is passed over when times are asked for. */
function isWithin({ span: { from, to } }: EventGathering, at: bigint | undefined): boolean {
  if (from === undefined && to === undefined) return true
  if (at === undefined) return false
  return (from === undefined || at >= from) && (to === undefined || at <= to)
}

/** Of the next transaction that ends, else of the last one. */
function timeOf({ ends }: LogNotes, lsn: Lsn): bigint | undefined {
  return (ends.find((end) => end.lsn >= lsn) ?? ends.at(-1))?.at
}

function namedEvent(
  names: NameHistory,
  latest: ReadonlyMap<string, { readonly key: string; readonly lsn: Lsn }>,
  { kind, timeline, lsn, at, xid, name, files, count }: RawEvent,
): LogEvent {
  if (name !== undefined) return { kind, timeline, lsn, at, xid, names: [name], unnamed: 0, count }
  const named: string[] = []
  let isRewritten = kind === 'drop'
  for (const [key, each] of files) {
    const called = nameOf(names, each, lsn)
    if (called === undefined) continue
    named.push(called)
    const newest = latest.get(called)
    isRewritten &&= newest !== undefined && newest.key !== key && newest.lsn >= lsn
  }
  const isSame = isRewritten && named.length > 0
  const unnamed = files.size - named.length
  return { kind: isSame ? 'rewrite' : kind, timeline, lsn, at, xid, names: named.sort(), unnamed, count }
}

/** By what they are called: the files that were last seen under that name. */
function latestFiles(names: NameHistory): Map<string, { key: string; lsn: Lsn }> {
  const latest = new Map<string, { key: string; lsn: Lsn }>()
  for (const [key, notes] of names) {
    const last = notes.at(-1)
    if (last === undefined) continue
    const called = nameOf(names, last.files, last.lsn)
    const known = called === undefined ? undefined : latest.get(called)
    if (called !== undefined && (known === undefined || last.lsn >= known.lsn))
      latest.set(called, { key, lsn: last.lsn })
  }
  return latest
}

/** What it was called at the position, else what it was first called later. */
function nameOf(names: NameHistory, files: RelationFiles, lsn: Lsn): string | undefined {
  const known = nameAt(names, files, lsn) ?? names.get(filesKey(files))?.[0]
  if (known === undefined) return undefined
  if (known.schema === '') return known.name
  const database = nameAt(names, databaseFiles(files.database), lsn)?.name
  const of = database ?? names.get(filesKey(databaseFiles(files.database)))?.[0]?.name
  return `${of === undefined ? '' : `${of}.`}${known.schema}.${known.name}`
}

function latestName(names: NameHistory, files: RelationFiles): string | undefined {
  const last = names.get(filesKey(files))?.at(-1)
  return last === undefined ? undefined : nameOf(names, files, last.lsn)
}

function addRows(a: RowCounts, b: RowCounts): RowCounts {
  return {
    inserted: a.inserted + b.inserted,
    updated: a.updated + b.updated,
    deleted: a.deleted + b.deleted,
  }
}
