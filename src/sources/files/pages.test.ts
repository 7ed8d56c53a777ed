import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import fc from 'fast-check'
import { detectPageBytes } from './pages.ts'

function detect(bytes: Buffer, name = 'file'): number {
  return detectPageBytes({ name, size: bytes.length }, (offset, length) =>
    bytes.subarray(offset, offset + length),
  )
}

/** Heap pages as PostgreSQL 8.3 to 18 write them: header, line pointers, free space, tuples. */
function postgresPages(count: number): Buffer {
  const pages = Buffer.alloc(count * 8192, 0x61)
  for (let nth = 0; nth < count; nth++) {
    const page = pages.subarray(nth * 8192, (nth + 1) * 8192)
    page.writeBigUInt64LE(0x1_0000_0000n + BigInt(nth), 0)
    page.writeUInt16LE(24 + 4 * 50, 12)
    page.writeUInt16LE(2000, 14)
    page.writeUInt16LE(nth % 3 === 0 ? 8192 : 8176, 16)
    page.writeUInt16LE(8192 | 4, 18)
  }
  return pages
}

/** Pages of one InnoDB tablespace: checksum, page number, type and space id. */
function innodbPages(count: number, pageBytes: number): Buffer {
  const pages = Buffer.alloc(count * pageBytes, 0x62)
  for (let nth = 0; nth < count; nth++) {
    const page = pages.subarray(nth * pageBytes, (nth + 1) * pageBytes)
    page.writeUInt32BE(nth, 4)
    page.writeUInt16BE(nth === 0 ? 8 : 17855, 24)
    page.writeUInt32BE(77, 34)
  }
  pages.writeUInt32BE(77, 38)
  return pages
}

test('`detectPageBytes()` knows SQLite files of any page size', () => {
  const dir = mkdtempSync(join(tmpdir(), 'backstock-pages-'))
  for (const pageBytes of [512, 1024, 4096, 16384, 65536]) {
    const path = join(dir, `shop-${pageBytes}.db`)
    const database = new DatabaseSync(path)
    database.exec(`PRAGMA page_size = ${pageBytes}; CREATE TABLE orders (id INTEGER PRIMARY KEY, text TEXT)`)
    database.exec(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
       INSERT INTO orders SELECT i, 'order' FROM n`,
    )
    database.close()
    assert.equal(detect(readFileSync(path)), Math.max(4096, pageBytes))
  }
  rmSync(dir, { recursive: true })
})

test('`detectPageBytes()` knows PostgreSQL relations, pages of zeros among them', () => {
  for (const count of [1, 2, 3, 7, 100, 1000]) assert.equal(detect(postgresPages(count), '16384'), 8192)
  const some = postgresPages(100)
  some.fill(0, 50 * 8192)
  assert.equal(detect(some), 8192)
  assert.equal(detect(some.subarray(0, -1)), 0)
})

test('`detectPageBytes()` knows InnoDB tablespaces of any page size', () => {
  for (const pageBytes of [4096, 8192, 16384, 32768, 65536]) {
    assert.equal(detect(innodbPages(7, pageBytes), 'orders.ibd'), pageBytes)
    assert.equal(detect(innodbPages(64, pageBytes), 'ibdata1'), pageBytes)
  }
  const some = innodbPages(64, 16384)
  some.fill(0, 10 * 16384)
  assert.equal(detect(some), 16384)
})

test('`detectPageBytes()` takes nothing else for pages', () => {
  const csv = Buffer.from('id,name,price\n1,shoe,9.99\n'.repeat(20_000))
  const jpeg = Buffer.alloc(8192 * 40, 0xd7)
  Buffer.from('ffd8ffe000104a46494600010101', 'hex').copy(jpeg)
  const others = {
    zeros: Buffer.alloc(8192 * 20),
    'one bits': Buffer.alloc(8192 * 20, 0xff),
    csv: csv.subarray(0, 8192 * 20),
    jpeg,
    empty: Buffer.alloc(0),
    'magic alone': Buffer.from('SQLite format 3\0'),
    'magic with a bad page size': Buffer.concat([Buffer.from('SQLite format 3\0'), Buffer.alloc(8192, 0x33)]),
    'one torn page': Buffer.concat([postgresPages(4), Buffer.alloc(8192, 0x44)]),
    'two spaces': Buffer.concat([innodbPages(4, 16384), innodbPages(4, 16384)]),
  }
  for (const [name, bytes] of Object.entries(others)) assert.equal(detect(bytes), 0, name)
})

test('`detectPageBytes()` never takes random bytes for pages, and never fails on any', () => {
  const anyFile = fc.tuple(
    fc.constantFrom(0, 8192, 65536),
    fc.uint8Array({ maxLength: 200 }),
    fc.integer({ min: 0, max: 255 }),
  )
  const check = fc.property(anyFile, ([size, head, filler]) => {
    const bytes = Buffer.alloc(size, filler)
    bytes.set(head.subarray(0, size))
    assert.equal(detect(bytes), 0)
  })
  fc.assert(check, { numRuns: 500 })
})
