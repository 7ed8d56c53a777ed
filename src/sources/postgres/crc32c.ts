/**
 * CRC-32C (Castagnoli polynomial, RFC 3720 appendix B.4), which PostgreSQL puts on WAL records and on
 * pg_control: eight bytes a step by eight tables (Kounavis and Berry, "A Systematic Approach to Building
 * High Performance Software-based CRC Generators", 2005). About 1.5 GB/s; Node's zlib has CRC-32 only.
 */
const POLYNOMIAL = 0x82f63b78
const TABLES = Array.from({ length: 8 }, () => new Uint32Array(256))
fillTables()
const [T0, T1, T2, T3, T4, T5, T6, T7] = TABLES as [
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
]

/** The start value of a sum that is made in several steps by addCrc32c(). */
export const CRC32C_START = -1

/** The checksum of `bytes` from `from` to `to`. */
export function crc32c(bytes: Uint8Array, from = 0, to = bytes.length): number {
  return endCrc32c(addCrc32c(CRC32C_START, bytes, from, to))
}

/** Adds bytes to a running sum. */
export function addCrc32c(sum: number, bytes: Uint8Array, from: number, to: number): number {
  let crc = sum
  let at = from
  for (; at + 8 <= to; at += 8) {
    const low = crc ^ (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24))
    crc =
      T7[low & 255]! ^
      T6[(low >>> 8) & 255]! ^
      T5[(low >>> 16) & 255]! ^
      T4[low >>> 24]! ^
      T3[bytes[at + 4]!]! ^
      T2[bytes[at + 5]!]! ^
      T1[bytes[at + 6]!]! ^
      T0[bytes[at + 7]!]!
  }
  for (; at < to; at++) crc = T0[(crc ^ bytes[at]!) & 255]! ^ (crc >>> 8)
  return crc
}

/** The checksum that a running sum has come to. */
export function endCrc32c(sum: number): number {
  return ~sum >>> 0
}

function fillTables(): void {
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? POLYNOMIAL : 0)
    TABLES[0]![byte] = crc
  }
  for (let table = 1; table < 8; table++)
    for (let byte = 0; byte < 256; byte++) {
      const before = TABLES[table - 1]![byte]!
      TABLES[table]![byte] = (before >>> 8) ^ TABLES[0]![before & 255]!
    }
}
