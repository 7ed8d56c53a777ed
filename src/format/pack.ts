/**
 * The pack: sealed frames, a sealed header that lists their chunks, a plain footer. Byte tables:
 * docs/format.md section 5.
 *
 * A frame is the unit of compression and sealing; a chunk is the unit of addressing. Small chunks share a
 * frame, since one call of zstd or AES-GCM costs 10–25 µs whatever its size (bench: 1 M files of 1 KB). Pure:
 * the caller brings randomness, buffers and compression; nothing here does I/O.
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { Failure, assert } from '../base/failure.ts'
import { corrupt } from '../base/bytes.ts'
import { counterNonce, hkdf, openWithKey, sealToKey } from './seal.ts'

export const FOOTER_BYTES = 256
export const CHUNK_ID_BYTES = 32
/** Chunk numbers are u16 in index runs and bitmaps. */
export const PACK_CHUNKS_MAX = 65_535
const FORMAT_VERSION = 1
const MAGIC = Buffer.from('BKSTPACK')
const FRAME_MAGIC = Buffer.from('BKSTFRAM')
const TAG_BYTES = 16
const FRAME_RECORD_BYTES = 12
/** Chunks of at least this many bytes get a frame of their own. */
export const OWN_FRAME_BYTES = 64 * 1024
/** A frame of smaller chunks ends when it has this many bytes. */
export const FRAME_BYTES = 256 * 1024
/** What no frame may open to more than, whatever the config says. */
export const FRAME_PLAIN_BYTES_MAX = 64 * 1024 * 1024
/** What a frame may be stored in above its plaintext: the tag, and a codec's own bytes. */
const FRAME_OVERHEAD_BYTES_MAX = 1024
const CHUNK_RECORD_BYTES = 36
const SALT_BYTES = 16
/** A piece fits the processor's cache, and malloc hands out the same memory again. */
const SCAN_BYTES = 128 * 1024
/** A chunk of its own frame may close the frame of small chunks before it. */
const FRAMES_AHEAD = 2
const HEADER_INFO = 'backstock/1 pack header'
const KEY_CONTEXT = Buffer.from('backstock/1 pack key')
const ZERO_NONCE = counterNonce(0)

export const PACK_KINDS = { data: 1, tree: 2, refs: 3 } as const
export type PackKind = keyof typeof PACK_KINDS
export const CHUNK_CLASSES = { data: 1, run: 2, delta: 3, tree: 4, extents: 5, hashes: 6, refs: 7 } as const
export type ChunkClass = keyof typeof CHUNK_CLASSES
/** Which classes lie in packs of which kind. */
const PACK_CLASSES: Readonly<Record<PackKind, readonly number[]>> = {
  data: [1, 2, 3],
  tree: [4, 5, 6],
  refs: [7],
}
export const CODECS = { raw: 0, zstd: 1 } as const
export type Codec = (typeof CODECS)[keyof typeof CODECS]

/** Whose pack it is; bound into every tag. Lengths: 16, 8 and 16 bytes. */
export interface PackIdentity {
  readonly repository: Buffer
  readonly domain: Buffer
  readonly packSet: Buffer
  readonly kind: PackKind
  readonly epoch: number
}

/**
 * A pack being filled. `buffer` is the caller's and bounds the object's size; `length` counts the frames
 * written so far.
 */
export interface OpenPack {
  readonly identity: PackIdentity
  readonly buffer: Buffer
  readonly salt: Buffer
  readonly dek: Buffer
  readonly key: KeyObject
  readonly aad: Buffer
  readonly frames: Buffer[]
  readonly chunks: Buffer[]
  length: number
  chunkCount: number
}

/** Begins a pack in `buffer` with a fresh `salt` (16 random bytes) and `dek` (32 random bytes). */
export function newPack(identity: PackIdentity, buffer: Buffer, salt: Buffer, dek: Buffer): OpenPack {
  assert(salt.length === SALT_BYTES && dek.length === 32, 'pack salt is 16 bytes and its key 32')
  const aad = frameAad(identity, salt)
  const key = createSecretKey(dek)
  return { identity, buffer, salt, dek, key, aad, frames: [], chunks: [], length: 0, chunkCount: 0 }
}

