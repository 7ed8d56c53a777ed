/**
 * Database pages of 8 KiB in PostgreSQL's layout (src/include/storage/bufpage.h, version 4),
 * filled with rows. They are readable as a heap page by layout; no server has to accept them.
 *
 * 0  8  pd_lsn (high, low)        16  2  pd_special = 8192
 * 8  2  pd_checksum = 0 (off)     18  2  pd_pagesize_version = 0x2004
 * 10  2  pd_flags                  20  4  pd_prune_xid
 * 12  2  pd_lower                  24  .. line pointers: offset 15 bits, flags 2, length 15
 * 14  2  pd_upper                  pd_upper .. tuples, the first at the end of the page
 */
import { draw, noiseBytes, type Noise } from './noise.ts'
import { tableText } from './rows.ts'

/** Bytes of one page. */
export const pageBytes = 8192

const headerBytes = 24
const pointerBytes = 4
const tupleHeaderBytes = 24
const pointerFlagNormal = 1

/** A page full of rows; `number` is its place in the relation. The caller owns the buffer. */
export function createPage(noise: Noise, number: number): Buffer {
  const page = Buffer.alloc(pageBytes)
  const free = draw(noise, 100, 1600)
  let lower = headerBytes
  let upper = pageBytes
  for (let item = 1; ; item++) {
    const tuple = createTuple(noise, number, item)
    const start = (upper - tuple.length) & ~7
    if (start - lower - pointerBytes < free) break
    tuple.copy(page, start)
    page.writeUInt32LE(((tuple.length << 17) | (pointerFlagNormal << 15) | start) >>> 0, lower)
    lower += pointerBytes
    upper = start
  }
  page.writeUInt32LE(draw(noise, 0, 15), 0)
  page.writeUInt32LE(draw(noise, 0, 0xffff_ffff), 4)
  page.writeUInt16LE(lower, 12)
  page.writeUInt16LE(upper, 14)
  page.writeUInt16LE(pageBytes, 16)
  page.writeUInt16LE(pageBytes | 4, 18)
  return page
}

/** A row: the tuple header, a number, a time, the readable columns, and some bytes that do not compress. */
function createTuple(noise: Noise, page: number, item: number): Buffer {
  const text = Buffer.from(tableText(noise), 'latin1')
  const random = noiseBytes(noise, draw(noise, 16, 48))
  const tuple = Buffer.alloc(tupleHeaderBytes + 12 + text.length + random.length)
  tuple.writeUInt32LE(700 + draw(noise, 0, 4095), 0)
  tuple.writeUInt16LE(page >>> 16, 12)
  tuple.writeUInt16LE(page & 0xffff, 14)
  tuple.writeUInt16LE(item, 16)
  tuple.writeUInt16LE(8, 18)
  tuple.writeUInt16LE(0x0902, 20)
  tuple.writeUInt8(tupleHeaderBytes, 22)
  tuple.writeUInt32LE(page * 64 + item, tupleHeaderBytes)
  tuple.writeUIntLE(0x2c_0000_0000 + draw(noise, 0, 0x3fff_ffff), tupleHeaderBytes + 4, 6)
  text.copy(tuple, tupleHeaderBytes + 12)
  random.copy(tuple, tupleHeaderBytes + 12 + text.length)
  return tuple
}
