/**
 * Numbers and bytes for the demo's shop: they look like chance and are the same in each run. Not for keys or
 * ids, which come from src/base/random.ts.
 */
import { type Cipheriv, createCipheriv } from 'node:crypto'

export interface Seeded {
  /** AES-128 in counter mode over zeros: what it gives cannot be compressed. */
  readonly cipher: Cipheriv
  numbers: Buffer
  at: number
}

const NUMBERS_BYTES = 64 * 1024

export function newSeeded(seed: number): Seeded {
  const key = Buffer.alloc(16)
  key.writeUInt32LE(seed)
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16))
  return { cipher, numbers: Buffer.alloc(0), at: 0 }
}

/** The next `count` bytes; the caller owns them. */
export function seededBytes(seeded: Seeded, count: number): Buffer {
  return seeded.cipher.update(Buffer.alloc(count))
}

/** A whole number from 0 to below `end`, at most 2^32. */
export function seededBelow(seeded: Seeded, end: number): number {
  if (seeded.at === seeded.numbers.length) {
    seeded.numbers = seededBytes(seeded, NUMBERS_BYTES)
    seeded.at = 0
  }
  const number = seeded.numbers.readUInt32LE(seeded.at)
  seeded.at += 4
  return Math.floor((number / 2 ** 32) * end)
}

/** One of `choices`. */
export function seededChoice<T>(seeded: Seeded, choices: readonly [T, ...T[]]): T {
  return choices[seededBelow(seeded, choices.length)] ?? choices[0]
}
