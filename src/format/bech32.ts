/**
 * Bech32 (BIP 173) without its 90-character limit, as age writes keys: `age1…`, `AGE-SECRET-KEY-1…`.
 * Its checksum finds mistyped and cut keys; no other spelling than the one it writes is read.
 */
const ALPHABET = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l'
const CHECKSUM_CHARS = 6
const GENERATOR = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3]

/** `prefix`, `1`, the bytes in groups of five bits, and a checksum; all lower case. */
export function encodeBech32(prefix: string, bytes: Uint8Array): string {
  const words = regroup(bytes, 8, 5)
  const check = checksum(prefix, [...words, 0, 0, 0, 0, 0, 0]) ^ 1
  for (let at = CHECKSUM_CHARS - 1; at >= 0; at--) words.push((check >>> (at * 5)) & 31)
  return `${prefix}1${words.map((word) => ALPHABET[word]).join('')}`
}

/** The bytes behind `prefix`, or undefined if the text is damaged or has another prefix. One case only. */
export function decodeBech32(prefix: string, text: string): Buffer | undefined {
  const lower = text.toLowerCase()
  if (text !== lower && text !== text.toUpperCase()) return undefined
  if (!lower.startsWith(`${prefix}1`)) return undefined
  const words: number[] = []
  for (const char of lower.slice(prefix.length + 1)) words.push(ALPHABET.indexOf(char))
  if (words.includes(-1) || words.length < CHECKSUM_CHARS || checksum(prefix, words) !== 1) return undefined
  const bytes = Buffer.from(regroup(words.slice(0, -CHECKSUM_CHARS), 5, 8).slice(0, bytesIn(words.length)))
  return encodeBech32(prefix, bytes) === lower ? bytes : undefined
}

function bytesIn(words: number): number {
  return Math.floor(((words - CHECKSUM_CHARS) * 5) / 8)
}

/** Groups of `from` bits as groups of `to` bits, the last one filled with zeros. */
function regroup(groups: Iterable<number>, from: number, to: number): number[] {
  const out: number[] = []
  let bits = 0
  let held = 0
  for (const group of groups) {
    held = ((held << from) | group) & 0xfff
    bits += from
    while (bits >= to) {
      bits -= to
      out.push((held >>> bits) & ((1 << to) - 1))
    }
  }
  if (bits > 0) out.push((held << (to - bits)) & ((1 << to) - 1))
  return out
}

function checksum(prefix: string, words: readonly number[]): number {
  const codes = Array.from(prefix, (char) => char.charCodeAt(0))
  const all = [...codes.map((code) => code >> 5), 0, ...codes.map((code) => code & 31), ...words]
  let sum = 1
  for (const word of all) {
    const top = sum >>> 25
    sum = ((sum & 0x1ffffff) << 5) ^ word
    for (const [bit, term] of GENERATOR.entries()) if ((top >>> bit) & 1) sum ^= term
  }
  return sum
}
