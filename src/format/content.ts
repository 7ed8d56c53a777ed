/**
 * What a file contains: inline bytes, or a map from file ranges to places in chunks. Bytes: docs/format.md
 * section 7. One map serves both classes: `cdc` chunks are used whole, `pages` runs are patched by ranges of
 * delta chunks.
 */
import {
  type ByteReader,
  type ByteWriter,
  corrupt,
  expectEnd,
  getBytes,
  getCount,
  getSized,
  getU8,
  getVarint,
  newReader,
  newWriter,
  putBytes,
  putSized,
  putU8,
  putVarint,
} from '../base/bytes.ts'

/** File bytes that one extent node, and one hash leaf, covers. */
export const NODE_SPAN_BYTES = 64 * 1024 * 1024
/** Extent nodes below one list node. */
export const LIST_NODES_MAX = 1024
const ID_BYTES = 32
const NODE_EXTENTS = 3
const NODE_LIST = 4
const NODE_HASHES = 5
const NODE_VERSION = 1
/** First bytes of a keyed page hash that are kept. */
export const PAGE_HASH_BYTES = 16

/** An empty file has no content bytes at all. */
const CONTENT_CLASSES = { inline: 1, cdc: 2, pages: 3 } as const

/** A chunk that extents refer to. `bytes` is its plaintext length. */
export interface ChunkRef {
  readonly id: Uint8Array
  readonly bytes: number
}

/** The next `length` bytes of the file: a hole (ref 0), or bytes at `offset` of chunk `ref − 1`. */
export interface Extent {
  readonly length: number
  readonly ref: number
  readonly offset: number
}

export interface Extents {
  readonly chunks: readonly ChunkRef[]
  readonly extents: readonly Extent[]
}

/** depth 0: extents at hand; 1: ids of extent nodes; 2: ids of list nodes. */
export type ContentMap =
  | { readonly depth: 0; readonly extents: Extents }
  | { readonly depth: 1 | 2; readonly nodes: readonly Uint8Array[] }

export type Content =
  | { readonly kind: 'empty' }
  | { readonly kind: 'inline'; readonly bytes: Uint8Array }
  | { readonly kind: 'cdc'; readonly map: ContentMap }
  | {
      readonly kind: 'pages'
      readonly pageBytes: number
      readonly map: ContentMap
      readonly hashes: readonly Uint8Array[]
    }

export function encodeInline(bytes: Uint8Array): Buffer {
  const writer = newWriter(bytes.length + 8)
  putU8(writer, CONTENT_CLASSES.inline)
  putSized(writer, bytes)
  return writer.bytes.subarray(0, writer.length)
}

/** A map to encode: extents that are encoded already (encodeExtents), or node ids. */
export type EncodedMap =
  | { readonly extents: Uint8Array }
  | { readonly depth: 1 | 2; readonly nodes: readonly Uint8Array[] }

/** Content of class `cdc` (pageBytes 0, no hashes) or `pages`. */
export function encodeMapped(map: EncodedMap, pageBytes: number, hashes: readonly Uint8Array[]): Buffer {
  const writer = newWriter('extents' in map ? map.extents.length + 64 : map.nodes.length * ID_BYTES + 64)
  putU8(writer, pageBytes === 0 ? CONTENT_CLASSES.cdc : CONTENT_CLASSES.pages)
  if (pageBytes > 0) putVarint(writer, pageBytes)
  putU8(writer, 'extents' in map ? 0 : map.depth)
  if ('extents' in map) putBytes(writer, map.extents)
  else putIds(writer, map.nodes)
  if (pageBytes > 0) putIds(writer, hashes)
  return writer.bytes.subarray(0, writer.length)
}

function putIds(writer: ByteWriter, ids: readonly Uint8Array[]): void {
  putVarint(writer, ids.length)
  for (const id of ids) putBytes(writer, id)
}

export function encodeExtents(writer: ByteWriter, extents: Extents): void {
  putVarint(writer, extents.chunks.length)
  for (const chunk of extents.chunks) {
    putBytes(writer, chunk.id)
    putVarint(writer, chunk.bytes)
  }
  putVarint(writer, extents.extents.length)
  for (const extent of extents.extents) {
    putVarint(writer, extent.length)
    putVarint(writer, extent.ref)
    putVarint(writer, extent.offset)
  }
}

/** Ids and inline bytes are views of `bytes`. Fails: repo.corrupt. */
export function decodeContent(bytes: Uint8Array, what: string): Content {
  if (bytes.length === 0) return { kind: 'empty' }
  const reader = newReader(bytes, what)
  const content = readContent(reader)
  expectEnd(reader)
  return content
}