/**
 * Whether `plainBytes` with `chunks` chunks still fit, in at most FRAMES_AHEAD frames (stored raw, with their
 * records, the header's tag and the footer).
 */
export function frameFits(pack: OpenPack, plainBytes: number, chunks: number): boolean {
  const frames = pack.frames.length + FRAMES_AHEAD
  const records = frames * FRAME_RECORD_BYTES + (pack.chunkCount + chunks) * CHUNK_RECORD_BYTES
  const total = pack.length + plainBytes + (FRAMES_AHEAD + 1) * TAG_BYTES + records + FOOTER_BYTES
  return total <= pack.buffer.length && pack.chunkCount + chunks <= PACK_CHUNKS_MAX
}

/** One chunk of a frame: its id and its bytes of plaintext. */
export interface FrameChunk {
  readonly id: Uint8Array
  readonly bytes: number
}

/**
 * Seals `body` (the frame's plaintext after `codec`) behind the last frame. `chunks` lie back to back in the
 * plaintext. Returns the number of the first chunk in the pack. The caller has asked frameFits().
 */
export function addFrame(
  pack: OpenPack,
  frame: {
    kind: ChunkClass
    codec: Codec
    body: Uint8Array
    plainBytes: number
    chunks: readonly FrameChunk[]
  },
): number {
  const kind = CHUNK_CLASSES[frame.kind]
  setFrameAad(pack.aad, kind, frame.codec, pack.frames.length, frame.plainBytes)
  const cipher = createCipheriv('aes-256-gcm', pack.key, frameNonce(pack.frames.length))
  cipher.setAAD(pack.aad)
  const sealed = cipher.update(frame.body)
  cipher.final()
  assert(pack.length + sealed.length + TAG_BYTES <= pack.buffer.length, 'a frame overflows its pack')
  sealed.copy(pack.buffer, pack.length)
  cipher.getAuthTag().copy(pack.buffer, pack.length + sealed.length)
  pack.length += sealed.length + TAG_BYTES
  pack.frames.push(
    frameRecord(sealed.length + TAG_BYTES, frame.plainBytes, frame.codec, kind, frame.chunks.length),
  )
  const first = pack.chunkCount
  for (const chunk of frame.chunks) pack.chunks.push(chunkRecord(chunk))
  pack.chunkCount += frame.chunks.length
  return first
}

/**
 * Closes the pack: header, footer. Returns the object as a view of `pack.buffer`.
 * `epochPublic` is the raw X25519 key of the identity's epoch: data for `data` and `tree`, meta for `refs`.
 */
export function finishPack(pack: OpenPack, indexKey: Uint8Array, epochPublic: Uint8Array): Buffer {
  const footer = Buffer.alloc(FOOTER_BYTES)
  const plain = Buffer.concat([...pack.frames, ...pack.chunks])
  MAGIC.copy(footer, 0)
  footer.writeUInt16LE(FORMAT_VERSION, 8)
  footer[10] = 1
  footer[11] = PACK_KINDS[pack.identity.kind]
  footer.writeUInt32LE(pack.identity.epoch, 12)
  pack.identity.repository.copy(footer, 16)
  pack.identity.domain.copy(footer, 32)
  pack.identity.packSet.copy(footer, 40)
  pack.salt.copy(footer, 56)
  sealToKey(epochPublic, pack.dek, Buffer.concat([KEY_CONTEXT, footer.subarray(0, 72)])).copy(footer, 72)
  footer.writeBigUInt64LE(BigInt(pack.length), 152)
  footer.writeUInt32LE(plain.length + TAG_BYTES, 160)
  footer.writeUInt32LE(pack.frames.length, 164)
  footer.writeUInt32LE(pack.chunkCount, 168)
  const cipher = createCipheriv('aes-256-gcm', hkdf(indexKey, pack.salt, HEADER_INFO), ZERO_NONCE)
  cipher.setAAD(headerAad(footer))
  const header = cipher.update(plain)
  cipher.final()
  footer.writeUInt32LE(crc32(footer.subarray(0, 248)), 248)
  footer.writeUInt32LE(FOOTER_BYTES, 252)
  let end = pack.length
  const tail = header.length + TAG_BYTES + footer.length
  assert(end + tail <= pack.buffer.length, 'a pack overflows its buffer')
  for (const part of [header, cipher.getAuthTag(), footer]) {
    part.copy(pack.buffer, end)
    end += part.length
  }
  return pack.buffer.subarray(0, end)
}

