/**
 * Headers of tar archives in the form that PostgreSQL's own tars have: ustar (POSIX.1-1988; src/port/tar.c),
 * numbers beyond their field in base 256. Names beyond ustar's fields get a pax header before (POSIX.1-2001).
 * The reader of the same form: sources/postgres/tar-reader.ts. Pure.
 */
import { Buffer } from 'node:buffer'
import type { EntryType } from '../base/file-entry.ts'

export interface TarEntry {
  readonly type: Exclude<EntryType, 'socket'>
  /** Raw (latin1), relative, without a slash at its end. */
  readonly path: string
  /** Target of a symlink, raw; else empty. */
  readonly target: string
  /** Of contents that follow; 0 for all but files. */
  readonly bytes: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeSeconds: number
  /** Of `char` and `block`; else 0. */
  readonly major: number
  readonly minor: number
  /** Name of user and group; empty: by number alone. */
  readonly owner: string
}

const TAR_BLOCK_BYTES = 512
/** Two blocks of zeros. */
export const TAR_END = Buffer.alloc(2 * TAR_BLOCK_BYTES)

const NAME_BYTES = 100
const PREFIX_BYTES = 155
const AT = {
  mode: 100,
  uid: 108,
  gid: 116,
  size: 124,
  time: 136,
  sum: 148,
  type: 156,
  link: 157,
  magic: 257,
  user: 265,
  group: 297,
  major: 329,
  minor: 337,
  prefix: 345,
} as const
const LETTERS = { file: '0', symlink: '2', char: '3', block: '4', directory: '5', fifo: '6' } as const
const PAX_LETTER = 'x'

/** The header blocks of an entry; its contents and tarPadding() follow. */
export function encodeTarHeader(entry: TarEntry): Buffer {
  const path = entry.type === 'directory' ? `${entry.path}/` : entry.path
  const parts = splitName(path)
  const records = [
    ...(parts === undefined ? [paxRecord('path', path)] : []),
    ...(entry.target.length > NAME_BYTES ? [paxRecord('linkpath', entry.target)] : []),
  ]
  const fitting = { name: (parts?.name ?? path).slice(0, NAME_BYTES), prefix: parts?.prefix ?? '' }
  const own = encodeBlock(entry, fitting, LETTERS[entry.type])
  if (records.length === 0) return own
  const text = Buffer.from(records.join(''), 'latin1')
  const pax = { ...entry, type: 'file', target: '', bytes: text.length, mode: 0o644 } as const
  const name = `PaxHeaders/${path.slice(-60).replace(/\/$/, '')}`
  const header = encodeBlock(pax, { name, prefix: '' }, PAX_LETTER)
  return Buffer.concat([header, text, tarPadding(text.length), own])
}

/** Zeros that fill the last block of `bytes` bytes of contents. */
export function tarPadding(bytes: number): Buffer {
  return Buffer.alloc((TAR_BLOCK_BYTES - (bytes % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES)
}

interface Name {
  readonly name: string
  readonly prefix: string
}

function encodeBlock(entry: TarEntry, { name, prefix }: Name, letter: string): Buffer {
  const block = Buffer.alloc(TAR_BLOCK_BYTES)
  block.write(name, 0, 'latin1')
  putNumber(block, { at: AT.mode, bytes: 8, value: entry.mode })
  putNumber(block, { at: AT.uid, bytes: 8, value: entry.uid })
  putNumber(block, { at: AT.gid, bytes: 8, value: entry.gid })
  putNumber(block, { at: AT.size, bytes: 12, value: entry.bytes })
  putNumber(block, { at: AT.time, bytes: 12, value: entry.mtimeSeconds })
  block.write(letter, AT.type, 'latin1')
  block.write(entry.target.slice(0, NAME_BYTES), AT.link, 'latin1')
  block.write('ustar\x0000', AT.magic, 'latin1')
  block.write(entry.owner.slice(0, 31), AT.user, 'latin1')
  block.write(entry.owner.slice(0, 31), AT.group, 'latin1')
  putNumber(block, { at: AT.major, bytes: 8, value: entry.major })
  putNumber(block, { at: AT.minor, bytes: 8, value: entry.minor })
  block.write(prefix, AT.prefix, 'latin1')
  // The sum counts its own field as blanks.
  block.fill(' ', AT.sum, AT.type)
  const sum = block.reduce((total, byte) => total + byte, 0)
  putNumber(block, { at: AT.sum, bytes: 8, value: sum })
  return block
}

/** As one name, or cut at a slash; undefined: too long for both. */
function splitName(path: string): Name | undefined {
  if (path.length <= NAME_BYTES) return { name: path, prefix: '' }
  const cut = path.indexOf('/', path.length - NAME_BYTES - 1)
  // A name of its own must follow the slash.
  if (cut <= 0 || cut > PREFIX_BYTES || cut >= path.length - 1) return undefined
  return { name: path.slice(cut + 1), prefix: path.slice(0, cut) }
}

/** Octal digits and a blank as far as they fit, else base 256, two's complement, the first bit set. */
function putNumber(
  block: Buffer,
  { at, bytes, value }: { readonly at: number; readonly bytes: number; readonly value: number },
): void {
  if (value >= 0 && value < 8 ** (bytes - 1)) {
    block.write(`${value.toString(8).padStart(bytes - 1, '0')} `, at, 'latin1')
    return
  }
  let rest = BigInt(value)
  for (let place = at + bytes - 1; place > at; place--) {
    block[place] = Number(rest & 0xffn)
    rest >>= 8n
  }
  block[at] = value < 0 ? 0xff : 0x80
}

/** Its length, in decimal, counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`
  let bytes = rest.length
  while (bytes !== rest.length + String(bytes).length) bytes = rest.length + String(bytes).length
  return `${bytes}${rest}`
}
