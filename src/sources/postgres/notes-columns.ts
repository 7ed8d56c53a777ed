/**
 * Lists of records written by column, each value as the difference to the one before: how notes-codec.ts
 * packs them. "Positions" ascend in steps of 8 and are varints of (step / 8); "signed" are zigzag varints of
 * the difference modulo 2^64; "plain" are varints; texts are sized UTF-8.
 */
import {
  corrupt,
  getSized,
  getU8,
  getVarint,
  putSized,
  putU8,
  putVarint,
  type ByteReader,
  type ByteWriter,
} from '../../base/bytes.ts'
import { assert } from '../../base/failure.ts'
import type { RelationFiles } from './wal-events.ts'

/** What failures name. */
export const WHAT = 'the notes of a log'
const U64_MAX = (1n << 64n) - 1n
const SMALL = BigInt(Number.MAX_SAFE_INTEGER)

/** Writes one value of each item. */
type Column<T> = (writer: ByteWriter, items: readonly T[]) => void

export function putList<T>(writer: ByteWriter, items: readonly T[], columns: readonly Column<T>[]): void {
  putVarint(writer, items.length)
  for (const column of columns) column(writer, items)
}

export function positions<T>(of: (item: T) => bigint): Column<T> {
  return (writer, items) => {
    let before = 0n
    for (const item of items) {
      const lsn = of(item)
      assert(lsn >= before && lsn % 8n === 0n, 'notes are in the order of the log')
      putBig(writer, (lsn - before) / 8n)
      before = lsn
    }
  }
}

export function getPositions(reader: ByteReader, count: number): bigint[] {
  let before = 0n
  return Array.from({ length: count }, () => {
    before += getBig(reader) * 8n
    if (before > U64_MAX) throw corrupt(WHAT, 'has a position above 2^64')
    return before
  })
}

/** Differences modulo 2^64: right for signed and unsigned ones. */
export function signed<T>(of: (item: T) => bigint): Column<T> {
  return (writer, items) => {
    let before = 0n
    for (const item of items) {
      const value = of(item)
      const step = BigInt.asIntN(64, value - before)
      putBig(writer, step < 0n ? -step * 2n - 1n : step * 2n)
      before = value
    }
  }
}

function getSteps(reader: ByteReader, count: number, wrap: (value: bigint) => bigint): bigint[] {
  let before = 0n
  return Array.from({ length: count }, () => {
    const step = getBig(reader)
    before = wrap(before + ((step & 1n) === 1n ? -(step >> 1n) - 1n : step >> 1n))
    return before
  })
}

export function getTimes(reader: ByteReader, count: number): bigint[] {
  return getSteps(reader, count, (value) => BigInt.asIntN(64, value))
}

export function getUnsigned(reader: ByteReader, count: number): bigint[] {
  return getSteps(reader, count, (value) => BigInt.asUintN(64, value))
}

/** Numbers of 32 bits: transactions, parts of file names. */
export function getIds(reader: ByteReader, count: number): number[] {
  return getUnsigned(reader, count).map((value) => {
    if (value > 0xffff_ffffn) throw corrupt(WHAT, 'has a number above 2^32')
    return Number(value)
  })
}

export function plain<T>(of: (item: T) => number): Column<T> {
  return (writer, items) => {
    for (const item of items) putVarint(writer, of(item))
  }
}

export function getPlain(reader: ByteReader, count: number): number[] {
  return Array.from({ length: count }, () => getVarint(reader))
}

export function texts<T>(of: (item: T) => string): Column<T> {
  return (writer, items) => {
    for (const item of items) putSized(writer, Buffer.from(of(item)))
  }
}

export function getText(reader: ByteReader): string {
  return getSized(reader).toString()
}

export function filesColumns<T extends { readonly files: RelationFiles }>(): Column<T>[] {
  return [
    signed((item) => BigInt(item.files.tablespace)),
    signed((item) => BigInt(item.files.database)),
    signed((item) => BigInt(item.files.relation)),
  ]
}

export function getFiles(reader: ByteReader, count: number): RelationFiles[] {
  const tablespaces = getIds(reader, count)
  const databases = getIds(reader, count)
  const relations = getIds(reader, count)
  return relations.map((relation, at) => ({
    tablespace: tablespaces[at]!,
    database: databases[at]!,
    relation,
  }))
}

export function zigzag(value: number): number {
  return value < 0 ? -value * 2 - 1 : value * 2
}

export function unzigzag(value: number): number {
  return value % 2 === 1 ? -(value + 1) / 2 : value / 2
}

/** LEB128 of up to 64 bits, shortest form; the same bytes as putVarint() where that can. */
export function putBig(writer: ByteWriter, value: bigint): void {
  if (value <= SMALL) {
    putVarint(writer, Number(value))
    return
  }
  let rest = value
  for (; rest > 0x7fn; rest >>= 7n) putU8(writer, Number(rest & 0x7fn) | 0x80)
  putU8(writer, Number(rest))
}

export function getBig(reader: ByteReader): bigint {
  let value = 0
  let scale = 1
  for (let turn = 0; turn < 7; turn++) {
    const byte = getU8(reader)
    value += (byte & 0x7f) * scale
    if (byte < 0x80) {
      if (byte === 0 && turn > 0) throw corrupt(WHAT, 'has a number that is not in its shortest form')
      return BigInt(value)
    }
    scale *= 128
  }
  let large = BigInt(value)
  for (let shift = 49n; ; shift += 7n) {
    const byte = getU8(reader)
    large |= BigInt(byte & 0x7f) << shift
    if (large > U64_MAX) throw corrupt(WHAT, 'has a number above 2^64')
    if (byte >= 0x80) continue
    if (byte === 0) throw corrupt(WHAT, 'has a number that is not in its shortest form')
    return large
  }
}
