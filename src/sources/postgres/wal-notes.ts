/**
 * The notes that travel with shipped log: what the commit index says of the stretch, marks of the clock, new
 * names of relations. One taker for each timeline; it reads the log of the spool in order, once.
 */
import { isFailure } from '../../base/failure.ts'
import { noteGarbage } from '../../base/garbage.ts'
import { feedIndexer, newIndexer, takeNotes, type LogIndexer } from './commit-index.ts'
import { mergeNotes, NO_NOTES, type LogNotes, type MarkNote, type NameNote } from './log-notes.ts'
import { segmentStart, type Lsn } from './lsn.ts'
import { encodeNotes } from './notes-codec.ts'

export interface NotesSource {
  readonly segmentBytes: number
  /** Where the spool begins. */
  readonly from: () => Lsn
  readonly read: (from: Lsn, to: Lsn) => Buffer
  /** Told when log cannot be understood: it is shipped all the same, without notes. */
  readonly onUnread: (reason: string) => void
}

/** What was noted of a stretch that no segment covers yet. */
interface Part {
  readonly from: Lsn
  readonly to: Lsn
  readonly notes: LogNotes
}

export interface NotesTaker {
  readonly source: NotesSource
  hasBegun: boolean
  /** undefined until the first stretch, and after log that could not be read. */
  indexer: LogIndexer | undefined
  notedTo: Lsn
  parts: Part[]
  /** The newest one that no notes have told. */
  mark: MarkNote | undefined
  /** Likewise. */
  readonly names: NameNote[]
}

/** The first two bytes of the log's pages say which server wrote it (xlog_internal.h XLOG_PAGE_MAGIC). */
const MAJOR_BY_MAGIC: Readonly<Record<number, number>> = {
  0xd106: 13,
  0xd10d: 14,
  0xd110: 15,
  0xd113: 16,
  0xd116: 17,
  0xd118: 18,
}
const MAJOR_NEWEST = 18
/** New names in the notes of one segment; more wait for the next. */
const NAMES_MAX = 20_000
const PAGE = 8192n
const READ_BYTES = 1024n * 1024n

export function newNotesTaker(source: NotesSource): NotesTaker {
  return { source, hasBegun: false, indexer: undefined, notedTo: 0n, parts: [], mark: undefined, names: [] }
}

/** Remembers the newest mark, for the next notes. */
export function noteMark(taker: NotesTaker, mark: MarkNote): void {
  taker.mark = mark
}

export function noteNames(taker: NotesTaker, names: readonly NameNote[]): void {
  taker.names.push(...names)
}

/**
 * Encoded notes of positions [from, to): those of a stretch behind the last one, or of several together
 * again.
 */
export function notesOf(taker: NotesTaker, from: Lsn, to: Lsn): Buffer {
  if (!taker.hasBegun) begin(taker, from)
  if (to > taker.notedTo || taker.mark !== undefined || taker.names.length > 0) addPart(taker, to)
  const within = taker.parts.filter((part) => part.from >= from && part.to <= to)
  return encodeNotes(mergeNotes(within.map((part) => part.notes)))
}

/** Those that are in no segment yet. */
export function unmergedNames({ parts, names }: NotesTaker): NameNote[] {
  return [...parts.flatMap(({ notes }) => notes.names), ...names]
}

/** What lies before `at` is in a segment: it will not be asked for again. */
export function forgetNotes(taker: NotesTaker, at: Lsn): void {
  taker.parts = taker.parts.filter(({ from, to }) => to > at || from >= at)
}

/** A record that ends behind `from` may begin before, in the segment before too. */
function begin(taker: NotesTaker, from: Lsn): void {
  const { source } = taker
  const { segmentBytes } = source
  const early = segmentStart(from, segmentBytes) - BigInt(segmentBytes)
  const at = early > source.from() ? early : source.from()
  taker.hasBegun = true
  taker.notedTo = from
  if (at >= from) {
    taker.notedTo = at
    return
  }
  taker.indexer = indexerAt(source, at)
  if (feed(taker, from)) takeNotes(taker.indexer)
  else taker.indexer = undefined
}

function addPart(taker: NotesTaker, to: Lsn): void {
  const { mark, notedTo } = taker
  const named = taker.parts.reduce((sum, { notes }) => sum + notes.names.length, 0)
  const names = taker.names.splice(0, Math.max(0, NAMES_MAX - named))
  let notes = NO_NOTES
  if (to > notedTo) {
    taker.indexer ??= indexerAt(taker.source, notedTo)
    const isRead = feed(taker, to)
    notes = takeNotes(taker.indexer)
    if (!isRead) taker.indexer = undefined
  }
  taker.parts.push({ from: notedTo, to, notes: { ...notes, names, marks: mark === undefined ? [] : [mark] } })
  taker.notedTo = to
  taker.mark = undefined
}

function indexerAt({ segmentBytes, read }: NotesSource, at: Lsn): LogIndexer {
  const page = at - (at % PAGE)
  const magic = read(page, page + 2n).readUInt16LE(0)
  const major = MAJOR_BY_MAGIC[magic] ?? MAJOR_NEWEST
  return newIndexer({ at, segmentBytes, major, checkCrc: true })
}

/**
 * Log that cannot be understood is no reason not to keep it; then the indexer notes that, and is of no more
 * use.
 */
function feed({ source, indexer }: NotesTaker, to: Lsn): boolean {
  if (indexer === undefined) return false
  try {
    while (indexer.reader.next < to) {
      const at = indexer.reader.next
      const bytes = source.read(at, at + READ_BYTES < to ? at + READ_BYTES : to)
      feedIndexer(indexer, bytes)
      noteGarbage(bytes.length)
    }
    return true
  } catch (error) {
    if (!isFailure(error, 'source.failed')) throw error
    source.onUnread(error.message)
    return false
  }
}
