/**
 * The metadata of one file-system entry, as sources yield it, trees store it and restores write it back.
 * Names are raw bytes in a latin1 string (char code = byte), so that names that are not UTF-8 survive;
 * pathBytes() and displayName() convert. Times are nanoseconds since 1970.
 */

export type EntryType = 'file' | 'directory' | 'symlink' | 'fifo' | 'char' | 'block' | 'socket'

export interface Xattr {
  /** Full name such as `user.colour` or `system.posix_acl_access`, latin1. */
  readonly name: string
  readonly value: Uint8Array
}

export interface FileEntry {
  readonly name: string
  readonly type: EntryType
  /** The 12 permission bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime: bigint
  readonly ctime: bigint
  readonly dev: number
  readonly inode: bigint
  readonly links: number
  /** Bytes of a file; 0 for the rest. */
  readonly size: number
  /** Target of a symlink, latin1; else empty. */
  readonly target: string
  /** Device numbers of `char` and `block`; else 0. */
  readonly major: number
  readonly minor: number
  readonly xattrs: readonly Xattr[]
}

/** A latin1 name or path as Node's fs functions want it: a plain string when it is ASCII, else raw bytes. */
export function pathBytes(path: string): string | Buffer {
  for (let at = 0; at < path.length; at++) if (path.charCodeAt(at) > 0x7f) return Buffer.from(path, 'latin1')
  return path
}

/** A path given by a person (UTF-16) as a latin1 string of its UTF-8 bytes. */
export function rawPath(path: string): string {
  return Buffer.from(path, 'utf8').toString('latin1')
}

/** A raw name for people: UTF-8 where it is, `\xNN` for bytes that are not, control characters escaped. */
export function displayName(raw: string): string {
  const bytes = Buffer.from(raw, 'latin1')
  const text = bytes.toString('utf8')
  const whole = Buffer.from(text, 'utf8').equals(bytes)
  const shown = whole ? text : Array.from(raw, (c) => (c.charCodeAt(0) > 0x7e ? hexEscape(c) : c)).join('')
  // oxlint-disable-next-line no-control-regex -- control characters are what it looks for
  return shown.replace(/[\u0000-\u001f\u007f]/g, hexEscape)
}

function hexEscape(char: string): string {
  return `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`
}