/** A decoded footer; `raw` is a copy of its 256 bytes. */
export interface PackFooter extends PackIdentity {
  readonly salt: Buffer
  readonly sealedKey: Buffer
  readonly dataBytes: number
  readonly headerBytes: number
  readonly frameCount: number
  readonly chunkCount: number
  readonly raw: Buffer
}

/** Reads the last 256 bytes of a pack. `what` names it in failures. Fails: repo.corrupt, repo.newer. */
export function decodeFooter(tail: Uint8Array, what: string): PackFooter {
  if (tail.length < FOOTER_BYTES)
    throw corrupt(what, `is ${tail.length} bytes long (at least ${FOOTER_BYTES})`)
  const raw = Buffer.from(tail.subarray(tail.length - FOOTER_BYTES))
  if (!raw.subarray(0, 8).equals(MAGIC)) throw corrupt(what, 'does not end with a pack footer')
  if (crc32(raw.subarray(0, 248)) !== raw.readUInt32LE(248))
    throw corrupt(what, 'has a footer with a wrong checksum')
  if (raw.readUInt32LE(252) !== FOOTER_BYTES) throw corrupt(what, 'has a footer of another length')
  const version = raw.readUInt16LE(8)
  if (version !== FORMAT_VERSION || raw[10] !== 1)
    throw new Failure(
      'repo.newer',
      `Cannot read ${what}: it has format ${version}, suite ${raw[10]} (must be 1, 1)`,
    )
  const kind = (Object.keys(PACK_KINDS) as PackKind[]).find((name) => PACK_KINDS[name] === raw[11])
  if (kind === undefined) throw corrupt(what, `has the unknown pack kind ${raw[11]}`)
  return {
    kind,
    raw,
    epoch: raw.readUInt32LE(12),
    repository: raw.subarray(16, 32),
    domain: raw.subarray(32, 40),
    packSet: raw.subarray(40, 56),
    salt: raw.subarray(56, 72),
    sealedKey: raw.subarray(72, 152),
    dataBytes: Number(raw.readBigUInt64LE(152)),
    headerBytes: raw.readUInt32LE(160),
    frameCount: raw.readUInt32LE(164),
    chunkCount: raw.readUInt32LE(168),
  }
}

/** What opening a header takes of a domain. */
export interface HeaderReading {
  readonly indexKey: Uint8Array
  /** Plaintext bytes of a frame of file content: contentFrameBytesMax() of the config. */
  readonly frameBytesMax: number
}

/** Where the frames and chunks of a pack lie: arrays by frame number and by chunk number. */
export interface PackHeader {
  readonly frameOffset: Float64Array
  readonly frameStored: Uint32Array
  readonly framePlain: Uint32Array
  readonly frameCodec: Uint8Array
  readonly frameClass: Uint8Array
  /** 32 bytes a chunk. */
  readonly chunkIds: Buffer
  readonly chunkBytes: Uint32Array
  readonly chunkFrame: Uint32Array
  /** Offset of the chunk in its frame's plaintext. */
  readonly chunkOffset: Uint32Array
}

/**
 * Opens the header; `sealed` are the `headerBytes` before the footer. Fails: repo.corrupt (also with a wrong
 * index key).
 */
export function openHeader(
  footer: PackFooter,
  sealed: Uint8Array,
  reading: HeaderReading,
  what: string,
): PackHeader {
  if (footer.chunkCount > PACK_CHUNKS_MAX)
    throw corrupt(what, `claims ${footer.chunkCount} chunks (at most ${PACK_CHUNKS_MAX})`)
  const plainBytes = footer.frameCount * FRAME_RECORD_BYTES + footer.chunkCount * CHUNK_RECORD_BYTES
  if (sealed.length !== footer.headerBytes || plainBytes + TAG_BYTES !== sealed.length)
    throw corrupt(what, 'has a header of the wrong length')
  const key = hkdf(reading.indexKey, footer.salt, HEADER_INFO)
  const plain = openGcm(key, ZERO_NONCE, headerAad(footer.raw), sealed)
  if (plain === undefined) throw corrupt(what, 'has a header that does not open with this index key')
  return decodeHeader(footer, plain, reading.frameBytesMax, what)
}

