/**
 * Brings entries that come in any order into walk order, in bounded memory: what does not fit is sorted and
 * written to a file of its own, and the files are merged at the end (external merge sort). The files are
 * sealed with a key that only this process has, since entries hold contents of small files.
 *
 * File: blocks `u32 sealed bytes, sealed zstd of records`; a record is the path and a record of the tree
 * cache. Nothing is durable: whatever stops here, the files are leftovers of a backup that did not happen.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import {
  getSized,
  newReader,
  newWriter,
  putBytes,
  putSized,
  type ByteReader,
  type ByteWriter,
} from '../base/bytes.ts'
import { assert, describeError, Failure } from '../base/failure.ts'
import { randomBytes } from '../base/random.ts'
import { counterNonce, openAes, sealAes } from '../format/seal.ts'
import { decodeRecord, encodeRecord, type CacheRecord } from '../repo/tree-cache.ts'

/** Records in memory before they are written out. */
const SORT_BYTES_MAX = 16 * 1024 * 1024
const BLOCK_BYTES = 256 * 1024
const LENGTH_BYTES = 4
const KEY_BYTES = 32
const NO_CONTEXT = Buffer.alloc(0)
const WHAT = 'a sorted file of entries'

/** `path`: raw and absolute; '/' is the root. */
export interface SortedRecord {
  readonly path: string
  readonly record: CacheRecord
}

interface Held {
  /** The path as walk order compares it: a folder comes before what lies in it, and that before its siblings. */
  readonly order: string
  readonly path: string
  /** Where its record lies in memory. */
  readonly at: number
  readonly end: number
}

interface RunFile {
  readonly path: string
  readonly key: Buffer
}

export interface EntrySorter {
  readonly folder: string
  readonly bytesMax: number
  readonly records: ByteWriter
  held: Held[]
  readonly runs: RunFile[]
}

/** Files are made in `folder`, which the caller empties. */
export function newEntrySorter(folder: string, bytesMax = SORT_BYTES_MAX): EntrySorter {
  return { folder, bytesMax, records: newWriter(BLOCK_BYTES), held: [], runs: [] }
}

/** Keeps no view of the record. Fails: host.file. */
export function sortEntry(sorter: EntrySorter, { path, record }: SortedRecord): void {
  const at = sorter.records.length
  encodeRecord(sorter.records, record)
  sorter.held.push({ order: path.replaceAll('/', '\0'), path, at, end: sorter.records.length })
  if (sorter.records.length >= sorter.bytesMax) spill(sorter)
}

/** All records in walk order, once. The one before is valid until the next is asked for. Fails: host.file. */
export function* sortedEntries(sorter: EntrySorter): Generator<SortedRecord, void, undefined> {
  if (sorter.runs.length === 0) {
    const reader = newReader(sorter.records.bytes.subarray(0, sorter.records.length), WHAT)
    for (const { path, at } of sortHeld(sorter)) {
      reader.offset = at
      yield { path, record: decodeRecord(reader) }
    }
    return
  }
  if (sorter.held.length > 0) spill(sorter)
  const cursors = sorter.runs.map(openRun)
  try {
    for (const cursor of cursors) advance(cursor)
    for (;;) {
      const first = cursors.reduce((least, other) => (isBefore(other, least) ? other : least))
      if (first.next === undefined) return
      yield first.next
      advance(first)
    }
  } finally {
    for (const cursor of cursors) closeSync(cursor.fd)
  }
}

function sortHeld(sorter: EntrySorter): Held[] {
  const held = sorter.held.sort((a, b) => (a.order < b.order ? -1 : 1))
  sorter.held = []
  return held
}

function spill(sorter: EntrySorter): void {
  const path = join(sorter.folder, `entries-${sorter.runs.length}`)
  const key = randomBytes(KEY_BYTES)
  try {
    const fd = openSync(path, 'wx', 0o600)
    try {
      writeRun(fd, key, sorter)
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    const message = `Cannot write the sorted entries "${path}": ${describeError(error)}`
    throw new Failure('host.file', message, { cause: error })
  }
  sorter.runs.push({ path, key })
  sorter.records.length = 0
}

function writeRun(fd: number, key: Buffer, sorter: EntrySorter): void {
  const block = newWriter(BLOCK_BYTES * 2)
  let number = 0
  const end = (): void => {
    const packed = zstdCompressSync(block.bytes.subarray(0, block.length))
    const sealed = sealAes(key, counterNonce(number++), packed, NO_CONTEXT)
    const head = Buffer.alloc(LENGTH_BYTES)
    head.writeUInt32LE(sealed.length)
    const whole = Buffer.concat([head, sealed])
    for (let at = 0; at < whole.length;) at += writeSync(fd, whole, at)
    block.length = 0
  }
  for (const { path, at, end: to } of sortHeld(sorter)) {
    putSized(block, Buffer.from(path, 'latin1'))
    putBytes(block, sorter.records.bytes.subarray(at, to))
    if (block.length >= BLOCK_BYTES) end()
  }
  if (block.length > 0) end()
}

interface Cursor {
  readonly fd: number
  readonly key: Buffer
  block: number
  reader: ByteReader
  next: SortedRecord | undefined
  order: string
}

function openRun({ path, key }: RunFile): Cursor {
  const reader = newReader(NO_CONTEXT, WHAT)
  return { fd: openSync(path, 'r'), key, block: 0, reader, next: undefined, order: '' }
}

function isBefore(a: Cursor, b: Cursor): boolean {
  if (a.next === undefined) return false
  return b.next === undefined || a.order < b.order
}

function advance(cursor: Cursor): void {
  if (cursor.reader.offset === cursor.reader.end) {
    const head = readExactly(cursor.fd, LENGTH_BYTES)
    if (head === undefined) {
      cursor.next = undefined
      return
    }
    const sealed = readExactly(cursor.fd, head.readUInt32LE(0))
    assert(sealed, 'a sorted file ends behind a block')
    const packed = openAes(cursor.key, counterNonce(cursor.block++), sealed, NO_CONTEXT, WHAT)
    cursor.reader = newReader(zstdDecompressSync(packed), WHAT)
  }
  const path = getSized(cursor.reader).toString('latin1')
  cursor.next = { path, record: decodeRecord(cursor.reader) }
  cursor.order = path.replaceAll('/', '\0')
}

/** undefined at the end of the file. */
function readExactly(fd: number, length: number): Buffer | undefined {
  const bytes = Buffer.allocUnsafe(length)
  for (let got = 0; got < length;) {
    const read = readSync(fd, bytes, got, length - got, null)
    if (read === 0) return undefined
    got += read
  }
  return bytes
}
