/**
 * What the running backup references: a bitmap of chunk numbers a pack, by global pack number; in the end the
 * refs record.
 */
import { assert } from '../base/failure.ts'
import type { RefsMap } from '../format/refs.ts'

const PACK_ID = /^[0-9a-f]{64}$/

export type Marks = (Uint8Array | undefined)[]

/** `pairs`: pack number, chunk number, pack number, … */
export function markPairs(marks: Marks, pairs: readonly number[]): void {
  for (let i = 0; i < pairs.length; i += 2) markNumber(marks, pairs[i]!, pairs[i + 1]!)
}

function markNumber(marks: Marks, pack: number, chunk: number): void {
  assert(pack >= 0 && chunk >= 0, 'a marked chunk has a pack and a number')
  const at = chunk >> 3
  let bits = marks[pack]
  if (bits === undefined || bits.length <= at) {
    const grown = new Uint8Array(Math.max(8, at + 1, (bits?.length ?? 0) * 2))
    if (bits !== undefined) grown.set(bits)
    marks[pack] = grown
    bits = grown
  }
  bits[at]! |= 1 << (chunk & 7)
}

/**
 * The marks by pack id (hex). Packs may have several numbers (a session's and a run's): their bits are
 * joined.
 */
export function refsOfMarks(marks: Marks, packIdOf: (pack: number) => string): RefsMap {
  const refs: RefsMap = new Map()
  marks.forEach((bits, pack) => {
    if (bits === undefined) return
    const id = packIdOf(pack)
    assert(PACK_ID.test(id), 'a marked pack has an id')
    refs.set(id, joinBits(refs.get(id), bits))
  })
  return refs
}

/** Trailing zero bytes are cut: a bitmap has one form. */
function joinBits(a: Uint8Array | undefined, b: Uint8Array): Uint8Array {
  const joined = new Uint8Array(Math.max(a?.length ?? 0, b.length))
  for (let i = 0; i < joined.length; i++) joined[i] = (a?.[i] ?? 0) | (b[i] ?? 0)
  let length = joined.length
  while (length > 0 && joined[length - 1] === 0) length--
  return joined.subarray(0, length)
}
