/**
 * The log object: a piece of a source's change stream, signed and sealed. Byte table: docs/format.md,
 * section 9. Names and the fields of the header are log-header.ts; compression and I/O are src/repo's.
 *
 * | part   | bytes                                                                      |
 * | ------ | -------------------------------------------------------------------------- |
 * | start  | 16: "BKSTLOGS", u32 bytes of the header, u32 CRC-32 of the 12 bytes before |
 * | header | signed text (signed.ts), kind `log`                                        |
 * | notes  | one sealed frame, number 0: opaque to this room                            |
 * | body   | sealed frames 1, 2, … of 1 MiB plaintext each                              |
 *
 * Header and notes lie in front, so that one small read gives both; the header holds the SHA-256 of both
 * sealed sections, so that who follows the chain of headers has proven all bytes behind them.
 */
import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { corrupt } from '../base/bytes.ts'
import { assert, Failure } from '../base/failure.ts'
import {
  LOG_FRAME_BYTES,
  LOG_LIMITS,
  logName,
  logPayload,
  parseLogHeader,
  parseLogName,
  sealedBodyBytes,
  type LogFramePlace,
  type LogHeader,
  type LogPlace,
} from './log-header.ts'
import { CODECS, type Codec } from './pack.ts'
import {
  AES_TAG_BYTES,
  counterNonce,
  hkdf,
  openAes,
  openWithKey,
  sealAes,
  sealToKey,
  sha256,
} from './seal.ts'
import { decodeSigned, encodeSigned, verifySigned } from './signed.ts'

const MAGIC = Buffer.from('BKSTLOGS')
export const LOG_START_BYTES = 16
/** In the room in which an object is made. */
const NOTES_AT = LOG_START_BYTES + LOG_LIMITS.headerBytes
const FRAME_MAGIC = Buffer.from('BKSTLOGF\u0001\u0000', 'latin1')
const KEY_CONTEXT = Buffer.from('backstock/1 log key')
const CONTENT_INFO = 'backstock/1 log content'

/** A frame's plaintext under its codec. */
export interface LogFrame {
  readonly codec: Codec
  readonly body: Uint8Array
  readonly plainBytes: number
}

/** What the one who seals a log object holds. */
export interface LogSealer {
  /** Hex. */
  readonly repository: string
  readonly epoch: number
  /** Raw X25519 key of the epoch: the sealer cannot open what it seals. */
  readonly dataPublic: Uint8Array
  readonly signingSeed: Uint8Array
  /** 32 random bytes, of this object only. */
  readonly key: Uint8Array
}

/** What is put into a log object. */
export interface LogDraft {
  readonly place: LogPlace
  readonly sourceKind: string
  readonly from: bigint
  readonly to: bigint
  readonly begun: number
  readonly completed: number
  readonly previous: string | null
  readonly content: string
  readonly notes: LogFrame
  /** Full frames and a last one, LOG_FRAME_BYTES each. */
  readonly body: readonly LogFrame[]
}

/** A header and where it lies. */
export interface StoredLogHeader extends LogHeader {
  readonly name: string
  /** SHA-256 of the signed header, hex: the `previous` of its successor. */
  readonly sha256: string
  /** Offsets in the object. */
  readonly notesAt: number
  readonly bodyAt: number
  /** Of the whole object. */
  readonly bytes: number
}

/** The object's bytes, and its header as a reader will see it. */
export function encodeLog(draft: LogDraft, sealer: LogSealer): { bytes: Buffer; header: StoredLogHeader } {
  const { body, to, content, ...head } = draft
  const bodyBytes = body.reduce((sum, { plainBytes }) => sum + plainBytes, 0)
  const encoder = beginLog(head, sealer, Buffer.allocUnsafe(logRoomBytes(head.notes, bodyBytes)))
  for (const frame of body) addLogFrame(encoder, frame)
  return endLog(encoder, { to, content })
}

/** What the buffer must have in which an object is made: never less than the object. */
export function logRoomBytes(notes: LogFrame, bodyBytes: number): number {
  const sections = 1 + Math.ceil(bodyBytes / LOG_FRAME_BYTES)
  return NOTES_AT + notes.plainBytes + bodyBytes + sections * LOG_LIMITS.overheadBytes
}

/** A log object that is made frame by frame: beginLog(), addLogFrame(), endLog(). */
export interface LogEncoder {
  readonly head: Omit<LogDraft, 'to' | 'content' | 'body'>
  readonly sealer: LogSealer
  readonly name: string
  readonly seal: (frame: LogFrame, number: number) => Buffer
  /** The object, from somewhere on: how long the header gets is known last. */
  readonly room: Buffer
  end: number
  readonly notesSha256: string
  readonly notes: LogFramePlace
  readonly frames: LogFramePlace[]
  readonly bodyHash: Hash
}

