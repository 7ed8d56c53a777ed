/**
 * Decodes index runs (index-run.ts) block by block, so that entries can go to disk as they come:
 * beginIndexRun() takes the header, decodeIndexBlocks() the body, and every record is checked before it is
 * handed out.
 */
import { crc32 } from 'node:zlib'
import { corrupt } from '../base/bytes.ts'
import { Failure } from '../base/failure.ts'
import {
  compareIndexEntries,
  ENTRIES_UNSORTED,
  INDEX_BLOCK_BYTES,
  INDEX_ENTRY_BYTES,
  INDEX_HEADER_BYTES,
  INDEX_KEY_INFO,
  INDEX_MAGIC,
  INDEX_PACK_BYTES,
  INDEX_VERSION,
  indexObjectBytes,
  packsFault,
  recordsFault,
  type IndexRun,
} from './index-run.ts'
import { AES_TAG_BYTES, counterNonce, hkdf, openAes } from './seal.ts'

/** What a reader knows before it reads; lengths 16, 8 and 16 bytes. `what` names the object in failures. */
export interface ExpectedIndexRun {
  readonly repository: Uint8Array
  readonly domain: Uint8Array
  readonly packSet?: Uint8Array | undefined
  readonly number?: number | undefined
  readonly what?: string | undefined
}

export interface IndexRunHeader {
  readonly repository: Buffer
  readonly domain: Buffer
  readonly packSet: Buffer
  readonly number: number
  readonly packCount: number
  readonly supersededCount: number
  readonly entryCount: number
  readonly bodyBytes: number
}

/** A run being decoded, block by block. */
export interface IndexRunDecoder {
  readonly header: IndexRunHeader
  /** Pack records; complete before the first entries are handed out. */
  readonly packs: Buffer
  readonly what: string
  readonly key: Buffer
  readonly aad: Buffer
  /** Packs and superseded numbers, as they lie in the body. */
  readonly head: Buffer
  /** One whole entry before those of the block at hand: the last one seen, to compare with, or a cut one. */
  readonly seam: Buffer
  seamBytes: number
  readonly last: Buffer
  block: number
  bodyOffset: number
}

/** Takes whole entries in their order; the view is good until it returns. */
export type EntrySink = (entries: Buffer) => void

/**
 * Reads the first 128 bytes of an object of `objectBytes`.
 * Fails: repo.corrupt, repo.newer, repo.foreign (also another pack set or number than expected).
 */
export function beginIndexRun(
  first: Uint8Array,
  objectBytes: number,
  expected: ExpectedIndexRun,
  indexKey: Uint8Array,
): IndexRunDecoder {
  const what = expected.what ?? 'an index run'
  const raw = Buffer.from(first.subarray(0, INDEX_HEADER_BYTES))
  const header = decodeHeader(raw, what)
  refuseForeign(header, expected, what)
  const headBytes = header.packCount * INDEX_PACK_BYTES + header.supersededCount * 4
  if (header.bodyBytes !== headBytes + header.entryCount * INDEX_ENTRY_BYTES)
    throw corrupt(what, 'claims a length that does not fit its counts')
  if (objectBytes !== indexObjectBytes(header.bodyBytes))
    throw corrupt(what, `is ${objectBytes} bytes long (must be ${indexObjectBytes(header.bodyBytes)})`)
  const head = Buffer.alloc(headBytes)
  return {
    header,
    what,
    head,
    packs: head.subarray(0, header.packCount * INDEX_PACK_BYTES),
    key: hkdf(indexKey, raw.subarray(56, 72), INDEX_KEY_INFO),
    aad: Buffer.concat([raw, Buffer.alloc(4)]),
    seam: Buffer.alloc(INDEX_ENTRY_BYTES),
    seamBytes: 0,
    last: Buffer.alloc(INDEX_ENTRY_BYTES),
    block: 0,
    bodyOffset: 0,
  }
}

function decodeHeader(raw: Buffer, what: string): IndexRunHeader {
  if (raw.length < INDEX_HEADER_BYTES)
    throw corrupt(what, `is cut within its header of ${INDEX_HEADER_BYTES} bytes`)
  if (!raw.subarray(0, 8).equals(INDEX_MAGIC)) throw corrupt(what, 'does not begin as an index run')
  if (crc32(raw.subarray(0, 124)) !== raw.readUInt32LE(124))
    throw corrupt(what, 'has a header with a wrong checksum')
  const version = raw.readUInt16LE(8)
  if (version > INDEX_VERSION)
    throw new Failure(
      'repo.newer',
      `Cannot read ${what}: it has format version ${version} (at most ${INDEX_VERSION})`,
    )
  if (
    version !== INDEX_VERSION ||
    raw.readUInt16LE(10) !== 0 ||
    raw.subarray(96, 124).some((byte) => byte !== 0)
  )
    throw corrupt(what, 'has a header that version 1 does not know')
  return {
    number: raw.readUInt32LE(12),
    repository: raw.subarray(16, 32),
    domain: raw.subarray(32, 40),
    packSet: raw.subarray(40, 56),
    packCount: raw.readUInt32LE(72),
    supersededCount: raw.readUInt32LE(76),
    entryCount: Number(raw.readBigUInt64LE(80)),
    bodyBytes: Number(raw.readBigUInt64LE(88)),
  }
}

function refuseForeign(header: IndexRunHeader, expected: ExpectedIndexRun, what: string): void {
  const isForeign = (name: string): Failure =>
    new Failure('repo.foreign', `Cannot use ${what}: it belongs to another ${name}`, { facts: { what } })
  if (!header.repository.equals(expected.repository)) throw isForeign('repository')
  if (!header.domain.equals(expected.domain)) throw isForeign('domain')
  if (expected.packSet !== undefined && !header.packSet.equals(expected.packSet)) throw isForeign('pack set')
  if (expected.number !== undefined && header.number !== expected.number) throw isForeign('run number')
}

