import { strict as assert } from 'node:assert'
import { closeSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../base/failure.ts'
import {
  encodeIndexPacks,
  encodeIndexRun,
  INDEX_ENTRY_BYTES,
  indexEntryAt,
  putIndexEntry,
  sortIndexEntries,
} from '../format/index-run.ts'
import { addRunEntries, beginRun, buildRun, closeRun, finishRun, mergeRuns } from './run-builder.ts'
import {
  attachRun,
  detachRun,
  openRun,
  readRunPack,
  readRunPacks,
  runEntries,
  type RunReader,
  type SortedRun,
  mayHold,
  probesOf,
  searchCopies,
  searchRun,
  type RunPlace,
} from './sorted-run.ts'

const name = 'ab'.repeat(32)
const isCorrupt = (error: unknown) => isFailure(error, 'repo.corrupt')

interface Row {
  id: Buffer
  pack: number
  chunk: number
  class: number
}

function newFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-run-'))
  t.after(() => rmSync(folder, { recursive: true }))
  return folder
}

function packTable(count: number, first = 0): Buffer {
  const packs = Array.from({ length: count }, (_, place) => ({
    id: (first + place).toString(16).padStart(64, '0'),
    bytes: 1000 + first + place,
    chunks: 65_535,
    kind: 1,
  }))
  return encodeIndexPacks(packs)
}

function sortedEntries(rows: readonly Row[]): Buffer {
  const entries = Buffer.alloc(rows.length * INDEX_ENTRY_BYTES)
  rows.forEach((row, place) => putIndexEntry(entries, place * INDEX_ENTRY_BYTES, row.id, row))
  return sortIndexEntries(entries)
}

/** Writes entries in one go, opens the run. */
function makeRun(path: string, entries: Buffer, packs: Buffer): SortedRun {
  const builder = beginRun(path, name, entries.length / INDEX_ENTRY_BYTES)
  try {
    addRunEntries(builder, entries)
    finishRun(builder, packs)
  } finally {
    closeRun(builder)
  }
  const run = openRun(path, name)
  assert.ok(run)
  return run
}

function withReader<T>(run: SortedRun, use: (reader: RunReader) => T): T {
  const reader = attachRun(run)
  try {
    return use(reader)
  } finally {
    detachRun(reader)
  }
}

function scan(run: SortedRun): Buffer {
  return withReader(run, (reader) =>
    Buffer.concat(Array.from(runEntries(reader), (view) => Buffer.from(view))),
  )
}

/** Ids that collide: equal ones, equal in their first eight bytes, or equal only in the last. */
const idArbitrary = fc
  .tuple(fc.nat({ max: 3 }), fc.nat({ max: 2 }), fc.nat({ max: 200 }))
  .map(([first, middle, last]) => {
    const id = Buffer.alloc(32, first * 85)
    id[7] = middle
    id[30] = last
    return id
  })

const rowsArbitrary = fc.array(
  fc.record({
    id: idArbitrary,
    pack: fc.nat({ max: 4 }),
    chunk: fc.nat({ max: 65_534 }),
    class: fc.integer({ min: 1, max: 7 }),
  }),
  { maxLength: 700, size: 'max' },
)

/** id -> the first entry with it, by sorted order. */
function modelOf(entries: Buffer): Map<string, ReturnType<typeof indexEntryAt>> {
  const model = new Map<string, ReturnType<typeof indexEntryAt>>()
  for (let at = 0; at < entries.length; at += INDEX_ENTRY_BYTES) {
    const id = entries.toString('hex', at, at + 32)
    if (!model.has(id)) model.set(id, indexEntryAt(entries, at))
  }
  return model
}

/** As the index asks a run. */
function findInRun(reader: RunReader, id: Buffer, at: number): RunPlace | undefined {
  return mayHold(reader.run, probesOf(id, at)) ? searchRun(reader, id, at) : undefined
}