/** `room`: logRoomBytes() at least; the object lies in it. */
export function beginLog(head: LogEncoder['head'], sealer: LogSealer, room: Buffer): LogEncoder {
  const name = logName(head.place)
  const aad = frameAad(sealer.repository, name)
  const seal = (frame: LogFrame, number: number): Buffer =>
    sealAes(sealer.key, counterNonce(number), frame.body, aad(number, frame))
  const sealed = seal(head.notes, 0)
  sealed.copy(room, NOTES_AT)
  const end = NOTES_AT + sealed.length
  const notes = placeOf(head.notes, sealed)
  const notesSha256 = sha256(sealed).toString('hex')
  const bodyHash = createHash('sha256')
  return { head, sealer, name, seal, room, end, notesSha256, notes, frames: [], bodyHash }
}

/** Seals the next frame. Keeps no view of it. */
export function addLogFrame(encoder: LogEncoder, frame: LogFrame): void {
  const { seal, room, frames, bodyHash } = encoder
  const sealed = seal(frame, frames.length + 1)
  assert(encoder.end + sealed.length <= room.length, 'a log object fits into its room')
  sealed.copy(room, encoder.end)
  encoder.end += sealed.length
  frames.push(placeOf(frame, sealed))
  bodyHash.update(sealed)
}

/** `bytes` lie in the room. */
export function endLog(
  encoder: LogEncoder,
  last: Pick<LogDraft, 'to' | 'content'>,
): { bytes: Buffer; header: StoredLogHeader } {
  const { head, sealer, name, room, end, notes, notesSha256, frames, bodyHash } = encoder
  const { repository, epoch, dataPublic, key } = sealer
  const fields: LogHeader = {
    ...head,
    ...last,
    epoch,
    sealedKey: sealToKey(dataPublic, key, keyContext(repository, epoch, name)),
    notes,
    notesSha256,
    frames,
    bodySha256: bodyHash.digest('hex'),
  }
  const payload = logPayload(fields)
  // Nothing is put that a reader would refuse.
  parseLogHeader(payload, head.place, name)
  const signed = encodeSigned({ kind: 'log', repository, name, payload }, sealer.signingSeed)
  assert(signed.length <= LOG_LIMITS.headerBytes, 'the header of a log object is bounded')
  const begin = NOTES_AT - signed.length - LOG_START_BYTES
  encodeStart(signed.length).copy(room, begin)
  signed.copy(room, begin + LOG_START_BYTES)
  return { bytes: room.subarray(begin, end), header: storedHeader(fields, signed, name) }
}

/**
 * Bytes of the signed header, from the first 16 bytes of the object. Fails: repo.corrupt.
 */
export function decodeLogStart(bytes: Uint8Array, name: string): number {
  if (bytes.length < LOG_START_BYTES) throw corrupt(name, 'is shorter than the start of a log object')
  const start = Buffer.from(bytes.buffer, bytes.byteOffset, LOG_START_BYTES)
  if (!start.subarray(0, 8).equals(MAGIC)) throw corrupt(name, 'does not begin as a log object')
  if (crc32(start.subarray(0, 12)) !== start.readUInt32LE(12))
    throw corrupt(name, 'has a start with a wrong checksum')
  const headerBytes = start.readUInt32LE(8)
  if (headerBytes > LOG_LIMITS.headerBytes)
    throw corrupt(name, `claims a header of ${headerBytes} bytes (at most ${LOG_LIMITS.headerBytes})`)
  return headerBytes
}

/** Where a header was read, and whose it must be. */
export interface LogExpectation {
  readonly name: string
  /** Hex. */
  readonly repository: string
  /** Raw Ed25519 key of the domain's writer. */
  readonly signingPublic: Uint8Array
  /** Of the whole object in the store. */
  readonly bytes: number
}

/**
 * Reads and verifies a header; `front` is the object's first bytes, at least up to the header's end.
 * Fails: repo.corrupt, repo.forged, repo.foreign, repo.newer.
 */
export function decodeLogHeader(front: Uint8Array, expected: LogExpectation): StoredLogHeader {
  const { name, repository } = expected
  const place = parseLogName(name)
  assert(place, `"${name}" is the name of a log object`)
  const end = LOG_START_BYTES + decodeLogStart(front, name)
  if (front.length < end) throw corrupt(name, 'ends within its header')
  const signed = front.subarray(LOG_START_BYTES, end)
  const object = decodeSigned(signed, { kind: 'log', repository, name })
  verifySigned(object, expected.signingPublic)
  const header = storedHeader(parseLogHeader(object.payload, place, name), signed, name)
  if (header.bytes !== expected.bytes)
    throw corrupt(name, `has ${expected.bytes} bytes (its header says ${header.bytes})`)
  return header
}

