/**
 * Reads a tar archive as it comes, in the form that PostgreSQL's base backups have: ustar headers of 512
 * bytes, contents padded to 512 (POSIX.1-1988 ustar; src/port/tar.c). Sizes of 8 GiB and more are in base
 * 256, as GNU tar writes them. Copies no contents.
 */
import { Failure } from '../../base/failure.ts'

export interface TarMember {
  readonly type: 'file' | 'directory' | 'symlink'
  /** Raw (latin1), relative, without a slash at its end. */
  readonly path: string
  /** Target of a symlink, raw. */
  readonly target: string
  readonly bytes: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeSeconds: number
}

export interface TarEvents {
  readonly onMember: (member: TarMember) => void
  /** Contents of the member that came last, in order; valid during the call only. */
  readonly onBytes: (bytes: Buffer) => void
}

export interface TarReader {
  readonly events: TarEvents
  readonly header: Buffer
  headerBytes: number
  /** Of the member at hand: contents, then padding, still to come. */
  left: number
  padding: number
  /** A block of zeros came: nothing but zeros may follow. */
  isOver: boolean
}

const BLOCK_BYTES = 512
const FIELD = { name: 0, mode: 100, uid: 108, gid: 116, size: 124, time: 136, sum: 148, type: 156, link: 157 }
const MAGIC_AT = 257
const PREFIX = { at: 345, bytes: 155 }
const TYPES = { '0': 'file', '\0': 'file', '5': 'directory', '2': 'symlink' } as const

export function newTarReader(events: TarEvents): TarReader {
  return {
    events,
    header: Buffer.alloc(BLOCK_BYTES),
    headerBytes: 0,
    left: 0,
    padding: 0,
    isOver: false,
  }
}

/** Reads on. Fails: source.failed when the bytes are no such archive. */
export function feedTar(reader: TarReader, bytes: Buffer): void {
  for (let at = 0; at < bytes.length;) {
    const room = bytes.length - at
    if (reader.left > 0) {
      const count = Math.min(reader.left, room)
      reader.events.onBytes(bytes.subarray(at, at + count))
      reader.left -= count
      at += count
    } else if (reader.padding > 0) {
      const count = Math.min(reader.padding, room)
      reader.padding -= count
      at += count
    } else {
      const count = Math.min(BLOCK_BYTES - reader.headerBytes, room)
      bytes.copy(reader.header, reader.headerBytes, at, at + count)
      reader.headerBytes += count
      at += count
      if (reader.headerBytes === BLOCK_BYTES) takeHeader(reader)
    }
  }
}

/** Fails: source.failed unless the archive ended behind a member. */
export function endTar(reader: TarReader): void {
  const missing = reader.left + reader.padding
  if (missing > 0 || reader.headerBytes > 0)
    throw new Failure('source.failed', `Cannot read the archive: it ends ${missing} bytes too early`)
}

function takeHeader(reader: TarReader): void {
  const { header } = reader
  reader.headerBytes = 0
  if (header.every((byte) => byte === 0)) {
    reader.isOver = true
    return
  }
  if (reader.isOver) throw broken('something follows its end')
  const member = decodeHeader(header)
  reader.left = member.bytes
  reader.padding = -member.bytes & (BLOCK_BYTES - 1)
  reader.events.onMember(member)
}

function decodeHeader(header: Buffer): TarMember {
  if (header.toString('latin1', MAGIC_AT, MAGIC_AT + 5) !== 'ustar') throw broken('a header is none')
  const sum = header.reduce((total, byte, at) => total + (at >= FIELD.sum && at < FIELD.type ? 32 : byte), 0)
  if (sum !== octal(header, FIELD.sum, 8)) throw broken('the sum of a header is wrong')
  const letter = String.fromCharCode(header[FIELD.type]!)
  const type = letter in TYPES ? TYPES[letter as keyof typeof TYPES] : undefined
  const prefix = text(header, PREFIX.at, PREFIX.bytes)
  const name = text(header, FIELD.name, 100)
  const path = (prefix === '' ? name : `${prefix}/${name}`).replace(/^\.\//, '').replace(/\/+$/, '')
  if (type === undefined) throw broken(`"${path}" is of type "${letter}" (must be a file, folder or symlink)`)
  if (path.startsWith('/') || path.split('/').includes('..')) throw broken(`"${path}" leads out of it`)
  return {
    type,
    path,
    target: text(header, FIELD.link, 100),
    bytes: type === 'file' ? numberAt(header, FIELD.size, 12) : 0,
    mode: octal(header, FIELD.mode, 8) & 0o7777,
    uid: numberAt(header, FIELD.uid, 8),
    gid: numberAt(header, FIELD.gid, 8),
    mtimeSeconds: numberAt(header, FIELD.time, 12),
  }
}

/** Octal digits, or base 256 when the first bit is set. */
function numberAt(header: Buffer, at: number, bytes: number): number {
  if ((header[at]! & 0x80) === 0) return octal(header, at, bytes)
  let value = header[at]! & 0x7f
  for (let place = at + 1; place < at + bytes; place++) value = value * 256 + header[place]!
  if (!Number.isSafeInteger(value)) throw broken('a number is too large')
  return value
}

function octal(header: Buffer, at: number, bytes: number): number {
  const digits = text(header, at, bytes).trim()
  if (!/^[0-7]*$/.test(digits)) throw broken(`"${digits}" is no octal number`)
  return digits === '' ? 0 : Number.parseInt(digits, 8)
}

function text(header: Buffer, at: number, bytes: number): string {
  const end = header.subarray(at, at + bytes).indexOf(0)
  return header.toString('latin1', at, end < 0 ? at + bytes : at + end)
}

function broken(what: string): Failure {
  return new Failure('source.failed', `Cannot read the archive: ${what}`)
}
