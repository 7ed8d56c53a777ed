/**
 * The refs record: which chunks of which packs a snapshot references, for whoever may delete but not read.
 * Bytes: docs/format.md section 8. A record may be a delta (XOR) against another; applyRefs() gives the
 * whole.
 */
import {
  corrupt,
  expectEnd,
  getBytes,
  getCount,
  getSized,
  getU8,
  newReader,
  newWriter,
  putBytes,
  putSized,
  putU8,
  putVarint,
} from '../base/bytes.ts'

const NODE_REFS = 6
const NODE_VERSION = 1
const ID_BYTES = 32

/**
 * Pack id (hex) -> bitmap: bit i of byte i>>3 says that chunk number i is referenced. Trailing zero bytes are
 * cut.
 */
export type RefsMap = Map<string, Uint8Array>

export interface RefsRecord {
  /** Chunk id of the record this one is a delta against, or undefined if it is whole. */
  readonly base: Uint8Array | undefined
  readonly packs: RefsMap
}

export function encodeRefs(record: RefsRecord): Buffer {
  const writer = newWriter(64 + record.packs.size * 48)
  putU8(writer, NODE_REFS)
  putU8(writer, NODE_VERSION)
  putU8(writer, record.base === undefined ? 0 : 1)
  if (record.base !== undefined) putBytes(writer, record.base)
  putVarint(writer, record.packs.size)
  for (const pack of [...record.packs.keys()].sort()) {
    putBytes(writer, Buffer.from(pack, 'hex'))
    putSized(writer, record.packs.get(pack) ?? new Uint8Array(0))
  }
  return writer.bytes.subarray(0, writer.length)
}

/** Bitmaps are views of `bytes`. Fails: repo.corrupt. */
export function decodeRefs(bytes: Uint8Array, what: string): RefsRecord {
  const reader = newReader(bytes, what)
  if (getU8(reader) !== NODE_REFS || getU8(reader) !== NODE_VERSION)
    throw corrupt(what, 'is not a refs record')
  const hasBase = getU8(reader)
  if (hasBase > 1) throw corrupt(what, 'has an unknown base')
  const base = hasBase === 1 ? getBytes(reader, ID_BYTES) : undefined
  const packs: RefsMap = new Map()
  const count = getCount(reader, ID_BYTES + 1)
  let previous = ''
  for (let i = 0; i < count; i++) {
    const pack = getBytes(reader, ID_BYTES).toString('hex')
    if (pack <= previous) throw corrupt(what, 'lists packs that are not in order')
    previous = pack
    packs.set(pack, getSized(reader))
  }
  expectEnd(reader)
  return { base, packs }
}

/** The delta that turns `from` into `to`; and applied to `from`, `to` again: XOR is its own inverse. */
export function xorRefs(from: RefsMap, to: RefsMap): RefsMap {
  const delta: RefsMap = new Map()
  for (const pack of new Set([...from.keys(), ...to.keys()])) {
    const bits = trimBits(xorBits(from.get(pack), to.get(pack)))
    if (bits.length > 0) delta.set(pack, bits)
  }
  return delta
}

function xorBits(a: Uint8Array | undefined, b: Uint8Array | undefined): Uint8Array {
  const bits = new Uint8Array(Math.max(a?.length ?? 0, b?.length ?? 0))
  for (let i = 0; i < bits.length; i++) bits[i] = (a?.[i] ?? 0) ^ (b?.[i] ?? 0)
  return bits
}

function trimBits(bits: Uint8Array): Uint8Array {
  let length = bits.length
  while (length > 0 && bits[length - 1] === 0) length--
  return bits.subarray(0, length)
}
