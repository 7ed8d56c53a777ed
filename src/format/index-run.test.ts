import { strict as assert } from 'node:assert'
import { createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { isFailure } from '../base/failure.ts'
import {
  encodeIndexPacks,
  encodeIndexRun,
  INDEX_BLOCK_BYTES,
  INDEX_ENTRY_BYTES,
  indexEntryAt,
  indexPackAt,
  putIndexEntry,
  sortIndexEntries,
  type IndexPack,
  type IndexRun,
} from './index-run.ts'
import { beginIndexRun, decodeIndexBlock, decodeIndexRun, scanIndexRun } from './index-run-decoder.ts'

const indexKey = Buffer.alloc(32, 7)
const salt = Buffer.alloc(16, 9)
const owner = {
  repository: Buffer.alloc(16, 1),
  domain: Buffer.alloc(8, 2),
  packSet: Buffer.alloc(16, 3),
}
const isCorrupt = (error: unknown) => isFailure(error, 'repo.corrupt')

interface Row {
  id: Uint8Array
  pack: number
  chunk: number
  class: number
}

const packArbitrary = fc.record(
  {
    id: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((id) => Buffer.from(id).toString('hex')),
    bytes: fc.nat({ max: 0xffffffff }),
    chunks: fc.nat({ max: 65_535 }),
    kind: fc.integer({ min: 1, max: 3 }),
  },
  { noNullPrototype: true },
)

/** Ids of few values, so that equal ids and equal beginnings are common. */
const idArbitrary = fc.oneof(
  fc.uint8Array({ minLength: 32, maxLength: 32 }),
  fc.tuple(fc.nat({ max: 1 }), fc.nat({ max: 2 })).map(([first, last]) => {
    const id = Buffer.alloc(32, first * 255)
    id[31] = last
    return id
  }),
)

const rowsArbitrary = (packCount: number) =>
  fc.array(
    fc.record({
      id: idArbitrary,
      pack: fc.nat({ max: packCount - 1 }),
      chunk: fc.nat({ max: 65_534 }),
      class: fc.integer({ min: 1, max: 7 }),
    }),
    { maxLength: 60 },
  )

const runArbitrary = fc
  .array(packArbitrary, { minLength: 1, maxLength: 5 })
  .chain((packs) =>
    fc.tuple(fc.constant(packs), rowsArbitrary(packs.length), fc.array(fc.nat(), { maxLength: 4 })),
  )

function entriesOf(rows: readonly Row[]): Buffer {
  const entries = Buffer.alloc(rows.length * INDEX_ENTRY_BYTES)
  rows.forEach((row, place) => putIndexEntry(entries, place * INDEX_ENTRY_BYTES, row.id, row))
  return entries
}

function newRun(
  packs: readonly IndexPack[],
  rows: readonly Row[],
  supersedes: readonly number[] = [],
): IndexRun {
  return {
    ...owner,
    number: 5,
    packs: encodeIndexPacks(packs),
    supersedes,
    entries: sortIndexEntries(entriesOf(rows)),
  }
}

function smallRun(): Buffer {
  const pack = { id: 'ab'.repeat(32), bytes: 1000, chunks: 3, kind: 1 }
  const rows = [1, 2, 3].map((n) => ({ id: Buffer.alloc(32, n), pack: 0, chunk: n, class: 1 }))
  return encodeIndexRun(newRun([pack], rows, [4]), indexKey, salt)
}

function patchHeader(object: Buffer, patch: (header: Buffer) => void): Buffer {
  const patched = Buffer.from(object)
  patch(patched)
  patched.writeUInt32LE(crc32(patched.subarray(0, 124)), 124)
  return patched
}

test('decodeIndexRun() gives back what encodeIndexRun() took', () => {
  fc.assert(
    fc.property(runArbitrary, ([packs, rows, supersedes]) => {
      const run = newRun(packs, rows, supersedes)
      const back = decodeIndexRun(encodeIndexRun(run, indexKey, salt), { ...owner, number: 5 }, indexKey)
      assert.deepEqual(
        packs.map((_, place) => indexPackAt(back.packs, place)),
        packs,
      )
      assert.deepEqual(back.supersedes, supersedes)
      assert.equal(back.number, 5)
      assert.ok(back.entries.equals(run.entries))
    }),
  )
})

test('sortIndexEntries() orders by id, then pack, then chunk number', () => {
  fc.assert(
    fc.property(rowsArbitrary(4), (rows) => {
      const byRow = (a: Row, b: Row) => Buffer.compare(a.id, b.id) || a.pack - b.pack || a.chunk - b.chunk
      const sorted = sortIndexEntries(entriesOf(rows))
      const places = rows.toSorted(byRow).map(({ pack, chunk }) => ({ pack, chunk }))
      const found = places.map((_, place) => indexEntryAt(sorted, place * INDEX_ENTRY_BYTES))
      assert.deepEqual(
        found.map(({ pack, chunk }) => ({ pack, chunk })),
        places,
      )
      rows.toSorted(byRow).forEach((row, place) => {
        assert.equal(Buffer.compare(sorted.subarray(place * 40, place * 40 + 32), row.id), 0)
      })
    }),
  )
})

test('a run can be opened by hand as docs/format.md says', () => {
  const object = smallRun()
  assert.equal(object.toString('latin1', 0, 8), 'BKSTINDX')
  assert.equal(object.readUInt32LE(124), crc32(object.subarray(0, 124)))
  const key = Buffer.from(hkdfSync('sha256', indexKey, object.subarray(56, 72), 'backstock/1 index run', 32))
  const opened = createDecipheriv('aes-256-gcm', key, Buffer.alloc(12))
  opened.setAAD(Buffer.concat([object.subarray(0, 128), Buffer.alloc(4)]))
  opened.setAuthTag(object.subarray(object.length - 16))
  const plain = Buffer.concat([opened.update(object.subarray(128, object.length - 16)), opened.final()])
  assert.equal(plain.length, 44 + 4 + 3 * 40)
  assert.equal(plain.toString('hex', 0, 32), 'ab'.repeat(32))
  assert.equal(plain.readUInt32LE(44), 4)
  assert.deepEqual(indexEntryAt(plain, 48 + 40), { pack: 0, chunk: 2, class: 1 })
})

test('a run over several blocks comes back whole, also where a block cuts an entry', () => {
  const packs = [0, 1].map((n) => ({ id: `0${n}`.repeat(32), bytes: n, chunks: 65_535, kind: 1 }))
  const count = 60_000
  const entries = Buffer.alloc(count * INDEX_ENTRY_BYTES)
  const ids = randomBytes(count * 32)
  for (let n = 0; n < count; n++)
    putIndexEntry(entries, n * 40, ids.subarray(n * 32, n * 32 + 32), { pack: n % 2, chunk: n, class: 2 })
  const run = { ...newRun(packs, []), entries: sortIndexEntries(entries) }
  const object = encodeIndexRun(run, indexKey, salt)
  assert.ok(object.length > 2 * INDEX_BLOCK_BYTES)
  assert.ok(decodeIndexRun(object, owner, indexKey).entries.equals(run.entries))
  const sizes: number[] = []
  scanIndexRun(object, owner, indexKey, (found) => sizes.push(found.length))
  assert.ok(sizes.every((size) => size % INDEX_ENTRY_BYTES === 0 && size <= INDEX_BLOCK_BYTES))
  // Blocks that change places are seen.
  const swapped = Buffer.from(object)
  const block = INDEX_BLOCK_BYTES + 16
  object.copy(swapped, 128, 128 + block, 128 + 2 * block)
  object.copy(swapped, 128 + block, 128, 128 + block)
  assert.throws(() => decodeIndexRun(swapped, owner, indexKey), isCorrupt)
})

test('a run of no entries and no packs has no blocks', () => {
  const object = encodeIndexRun(newRun([], []), indexKey, salt)
  assert.equal(object.length, 128)
  assert.equal(decodeIndexRun(object, owner, indexKey).entries.length, 0)
})

test('every cut of a run fails as repo.corrupt', () => {
  const object = smallRun()
  for (let length = 0; length < object.length; length++)
    assert.throws(
      () => decodeIndexRun(object.subarray(0, length), owner, indexKey),
      isCorrupt,
      `${length} bytes`,
    )
  assert.throws(() => decodeIndexRun(Buffer.concat([object, Buffer.alloc(1)]), owner, indexKey), isCorrupt)
})

test('every flipped bit of a run fails as repo.corrupt', () => {
  const object = smallRun()
  for (let bit = 0; bit < object.length * 8; bit++) {
    const flipped = Buffer.from(object)
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    assert.throws(() => decodeIndexRun(flipped, owner, indexKey), isCorrupt, `bit ${bit}`)
  }
})

test('a header that was changed with its checksum fails', () => {
  const object = smallRun()
  const counts = [12, 56, 72, 76, 80, 84, 88, 92]
  for (const at of counts) {
    const patched = patchHeader(object, (header) => header.writeUInt32LE(header.readUInt32LE(at) ^ 1, at))
    assert.throws(() => decodeIndexRun(patched, owner, indexKey), isCorrupt, `offset ${at}`)
  }
  for (const at of [10, 96, 123]) {
    const patched = patchHeader(object, (header) => (header[at] = 1))
    assert.throws(() => decodeIndexRun(patched, owner, indexKey), isCorrupt, `offset ${at}`)
  }
})

test('a run of another owner, key or version is told apart', () => {
  const object = smallRun()
  const other = (length: number) => Buffer.alloc(length, 0x55)
  const foreign = [
    { ...owner, repository: other(16) },
    { ...owner, domain: other(8) },
    { ...owner, packSet: other(16) },
    { ...owner, number: 6 },
  ]
  for (const expected of foreign)
    assert.throws(
      () => decodeIndexRun(object, expected, indexKey),
      (error) => isFailure(error, 'repo.foreign'),
    )
  assert.throws(() => decodeIndexRun(object, owner, Buffer.alloc(32)), isCorrupt)
  const newer = patchHeader(object, (header) => header.writeUInt16LE(2, 8))
  assert.throws(
    () => decodeIndexRun(newer, owner, indexKey),
    (error) => isFailure(error, 'repo.newer'),
  )
})

test('encodeIndexRun() refuses entries that a reader would refuse', () => {
  const pack = { id: 'ab'.repeat(32), bytes: 1000, chunks: 3, kind: 1 }
  const row = (n: number, change: Partial<Row> = {}) => ({
    id: Buffer.alloc(32, n),
    pack: 0,
    chunk: 0,
    class: 1,
    ...change,
  })
  const encode = (rows: Row[]) =>
    encodeIndexRun({ ...newRun([pack], []), entries: entriesOf(rows) }, indexKey, salt)
  assert.throws(() => encode([row(2), row(1)]), /not in order/)
  assert.throws(() => encode([row(1, { pack: 1 })]), /does not list/)
  assert.throws(() => encode([row(1, { class: 0 })]), /unknown class/)
  assert.throws(() => encode([row(1, { class: 8 })]), /unknown class/)
})

test('decodeIndexBlock() refuses a block out of turn', () => {
  const object = smallRun()
  const decoder = beginIndexRun(object, object.length, owner, indexKey)
  assert.throws(() => decodeIndexBlock(decoder, object.subarray(129), () => undefined), isCorrupt)
})
