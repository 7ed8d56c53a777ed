/**
 * Finds out by content whether a file is a database's file of pages, whose changed pages are worth storing
 * alone. A wrong `0` costs space in increments; a wrong page size costs a little too, never correctness: both
 * kinds of content give back the same bytes.
 */

/** Up to `length` bytes of the file at `offset`; fewer only at its end. */
export type ReadAt = (offset: number, length: number) => Uint8Array

/** The engine's smallest page (docs/format.md). */
const PAGE_BYTES_MIN = 4096
const SAMPLE_COUNT = 8
const SQLITE_MAGIC = Buffer.from('SQLite format 3\0', 'latin1')
const POSTGRES_PAGE_BYTES = 8192
const POSTGRES_HEADER_BYTES = 24
/** InnoDB's default first: nearly all files have it. */
const INNODB_PAGE_BYTES = [16384, 8192, 4096, 32768, 65536]
const INNODB_PAGE_COUNT_MIN = 4
const INNODB_FSP_HDR = 8

/**
 * Page bytes (4–64 KiB) of a SQLite, PostgreSQL or InnoDB file, or 0. Reads at most 10 pages' worth of
 * samples.
 */
export function detectPageBytes(file: { name: string; size: number }, readAt: ReadAt): number {
  // The smallest of the three kinds is one SQLite page of 512 bytes; below 4 KiB pages have no use.
  if (file.size < PAGE_BYTES_MIN) return 0
  const head = viewOf(readAt(0, 100))
  const sqlite = sqlitePageBytes(head)
  if (sqlite > 0) return Math.max(sqlite, PAGE_BYTES_MIN)
  if (isPostgresRelation(file.size, readAt)) return POSTGRES_PAGE_BYTES
  return INNODB_PAGE_BYTES.find((bytes) => isInnodbSpace(file.size, bytes, head, readAt)) ?? 0
}

/** SQLite file format, 1.3: magic, then the page size as u16 BE at 16, where 1 stands for 65 536. */
function sqlitePageBytes(head: Buffer): number {
  if (head.length < 100 || !head.subarray(0, 16).equals(SQLITE_MAGIC)) return 0
  const stored = head.readUInt16BE(16)
  const bytes = stored === 1 ? 65536 : stored
  const isPowerOfTwo = (bytes & (bytes - 1)) === 0
  return bytes >= 512 && isPowerOfTwo ? bytes : 0
}

/** Every sampled page is all zeros or has a sound PageHeaderData (src/include/storage/bufpage.h); one has. */
function isPostgresRelation(size: number, readAt: ReadAt): boolean {
  if (size % POSTGRES_PAGE_BYTES !== 0) return false
  let sound = 0
  for (const index of samplePages(size / POSTGRES_PAGE_BYTES)) {
    const page = viewOf(readAt(index * POSTGRES_PAGE_BYTES, POSTGRES_PAGE_BYTES))
    if (isPostgresPage(page)) sound++
    else if (!isZero(page)) return false
  }
  return sound > 0
}

/** Offsets: 12 pd_lower, 14 pd_upper, 16 pd_special, 18 page size | layout version (4 since 8.3, 3 before). */
function isPostgresPage(page: Buffer): boolean {
  if (page.length < POSTGRES_PAGE_BYTES) return false
  const sizeAndVersion = page.readUInt16LE(18)
  if (sizeAndVersion !== (POSTGRES_PAGE_BYTES | 4) && sizeAndVersion !== (POSTGRES_PAGE_BYTES | 3))
    return false
  const lower = page.readUInt16LE(12)
  const upper = page.readUInt16LE(14)
  const special = page.readUInt16LE(16)
  return (
    lower >= POSTGRES_HEADER_BYTES && lower <= upper && upper <= special && special <= POSTGRES_PAGE_BYTES
  )
}

/**
 * FIL header of each page (storage/innobase/include/fil0types.h), big-endian: 4 page number, 24 type, 34
 * space id. Page 0 is the space header and repeats the id at 38. Sampled pages must bear their own number and
 * that id.
 */
function isInnodbSpace(size: number, pageBytes: number, head: Buffer, readAt: ReadAt): boolean {
  const pageCount = size / pageBytes
  if (size % pageBytes !== 0 || pageCount < INNODB_PAGE_COUNT_MIN || head.length < 42) return false
  const space = head.readUInt32BE(34)
  const isHeader = head.readUInt32BE(4) === 0 && head.readUInt16BE(24) === INNODB_FSP_HDR
  if (!isHeader || head.readUInt32BE(38) !== space) return false
  let numbered = 0
  for (const index of samplePages(pageCount)) {
    if (index === 0) continue
    const page = viewOf(readAt(index * pageBytes, pageBytes))
    if (isZero(page)) continue
    if (page.length < pageBytes || page.readUInt32BE(4) !== index || page.readUInt32BE(34) !== space)
      return false
    numbered++
  }
  return numbered > 0
}

/** Distinct page numbers, ascending: the first three, the last and some evenly between. */
function samplePages(pageCount: number): number[] {
  const wanted = new Set([0, 1, 2, pageCount - 1])
  for (let nth = 1; nth < SAMPLE_COUNT - 3; nth++)
    wanted.add(Math.floor((pageCount * nth) / (SAMPLE_COUNT - 3)))
  return [...wanted].filter((index) => index < pageCount).sort((a, b) => a - b)
}

function isZero(bytes: Buffer): boolean {
  // A page of zeros equals itself moved by one byte, and starts with zero: the comparison runs natively.
  return bytes[0] === 0 && bytes.subarray(1).equals(bytes.subarray(0, bytes.length - 1))
}

function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
