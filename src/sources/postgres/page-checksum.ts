/**
 * The checksum of a data page (storage/checksum_impl.h): FNV-1a in 32 lanes over the page with its own
 * checksum field as zero, mixed with the block number. About 3 GB/s.
 */

export const PAGE_BYTES = 8192
const PAGE_WORDS = PAGE_BYTES / 4
const LANES = 32
const PRIME = 16777619
/** pd_checksum is the lower half of this word. */
const CHECKSUM_WORD = 2
/** Start values of the lanes (checksum_impl.h checksumBaseOffsets). */
const START = Int32Array.from([
  0x5b1f36e9, 0xb8525960, 0x02ab50aa, 0x1de66d2a, 0x79ff467a, 0x9bb9f8a3, 0x217e7cd2, 0x83e13d2c, 0xf8d4474f,
  0xe39eb970, 0x42c6ae16, 0x993216fa, 0x7b093b5d, 0x98daff3c, 0xf718902a, 0x0b1c9cdb, 0xe58f764b, 0x187636bc,
  0x5d7b3bb1, 0xe73de7de, 0x92bec979, 0xcca6c0b2, 0x304a0979, 0x85aa43d4, 0x783125bb, 0x6ca8eaa2, 0xe407eac6,
  0x4b5cfc3e, 0x9fbf8c76, 0x15ca20be, 0xf2ca9fd3, 0x959bd756,
])
const sums = new Int32Array(LANES)

/**
 * The checksum that the page at word `at` of `words` should have as block `block` of its relation: 1 to 65535.
 * Little-endian hosts only.
 */
export function pageChecksum(words: Int32Array, at: number, block: number): number {
  sums.set(START)
  for (let row = 0; row < PAGE_WORDS; row += LANES) {
    for (let lane = 0; lane < LANES; lane++) {
      const place = row + lane
      const word = words[at + place]!
      const mixed = sums[lane]! ^ (place === CHECKSUM_WORD ? word & 0xffff0000 : word)
      sums[lane] = Math.imul(mixed, PRIME) ^ (mixed >>> 17)
    }
  }
  let folded = 0
  for (let lane = 0; lane < LANES; lane++) {
    let sum = sums[lane]!
    sum = Math.imul(sum, PRIME) ^ (sum >>> 17)
    sum = Math.imul(sum, PRIME) ^ (sum >>> 17)
    folded ^= sum
  }
  return (((folded ^ block) >>> 0) % 65535) + 1
}