function decodeHeader(footer: PackFooter, plain: Buffer, frameBytesMax: number, what: string): PackHeader {
  const { frameCount, chunkCount } = footer
  const header: PackHeader = {
    frameOffset: new Float64Array(frameCount),
    frameStored: new Uint32Array(frameCount),
    framePlain: new Uint32Array(frameCount),
    frameCodec: new Uint8Array(frameCount),
    frameClass: new Uint8Array(frameCount),
    chunkIds: Buffer.allocUnsafe(chunkCount * CHUNK_ID_BYTES),
    chunkBytes: new Uint32Array(chunkCount),
    chunkFrame: new Uint32Array(chunkCount),
    chunkOffset: new Uint32Array(chunkCount),
  }
  let offset = 0
  let chunk = 0
  for (let frame = 0; frame < frameCount; frame++) {
    const at = frame * FRAME_RECORD_BYTES
    header.frameOffset[frame] = offset
    header.frameStored[frame] = plain.readUInt32LE(at)
    header.framePlain[frame] = plain.readUInt32LE(at + 4)
    header.frameCodec[frame] = plain.readUInt8(at + 8)
    header.frameClass[frame] = plain.readUInt8(at + 9)
    offset += plain.readUInt32LE(at)
    checkFrame(header, frame, { kind: footer.kind, frameBytesMax, what })
    const chunks = plain.readUInt16LE(at + 10)
    let within = 0
    for (let n = 0; n < chunks && chunk < chunkCount; n++, chunk++) {
      const record = frameCount * FRAME_RECORD_BYTES + chunk * CHUNK_RECORD_BYTES
      plain.copy(header.chunkIds, chunk * CHUNK_ID_BYTES, record, record + CHUNK_ID_BYTES)
      const bytes = plain.readUInt32LE(record + CHUNK_ID_BYTES)
      header.chunkBytes[chunk] = bytes
      header.chunkFrame[chunk] = frame
      header.chunkOffset[chunk] = within
      within += bytes
    }
    if (within !== header.framePlain[frame])
      throw corrupt(what, `lists chunks that do not fill frame ${frame}`)
  }
  if (offset !== footer.dataBytes || chunk !== chunkCount)
    throw corrupt(what, 'has a header that contradicts its footer')
  return header
}

/** Before anything is allocated by these numbers. */
function checkFrame(
  header: PackHeader,
  frame: number,
  pack: { readonly kind: PackKind; readonly frameBytesMax: number; readonly what: string },
): void {
  const { kind, what } = pack
  const plain = header.framePlain[frame] ?? 0
  const stored = header.frameStored[frame] ?? 0
  const chunkClass = header.frameClass[frame] ?? 0
  if (!PACK_CLASSES[kind].includes(chunkClass))
    throw corrupt(what, `has a frame ${frame} of class ${chunkClass} in a ${kind} pack`)
  const bytesMax =
    kind === 'data' ? Math.min(pack.frameBytesMax, FRAME_PLAIN_BYTES_MAX) : FRAME_PLAIN_BYTES_MAX
  if (plain > bytesMax) throw corrupt(what, `has a frame ${frame} of ${plain} bytes (at most ${bytesMax})`)
  if (stored > plain + FRAME_OVERHEAD_BYTES_MAX)
    throw corrupt(what, `stores frame ${frame} of ${plain} bytes in ${stored} bytes`)
}

/** Opens the data key of a pack with the private half of its epoch key. Fails: repo.corrupt. */
export function openPackKey(footer: PackFooter, epochPrivate: Uint8Array, what: string): KeyObject {
  const context = Buffer.concat([KEY_CONTEXT, footer.raw.subarray(0, 72)])
  return createSecretKey(openWithKey(epochPrivate, footer.sealedKey, context, what))
}

