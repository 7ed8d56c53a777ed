/**
 * The index run: which chunk lies in which pack of one pack set, sorted by chunk id: its records and their
 * encoding. Bytes: docs/format.md section 6. Not here: decoding (index-run-decoder.ts); where runs lie and
 * how they are searched (src/repo/chunk-index.ts).
 *
 * Records stay bytes: a run of four million chunks is one Buffer of 160 MB and no JavaScript object per
 * entry.
 *
 * | entry at | bytes |                               | pack at | bytes |                     |
 * | -------- | ----- | ----------------------------- | ------- | ----- | ------------------- |
 * | 0        | 32    | chunk id                      | 0       | 32    | pack id             |
 * | 32       | 4     | pack, place in the run's list | 32      | 4     | bytes of the object |
 * | 36       | 2     | chunk number in the pack      | 36      | 4     | chunks              |
 * | 38       | 1     | class                         | 40      | 1     | kind                |
 * | 39       | 1     | 0                             | 41      | 3     | zeros               |
 */
import { crc32 } from 'node:zlib'
import { assert } from '../base/failure.ts'
import { AES_TAG_BYTES, counterNonce, hkdf, sealAes } from './seal.ts'

export const INDEX_ENTRY_BYTES = 40
export const INDEX_PACK_BYTES = 44
export const INDEX_HEADER_BYTES = 128
/** Plaintext bytes of a sealed block; the last one may be shorter. */
export const INDEX_BLOCK_BYTES = 1 << 20
/** sortIndexEntries() numbers entries with 24 bits. */
const INDEX_SORT_ENTRIES_MAX = 1 << 24

export const INDEX_MAGIC = Buffer.from('BKSTINDX')
export const INDEX_VERSION = 1
/** Of the HKDF that derives a run's key. */
export const INDEX_KEY_INFO = 'backstock/1 index run'
const ID_BYTES = 32
const CLASS_MAX = 7
const KIND_MAX = 3

export interface IndexPack {
  /** Pack id, 64 hex digits. */
  readonly id: string
  /** Bytes of the object. */
  readonly bytes: number
  readonly chunks: number
  /** PACK_KINDS of pack.ts: 1 data, 2 tree, 3 refs. */
  readonly kind: number
}

export interface IndexEntry {
  /** Place in the run's list of packs. */
  readonly pack: number
  /** Chunk number in that pack. */
  readonly chunk: number
  /** CHUNK_CLASSES of pack.ts. */
  readonly class: number
}

export interface IndexRun {
  readonly repository: Uint8Array
  readonly domain: Uint8Array
  readonly packSet: Uint8Array
  readonly number: number
  /** Pack records of 44 bytes: encodeIndexPacks(), indexPackAt(). */
  readonly packs: Buffer
  /** Numbers of the runs whose content this one repeats. */
  readonly supersedes: readonly number[]
  /** Entry records of 40 bytes, sorted: putIndexEntry(), sortIndexEntries(). */
  readonly entries: Buffer
}

// Records

/** Writes one entry at `at`. `id` has 32 bytes. */
export function putIndexEntry(into: Buffer, at: number, id: Uint8Array, entry: IndexEntry): void {
  into.set(id, at)
  into.writeUInt32LE(entry.pack, at + 32)
  into.writeUInt16LE(entry.chunk, at + 36)
  into[at + 38] = entry.class
  into[at + 39] = 0
}

/** Reads the entry at `at`, without its id (the 32 bytes at `at`). */
export function indexEntryAt(entries: Buffer, at: number): IndexEntry {
  return {
    pack: entries.readUInt32LE(at + 32),
    chunk: entries.readUInt16LE(at + 36),
    class: entries.readUInt8(at + 38),
  }
}

/** The pack table of a run, in the order given. */
export function encodeIndexPacks(packs: readonly IndexPack[]): Buffer {
  const table = Buffer.alloc(packs.length * INDEX_PACK_BYTES)
  let at = 0
  for (const pack of packs) {
    assert(table.write(pack.id, at, 'hex') === ID_BYTES, 'a pack id is 64 hex digits')
    table.writeUInt32LE(pack.bytes, at + 32)
    table.writeUInt32LE(pack.chunks, at + 36)
    table.writeUInt8(pack.kind, at + 40)
    at += INDEX_PACK_BYTES
  }
  return table
}

