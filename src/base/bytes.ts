/**
 * Reading and writing of binary records: little-endian integers, LEB128 varints, length-prefixed bytes.
 * A reader never reads past its end: it throws `repo.corrupt`, so that a cut or flipped record fails cleanly.
 */
import { Failure } from './failure.ts'

/** A growing output. `bytes.subarray(0, length)` is what was written; finishBytes() hands it over. */
export interface ByteWriter {
  bytes: Buffer
  length: number
}

export function newWriter(capacity = 1024): ByteWriter {
  return { bytes: Buffer.allocUnsafe(capacity), length: 0 }
}

/** Makes room for `more` bytes; the writer's buffer may be replaced. */
function reserve(writer: ByteWriter, more: number): void {
  const needed = writer.length + more
  if (needed <= writer.bytes.length) return
  const grown = Buffer.allocUnsafe(Math.max(needed, writer.bytes.length * 2))
  writer.bytes.copy(grown, 0, 0, writer.length)
  writer.bytes = grown
}

/** A copy of what was written; the writer may be used again after `writer.length = 0`. */
export function finishBytes(writer: ByteWriter): Buffer {
  return Buffer.from(writer.bytes.subarray(0, writer.length))
}

export function putU8(writer: ByteWriter, value: number): void {
  reserve(writer, 1)
  writer.bytes[writer.length++] = value
}

export function putI64(writer: ByteWriter, value: bigint): void {
  reserve(writer, 8)
  writer.length = writer.bytes.writeBigInt64LE(value, writer.length)
}

/** Unsigned LEB128; `value` is a safe integer, 0 ≤ value ≤ 2^53−1. */
export function putVarint(writer: ByteWriter, value: number): void {
  reserve(writer, 8)
  let rest = value
  while (rest > 0x7f) {
    writer.bytes[writer.length++] = (rest % 128) | 0x80
    rest = Math.floor(rest / 128)
  }
  writer.bytes[writer.length++] = rest
}

export function putBytes(writer: ByteWriter, bytes: Uint8Array): void {
  reserve(writer, bytes.length)
  writer.bytes.set(bytes, writer.length)
  writer.length += bytes.length
}

/** Varint length, then the bytes. */
export function putSized(writer: ByteWriter, bytes: Uint8Array): void {
  putVarint(writer, bytes.length)
  putBytes(writer, bytes)
}

/** A cursor over bytes it does not own. `what` names the record in failures. */
export interface ByteReader {
  readonly bytes: Buffer
  offset: number
  readonly end: number
  readonly what: string
}

export function newReader(bytes: Uint8Array, what: string): ByteReader {
  const view = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return { bytes: view, offset: 0, end: view.length, what }
}

/** Moves past `count` bytes and returns where they began. Fails: repo.corrupt. */
function take(reader: ByteReader, count: number): number {
  const start = reader.offset
  if (count < 0 || start + count > reader.end)
    throw corrupt(reader.what, `ends ${start + count - reader.end} bytes early`)
  reader.offset = start + count
  return start
}

export function getU8(reader: ByteReader): number {
  return reader.bytes.readUInt8(take(reader, 1))
}

export function getI64(reader: ByteReader): bigint {
  return reader.bytes.readBigInt64LE(take(reader, 8))
}

/** Unsigned LEB128 up to 2^53−1, shortest form only, so that a record has one encoding. Fails: repo.corrupt. */
export function getVarint(reader: ByteReader): number {
  let value = 0
  let scale = 1
  for (;;) {
    const byte = getU8(reader)
    value += (byte & 0x7f) * scale
    if (value > Number.MAX_SAFE_INTEGER) throw corrupt(reader.what, 'holds a number above 2^53')
    if (byte < 0x80) {
      if (byte === 0 && scale > 1)
        throw corrupt(reader.what, 'holds a number that is not in its shortest form')
      return value
    }
    scale *= 128
    if (scale > 2 ** 56) throw corrupt(reader.what, 'holds a number above 2^53')
  }
}

/** A varint that counts things of at least `unitBytes` each: refuses counts that cannot fit in what is left. */
export function getCount(reader: ByteReader, unitBytes: number): number {
  const count = getVarint(reader)
  if (count * unitBytes > reader.end - reader.offset)
    throw corrupt(reader.what, `claims ${count} entries, more than fit`)
  return count
}

/** A view of `count` bytes; owned by whoever owns the reader's bytes. */
export function getBytes(reader: ByteReader, count: number): Buffer {
  const start = take(reader, count)
  return reader.bytes.subarray(start, start + count)
}

/** A view of length-prefixed bytes. */
export function getSized(reader: ByteReader): Buffer {
  return getBytes(reader, getVarint(reader))
}

/** Refuses trailing bytes. */
export function expectEnd(reader: ByteReader): void {
  if (reader.offset !== reader.end)
    throw corrupt(reader.what, `has ${reader.end - reader.offset} bytes too many`)
}

/** The failure of a record that does not decode. */
export function corrupt(what: string, is: string): Failure {
  return new Failure('repo.corrupt', `Cannot read ${what}: it ${is}`, { facts: { what } })
}
