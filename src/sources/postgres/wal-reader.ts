/**
 * Cuts a stream of write-ahead log into records. Pure: bytes in, records out; pages, records that cross pages
 * and segments, and the padding after a log switch are dealt with here (xlogreader.c; the format has been the
 * same since PostgreSQL 9.5 except for the page magic).
 *
 * Page: magic u16, info u16, timeline u32, page address u64, bytes left of the record of an earlier page u32,
 * padding; the first page of a segment goes on: system id u64, segment bytes u32, page bytes u32. Record:
 * total bytes u32, xid u32, previous record u64, info u8, resource manager u8, padding u16, CRC-32C u32, then
 * block headers, block data and main data (wal-record.ts); each begins at a multiple of 8.
 */
import { newWriter, putBytes, type ByteWriter } from '../../base/bytes.ts'
import { Failure } from '../../base/failure.ts'
import { addCrc32c, CRC32C_START, endCrc32c } from './crc32c.ts'
import { formatLsn, type Lsn } from './lsn.ts'
import { MANAGER_INFO, RECORD_HEADER_BYTES, RM } from './wal-record.ts'

const WAL_PAGE_BYTES = 8192
const PAGE = BigInt(WAL_PAGE_BYTES)
const PAGE_HEADER_BYTES = 24
const FIRST_PAGE_HEADER_BYTES = 40
const CRC_AT = 20
const INFO_CONTINUES = 1
const INFO_FIRST = 2
/** The record that the previous page left open was given up (crash); its place is written over. */
const INFO_OVERWRITES = 8
/** PostgreSQL allows 1020 MiB (XLogRecordMaxSize). */
const RECORD_BYTES_MAX = 1020 * 1024 * 1024
const XLOG_SWITCH = 0x40
const SCRATCH_BYTES = 64 * 1024
const NOTHING = Buffer.alloc(0)

/**
 * Takes one record: `length` bytes of `bytes` from `at` on, valid during the call only. recordLsn() gives its
 * position.
 */
export type OnRecord = (bytes: Buffer, at: number, length: number, reader: WalReader) => void

export interface WalReader {
  readonly segmentBytes: number
  readonly onRecord: OnRecord
  readonly checkCrc: boolean
  /** The position that feedWal() wants next. */
  next: Lsn
  /** Where the log ends: there is no record, or a page that was never written. */
  endedAt: Lsn | undefined
  /** Timeline that the last page named. */
  timeline: number
  /** Position of the first byte of what is being read; with `recordOffset` that of the record at hand. */
  base: Lsn
  recordOffset: number
  /** Too few bytes to be understood yet. */
  carry: Buffer
  /** The record that crosses pages: `gathered` of `total` bytes are in `scratch`. 0: there is none. */
  readonly scratch: ByteWriter
  total: number
  gathered: number
  gatheredFrom: Lsn
  /** Its beginning was not read: it is passed over. */
  isHeadless: boolean
  /** Bytes to pass over before the next record: to a multiple of 8, after a log switch to the next segment. */
  padding: number
}

/** A reader that begins with the page of `from`; a record that began before that page is passed over. */
export function newWalReader(options: {
  readonly from: Lsn
  readonly segmentBytes: number
  /** False saves time, for log that was checked before. */
  readonly checkCrc: boolean
  readonly onRecord: OnRecord
}): WalReader {
  return {
    ...options,
    next: options.from - (options.from % PAGE),
    endedAt: undefined,
    timeline: 0,
    base: 0n,
    recordOffset: 0,
    carry: NOTHING,
    scratch: newWriter(SCRATCH_BYTES),
    total: 0,
    gathered: 0,
    gatheredFrom: 0n,
    isHeadless: false,
    padding: 0,
  }
}

/** Position of the record that onRecord is called with. */
export function recordLsn(reader: WalReader): Lsn {
  return reader.base + BigInt(reader.recordOffset)
}

/**
 * Reads on: `bytes` are those at `reader.next`. Keeps no view of them. After `endedAt` is set it reads
 * nothing more. Fails: source.failed when the bytes are no log, or a record's checksum is wrong.
 */
export function feedWal(reader: WalReader, bytes: Buffer): void {
  if (reader.endedAt !== undefined) return
  const input = reader.carry.length === 0 ? bytes : Buffer.concat([reader.carry, bytes])
  reader.base = reader.next - BigInt(reader.carry.length)
  reader.next += BigInt(bytes.length)
  const used = readInput(reader, input)
  reader.carry = used >= input.length ? NOTHING : Buffer.from(input.subarray(used))
}

/** Returns how many bytes were used; the others are wanted again in front of what follows. */
function readInput(reader: WalReader, input: Buffer): number {
  const pageOffset = Number(reader.base % PAGE)
  let at = skipPadding(reader, input, 0)
  while (at < input.length && reader.endedAt === undefined) {
    const inPage = (pageOffset + at) % WAL_PAGE_BYTES
    const end = Math.min(input.length, at + WAL_PAGE_BYTES - inPage)
    if (inPage === 0) {
      const bytes = readPageHeader(reader, input, at)
      if (bytes === 0) return at
      at += bytes
    } else if (reader.total > 0) {
      at = gather(reader, input, at, end)
    } else {
      if (end - at < 8) return at
      at = readRecord(reader, input, at, end)
    }
    if (reader.total === 0) reader.padding += -(pageOffset + at) & 7
    if (reader.padding > 0) at = skipPadding(reader, input, at)
  }
  return reader.endedAt === undefined ? at : input.length
}

