/**
 * Tree nodes: the sorted entries of a directory, split into content-defined groups. Bytes: docs/format.md
 * section 7. Pure. The content of a file is carried as encoded bytes (format/content.ts), so that trees pass
 * it on without decoding.
 */
import { crc32 } from 'node:zlib'
import {
  type ByteReader,
  type ByteWriter,
  corrupt,
  expectEnd,
  getBytes,
  getCount,
  getI64,
  getSized,
  getU8,
  getVarint,
  newReader,
  putBytes,
  putI64,
  putSized,
  putU8,
  putVarint,
} from '../base/bytes.ts'
import type { EntryType, FileEntry, Xattr } from '../base/file-entry.ts'

export const NODE_LEAF = 1
export const NODE_BRANCH = 2
const NODE_VERSION = 1
const NODE_ENTRIES_MIN = 32
const NODE_ENTRIES_MAX = 1024
const NODE_BYTES_MAX = 512 * 1024
/** One in 256 names ends a node: 256 entries on average. */
const NODE_BOUNDARY_MASK = 0xff
const ID_BYTES = 32
const U32_MAX = 0xffff_ffff

const ENTRY_TYPES: readonly EntryType[] = ['file', 'directory', 'symlink', 'fifo', 'char', 'block', 'socket']

export const ENTRY_FLAGS = { racy: 1, changed: 2, xattrs: 4 } as const

/** An entry as a tree holds it. */
export interface TreeEntry extends FileEntry {
  /** Bits of ENTRY_FLAGS without `xattrs`, which follows from the list. */
  readonly flags: number
  /** Encoded content of a file; empty for the rest. */
  readonly content: Uint8Array
  /** Root node of a directory; undefined for the rest. */
  readonly node: Uint8Array | undefined
}

/** A child of a branch: its first name, its node and how many entries lie below. */
export interface BranchEntry {
  readonly name: string
  readonly node: Uint8Array
  readonly entries: number
}

export type TreeNode =
  | { readonly kind: 'leaf'; readonly entries: readonly TreeEntry[] }
  | { readonly kind: 'branch'; readonly children: readonly BranchEntry[] }

/** Whether a node that has just received `name` as its `entries`-th entry ends there. */
export function endsNode(name: string, entries: number, bytes: number): boolean {
  if (entries >= NODE_ENTRIES_MAX || bytes >= NODE_BYTES_MAX) return true
  return entries >= NODE_ENTRIES_MIN && (crc32(Buffer.from(name, 'latin1')) & NODE_BOUNDARY_MASK) === 0
}

/**
 * A node's bytes: its head and then `entries`, encoded one after the other by encodeEntry() or
 * encodeBranchEntry().
 */
export function encodeNode(writer: ByteWriter, kind: number, count: number, entries: Uint8Array): void {
  putU8(writer, kind)
  putU8(writer, NODE_VERSION)
  putVarint(writer, count)
  putBytes(writer, entries)
}

export function encodeBranchEntry(writer: ByteWriter, child: BranchEntry): void {
  putSized(writer, Buffer.from(child.name, 'latin1'))
  putBytes(writer, child.node)
  putVarint(writer, child.entries)
}

export function encodeEntry(writer: ByteWriter, entry: TreeEntry): void {
  putSized(writer, Buffer.from(entry.name, 'latin1'))
  putU8(writer, ENTRY_TYPES.indexOf(entry.type) + 1)
  putVarint(writer, entry.flags | (entry.xattrs.length > 0 ? ENTRY_FLAGS.xattrs : 0))
  putVarint(writer, entry.mode)
  putVarint(writer, entry.uid)
  putVarint(writer, entry.gid)
  putI64(writer, entry.mtime)
  putI64(writer, entry.ctime)
  putVarint(writer, entry.dev)
  putVarint(writer, Number(entry.inode >> 32n))
  putVarint(writer, Number(entry.inode & 0xffffffffn))
  putVarint(writer, entry.links)
  if (entry.type === 'file') {
    putVarint(writer, entry.size)
    putSized(writer, entry.content)
  } else if (entry.type === 'directory') {
    putBytes(writer, entry.node ?? Buffer.alloc(ID_BYTES))
  } else if (entry.type === 'symlink') {
    putSized(writer, Buffer.from(entry.target, 'latin1'))
  } else if (entry.type === 'char' || entry.type === 'block') {
    putVarint(writer, entry.major)
    putVarint(writer, entry.minor)
  }
  if (entry.xattrs.length > 0) encodeXattrs(writer, entry.xattrs)
}

