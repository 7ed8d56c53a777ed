/** Raw paths for people and programs. */
import { isUtf8 } from 'node:buffer'
import { displayName } from '../base/file-entry.ts'

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