/** Bytes of the next sealed block of the object; 0 when the last one was decoded. */
function nextIndexBlockBytes(decoder: IndexRunDecoder): number {
  const plain = Math.min(INDEX_BLOCK_BYTES, decoder.header.bodyBytes - decoder.bodyOffset)
  return plain === 0 ? 0 : plain + AES_TAG_BYTES
}

/** Decodes the next block and hands its whole entries to `sink`. Fails: repo.corrupt. */
export function decodeIndexBlock(decoder: IndexRunDecoder, sealed: Uint8Array, sink: EntrySink): void {
  const { head, what } = decoder
  if (sealed.length !== nextIndexBlockBytes(decoder)) throw corrupt(what, `has a cut block ${decoder.block}`)
  decoder.aad.writeUInt32LE(decoder.block, INDEX_HEADER_BYTES)
  const named = `block ${decoder.block} of ${what}`
  const plain = openAes(decoder.key, counterNonce(decoder.block), sealed, decoder.aad, named)
  const headLeft = Math.max(0, head.length - decoder.bodyOffset)
  const headHere = headLeft === 0 ? 0 : plain.copy(head, decoder.bodyOffset, 0, headLeft)
  decoder.block++
  decoder.bodyOffset += plain.length
  if (headLeft > 0 && headHere === headLeft) decodeIndexBlockPacks(decoder)
  decodeIndexBlockEntries(decoder, plain.subarray(headHere), sink)
}

function decodeIndexBlockPacks(decoder: IndexRunDecoder): void {
  const fault = packsFault(decoder.packs)
  if (fault !== undefined) throw corrupt(decoder.what, fault)
}

/** Joins the entry that the block before cut, then hands out the whole ones and keeps the rest. */
function decodeIndexBlockEntries(decoder: IndexRunDecoder, bytes: Buffer, sink: EntrySink): void {
  let rest = bytes
  if (decoder.seamBytes > 0) {
    const taken = rest.copy(decoder.seam, decoder.seamBytes, 0, INDEX_ENTRY_BYTES - decoder.seamBytes)
    decoder.seamBytes += taken
    rest = rest.subarray(taken)
    if (decoder.seamBytes < INDEX_ENTRY_BYTES) return
    decoder.seamBytes = 0
    handOut(decoder, decoder.seam, sink)
  }
  const whole = rest.length - (rest.length % INDEX_ENTRY_BYTES)
  if (whole > 0) handOut(decoder, rest.subarray(0, whole), sink)
  decoder.seamBytes = rest.copy(decoder.seam, 0, whole)
}

function handOut(decoder: IndexRunDecoder, entries: Buffer, sink: EntrySink): void {
  const fault = recordsFault(entries, 0, entries.length, decoder.header.packCount)
  if (fault !== undefined) throw corrupt(decoder.what, fault)
  // `last` begins as zeros, which come before every entry or equal the first one.
  if (compareIndexEntries(decoder.last, 0, entries, 0) > 0) throw corrupt(decoder.what, ENTRIES_UNSORTED)
  entries.copy(decoder.last, 0, entries.length - INDEX_ENTRY_BYTES)
  sink(entries)
}

/** Numbers of the superseded runs, once all blocks are decoded. Fails: repo.corrupt if some are missing. */
function endIndexRun(decoder: IndexRunDecoder): number[] {
  if (decoder.bodyOffset !== decoder.header.bodyBytes) throw corrupt(decoder.what, 'is cut')
  const numbers: number[] = []
  for (let at = decoder.packs.length; at < decoder.head.length; at += 4)
    numbers.push(decoder.head.readUInt32LE(at))
  return numbers
}

/**
 * Decodes a whole object that is in memory, handing its entries to `sink` as they come. Failures as
 * beginIndexRun().
 */
export function scanIndexRun(
  object: Uint8Array,
  expected: ExpectedIndexRun,
  indexKey: Uint8Array,
  sink: EntrySink,
): Omit<IndexRun, 'entries'> {
  const decoder = beginIndexRun(object, object.length, expected, indexKey)
  const supersedes = decodeIndexBlocks(decoder, object, sink)
  const { repository, domain, packSet, number } = decoder.header
  return { repository, domain, packSet, number, packs: decoder.packs, supersedes }
}

/**
 * Decodes all blocks of `object`, of which beginIndexRun() saw the header. Returns what endIndexRun() does.
 */
export function decodeIndexBlocks(decoder: IndexRunDecoder, object: Uint8Array, sink: EntrySink): number[] {
  let at = INDEX_HEADER_BYTES
  for (let bytes = nextIndexBlockBytes(decoder); bytes > 0; bytes = nextIndexBlockBytes(decoder)) {
    decodeIndexBlock(decoder, object.subarray(at, at + bytes), sink)
    at += bytes
  }
  return endIndexRun(decoder)
}

/** Decodes a whole object into memory. Failures as beginIndexRun(). */
export function decodeIndexRun(
  object: Uint8Array,
  expected: ExpectedIndexRun,
  indexKey: Uint8Array,
): IndexRun {
  // The object cannot hold more entries than bytes; what its header claims is checked before any is handed
  // out.
  const entries = Buffer.allocUnsafe(object.length)
  let length = 0
  const head = scanIndexRun(object, expected, indexKey, (found) => {
    length += found.copy(entries, length)
  })
  return { ...head, entries: entries.subarray(0, length) }
}
