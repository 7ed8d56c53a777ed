import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../../base/failure.ts'
import { NO_NOTES, type LogNotes, type TransactionNote } from './log-notes.ts'
import { decodeNotes, encodeNotes } from './notes-codec.ts'

const u32 = fc.oneof(fc.integer({ min: 0, max: 0xffff_ffff }), fc.integer({ min: 0, max: 100_000 }))
const u53 = fc.oneof(fc.nat(), fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }))
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
const i64 = fc.oneof(
  fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }),
  fc.constant(1_700_000_000_000_000n),
)
const text = fc.string({ maxLength: 30, unit: 'grapheme' })
const files = fc.record({ tablespace: u32, database: u32, relation: u32 })
/** A record's place, with room before and behind it. */
const place = fc.bigInt({ min: 1n << 20n, max: 1n << 60n }).map((eighths) => eighths * 8n)

function list<T extends { readonly lsn: bigint }>(item: fc.Arbitrary<T>): fc.Arbitrary<T[]> {
  return fc
    .array(item, { maxLength: 8 })
    .map((items) => items.toSorted((a, b) => (a.lsn < b.lsn ? -1 : Number(a.lsn > b.lsn))))
}

const end: fc.Arbitrary<TransactionNote> = fc
  .record({
    kind: fc.constantFrom('commit' as const, 'abort' as const),
    lsn: place,
    size: fc.integer({ min: 1, max: 1000 }),
    distance: fc.integer({ min: 0, max: 1000 }),
    at: i64,
    xid: u32,
    isPrepared: fc.boolean(),
    subtransactions: fc.array(
      fc.record({ first: fc.nat({ max: 2 ** 31 }), count: fc.integer({ min: 1, max: 2 ** 30 }) }),
      { maxLength: 4 },
    ),
    isThinned: fc.boolean(),
  })
  .map(({ size, distance, ...rest }) => ({
    ...rest,
    end: rest.lsn + BigInt(size) * 8n,
    previous: rest.lsn - BigInt(distance) * 8n,
  }))

const rows = { inserted: u53, updated: u53, deleted: u53 }
const notesOf: fc.Arbitrary<LogNotes> = fc.record({
  span: fc.option(
    fc
      .tuple(u64, u64, u64, u64)
      .map((four) => four.toSorted((a, b) => (a < b ? -1 : Number(a > b))))
      .map(([previous, first, last, to]) => ({ first: first!, previous: previous!, last: last!, end: to! })),
    { nil: undefined },
  ),
  isUnread: fc.boolean(),
  ends: list(end),
  prepares: list(fc.record({ lsn: place, at: i64, xid: u32, name: text })),
  points: list(fc.record({ lsn: place, at: i64, name: text })),
  drops: list(fc.record({ lsn: place, at: i64, xid: u32, files })),
  dropsOmitted: u53,
  truncates: list(fc.record({ lsn: place, xid: u32, files, block: u32 })),
  changes: fc.array(fc.record({ files, ...rows }), { maxLength: 8 }),
  otherChanges: fc.record(rows),
  checkpoints: list(fc.record({ lsn: place, at: i64, redo: u64, timeline: u32 })),
  promotions: list(fc.record({ lsn: place, at: i64, timeline: u32, before: u32 })),
  backupEnds: list(fc.record({ lsn: place, end: u64, start: u64 })),
  names: fc.array(fc.record({ lsn: u64, files, schema: text, name: text }), { maxLength: 8 }),
  marks: fc.array(fc.record({ lsn: u64, serverTime: i64, receivedAt: u53 }), { maxLength: 8 }),
})

/** `count` commits of a busy server. */
function commits(count: number): TransactionNote[] {
  return Array.from({ length: count }, (_, nth) => {
    const lsn = 0x12_3456_7000n + BigInt(nth) * 1016n
    return {
      kind: 'commit',
      lsn,
      end: lsn + 40n,
      previous: lsn - 80n,
      at: 1_790_000_000_000_000n + BigInt(nth * 2000 + ((nth * 7919) % 500)),
      xid: 1_000_000 + nth + (nth % 3),
      isPrepared: false,
      subtransactions: [],
      isThinned: false,
    }
  })
}

