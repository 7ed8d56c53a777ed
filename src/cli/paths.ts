/** Raw paths for people and programs: shown by them, and typed by them. */
import { isUtf8 } from 'node:buffer'
import { displayName, rawPath } from '../base/file-entry.ts'
import { Failure } from '../base/failure.ts'
import type { TreeEntry } from '../format/tree.ts'
import { findEntry, type SnapshotReader } from '../repo/tree-reader.ts'
import { normalPath } from '../sources/files/pins.ts'

/** A path in JSON: as text, and, when its bytes are no UTF-8 and the text only shows them, those in base64. */
export interface PathFacts {
  readonly path: string
  readonly pathBytes?: string
}

export function pathFacts(raw: string): PathFacts {
  const bytes = Buffer.from(raw, 'latin1')
  if (isUtf8(bytes)) return { path: bytes.toString('utf8') }
  return { path: displayName(raw), pathBytes: bytes.toString('base64') }
}

/**
 * The entry at a path as somebody typed it; one that was copied from our own output may hold `\\xNN` for
 * bytes that cannot be typed. `entry` is undefined for `/`, which has none. Fails: usage.invalid.
 */
export async function findTyped(
  reader: SnapshotReader,
  typed: string,
): Promise<{ path: string; entry: TreeEntry | undefined }> {
  const path = normalPath(rawPath(`/${typed}`))
  if (path === '/') return { path, entry: undefined }
  const entry = await findEntry(reader, path)
  if (entry !== undefined) return { path, entry }
  const unescaped = path.replace(/\\x([0-9a-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
  const other = unescaped === path ? undefined : await findEntry(reader, unescaped)
  if (other !== undefined) return { path: unescaped, entry: other }
  const message = `Cannot find "${displayName(path)}": snapshot ${reader.snapshot.id} holds no such path`
  const hint = 'Look above it with `backstock ls`, or for its name with `backstock find`.'
  throw new Failure('usage.invalid', message, { facts: { path: displayName(path), hint } })
}