test('searchRun() answers as a map does, whatever ids share', (t) => {
  const folder = newFolder(t)
  fc.assert(
    fc.property(rowsArbitrary, fc.array(idArbitrary, { maxLength: 50 }), (rows, others) => {
      const entries = sortedEntries(rows)
      const model = modelOf(entries)
      const run = makeRun(join(folder, 'run'), entries, packTable(5))
      withReader(run, (reader) => {
        for (const id of [...rows.map((row) => row.id), ...others])
          assert.deepEqual(findInRun(reader, id, 0), model.get(id.toString('hex')))
        const shifted = Buffer.concat([Buffer.alloc(3), others[0] ?? Buffer.alloc(32, 1)])
        assert.deepEqual(findInRun(reader, shifted, 3), model.get(shifted.toString('hex', 3)))
      })
    }),
    { numRuns: 60 },
  )
})

test('searchCopies() gives the first copies of a chunk, not all that a forged run lists', (t) => {
  const id = Buffer.alloc(32, 0x77)
  const rows = Array.from({ length: 300 }, (_, n) => ({ id, pack: 0, chunk: n, class: 1 }))
  rows.push({ id: Buffer.alloc(32, 0x76), pack: 0, chunk: 9, class: 2 })
  const run = makeRun(join(newFolder(t), 'run'), sortedEntries(rows), packTable(1))
  withReader(run, (reader) => {
    const copies = searchCopies(reader, id, 0)
    assert.deepEqual(
      copies.map(({ chunk }) => chunk),
      Array.from({ length: 16 }, (_, n) => n),
    )
    assert.equal(searchCopies(reader, Buffer.alloc(32, 0x76), 0).length, 1)
  })
})

test('one id over three pages is found at its first entry', (t) => {
  const id = Buffer.alloc(32, 0x77)
  const rows = Array.from({ length: 300 }, (_, n) => ({ id, pack: n >> 7, chunk: n, class: 1 }))
  rows.push({ id: Buffer.alloc(32, 0x76), pack: 0, chunk: 9, class: 2 })
  rows.push({ id: Buffer.alloc(32, 0x78), pack: 0, chunk: 8, class: 3 })
  const run = makeRun(join(newFolder(t), 'run'), sortedEntries(rows), packTable(3))
  withReader(run, (reader) => {
    assert.deepEqual(findInRun(reader, id, 0), { pack: 0, chunk: 0, class: 1 })
    assert.deepEqual(findInRun(reader, Buffer.alloc(32, 0x78), 0), { pack: 0, chunk: 8, class: 3 })
  })
})

test('runEntries() and readRunPack() give back what was written', (t) => {
  const folder = newFolder(t)
  fc.assert(
    fc.property(rowsArbitrary, fc.nat({ max: 9 }), (rows, packCount) => {
      const entries = sortedEntries(rows)
      const packs = packTable(packCount + 5)
      const run = makeRun(join(folder, 'run'), entries, packs)
      assert.ok(scan(run).equals(entries))
      withReader(run, (reader) => {
        assert.ok(readRunPacks(reader).equals(packs))
        assert.equal(readRunPack(reader, 4).id, '4'.padStart(64, '0'))
      })
    }),
    { numRuns: 30 },
  )
})

test('mergeRuns() holds every entry of its runs, in order, with the right packs', (t) => {
  const folder = newFolder(t)
  fc.assert(
    fc.property(fc.array(rowsArbitrary, { maxLength: 6 }), (parts) => {
      const runs = parts.map((rows, place) =>
        makeRun(join(folder, `part${place}`), sortedEntries(rows), packTable(5, place * 5)),
      )
      mergeRuns(join(folder, 'merged'), name, runs)
      const merged = openRun(join(folder, 'merged'), name)
      assert.ok(merged)
      // The packs of run n are 5n … 5n + 4, in the merged table as in this model.
      const expected = parts.flatMap((rows, place) =>
        rows.map((row) => ({ ...row, pack: row.pack + place * 5 })),
      )
      assert.ok(scan(merged).equals(sortedEntries(expected)))
      withReader(merged, (reader) => assert.ok(readRunPacks(reader).equals(packTable(parts.length * 5))))
    }),
    { numRuns: 30 },
  )
})