test('decodeNotes() gives back what encodeNotes() was given', () => {
  fc.assert(
    fc.property(notesOf, (notes) => {
      // fast-check makes records without a prototype.
      assert.deepEqual(decodeNotes(encodeNotes(notes)), structuredClone(notes))
    }),
    { numRuns: 300 },
  )
})

test('cut or changed notes fail cleanly', () => {
  fc.assert(
    fc.property(notesOf, fc.nat(), fc.integer({ min: 1, max: 255 }), (notes, place, flip) => {
      const bytes = encodeNotes(notes)
      for (let length = 0; length < bytes.length; length++)
        assert.throws(
          () => decodeNotes(bytes.subarray(0, length)),
          (error: unknown) => isFailure(error, 'repo.corrupt'),
        )
      const changed = Buffer.from(bytes)
      changed[place % changed.length]! ^= flip
      try {
        decodeNotes(changed)
      } catch (error) {
        assert.ok(isFailure(error, 'repo.corrupt') || isFailure(error, 'repo.newer'), String(error))
      }
    }),
    { numRuns: 40 },
  )
})

test('a commit takes about 8 bytes', () => {
  const bytes = encodeNotes({ ...NO_NOTES, ends: commits(10_000) })
  assert.ok(bytes.length < 9 * 10_000, `${bytes.length / 10_000} bytes a commit`)
})

test('notes above the limit give up the counts of relations, then names, then all of the stretch', () => {
  const nth = Array.from({ length: 2000 }, (_, index) => ({
    tablespace: 1663,
    database: 5,
    relation: 16_384 + index,
  }))
  const notes: LogNotes = {
    ...NO_NOTES,
    span: { first: 8n, previous: 0n, last: 1n << 40n, end: (1n << 40n) + 40n },
    ends: commits(5000),
    names: nth.map((files) => ({ lsn: 77n, files, schema: 'public', name: `relation_${files.relation}` })),
    changes: nth.map((files) => ({ files, inserted: 1, updated: 0, deleted: 2 })),
    drops: [{ ...commits(1)[0]!, files: nth[0]! }].map(({ lsn, at, xid, files }) => ({
      lsn,
      at,
      xid,
      files,
    })),
    marks: [
      { lsn: 1n, serverTime: 1n, receivedAt: 1 },
      { lsn: 2n, serverTime: 2n, receivedAt: 2 },
    ],
    otherChanges: { inserted: 1, updated: 2, deleted: 3 },
  }
  const uncounted = { ...notes, changes: [], otherChanges: { inserted: 2001, updated: 2, deleted: 4003 } }
  const unnamed = { ...uncounted, names: [], dropsOmitted: 1 }
  const unread = { ...NO_NOTES, isUnread: true, marks: notes.marks.slice(1) }
  for (const [wanted, lesser] of [
    [notes, uncounted],
    [uncounted, unnamed],
    [unnamed, unread],
  ] as const) {
    const bytes = encodeNotes(wanted)
    assert.deepEqual(decodeNotes(encodeNotes(notes, bytes.length)), wanted)
    assert.deepEqual(decodeNotes(encodeNotes(notes, bytes.length - 1)), lesser)
  }
})

test('16 MiB of nothing but commits fit', () => {
  const count = (16 * 1024 * 1024) / 40
  const ends = commits(count).map((each, nth) => {
    const lsn = 1n << 40n
    return { ...each, lsn: lsn + BigInt(nth) * 40n, end: lsn + BigInt(nth) * 40n + 40n }
  })
  const packed = ends.map((each) => ({ ...each, previous: each.lsn - 40n }))
  assert.deepEqual(decodeNotes(encodeNotes({ ...NO_NOTES, ends: packed })).ends, packed)
})

test('notes of a newer version are refused as such', () => {
  const bytes = Buffer.from(encodeNotes(NO_NOTES))
  bytes[0] = 2
  assert.throws(
    () => decodeNotes(bytes),
    (error: unknown) => isFailure(error, 'repo.newer'),
  )
})
