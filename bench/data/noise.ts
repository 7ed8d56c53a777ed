/**
 * Seeded randomness for the data set: the AES-256-CTR keystream of a key made from the seed.
 * As bytes it is incompressible at some GB/s; as numbers it draws the sizes, names and rows.
 * The same seed gives the same stream on every machine. Not for secrets.
 */
import { createCipheriv, createHash, type Cipheriv } from 'node:crypto'

/** A stream of noise; every draw moves it on. */
export interface Noise {
  cipher: Cipheriv
  block: Buffer
  offset: number
}

const blockBytes = 4096
const zeros = Buffer.alloc(1 << 20)

/** Opens the stream of a seed at its start. */
export function createNoise(seed: string): Noise {
  const key = createHash('sha256').update(seed).digest()
  return { cipher: createCipheriv('aes-256-ctr', key, Buffer.alloc(16)), block: zeros, offset: zeros.length }
}

/** The next bytes of the stream, at most 1 MiB at once; the caller owns them. */
export function noiseBytes(noise: Noise, count: number): Buffer {
  if (count > zeros.length) throw new RangeError(`Cannot give ${count} bytes of noise at once`)
  return noise.cipher.update(zeros.subarray(0, count))
}

/** A number from 0 up to, not including, 1. */
export function drawUnit(noise: Noise): number {
  if (noise.offset + 4 > noise.block.length) {
    noise.block = noiseBytes(noise, blockBytes)
    noise.offset = 0
  }
  const value = noise.block.readUInt32LE(noise.offset)
  noise.offset += 4
  return value / 0x1_0000_0000
}

/** A whole number from `low` to `high`, both included. */
export function draw(noise: Noise, low: number, high: number): number {
  return low + Math.floor(drawUnit(noise) * (high - low + 1))
}

/** One of the items. */
export function pick<T>(noise: Noise, items: readonly T[]): T {
  const item = items[draw(noise, 0, items.length - 1)]
  if (item === undefined) throw new RangeError('Cannot pick from an empty list')
  return item
}

/** A log-normal number: `exp(mu + sigma * N(0, 1))`, by Box and Muller. */
export function drawLogNormal(noise: Noise, mu: number, sigma: number): number {
  const radius = Math.sqrt(-2 * Math.log(1 - drawUnit(noise)))
  return Math.exp(mu + sigma * radius * Math.cos(2 * Math.PI * drawUnit(noise)))
}

/** `count` different items in an order of their own (the first steps of a Fisher-Yates shuffle). */
export function sample<T>(noise: Noise, items: readonly T[], count: number): T[] {
  const rest = [...items]
  const taken = Math.min(count, rest.length)
  for (let at = 0; at < taken; at++) {
    const other = draw(noise, at, rest.length - 1)
    const item = rest[other] as T
    rest[other] = rest[at] as T
    rest[at] = item
  }
  return rest.slice(0, taken)
}
