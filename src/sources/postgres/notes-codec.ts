/**
 * The bytes of LogNotes: what a log object carries as its notes. Pure. Lists lie by column, as differences to
 * the item before, so that a commit takes about 8 bytes before compression.
 *
 * Version u8 1, then: flags u8 (1: a span, 2: unread); four positions if there is a span; the lists ends,
 * prepares, points, drops, truncates, changes, checkpoints, promotions, backup ends, names, marks, each a
 * count and its columns; drops omitted; other changes. Columns: notes-columns.ts. Runs of subtransactions
 * follow the columns of ends.
 */
import {
  corrupt,
  expectEnd,
  finishBytes,
  getCount,
  getU8,
  getVarint,
  newReader,
  newWriter,
  putU8,
  putVarint,
  type ByteReader,
  type ByteWriter,
} from '../../base/bytes.ts'
import { Failure } from '../../base/failure.ts'
import { addRows, NO_NOTES, type LogNotes, type TransactionNote, type XidRun } from './log-notes.ts'
import {
  filesColumns,
  getBig,
  getFiles,
  getIds,
  getPlain,
  getPositions,
  getText,
  getTimes,
  getUnsigned,
  plain,
  positions,
  putBig,
  putList,
  signed,
  texts,
  unzigzag,
  WHAT,
  zigzag,
} from './notes-columns.ts'

/** What a log object takes (LOG_LIMITS in format/log-header.ts). */
const NOTES_BYTES_MAX = 4 * 1024 * 1024
const VERSION = 1
const FLAG = { commit: 1, prepared: 2, thinned: 4 } as const
const FLAGS = 8
const SPAN = { has: 1, unread: 2 } as const
/** Least bytes of one item of each list: a count that cannot fit is refused before anything is made for it. */
const LEAST = {
  ends: 6,
  prepares: 4,
  points: 3,
  drops: 6,
  truncates: 6,
  changes: 6,
  checkpoints: 4,
  promotions: 4,
  backupEnds: 3,
  names: 6,
  marks: 3,
} as const

/**
 * Notes as bytes of at most `bytesMax`. What does not fit is given up in the order of its use: which relation
 * was changed how often; names, so that drops have numbers only; then all, and the stretch counts as not
 * understood, which nobody recovers into by mistake.
 */
export function encodeNotes(notes: LogNotes, bytesMax = NOTES_BYTES_MAX): Buffer {
  const whole = encodeOne(notes)
  if (whole.length <= bytesMax) return whole
  const counted = { ...notes, changes: [], otherChanges: notes.changes.reduce(addRows, notes.otherChanges) }
  // Drops without names may be the very ones that somebody asks for.
  const dropsOmitted = notes.dropsOmitted + notes.drops.length
  for (const lesser of [counted, { ...counted, names: [], dropsOmitted }]) {
    const bytes = encodeOne(lesser)
    if (bytes.length <= bytesMax) return bytes
  }
  return encodeOne({ ...NO_NOTES, isUnread: true, marks: notes.marks.slice(-1) })
}

/** Fails: repo.corrupt, repo.newer. */
export function decodeNotes(bytes: Uint8Array): LogNotes {
  const reader = newReader(bytes, WHAT)
  const version = getU8(reader)
  if (version === 0) throw corrupt(WHAT, 'has no version')
  if (version > VERSION)
    throw new Failure('repo.newer', `Cannot read ${WHAT}: they have version ${version} (known: ${VERSION})`)
  const lists = {
    ...getSpan(reader),
    ends: getEnds(reader),
    prepares: getPrepares(reader),
    points: getPoints(reader),
    drops: getDrops(reader),
    truncates: getTruncates(reader),
    changes: getChanges(reader),
    checkpoints: getCheckpoints(reader),
    promotions: getPromotions(reader),
    backupEnds: getBackupEnds(reader),
    names: getNames(reader),
    marks: getMarks(reader),
  }
  const dropsOmitted = getVarint(reader)
  const [inserted, updated, deleted] = [getVarint(reader), getVarint(reader), getVarint(reader)]
  expectEnd(reader)
  return { ...lists, dropsOmitted, otherChanges: { inserted, updated, deleted } }
}