function readContent(reader: ByteReader): Content {
  const kind = getU8(reader)
  if (kind === CONTENT_CLASSES.inline) return { kind: 'inline', bytes: getSized(reader) }
  if (kind === CONTENT_CLASSES.cdc) return { kind: 'cdc', map: decodeMap(reader) }
  if (kind !== CONTENT_CLASSES.pages) throw corrupt(reader.what, `has the unknown content class ${kind}`)
  return { kind: 'pages', pageBytes: getVarint(reader), map: decodeMap(reader), hashes: getIds(reader) }
}

function decodeMap(reader: ByteReader): ContentMap {
  const depth = getU8(reader)
  if (depth === 0) return { depth, extents: decodeExtents(reader) }
  if (depth !== 1 && depth !== 2) throw corrupt(reader.what, `has a content map of depth ${depth}`)
  return { depth, nodes: getIds(reader) }
}

function getIds(reader: ByteReader): Buffer[] {
  const count = getCount(reader, ID_BYTES)
  return Array.from({ length: count }, () => getBytes(reader, ID_BYTES))
}

/** Checks that every extent lies within the chunk it names. Fails: repo.corrupt. */
export function decodeExtents(reader: ByteReader): Extents {
  const chunks: ChunkRef[] = []
  const extents: Extent[] = []
  const chunkCount = getCount(reader, ID_BYTES + 1)
  for (let i = 0; i < chunkCount; i++)
    chunks.push({ id: getBytes(reader, ID_BYTES), bytes: getVarint(reader) })
  const extentCount = getCount(reader, 3)
  for (let i = 0; i < extentCount; i++) {
    const extent = { length: getVarint(reader), ref: getVarint(reader), offset: getVarint(reader) }
    const room = extent.ref === 0 ? Infinity : (chunks[extent.ref - 1]?.bytes ?? -1)
    if (extent.offset + extent.length > room) throw corrupt(reader.what, 'has an extent outside of its chunk')
    extents.push(extent)
  }
  return { chunks, extents }
}

/** `encoded`: what encodeExtents() wrote. */
export function encodeExtentNode(encoded: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([NODE_EXTENTS, NODE_VERSION]), encoded])
}

/** Fails: repo.corrupt. */
export function decodeExtentNode(bytes: Uint8Array, what: string): Extents {
  const reader = nodeReader(bytes, NODE_EXTENTS, what)
  const extents = decodeExtents(reader)
  expectEnd(reader)
  return extents
}

export function encodeListNode(nodes: readonly Uint8Array[]): Buffer {
  const writer = newWriter(nodes.length * ID_BYTES + 8)
  putU8(writer, NODE_LIST)
  putU8(writer, NODE_VERSION)
  putIds(writer, nodes)
  return writer.bytes.subarray(0, writer.length)
}

/** Fails: repo.corrupt. */
export function decodeListNode(bytes: Uint8Array, what: string): Buffer[] {
  const reader = nodeReader(bytes, NODE_LIST, what)
  const ids = getIds(reader)
  expectEnd(reader)
  return ids
}

/** `hashes`: PAGE_HASH_BYTES a page, in order of the pages. */
export function encodeHashLeaf(pageBytes: number, hashes: Uint8Array): Buffer {
  const writer = newWriter(hashes.length + 16)
  putU8(writer, NODE_HASHES)
  putU8(writer, NODE_VERSION)
  putVarint(writer, pageBytes)
  putVarint(writer, hashes.length / PAGE_HASH_BYTES)
  putBytes(writer, hashes)
  return writer.bytes.subarray(0, writer.length)
}

/** Fails: repo.corrupt. */
export function decodeHashLeaf(bytes: Uint8Array, what: string): { pageBytes: number; hashes: Buffer } {
  const reader = nodeReader(bytes, NODE_HASHES, what)
  const pageBytes = getVarint(reader)
  const hashes = getBytes(reader, getCount(reader, PAGE_HASH_BYTES) * PAGE_HASH_BYTES)
  expectEnd(reader)
  return { pageBytes, hashes }
}

function nodeReader(bytes: Uint8Array, kind: number, what: string): ByteReader {
  const reader = newReader(bytes, what)
  if (getU8(reader) !== kind || getU8(reader) !== NODE_VERSION)
    throw corrupt(what, 'is not the node that was expected')
  return reader
}

/** Sum of the lengths: the bytes of file that these extents cover. */
export function extentsBytes(extents: Extents): number {
  let bytes = 0
  for (const extent of extents.extents) bytes += extent.length
  return bytes
}