/** The pack at `place` of a pack table. */
export function indexPackAt(packs: Buffer, place: number): IndexPack {
  const at = place * INDEX_PACK_BYTES
  return {
    id: packs.toString('hex', at, at + ID_BYTES),
    bytes: packs.readUInt32LE(at + 32),
    chunks: packs.readUInt32LE(at + 36),
    kind: packs.readUInt8(at + 40),
  }
}

/** A sorted copy: by id, then pack, then chunk number. At most INDEX_SORT_ENTRIES_MAX entries. */
export function sortIndexEntries(entries: Buffer): Buffer {
  const count = entries.length / INDEX_ENTRY_BYTES
  assert(Number.isInteger(count) && count <= INDEX_SORT_ENTRIES_MAX, 'entries are whole and at most 2^24')
  // One 64-bit key an entry: the first 40 bits of the id, then the place of the entry.
  const keys = new BigUint64Array(count)
  const words = new Uint32Array(keys.buffer)
  for (let entry = 0, at = 0; entry < count; entry++, at += INDEX_ENTRY_BYTES) {
    words[entry * 2 + 1] = entries.readUInt32BE(at)
    words[entry * 2] = entries.readUInt8(at + 4) * INDEX_SORT_ENTRIES_MAX + entry
  }
  keys.sort()
  const order = new Uint32Array(count)
  for (let place = 0; place < count; place++)
    order[place] = (words[place * 2] as number) % INDEX_SORT_ENTRIES_MAX
  sortIndexEntriesTies(entries, order, words)
  const sorted = Buffer.allocUnsafe(entries.length)
  let to = 0
  for (const entry of order) {
    entries.copy(sorted, to, entry * INDEX_ENTRY_BYTES, (entry + 1) * INDEX_ENTRY_BYTES)
    to += INDEX_ENTRY_BYTES
  }
  return sorted
}

/** Puts entries whose first 40 bits are equal into their order. `words` hold the sorted keys. */
function sortIndexEntriesTies(entries: Buffer, order: Uint32Array, words: Uint32Array): void {
  const byEntry = (a: number, b: number): number =>
    compareIndexEntries(entries, a * INDEX_ENTRY_BYTES, entries, b * INDEX_ENTRY_BYTES)
  const isTied = (place: number): boolean =>
    words[place * 2 + 1] === words[place * 2 - 1] &&
    (words[place * 2] as number) >>> 24 === (words[place * 2 - 2] as number) >>> 24
  for (let begin = 0; begin < order.length;) {
    let end = begin + 1
    while (end < order.length && isTied(end)) end++
    if (end - begin > 1) order.subarray(begin, end).sort(byEntry)
    begin = end
  }
}

/** Order of the entry at `at` of `a` and the one at `bAt` of `b`: id, then pack, then chunk number. */
export function compareIndexEntries(a: Buffer, at: number, b: Buffer, bAt: number): number {
  const byPrefix = a.readUInt32BE(at) - b.readUInt32BE(bAt)
  if (byPrefix !== 0) return byPrefix
  const byId = a.compare(b, bAt, bAt + ID_BYTES, at, at + ID_BYTES)
  if (byId !== 0) return byId
  const byPack = a.readUInt32LE(at + 32) - b.readUInt32LE(bAt + 32)
  return byPack !== 0 ? byPack : a.readUInt16LE(at + 36) - b.readUInt16LE(bAt + 36)
}

// Encoding