function encodeOne(notes: LogNotes): Buffer {
  const writer = newWriter(64 * 1024)
  putU8(writer, VERSION)
  putSpan(writer, notes)
  putEnds(writer, notes.ends)
  putList(writer, notes.prepares, [
    positions((note) => note.lsn),
    signed((note) => note.at),
    signed((note) => BigInt(note.xid)),
    texts((note) => note.name),
  ])
  putList(writer, notes.points, [
    positions((note) => note.lsn),
    signed((note) => note.at),
    texts((note) => note.name),
  ])
  putList(writer, notes.drops, [
    positions((note) => note.lsn),
    signed((note) => note.at),
    signed((note) => BigInt(note.xid)),
    ...filesColumns<LogNotes['drops'][number]>(),
  ])
  putList(writer, notes.truncates, [
    positions((note) => note.lsn),
    signed((note) => BigInt(note.xid)),
    ...filesColumns<LogNotes['truncates'][number]>(),
    plain((note) => note.block),
  ])
  putList(writer, notes.changes, [
    ...filesColumns<LogNotes['changes'][number]>(),
    plain((note) => note.inserted),
    plain((note) => note.updated),
    plain((note) => note.deleted),
  ])
  putList(writer, notes.checkpoints, [
    positions((note) => note.lsn),
    signed((note) => note.at),
    signed((note) => note.redo),
    plain((note) => note.timeline),
  ])
  putList(writer, notes.promotions, [
    positions((note) => note.lsn),
    signed((note) => note.at),
    plain((note) => note.timeline),
    plain((note) => note.before),
  ])
  putList(writer, notes.backupEnds, [
    positions((note) => note.lsn),
    signed((note) => note.end),
    signed((note) => note.start),
  ])
  putList(writer, notes.names, [
    signed((note) => note.lsn),
    ...filesColumns<LogNotes['names'][number]>(),
    texts((note) => note.schema),
    texts((note) => note.name),
  ])
  putList(writer, notes.marks, [
    signed((note) => note.lsn),
    signed((note) => note.serverTime),
    signed((note) => BigInt(note.receivedAt)),
  ])
  putVarint(writer, notes.dropsOmitted)
  const { inserted, updated, deleted } = notes.otherChanges
  for (const rows of [inserted, updated, deleted]) putVarint(writer, rows)
  return finishBytes(writer)
}

function putSpan(writer: ByteWriter, { span, isUnread }: LogNotes): void {
  putU8(writer, (span === undefined ? 0 : SPAN.has) + (isUnread ? SPAN.unread : 0))
  if (span === undefined) return
  for (const lsn of [span.first, span.previous, span.last, span.end]) putBig(writer, lsn)
}

function getSpan(reader: ByteReader): Pick<LogNotes, 'span' | 'isUnread'> {
  const flags = getU8(reader)
  if (flags > SPAN.has + SPAN.unread) throw corrupt(WHAT, `has the unknown flags ${flags}`)
  const isUnread = (flags & SPAN.unread) !== 0
  if ((flags & SPAN.has) === 0) return { span: undefined, isUnread }
  const [first, previous, last, end] = [getBig(reader), getBig(reader), getBig(reader), getBig(reader)]
  if (first > last || last > end) throw corrupt(WHAT, 'has a span that ends before it begins')
  return { span: { first, previous, last, end }, isUnread }
}

function putEnds(writer: ByteWriter, ends: readonly TransactionNote[]): void {
  putList(writer, ends, [
    positions((note) => note.lsn),
    plain((note) => Number((note.end - note.lsn) / 8n)),
    plain((note) => Number((note.lsn - note.previous) / 8n)),
    signed((note) => note.at),
    signed((note) => BigInt(note.xid)),
    plain(
      (note) =>
        note.subtransactions.length * FLAGS +
        (note.kind === 'commit' ? FLAG.commit : 0) +
        (note.isPrepared ? FLAG.prepared : 0) +
        (note.isThinned ? FLAG.thinned : 0),
    ),
  ])
  for (const { xid, subtransactions } of ends) {
    let before = xid
    for (const { first, count } of subtransactions) {
      putVarint(writer, zigzag(first - before))
      putVarint(writer, count - 1)
      before = first + count
    }
  }
}

function getEnds(reader: ByteReader): TransactionNote[] {
  const count = getCount(reader, LEAST.ends)
  const lsns = getPositions(reader, count)
  const sizes = getPlain(reader, count)
  const distances = getPlain(reader, count)
  const times = getTimes(reader, count)
  const xids = getIds(reader, count)
  const kinds = getPlain(reader, count)
  return lsns.map((lsn, at) => {
    const flags = kinds[at]! % FLAGS
    const xid = xids[at]!
    const previous = lsn - BigInt(distances[at]!) * 8n
    const end = lsn + BigInt(sizes[at]!) * 8n
    if (previous < 0n || end >= 1n << 64n) throw corrupt(WHAT, 'has a record at a place that cannot be')
    return {
      kind: (flags & FLAG.commit) !== 0 ? 'commit' : 'abort',
      lsn,
      end,
      previous,
      at: times[at]!,
      xid,
      isPrepared: (flags & FLAG.prepared) !== 0,
      subtransactions: getRuns(reader, xid, Math.floor(kinds[at]! / FLAGS)),
      isThinned: (flags & FLAG.thinned) !== 0,
    }
  })
}

const NO_RUNS: readonly XidRun[] = []