test('buildRun() makes the run of a repository object, and leaves nothing behind when it is damaged', (t) => {
  const folder = newFolder(t)
  const rows = Array.from({ length: 500 }, (_, n) => ({
    id: Buffer.alloc(32, n),
    pack: n % 2,
    chunk: n,
    class: 1,
  }))
  const entries = sortedEntries(rows)
  const owner = { repository: Buffer.alloc(16), domain: Buffer.alloc(8), packSet: Buffer.alloc(16) }
  const key = Buffer.alloc(32, 1)
  const run = { ...owner, number: 1, packs: packTable(2), supersedes: [], entries }
  const object = encodeIndexRun(run, key, Buffer.alloc(16))
  const path = join(folder, 'run')
  buildRun({ path, name }, object, owner, key)
  const opened = openRun(path, name)
  assert.ok(opened)
  assert.ok(scan(opened).equals(entries))
  object[object.length - 1] = (object[object.length - 1] ?? 0) ^ 1
  assert.throws(() => buildRun({ path: join(folder, 'bad'), name }, object, owner, key), isCorrupt)
  assert.deepEqual(readdirSync(folder), ['run'])
})

test('openRun() tells a missing file from a damaged one, and sees every flipped byte and every cut', (t) => {
  const folder = newFolder(t)
  const path = join(folder, 'run')
  assert.equal(openRun(path, name), undefined)
  const rows = Array.from({ length: 130 }, (_, n) => ({
    id: Buffer.alloc(32, n),
    pack: 0,
    chunk: n,
    class: 1,
  }))
  makeRun(path, sortedEntries(rows), packTable(3))
  assert.throws(() => openRun(path, 'cd'.repeat(32)), isCorrupt)
  const whole = readFileSync(path)
  for (let at = 0; at < whole.length; at += 1 + (at % 13)) {
    const flipped = Buffer.from(whole)
    flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8))
    writeFileSync(path, flipped)
    assert.throws(() => openRun(path, name), isCorrupt, `byte ${at}`)
  }
  for (const length of [0, 1, 127, 128, 4096, whole.length - 1]) {
    writeFileSync(path, whole.subarray(0, length))
    assert.throws(() => openRun(path, name), isCorrupt, `${length} bytes`)
  }
})

test('searchRun() sees a page that was damaged after the run was opened', (t) => {
  const path = join(newFolder(t), 'run')
  const rows = Array.from({ length: 130 }, (_, n) => ({
    id: Buffer.alloc(32, n),
    pack: 0,
    chunk: n,
    class: 1,
  }))
  const run = makeRun(path, sortedEntries(rows), packTable(3))
  const damaged = readFileSync(path)
  damaged[33] = 9
  writeFileSync(path, damaged)
  withReader(run, (reader) => {
    assert.throws(() => findInRun(reader, Buffer.alloc(32, 5), 0), isCorrupt)
    assert.equal(findInRun(reader, Buffer.alloc(32, 120), 0)?.chunk, 120)
  })
})

test('a run that cannot be read fails as host.file: no bare errno, like one of a source file', (t) => {
  const folder = newFolder(t)
  const rows = [{ id: Buffer.alloc(32, 1), pack: 0, chunk: 0, class: 1 }]
  const run = makeRun(join(folder, 'run'), sortedEntries(rows), packTable(1))
  const isHostFile = (error: unknown): boolean => isFailure(error, 'host.file')
  const descriptor = openSync(folder, 'r') // reading a folder fails with EISDIR
  const reader = { run, descriptor, page: Buffer.alloc(4096), pageNumber: -1 }
  assert.throws(() => searchRun(reader, Buffer.alloc(32, 1), 0), isHostFile)
  assert.throws(() => readRunPack(reader, 0), isHostFile)
  closeSync(descriptor)
})

test('beginRun() fails as host.file where it cannot write', (t) => {
  const path = join(newFolder(t), 'missing', 'run')
  assert.throws(
    () => beginRun(path, name, 1),
    (error) => isFailure(error, 'host.file'),
  )
})