/** Returns the bytes of the header, 0 when they are not all there yet. */
function readPageHeader(reader: WalReader, input: Buffer, at: number): number {
  if (input.length - at < PAGE_HEADER_BYTES) return 0
  const lsn = reader.base + BigInt(at)
  const info = input.readUInt16LE(at + 2)
  const bytes = (info & INFO_FIRST) === 0 ? PAGE_HEADER_BYTES : FIRST_PAGE_HEADER_BYTES
  // A page that was never written is empty; one of a recycled file has the address it once had.
  if (input.readUInt16LE(at) === 0 || input.readBigUInt64LE(at + 8) !== lsn) {
    reader.endedAt = reader.total > 0 && !reader.isHeadless ? reader.gatheredFrom : lsn
    return bytes
  }
  if (input.length - at < bytes) return 0
  reader.timeline = input.readUInt32LE(at + 4)
  const isFirst = lsn % BigInt(reader.segmentBytes) === 0n
  if (isFirst !== (bytes === FIRST_PAGE_HEADER_BYTES))
    throw damaged(lsn, 'a page header is at the wrong place')
  if (isFirst && input.readUInt32LE(at + 32) !== reader.segmentBytes)
    throw damaged(lsn, `its segments have ${input.readUInt32LE(at + 32)} bytes, not ${reader.segmentBytes}`)
  continueRecord(reader, lsn, info, input.readUInt32LE(at + 16))
  return bytes
}

/** `left`: how many bytes the page says there still are of a record that began before it. */
function continueRecord(reader: WalReader, lsn: Lsn, info: number, left: number): void {
  const isContinued = (info & INFO_CONTINUES) !== 0
  if ((info & INFO_OVERWRITES) !== 0) reader.total = 0
  if (reader.total === 0) {
    if (!isContinued) return
    reader.isHeadless = true
    reader.total = left
    reader.gathered = 0
  } else if (!isContinued || left !== reader.total - reader.gathered) {
    throw damaged(lsn, 'the page does not go on with the record before it')
  }
}

/** Adds to the record under way; returns where it stopped. */
function gather(reader: WalReader, input: Buffer, at: number, end: number): number {
  const bytes = Math.min(end - at, reader.total - reader.gathered)
  if (!reader.isHeadless) putBytes(reader.scratch, input.subarray(at, at + bytes))
  reader.gathered += bytes
  if (reader.gathered === reader.total) {
    const { scratch, total, isHeadless } = reader
    reader.total = 0
    reader.isHeadless = false
    reader.recordOffset = Number(reader.gatheredFrom - reader.base)
    if (!isHeadless) giveRecord(reader, { bytes: scratch.bytes, at: 0, total, end: at + bytes })
  }
  return at + bytes
}

/** Gives the record at `at`, or begins to gather it; returns where it stopped. */
function readRecord(reader: WalReader, input: Buffer, at: number, end: number): number {
  const total = input.readUInt32LE(at)
  if (total === 0) {
    reader.endedAt = reader.base + BigInt(at)
    return at
  }
  if (total < RECORD_HEADER_BYTES || total > RECORD_BYTES_MAX)
    throw damaged(reader.base + BigInt(at), `a record cannot have ${total} bytes`)
  if (total > end - at) {
    reader.total = total
    reader.gathered = 0
    reader.scratch.length = 0
    reader.gatheredFrom = reader.base + BigInt(at)
    return gather(reader, input, at, end)
  }
  reader.recordOffset = at
  giveRecord(reader, { bytes: input, at, total, end: at + total })
  return at + total
}

/** `end`: where the record ends in the input. */
function giveRecord(
  reader: WalReader,
  record: { bytes: Buffer; at: number; total: number; end: number },
): void {
  const { bytes, at, total, end } = record
  if (reader.checkCrc) checkRecord(reader, bytes, at, total)
  reader.onRecord(bytes, at, total, reader)
  // After a switch the rest of the segment is padding.
  if (bytes[at + 17] === RM.xlog && (bytes[at + 16]! & MANAGER_INFO) === XLOG_SWITCH) {
    const segment = BigInt(reader.segmentBytes)
    reader.padding = Number((segment - ((reader.base + BigInt(end)) % segment)) % segment)
  }
}

function checkRecord(reader: WalReader, bytes: Buffer, at: number, total: number): void {
  const body = addCrc32c(CRC32C_START, bytes, at + RECORD_HEADER_BYTES, at + total)
  const sum = endCrc32c(addCrc32c(body, bytes, at, at + CRC_AT))
  if (sum !== bytes.readUInt32LE(at + CRC_AT))
    throw damaged(recordLsn(reader), "a record's checksum is wrong")
}

function skipPadding(reader: WalReader, input: Buffer, at: number): number {
  const bytes = Math.min(reader.padding, input.length - at)
  reader.padding -= bytes
  return at + bytes
}

function damaged(lsn: Lsn, what: string): Failure {
  return new Failure('source.failed', `Cannot read the log at ${formatLsn(lsn)}: ${what}`)
}
