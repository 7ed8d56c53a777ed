/** Compression of frames: zstd level 1, skipped where a probe says that it would gain nothing. */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { CODECS, type Codec } from '../format/pack.ts'
import { corrupt } from '../base/bytes.ts'

const ZSTD_LEVEL = 1
const PROBE_BYTES = 4096
const PROBE_PARTS = 4
/** Bits a byte; JPEG bodies measure 7.90–7.96 in 4 KiB, CSV 5.2. */
const PROBE_ENTROPY_MAX = 7.85
/** Compressed must be at most this share of plain, else raw is kept: decompression costs time too. */
const KEEP_RATIO_MAX = 0.97

const counts = new Uint32Array(256)

/** The body to seal and its codec. The body may be `plain` itself. */
export function compress(plain: Uint8Array): { codec: Codec; body: Uint8Array } {
  if (looksIncompressible(plain)) return { codec: CODECS.raw, body: plain }
  // One output block: with the default of 16 KiB blocks zlib copies twice and takes twice as long.
  const options = { params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL }, info: true }
  const body = freedOutput(zstdCompressSync(plain, { ...options, chunkSize: plain.length + 1024 }))
  return body.length <= plain.length * KEEP_RATIO_MAX
    ? { codec: CODECS.zstd, body }
    : { codec: CODECS.raw, body: plain }
}

/**
 * Undoes compress(). `plainBytes` bounds the output, so that a forged frame cannot exhaust memory. Fails:
 * repo.corrupt.
 */
export function decompress(codec: number, body: Uint8Array, plainBytes: number, what: string): Uint8Array {
  if (codec === CODECS.zstd) return decompressZstd(body, plainBytes, what)
  if (codec !== CODECS.raw) throw corrupt(what, `uses the unknown codec ${codec}`)
  if (body.length !== plainBytes) throw corrupt(what, `opens to ${body.length} bytes (must be ${plainBytes})`)
  return body
}

function decompressZstd(body: Uint8Array, plainBytes: number, what: string): Uint8Array {
  let plain: Buffer
  try {
    const options = { chunkSize: Math.max(64, plainBytes + 1), maxOutputLength: plainBytes + 1, info: true }
    plain = freedOutput(zstdDecompressSync(body, options))
  } catch (cause) {
    throw Object.assign(corrupt(what, 'does not decompress'), { cause })
  }
  if (plain.length !== plainBytes)
    throw corrupt(what, `decompresses to ${plain.length} bytes (must be ${plainBytes})`)
  return plain
}

/**
 * The output of a call with `info`, taken from its engine. The engine lives until the next full collection
 * and would keep the output alive, a megabyte a frame (200 calls of 1 MiB: 34 ms instead of 101 ms).
 */
function freedOutput(result: Buffer): Buffer {
  if (Buffer.isBuffer(result)) return result
  const { buffer, engine } = result as { buffer: Buffer; engine: { _outBuffer: Buffer | undefined } }
  engine._outBuffer = undefined
  return buffer
}

/** Shannon entropy of 4 KiB taken from four places. */
function looksIncompressible(bytes: Uint8Array): boolean {
  if (bytes.length < PROBE_BYTES) return false
  counts.fill(0)
  const part = PROBE_BYTES / PROBE_PARTS
  const step = Math.floor((bytes.length - part) / (PROBE_PARTS - 1))
  for (let p = 0; p < PROBE_PARTS; p++) {
    const start = p * step
    for (let at = start; at < start + part; at++) counts[bytes[at]!]!++
  }
  let sum = 0
  for (let i = 0; i < 256; i++) {
    const count = counts[i]!
    if (count > 1) sum += count * Math.log2(count)
  }
  return Math.log2(PROBE_BYTES) - sum / PROBE_BYTES > PROBE_ENTROPY_MAX
}
