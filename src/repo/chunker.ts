/**
 * Content-defined chunking with a keyed gear hash: cutPoint() is pure and synchronous.
 *
 * Gear: h = (h << 1) + table[byte]; a cut where the top `maskBits` bits are zero (Xia et al., "FastCDC",
 * USENIX ATC 2016, without its normalisation). The window is 32 bytes, since older bytes are shifted out of
 * 32 bits. The table is derived from the domain's id key, so that chunk lengths tell an onlooker less about
 * known files.
 */
import { createCipheriv } from 'node:crypto'
import { hkdf } from '../format/seal.ts'

/** Sizes in bytes; `maskBits` adds 2^maskBits on average to `minBytes`. */
export interface ChunkSizes {
  readonly minBytes: number
  readonly maskBits: number
  readonly maxBytes: number
}

const WINDOW_BYTES = 32
const TABLE_ENTRIES = 256

/** The domain's gear table (docs/format.md section 3). */
export function gearTable(idKey: Uint8Array): Int32Array {
  const key = hkdf(idKey, Buffer.alloc(0), 'backstock/1 gear')
  const stream = createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(TABLE_ENTRIES * 4))
  return Int32Array.from({ length: TABLE_ENTRIES }, (_, i) => stream.readInt32LE(i * 4))
}

/**
 * End (exclusive) of the chunk that begins at `start` of `bytes[0, end)`. Returns `end` when no cut was
 * found: the chunk is then whole only if `end` ends the data, else more bytes are needed. Never returns more
 * than start + maxBytes.
 */
export function cutPoint(
  bytes: Uint8Array,
  start: number,
  end: number,
  sizes: ChunkSizes,
  table: Int32Array,
): number {
  const first = start + sizes.minBytes
  if (end <= first) return end
  const limit = Math.min(end, start + sizes.maxBytes)
  const mask = -1 << (32 - sizes.maskBits)
  let at = first - WINDOW_BYTES
  let hash = 0
  for (; at < first; at++) hash = ((hash << 1) + table[bytes[at]!]!) | 0
  for (; at < limit; at++) {
    hash = ((hash << 1) + table[bytes[at]!]!) | 0
    if ((hash & mask) === 0) return at + 1
  }
  return limit
}