function getRuns(reader: ByteReader, xid: number, count: number): readonly XidRun[] {
  if (count === 0) return NO_RUNS
  if (count * 2 > reader.end - reader.offset) throw corrupt(WHAT, `claims ${count} runs, more than fit`)
  const runs: XidRun[] = []
  let before = xid
  for (let at = 0; at < count; at++) {
    const first = before + unzigzag(getVarint(reader))
    const length = getVarint(reader) + 1
    if (first < 0 || first + length > 2 ** 32) throw corrupt(WHAT, 'has a transaction above 2^32')
    runs.push({ first, count: length })
    before = first + length
  }
  return runs
}

function getPrepares(reader: ByteReader): LogNotes['prepares'] {
  const count = getCount(reader, LEAST.prepares)
  const lsns = getPositions(reader, count)
  const times = getTimes(reader, count)
  const xids = getIds(reader, count)
  return lsns.map((lsn, at) => ({ lsn, at: times[at]!, xid: xids[at]!, name: getText(reader) }))
}

function getPoints(reader: ByteReader): LogNotes['points'] {
  const count = getCount(reader, LEAST.points)
  const lsns = getPositions(reader, count)
  const times = getTimes(reader, count)
  return lsns.map((lsn, at) => ({ lsn, at: times[at]!, name: getText(reader) }))
}

function getDrops(reader: ByteReader): LogNotes['drops'] {
  const count = getCount(reader, LEAST.drops)
  const lsns = getPositions(reader, count)
  const times = getTimes(reader, count)
  const xids = getIds(reader, count)
  const files = getFiles(reader, count)
  return lsns.map((lsn, at) => ({ lsn, at: times[at]!, xid: xids[at]!, files: files[at]! }))
}

function getTruncates(reader: ByteReader): LogNotes['truncates'] {
  const count = getCount(reader, LEAST.truncates)
  const lsns = getPositions(reader, count)
  const xids = getIds(reader, count)
  const files = getFiles(reader, count)
  const blocks = getPlain(reader, count)
  return lsns.map((lsn, at) => ({ lsn, xid: xids[at]!, files: files[at]!, block: blocks[at]! }))
}

function getChanges(reader: ByteReader): LogNotes['changes'] {
  const count = getCount(reader, LEAST.changes)
  const files = getFiles(reader, count)
  const inserted = getPlain(reader, count)
  const updated = getPlain(reader, count)
  const deleted = getPlain(reader, count)
  return files.map((each, at) => ({
    files: each,
    inserted: inserted[at]!,
    updated: updated[at]!,
    deleted: deleted[at]!,
  }))
}

function getCheckpoints(reader: ByteReader): LogNotes['checkpoints'] {
  const count = getCount(reader, LEAST.checkpoints)
  const lsns = getPositions(reader, count)
  const times = getTimes(reader, count)
  const redos = getUnsigned(reader, count)
  const timelines = getPlain(reader, count)
  return lsns.map((lsn, at) => ({ lsn, at: times[at]!, redo: redos[at]!, timeline: timelines[at]! }))
}

function getPromotions(reader: ByteReader): LogNotes['promotions'] {
  const count = getCount(reader, LEAST.promotions)
  const lsns = getPositions(reader, count)
  const times = getTimes(reader, count)
  const timelines = getPlain(reader, count)
  const before = getPlain(reader, count)
  return lsns.map((lsn, at) => ({ lsn, at: times[at]!, timeline: timelines[at]!, before: before[at]! }))
}

function getBackupEnds(reader: ByteReader): LogNotes['backupEnds'] {
  const count = getCount(reader, LEAST.backupEnds)
  const lsns = getPositions(reader, count)
  const ends = getUnsigned(reader, count)
  const starts = getUnsigned(reader, count)
  return lsns.map((lsn, at) => ({ lsn, end: ends[at]!, start: starts[at]! }))
}

function getNames(reader: ByteReader): LogNotes['names'] {
  const count = getCount(reader, LEAST.names)
  const lsns = getUnsigned(reader, count)
  const files = getFiles(reader, count)
  const schemas = lsns.map(() => getText(reader))
  return lsns.map((lsn, at) => ({ lsn, files: files[at]!, schema: schemas[at]!, name: getText(reader) }))
}

function getMarks(reader: ByteReader): LogNotes['marks'] {
  const count = getCount(reader, LEAST.marks)
  const lsns = getUnsigned(reader, count)
  const times = getTimes(reader, count)
  const received = getUnsigned(reader, count)
  return lsns.map((lsn, at) => {
    if (received[at]! > BigInt(Number.MAX_SAFE_INTEGER))
      throw corrupt(WHAT, 'has a mark of a time that cannot be')
    return { lsn, serverTime: times[at]!, receivedAt: Number(received[at]!) }
  })
}