/** The object of a run. `salt` is 16 fresh random bytes. Needs the run, the object and 2 MiB of memory. */
export function encodeIndexRun(run: IndexRun, indexKey: Uint8Array, salt: Uint8Array): Buffer {
  const entryCount = run.entries.length / INDEX_ENTRY_BYTES
  const packCount = run.packs.length / INDEX_PACK_BYTES
  assert(Number.isInteger(entryCount) && Number.isInteger(packCount), 'entries and packs are whole records')
  const fault = recordsFault(run.entries, 0, run.entries.length, packCount) ?? packsFault(run.packs)
  assert(fault === undefined, `an index run ${fault}`)
  const supersedes = Buffer.alloc(run.supersedes.length * 4)
  run.supersedes.forEach((number, place) => supersedes.writeUInt32LE(number, place * 4))
  const parts = [run.packs, supersedes, run.entries]
  const bodyBytes = parts.reduce((sum, part) => sum + part.length, 0)
  const object = Buffer.allocUnsafe(indexObjectBytes(bodyBytes))
  const header = object.subarray(0, INDEX_HEADER_BYTES).fill(0)
  encodeHeader(header, run, salt, { packCount, entryCount, bodyBytes })
  const key = hkdf(indexKey, salt, INDEX_KEY_INFO)
  const aad = Buffer.concat([header, Buffer.alloc(4)])
  const block = Buffer.allocUnsafe(Math.min(bodyBytes, INDEX_BLOCK_BYTES))
  for (let from = 0, at = INDEX_HEADER_BYTES, number = 0; from < bodyBytes; from += block.length, number++) {
    const plain = block.subarray(0, gather(parts, from, block))
    aad.writeUInt32LE(number, INDEX_HEADER_BYTES)
    at += sealAes(key, counterNonce(number), plain, aad).copy(object, at)
  }
  return object
}

function encodeHeader(
  header: Buffer,
  run: IndexRun,
  salt: Uint8Array,
  counts: { packCount: number; entryCount: number; bodyBytes: number },
): void {
  assert(run.repository.length === 16 && run.domain.length === 8, 'repository id has 16 bytes, domain id 8')
  assert(run.packSet.length === 16 && salt.length === 16, 'pack set id and salt have 16 bytes')
  INDEX_MAGIC.copy(header, 0)
  header.writeUInt16LE(INDEX_VERSION, 8)
  header.writeUInt32LE(run.number, 12)
  header.set(run.repository, 16)
  header.set(run.domain, 32)
  header.set(run.packSet, 40)
  header.set(salt, 56)
  header.writeUInt32LE(counts.packCount, 72)
  header.writeUInt32LE(run.supersedes.length, 76)
  header.writeBigUInt64LE(BigInt(counts.entryCount), 80)
  header.writeBigUInt64LE(BigInt(counts.bodyBytes), 88)
  header.writeUInt32LE(crc32(header.subarray(0, 124)), 124)
}

/** Bytes of the object whose body has `bodyBytes` of plaintext. */
export function indexObjectBytes(bodyBytes: number): number {
  return INDEX_HEADER_BYTES + bodyBytes + Math.ceil(bodyBytes / INDEX_BLOCK_BYTES) * AES_TAG_BYTES
}

/** Fills `block` with the joined `parts` from offset `from` on; returns the bytes filled. */
function gather(parts: readonly Buffer[], from: number, block: Buffer): number {
  let skip = from
  let filled = 0
  for (const part of parts) {
    if (skip < part.length) filled += part.copy(block, filled, skip)
    skip = Math.max(0, skip - part.length)
  }
  return filled
}

// Checks, the same before writing and after reading

export const ENTRIES_UNSORTED = 'has entries that are not in order'

/** What is wrong with the entries of a range, or undefined. */
export function recordsFault(
  entries: Buffer,
  from: number,
  to: number,
  packCount: number,
): string | undefined {
  for (let at = from; at < to; at += INDEX_ENTRY_BYTES) {
    if (entries.readUInt32LE(at + 32) >= packCount) return 'has an entry in a pack that it does not list'
    const class_ = entries.readUInt8(at + 38)
    if (class_ === 0 || class_ > CLASS_MAX || entries.readUInt8(at + 39) !== 0)
      return 'has an entry of unknown class'
    if (at > from && compareIndexEntries(entries, at - INDEX_ENTRY_BYTES, entries, at) > 0)
      return ENTRIES_UNSORTED
  }
  return undefined
}

/** What is wrong with a pack table, or undefined. */
export function packsFault(packs: Buffer): string | undefined {
  for (let at = 0; at < packs.length; at += INDEX_PACK_BYTES) {
    const kind = packs.readUInt8(at + 40)
    if (kind === 0 || kind > KIND_MAX || packs.readUIntLE(at + 41, 3) !== 0)
      return 'lists a pack of unknown kind'
  }
  return undefined
}
