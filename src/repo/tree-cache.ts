/**
 * The host's copy of its last tree: a sequential file of records in walk order, sealed, so that a backup can
 * compare the walk with it in one pass and bounded memory, also on a host that may not read the repository.
 *
 * File: "BKSTTREE", salt 16, then blocks `u32 sealed bytes, sealed zstd of records`, then a trailer block,
 * then `u64 offset of the trailer, u32 its block number`. Key = HKDF(id key, salt, "backstock/1 tree cache"),
 * nonce = block number. Only a cache: anything wrong with it means re-reading, never a wrong backup
 * (openTreeCache() gives undefined).
 */
import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import {
  type ByteReader,
  type ByteWriter,
  getSized,
  getU8,
  getVarint,
  newReader,
  newWriter,
  putSized,
  putU8,
  putVarint,
} from '../base/bytes.ts'
import { describeError, Failure, isFailure } from '../base/failure.ts'
import { randomBytes } from '../base/random.ts'
import { counterNonce, hkdf, openAes, sealAes } from '../format/seal.ts'
import { decodeEntry, encodeEntry, type TreeEntry } from '../format/tree.ts'

const MAGIC = Buffer.from('BKSTTREE')
const SALT_BYTES = 16
const BLOCK_BYTES = 256 * 1024
const TAIL_BYTES = 12
/** Larger blocks come only from single records (a huge page file); beyond this the cache is taken for damaged. */
const SEALED_BYTES_MAX = 1 << 30
const RECORDS = { enter: 1, entry: 2, leave: 3 } as const

/** What an increment needs of one 64 MiB segment of a page file. */
export interface PageSegment {
  readonly pageBytes: number
  /** Encoded extents (format/content.ts encodeExtents). */
  readonly extents: Uint8Array
  /** PAGE_HASH_BYTES a page. */
  readonly hashes: Uint8Array
}

/** `marks`: pairs of pack number and chunk number of everything the entry references below the tree. */
export interface CacheRecord {
  readonly kind: keyof typeof RECORDS
  readonly entry: TreeEntry | undefined
  readonly marks: readonly number[]
  readonly pages: readonly PageSegment[]
}

/** Written last: `packs` gives the id (hex) of each pack number that marks use; others are ''. */
export interface CacheTrailer {
  readonly snapshot: string
  readonly packs: readonly string[]
  /** The snapshot's whole refs record, encoded. */
  readonly refs: Uint8Array
  /** How many delta records its refs chain has. */
  readonly refsDepth: number
}

interface CacheFile {
  readonly fd: number
  readonly key: Buffer
  offset: number
  block: number
}

export interface CacheWriter extends CacheFile {
  readonly records: ByteWriter
  closed: boolean
  /** A write failed (disk full): nothing more is written, and finishTreeCache() says so. */
  broken: unknown
}

/** Begins a cache file at `path` (which must not exist). Fails: host.file. */
export function createTreeCache(path: string, idKey: Uint8Array): CacheWriter {
  const salt = randomBytes(SALT_BYTES)
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
  const writer = {
    fd,
    key: cacheKey(idKey, salt),
    offset: 0,
    block: 0,
    records: newWriter(BLOCK_BYTES * 2),
    closed: false,
    broken: undefined,
  }
  append(writer, Buffer.concat([MAGIC, salt]))
  return writer
}

export function appendRecord(writer: CacheWriter, record: CacheRecord): void {
  encodeRecord(writer.records, record)
  if (writer.records.length >= BLOCK_BYTES) writeBlock(writer)
}

/** A record as this file and sorted files of entries hold it. */
export function encodeRecord(to: ByteWriter, record: CacheRecord): void {
  putU8(to, RECORDS[record.kind])
  if (record.entry === undefined) return
  encodeEntry(to, record.entry)
  putVarint(to, record.marks.length)
  for (const mark of record.marks) putVarint(to, mark)
  putVarint(to, record.pages.length)
  for (const page of record.pages) {
    putVarint(to, page.pageBytes)
    putSized(to, page.extents)
    putSized(to, page.hashes)
  }
}

/**
 * Ends the file; the caller renames it to its place once the snapshot is committed. Not fsynced: it is a
 * cache. Fails: host.file, also for what could not be written before.
 */
export function finishTreeCache(writer: CacheWriter, trailer: CacheTrailer): void {
  if (writer.records.length > 0) writeBlock(writer)
  const trailerAt = writer.offset
  const to = writer.records
  putSized(to, Buffer.from(trailer.snapshot))
  putVarint(to, trailer.packs.length)
  for (const pack of trailer.packs) putSized(to, Buffer.from(pack, 'hex'))
  putSized(to, trailer.refs)
  putVarint(to, trailer.refsDepth)
  const trailerBlock = writer.block
  writeBlock(writer)
  const tail = Buffer.alloc(TAIL_BYTES)
  tail.writeBigUInt64LE(BigInt(trailerAt), 0)
  tail.writeUInt32LE(trailerBlock, 8)
  append(writer, tail)
  abandonTreeCache(writer)
  if (writer.broken !== undefined)
    throw new Failure('host.file', `Cannot write the tree cache: ${describeError(writer.broken)}`, {
      cause: writer.broken,
    })
}