/** What openFrame() needs of a pack; make it once a pack. */
export interface FrameOpener {
  readonly footer: PackFooter
  readonly header: PackHeader
  readonly key: KeyObject
  readonly aad: Buffer
}

export function newFrameOpener(footer: PackFooter, header: PackHeader, key: KeyObject): FrameOpener {
  return { footer, header, key, aad: frameAad(footer, footer.salt) }
}

/**
 * The body of frame `number` (still under its codec) from its stored bytes. Fails: repo.corrupt.
 * The buffer returned is fresh and the caller's.
 */
export function openFrame(opener: FrameOpener, number: number, stored: Uint8Array, what: string): Buffer {
  const { header } = opener
  const codec = header.frameCodec[number] ?? 0
  setFrameAad(opener.aad, header.frameClass[number] ?? 0, codec, number, header.framePlain[number] ?? 0)
  const body = openGcm(opener.key, frameNonce(number), opener.aad, stored)
  if (body === undefined) throw corrupt(what, `has a damaged frame ${number}`)
  return body
}

/**
 * openFrame() without the body in memory: `take` gets it in pieces, each only until it returns, before anyone
 * knows whether they are right. false: they are not, forget them.
 */
export function scanFrame(
  opener: FrameOpener,
  number: number,
  stored: Uint8Array,
  take: (piece: Buffer) => void,
): boolean {
  const { header } = opener
  const bodyBytes = stored.length - TAG_BYTES
  if (bodyBytes < 0) return false
  const codec = header.frameCodec[number] ?? 0
  setFrameAad(opener.aad, header.frameClass[number] ?? 0, codec, number, header.framePlain[number] ?? 0)
  const decipher = createDecipheriv('aes-256-gcm', opener.key, frameNonce(number))
  decipher.setAAD(opener.aad)
  decipher.setAuthTag(stored.subarray(bodyBytes))
  for (let at = 0; at < bodyBytes; at += SCAN_BYTES)
    take(decipher.update(stored.subarray(at, Math.min(bodyBytes, at + SCAN_BYTES))))
  try {
    decipher.final()
  } catch {
    return false // a wrong tag, the only way that final() fails
  }
  return true
}

function openGcm(
  key: KeyObject | Uint8Array,
  nonce: Buffer,
  aad: Buffer,
  sealed: Uint8Array,
): Buffer | undefined {
  if (sealed.length < TAG_BYTES) return undefined
  const decipher = createDecipheriv('aes-256-gcm', key, nonce)
  decipher.setAAD(aad)
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES))
  const plain = decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES))
  try {
    decipher.final()
  } catch {
    return undefined // a wrong tag is the only way final() fails; the caller names what was damaged
  }
  return plain
}

function frameAad(identity: PackIdentity, salt: Buffer): Buffer {
  const version = Buffer.from([FORMAT_VERSION, 0])
  return Buffer.concat([FRAME_MAGIC, version, identity.repository, identity.domain, salt, Buffer.alloc(10)])
}

function setFrameAad(aad: Buffer, kind: number, codec: number, number: number, plainBytes: number): void {
  const at = aad.length - 10
  aad[at] = kind
  aad[at + 1] = codec
  aad.writeUInt32LE(number, at + 2)
  aad.writeUInt32LE(plainBytes, at + 6)
}

function frameNonce(number: number): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeUInt32LE(number, 0)
  return nonce
}

function headerAad(footer: Buffer): Buffer {
  return Buffer.concat([footer.subarray(0, 72), footer.subarray(152, 196)])
}

function frameRecord(stored: number, plain: number, codec: number, kind: number, chunks: number): Buffer {
  const record = Buffer.allocUnsafe(FRAME_RECORD_BYTES)
  record.writeUInt32LE(stored, 0)
  record.writeUInt32LE(plain, 4)
  record[8] = codec
  record[9] = kind
  record.writeUInt16LE(chunks, 10)
  return record
}

function chunkRecord(chunk: FrameChunk): Buffer {
  const record = Buffer.allocUnsafe(CHUNK_RECORD_BYTES)
  record.set(chunk.id, 0)
  record.writeUInt32LE(chunk.bytes, CHUNK_ID_BYTES)
  return record
}
