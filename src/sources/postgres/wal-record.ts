/**
 * Takes a WAL record apart: header, references to blocks, main data (xlogrecord.h). The parts are numbers in
 * one record that is used again, since a busy server writes a million records a minute.
 *
 * After the header: block headers (id u8, fork and flags u8, data bytes u16; with an image: image bytes u16,
 * hole offset u16, image flags u8, hole bytes u16 if there is a hole and the image is compressed; tablespace,
 * database and relation u32 each unless they are those of the block before; block u32), then origin (253:
 * u16), top-level xid (252: u32), then the size of the main data (255: u8, 254: u32), images and data of the
 * blocks, and at the end the main data.
 */
import { Failure } from '../../base/failure.ts'

/** Total bytes, xid, previous record, info, resource manager, CRC (wal-reader.ts). */
export const RECORD_HEADER_BYTES = 24
/** In that header: which resource manager it belongs to. */
export const MANAGER_AT = 17
/** Resource managers (rmgrlist.h): which part of the server wrote a record. */
export const RM = { xlog: 0, xact: 1, smgr: 2, database: 4, tablespace: 5, heap2: 9, heap: 10 } as const

export interface WalRecord {
  bytes: Buffer
  /** Where the record begins in `bytes`, and where it ends. */
  at: number
  end: number
  xid: number
  /** Low four bits belong to the server, the high ones say what the resource manager did. */
  info: number
  manager: number
  /** Main data: from here to `end`. */
  mainAt: number
  /** Top-level transaction of a subtransaction's first record (logical decoding), else 0. */
  topXid: number
  blockCount: number
  /** The first `blockCount` of them count. */
  readonly blocks: readonly WalBlock[]
}

/** A block that the record changes, in numbers as the server names its files. */
export interface WalBlock {
  tablespace: number
  database: number
  relation: number
  fork: number
  block: number
  dataBytes: number
  /** Bytes of the full image of the page; 0: there is none. */
  imageBytes: number
}

/** The bits of WalRecord.info that belong to the resource manager. */
export const MANAGER_INFO = 0xf0
const BLOCK_ID_MAX = 32
const ID_MAIN_SHORT = 255
const ID_MAIN_LONG = 254
const ID_ORIGIN = 253
const ID_TOP_XID = 252
const FORK_MASK = 0x0f
const HAS_IMAGE = 0x10
const SAME_RELATION = 0x80
const IMAGE_HAS_HOLE = 0x01
/** Before version 15 one bit, since then one a method. */
const IMAGE_COMPRESSED = { before15: 0x02, since15: 0x1c } as const

/** A record to be filled by decodeRecord(). */
export function newWalRecord(): WalRecord {
  return {
    bytes: Buffer.alloc(0),
    at: 0,
    end: 0,
    xid: 0,
    info: 0,
    manager: 0,
    mainAt: 0,
    topXid: 0,
    blockCount: 0,
    blocks: Array.from({ length: BLOCK_ID_MAX + 1 }, () => ({
      tablespace: 0,
      database: 0,
      relation: 0,
      fork: 0,
      block: 0,
      dataBytes: 0,
      imageBytes: 0,
    })),
  }
}

/**
 * Fills `record` with what lies at `at`; it keeps a view of `bytes`. `major` is the server's version. Fails:
 * source.failed when the parts do not fit into the record.
 */
export function decodeRecord(
  record: WalRecord,
  bytes: Buffer,
  place: { at: number; length: number },
  major: number,
): void {
  const { at, length } = place
  const end = at + length
  record.bytes = bytes
  record.at = at
  record.end = end
  record.xid = bytes.readUInt32LE(at + 4)
  record.info = bytes[at + 16]!
  record.manager = bytes[at + MANAGER_AT]!
  record.topXid = 0
  record.blockCount = 0
  record.mainAt = end
  let dataBytes = 0
  let from = at + RECORD_HEADER_BYTES
  while (end - from > dataBytes) {
    const id = bytes[from++]!
    if (id <= BLOCK_ID_MAX) {
      const block = record.blocks[record.blockCount]!
      from = decodeBlock(block, record, from, major)
      record.blockCount++
      dataBytes += block.dataBytes + block.imageBytes
    } else if (id === ID_TOP_XID) {
      record.topXid = bytes.readUInt32LE(from)
      from += 4
    } else if (id === ID_ORIGIN) {
      from += 2
    } else if (id === ID_MAIN_SHORT || id === ID_MAIN_LONG) {
      const mainBytes = id === ID_MAIN_SHORT ? bytes[from]! : bytes.readUInt32LE(from)
      from += id === ID_MAIN_SHORT ? 1 : 4
      record.mainAt = end - mainBytes
      dataBytes += mainBytes
      break
    } else {
      throw misfit(id)
    }
  }
  if (end - from !== dataBytes) throw misfit()
}

/** Fills `block` with the header behind the id; returns where the header ends. */
function decodeBlock(block: WalBlock, record: WalRecord, from: number, major: number): number {
  const { bytes } = record
  const flags = bytes[from]!
  let at = from + 3
  block.fork = flags & FORK_MASK
  block.dataBytes = bytes.readUInt16LE(from + 1)
  block.imageBytes = 0
  if ((flags & HAS_IMAGE) !== 0) {
    const compressed = major < 15 ? IMAGE_COMPRESSED.before15 : IMAGE_COMPRESSED.since15
    const image = bytes[at + 4]!
    block.imageBytes = bytes.readUInt16LE(at)
    at += (image & IMAGE_HAS_HOLE) !== 0 && (image & compressed) !== 0 ? 7 : 5
  }
  if ((flags & SAME_RELATION) === 0) {
    block.tablespace = bytes.readUInt32LE(at)
    block.database = bytes.readUInt32LE(at + 4)
    block.relation = bytes.readUInt32LE(at + 8)
    at += 12
  } else {
    const before = record.blocks[record.blockCount - 1]
    if (before === undefined) throw misfit()
    block.tablespace = before.tablespace
    block.database = before.database
    block.relation = before.relation
  }
  block.block = bytes.readUInt32LE(at)
  return at + 4
}

function misfit(id?: number): Failure {
  const what = id === undefined ? 'its parts do not fit' : `${id} is no part that this version knows`
  return new Failure('source.failed', `Cannot read a record of the log: ${what}`)
}