function encodeXattrs(writer: ByteWriter, xattrs: readonly Xattr[]): void {
  const sorted = xattrs.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  putVarint(writer, sorted.length)
  for (const { name, value } of sorted) {
    putSized(writer, Buffer.from(name, 'latin1'))
    putSized(writer, value)
  }
}

/** Views into the reader's bytes for content, node and xattr values. Fails: repo.corrupt. */
export function decodeEntry(reader: ByteReader): TreeEntry {
  const name = getName(reader)
  const type = ENTRY_TYPES[getU8(reader) - 1]
  if (type === undefined) throw corrupt(reader.what, 'holds an entry of an unknown type')
  const flags = getVarint(reader)
  const mode = getUpTo(reader, 0o7777)
  const uid = getUpTo(reader, U32_MAX)
  const gid = getUpTo(reader, U32_MAX)
  const mtime = getI64(reader)
  const ctime = getI64(reader)
  const dev = getVarint(reader)
  const inode = (BigInt(getUpTo(reader, U32_MAX)) << 32n) | BigInt(getUpTo(reader, U32_MAX))
  const links = getUpTo(reader, U32_MAX)
  const size = type === 'file' ? getVarint(reader) : 0
  const content = type === 'file' ? getSized(reader) : NO_BYTES
  const node = type === 'directory' ? getBytes(reader, ID_BYTES) : undefined
  const target = type === 'symlink' ? getSized(reader).toString('latin1') : ''
  const device = type === 'char' || type === 'block'
  const major = device ? getUpTo(reader, U32_MAX) : 0
  const minor = device ? getUpTo(reader, U32_MAX) : 0
  const xattrs = (flags & ENTRY_FLAGS.xattrs) === 0 ? NO_XATTRS : decodeXattrs(reader)
  return {
    name,
    type,
    mode,
    uid,
    gid,
    mtime,
    ctime,
    dev,
    inode,
    links,
    size,
    target,
    major,
    minor,
    xattrs,
    flags: flags & ~ENTRY_FLAGS.xattrs,
    content,
    node,
  }
}

/** A number that system calls take: what they would refuse is refused here. */
function getUpTo(reader: ByteReader, max: number): number {
  const value = getVarint(reader)
  if (value > max) throw corrupt(reader.what, `holds an entry with a ${value} where ${max} is the most`)
  return value
}

const NO_BYTES = Buffer.alloc(0)
const NO_XATTRS: readonly Xattr[] = []

function decodeXattrs(reader: ByteReader): Xattr[] {
  const xattrs: Xattr[] = []
  const count = getCount(reader, 2)
  for (let i = 0; i < count; i++)
    xattrs.push({ name: getSized(reader).toString('latin1'), value: getSized(reader) })
  return xattrs
}

/** Names decide where a restore writes, so they are checked here, before anyone joins them to a path. */
function getName(reader: ByteReader): string {
  const name = getSized(reader).toString('latin1')
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name))
    throw corrupt(reader.what, 'holds a name that no file can have')
  return name
}

/** Fails: repo.corrupt, also when names are not in strictly ascending order. */
export function decodeNode(bytes: Uint8Array, what: string): TreeNode {
  const reader = newReader(bytes, what)
  const kind = getU8(reader)
  if (getU8(reader) !== NODE_VERSION) throw corrupt(what, 'is a tree node of an unknown version')
  if (kind !== NODE_LEAF && kind !== NODE_BRANCH) throw corrupt(what, 'is not a tree node')
  const count = getCount(reader, 8)
  const entries: TreeEntry[] = []
  const children: BranchEntry[] = []
  let previous = ''
  for (let i = 0; i < count; i++) {
    const item = kind === NODE_LEAF ? decodeEntry(reader) : decodeBranchEntry(reader)
    if (i > 0 && item.name <= previous) throw corrupt(what, 'holds names that are not in order')
    previous = item.name
    if ('type' in item) entries.push(item)
    else children.push(item)
  }
  expectEnd(reader)
  return kind === NODE_LEAF ? { kind: 'leaf', entries } : { kind: 'branch', children }
}

function decodeBranchEntry(reader: ByteReader): BranchEntry {
  return { name: getName(reader), node: getBytes(reader, ID_BYTES), entries: getVarint(reader) }
}