/** Closes an unfinished cache; the caller removes the file. Harmless after finishTreeCache(). */
export function abandonTreeCache(writer: CacheWriter): void {
  if (writer.closed) return
  writer.closed = true
  closeSync(writer.fd)
}

export interface CacheReader extends CacheFile {
  readonly trailer: CacheTrailer
  readonly trailerAt: number
  records: ByteReader
}

/**
 * Opens a cache for one pass, or undefined if there is none that can be used. The caller calls
 * closeTreeCache().
 */
export function openTreeCache(path: string, idKey: Uint8Array): CacheReader | undefined {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return undefined // absent or unreadable: the file source is read again instead
  }
  try {
    return beginReading(fd, idKey)
  } catch (error) {
    closeSync(fd)
    if (isFailure(error) || error instanceof RangeError) return undefined
    throw error
  }
}

function beginReading(fd: number, idKey: Uint8Array): CacheReader {
  const bytes = fstatSync(fd).size
  const head = readAt(fd, 0, MAGIC.length + SALT_BYTES)
  if (!head.subarray(0, MAGIC.length).equals(MAGIC)) throw damaged()
  const file: CacheFile = {
    fd,
    key: cacheKey(idKey, head.subarray(MAGIC.length)),
    offset: head.length,
    block: 0,
  }
  const tail = readAt(fd, bytes - TAIL_BYTES, TAIL_BYTES)
  const trailerAt = Number(tail.readBigUInt64LE(0))
  const reader = newReader(readBlock({ ...file, offset: trailerAt, block: tail.readUInt32LE(8) }), WHAT)
  const snapshot = getSized(reader).toString()
  const packs = Array.from({ length: getVarint(reader) }, () => getSized(reader).toString('hex'))
  const trailer = { snapshot, packs, refs: getSized(reader), refsDepth: getVarint(reader) }
  return { ...file, trailer, trailerAt, records: newReader(NOTHING, WHAT) }
}

export function closeTreeCache(reader: CacheReader): void {
  closeSync(reader.fd)
}

/** The next record, or undefined at the end. Fails: repo.corrupt when the file is damaged. */
export function nextRecord(reader: CacheReader): CacheRecord | undefined {
  if (reader.records.offset === reader.records.end) {
    if (reader.offset >= reader.trailerAt) return undefined
    reader.records = newReader(readBlock(reader), WHAT)
  }
  return decodeRecord(reader.records)
}

/** Views into the reader's bytes. Fails: repo.corrupt. */
export function decodeRecord(from: ByteReader): CacheRecord {
  const code = getU8(from)
  if (code === RECORDS.leave) return LEAVE
  const entry = decodeEntry(from)
  const marks = Array.from({ length: getVarint(from) }, () => getVarint(from))
  const pages = Array.from({ length: getVarint(from) }, () => getPageSegment(from))
  return { kind: code === RECORDS.enter ? 'enter' : 'entry', entry, marks, pages }
}

function getPageSegment(from: ByteReader): PageSegment {
  return { pageBytes: getVarint(from), extents: getSized(from), hashes: getSized(from) }
}

const NOTHING = Buffer.alloc(0)
const WHAT = 'the tree cache'
const LEAVE: CacheRecord = { kind: 'leave', entry: undefined, marks: [], pages: [] }

function damaged(): Failure {
  return new Failure('repo.corrupt', 'Cannot read the tree cache: it is damaged')
}

function cacheKey(idKey: Uint8Array, salt: Uint8Array): Buffer {
  return hkdf(idKey, salt, 'backstock/1 tree cache')
}

function writeBlock(writer: CacheWriter): void {
  const plain = writer.records.bytes.subarray(0, writer.records.length)
  const sealed = sealAes(writer.key, counterNonce(writer.block++), zstdCompressSync(plain), NOTHING)
  const head = Buffer.alloc(4)
  head.writeUInt32LE(sealed.length)
  append(writer, Buffer.concat([head, sealed]))
  writer.records.length = 0
}

function append(writer: CacheWriter, bytes: Buffer): void {
  if (writer.broken !== undefined) return
  try {
    for (let at = 0; at < bytes.length;) at += writeSync(writer.fd, bytes, at)
    writer.offset += bytes.length
  } catch (error) {
    writer.broken = error
  }
}

function readBlock(file: CacheFile): Buffer {
  const sealedBytes = readAt(file.fd, file.offset, 4).readUInt32LE(0)
  if (sealedBytes > SEALED_BYTES_MAX) throw damaged()
  const sealed = readAt(file.fd, file.offset + 4, sealedBytes)
  file.offset += 4 + sealedBytes
  const packed = openAes(file.key, counterNonce(file.block++), sealed, NOTHING, WHAT)
  return zstdDecompressSync(packed)
}

function readAt(fd: number, offset: number, length: number): Buffer {
  if (offset < 0 || offset + length > fstatSync(fd).size) throw damaged()
  const bytes = Buffer.allocUnsafe(length)
  for (let got = 0; got < length;) {
    const read = readSync(fd, bytes, got, length - got, offset + got)
    if (read === 0) throw damaged()
    got += read
  }
  return bytes
}
