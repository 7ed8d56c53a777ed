import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeNotes } from './notes-codec.ts'
import { forgetNotes, newNotesTaker, noteMark, noteNames, notesOf, type NotesTaker } from './wal-notes.ts'

const SEGMENT = 1024 * 1024
const MARK = { lsn: 5n, serverTime: 7n, receivedAt: 9 }
const NAME = { lsn: 1n, files: { tablespace: 1, database: 2, relation: 3 }, schema: 'public', name: 'orders' }

/** A taker of log that is no log, since a stretch without records has no notes but these. */
function takerOf(bytes = 4 * SEGMENT): { taker: NotesTaker; unread: string[] } {
  const unread: string[] = []
  const log = Buffer.alloc(bytes, 0xee)
  const taker = newNotesTaker({
    segmentBytes: SEGMENT,
    from: () => 0n,
    read: (from, to) => log.subarray(Number(from), Number(to)),
    onUnread: (reason) => unread.push(reason),
  })
  return { taker, unread }
}

test('log that cannot be understood is noted as such, and told once a stretch', () => {
  const { taker, unread } = takerOf()
  // The first page is one that was never written: a reader takes that for the end.
  notesOf(taker, 0n, 8192n)
  const notes = decodeNotes(notesOf(taker, 8192n, 10_000n))
  assert.deepEqual([notes.isUnread, notes.ends, unread.length], [true, [], 1])
  assert.equal(decodeNotes(notesOf(taker, 0n, 10_000n)).isUnread, true)
})

test('marks and names go out once, and again with the segment that covers their piece', () => {
  const { taker } = takerOf()
  noteMark(taker, MARK)
  noteNames(taker, [NAME])
  const first = decodeNotes(notesOf(taker, 0n, 100n))
  assert.deepEqual([first.marks, first.names], [[MARK], [NAME]])
  const second = decodeNotes(notesOf(taker, 100n, 200n))
  assert.deepEqual([second.marks, second.names], [[], []])
  const whole = decodeNotes(notesOf(taker, 0n, 200n))
  assert.deepEqual([whole.marks, whole.names], [[MARK], [NAME]])
  // Behind a segment nothing of it is told again.
  forgetNotes(taker, 200n)
  const next = decodeNotes(notesOf(taker, 200n, 300n))
  assert.deepEqual([next.marks, next.names], [[], []])
})

test('more names than one segment should hold wait for the next', () => {
  const { taker } = takerOf()
  const names = Array.from({ length: 25_000 }, (_, n) => ({ ...NAME, files: { ...NAME.files, relation: n } }))
  noteNames(taker, names)
  assert.equal(decodeNotes(notesOf(taker, 0n, 100n)).names.length, 20_000)
  assert.equal(decodeNotes(notesOf(taker, 100n, 200n)).names.length, 0)
  assert.equal(decodeNotes(notesOf(taker, 0n, 200n)).names.length, 20_000)
  forgetNotes(taker, 200n)
  assert.equal(decodeNotes(notesOf(taker, 200n, 300n)).names.length, 5000)
})