/** Opens the key of the sections. Fails: repo.corrupt (also for another epoch's key). */
export function openLogKey(header: StoredLogHeader, repository: string, dataPrivate: Uint8Array): Buffer {
  const { name, epoch, sealedKey } = header
  return openWithKey(dataPrivate, sealedKey, keyContext(repository, epoch, name), name)
}

/** What openLogFrame() needs of an object; make it once. */
export interface LogOpener {
  readonly header: StoredLogHeader
  readonly repository: string
  /** openLogKey() */
  readonly key: Uint8Array
}

/**
 * A frame's plaintext, still under its codec. `number`: 0 the notes, then the body's from 1.
 * Fails: repo.corrupt.
 */
export function openLogFrame(opener: LogOpener, number: number, sealed: Uint8Array): Buffer {
  const { header, key, repository } = opener
  const frame = number === 0 ? header.notes : header.frames[number - 1]
  assert(frame, `frame ${number} of ${header.name}`)
  const aad = frameAad(repository, header.name)(number, frame)
  return openAes(key, counterNonce(number), sealed, aad, `${header.name}, frame ${number}`)
}

/** Whether a sealed section is the one that the header was signed for. Fails: repo.corrupt, repo.newer. */
export function checkLogSection(
  header: StoredLogHeader,
  section: 'notes' | 'body',
  sealed: Uint8Array,
): void {
  const frames = section === 'notes' ? [header.notes] : header.frames
  const digest = section === 'notes' ? header.notesSha256 : header.bodySha256
  if (sha256(sealed).toString('hex') !== digest)
    throw corrupt(header.name, `does not match the checksum of its ${section}`)
  const strange = frames.find(({ codec }) => codec !== CODECS.raw && codec !== CODECS.zstd)
  if (strange === undefined) return
  throw new Failure('repo.newer', `Cannot read ${header.name}: it uses the unknown codec ${strange.codec}`)
}

/** What `content` in a header is: an HMAC, so that nobody without the id key can test what a segment holds. */
export function logContentId(idKey: Uint8Array, parts: Iterable<Uint8Array>): string {
  const hmac = beginLogContent(idKey)
  for (const part of parts) hmac.update(part)
  return hmac.digest('hex')
}

/** The same step by step; its digest in hex is the id. */
export function beginLogContent(idKey: Uint8Array): Hmac {
  return createHmac('sha256', hkdf(idKey, '', CONTENT_INFO))
}

/** The stretches of plaintext that become frames: views of `bytes`. */
export function logFrames(bytes: Uint8Array): Uint8Array[] {
  const frames = Math.ceil(bytes.length / LOG_FRAME_BYTES)
  return Array.from({ length: frames }, (_, at) =>
    bytes.subarray(at * LOG_FRAME_BYTES, (at + 1) * LOG_FRAME_BYTES),
  )
}

function encodeStart(headerBytes: number): Buffer {
  const start = Buffer.alloc(LOG_START_BYTES)
  MAGIC.copy(start, 0)
  start.writeUInt32LE(headerBytes, 8)
  start.writeUInt32LE(crc32(start.subarray(0, 12)), 12)
  return start
}

function storedHeader(fields: LogHeader, signed: Uint8Array, name: string): StoredLogHeader {
  const notesAt = LOG_START_BYTES + signed.length
  const bodyAt = notesAt + fields.notes.storedBytes
  const bytes = bodyAt + sealedBodyBytes(fields)
  return { ...fields, name, sha256: sha256(signed).toString('hex'), notesAt, bodyAt, bytes }
}

function placeOf(frame: LogFrame, sealed: Buffer): LogFramePlace {
  assert(sealed.length === frame.body.length + AES_TAG_BYTES, 'a frame is its ciphertext and its tag')
  return { storedBytes: sealed.length, plainBytes: frame.plainBytes, codec: frame.codec }
}

/** "backstock/1 log key" ‖ repository 16 ‖ u32 epoch ‖ object name */
function keyContext(repository: string, epoch: number, name: string): Buffer {
  const number = Buffer.alloc(4)
  number.writeUInt32LE(epoch)
  return Buffer.concat([KEY_CONTEXT, Buffer.from(repository, 'hex'), number, Buffer.from(name)])
}

/** "BKSTLOGF" ‖ u16 1 ‖ repository 16 ‖ u8 codec ‖ u32 frame number ‖ u32 plain length ‖ object name */
function frameAad(
  repository: string,
  name: string,
): (number: number, frame: { readonly codec: number; readonly plainBytes: number }) => Buffer {
  const [id, tail] = [Buffer.from(repository, 'hex'), Buffer.from(name)]
  return (number, { codec, plainBytes }) => {
    const numbers = Buffer.alloc(9)
    numbers[0] = codec
    numbers.writeUInt32LE(number, 1)
    numbers.writeUInt32LE(plainBytes, 5)
    return Buffer.concat([FRAME_MAGIC, id, numbers, tail])
  }
}
