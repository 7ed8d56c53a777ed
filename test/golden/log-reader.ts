// A second reader of log objects, written from docs/format.md alone (sections 2, 3 and 9). Shares no code with src/.
// openLogObject() takes an object apart and throws at whatever does not verify; the tests compare what it gives.
import { createDecipheriv, createHash, createHmac, createPrivateKey, createPublicKey } from 'node:crypto'
import { diffieHellman, hkdfSync, verify } from 'node:crypto'
import { crc32, zstdDecompressSync } from 'node:zlib'

const FRAME = 1024 * 1024
const NAME = /^d\/[0-9a-f]{16}\/logs\/([a-z0-9][a-z0-9._-]{0,62})\/([a-z0-9][a-z0-9._-]{0,62})\/(?:([0-9a-f]{16})\/(tail\/)?([0-9]{12})|files\/([a-z0-9_-][a-z0-9._-]{0,127}))$/

/** What a reader holds: from the config the repository and the writer's key, from a bundle the other two. */
export type LogReaderKeys = {
  repository: string
  /** Raw Ed25519 public key of the domain's writer. */
  writer: Buffer
  /** Raw X25519 private key of an epoch. */
  dataPrivate: (epoch: number) => Buffer
  idKey: Buffer
}

type Stored = [number, number]
type Payload = { type: string; version: number; sourceKind: string; from: string; to: string; begun: string } & {
  completed: string; previous: string | null; epoch: number; content: string; key: string
  notes: { plainBytes: number; stored: Stored; sha256: string }; body: { frames: Stored[]; sha256: string } }

const ensure: (truth: unknown, what: string) => asserts truth = (truth, what) => {
  if (!truth) throw new Error(what)
}
const hex = (value: string) => Buffer.from(value, 'hex')
const concat = (...parts: Uint8Array[]) => Buffer.concat(parts)
const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex')
const hkdf = (ikm: Buffer, salt: Uint8Array, info: Uint8Array) => Buffer.from(hkdfSync('sha256', ikm, salt, info, 32))
const u32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

// Raw keys in the DER wrapping of RFC 8410.
const publicKey = (oid: string, raw: Buffer) =>
  createPublicKey({ key: concat(hex(`302a300506${oid}032100`), raw), format: 'der', type: 'spki' })
const privateKey = (raw: Buffer) =>
  createPrivateKey({ key: concat(hex('302e020100300506032b656e04220420'), raw), format: 'der', type: 'pkcs8' })

function openAes(key: Buffer, nonce: number, box: Buffer, aad: Buffer): Buffer {
  ensure(box.length >= 16, 'box without a tag')
  const aes = createDecipheriv('aes-256-gcm', key, concat(u32(nonce), Buffer.alloc(8)), { authTagLength: 16 })
  aes.setAAD(aad).setAuthTag(box.subarray(-16))
  return concat(aes.update(box.subarray(0, -16)), aes.final())
}

function openSealed(secret: Buffer, sealed: Buffer, context: Buffer): Buffer {
  const [own, ephemeral] = [privateKey(secret), sealed.subarray(0, 32)]
  const ownPublic = createPublicKey(own).export({ format: 'der', type: 'spki' }).subarray(-32)
  const shared = diffieHellman({ privateKey: own, publicKey: publicKey('032b656e', ephemeral) })
  return openAes(hkdf(shared, concat(ephemeral, ownPublic), context), 0, sealed.subarray(32), context)
}

/** The signed text of section 2: its payload, once name, checksum and signature hold. */
function openSigned(signed: Buffer, name: string, keys: LogReaderKeys): Payload {
  const first = signed.indexOf(10)
  const last = signed.lastIndexOf(10, signed.length - 2)
  ensure(first > 0 && last > first && signed.at(-1) === 10, 'header is not three lines')
  const payload = signed.subarray(first + 1, last)
  const head = `backstock 1 log ${keys.repository} ${name} ${payload.length} ${sha256(payload)}`
  ensure(signed.subarray(0, first).equals(Buffer.from(head)), 'first line of the header')
  const [word, signer, signature, ...rest] = signed.subarray(last + 1, -1).toString('latin1').split(' ')
  ensure(word === 'signature' && rest.length === 0, 'signature line')
  ensure(signer === sha256(keys.writer).slice(0, 16), 'signed by another key')
  const raw = Buffer.from(signature!, 'base64')
  ensure(raw.toString('base64') === signature, 'signature is not base64')
  ensure(verify(null, signed.subarray(0, last + 1), publicKey('032b6570', keys.writer), raw), 'signature')
  return JSON.parse(payload.toString('utf8')) as Payload
}

/** All an object says. `name`: the one it was read from. */
export function openLogObject(object: Buffer, name: string, keys: LogReaderKeys) {
  const place = NAME.exec(name)
  ensure(place, 'name of a log object')
  ensure(object.length >= 16 && object.subarray(0, 8).toString() === 'BKSTLOGS', 'magic')
  ensure(crc32(object.subarray(0, 12)) === object.readUInt32LE(12), 'CRC of the start')
  const headerBytes = object.readUInt32LE(8)
  ensure(headerBytes <= 16 * 1024 && 16 + headerBytes <= object.length, 'bytes of the header')
  const signed = object.subarray(16, 16 + headerBytes)
  const payload = openSigned(signed, name, keys)
  const { notes, body } = payload
  ensure(payload.type === 'log' && payload.version === 1, 'version')
  for (const position of [payload.from, payload.to]) ensure(/^[0-9a-f]{16}$/.test(position), 'position')
  const [from, to] = [BigInt(`0x${payload.from}`), BigInt(`0x${payload.to}`)]
  ensure(from <= to && to - from <= 64 * FRAME, 'length')
  const [, source, branch, shipper, tail, seq, file] = place
  ensure(file === undefined || from === 0n, 'a file begins at 0')
  ensure((file !== undefined || Number(seq) === 1) === (payload.previous === null), 'previous')
  ensure(body.frames.length === Math.ceil(Number(to - from) / FRAME), 'number of frames')
  ensure(notes.plainBytes <= 4 * FRAME, 'bytes of the notes')

  let at = 16 + headerBytes
  const context = concat(Buffer.from('backstock/1 log key'), hex(keys.repository), u32(payload.epoch), Buffer.from(name))
  const key = openSealed(keys.dataPrivate(payload.epoch), Buffer.from(payload.key, 'base64'), context)
  const openFrame = (number: number, [bytes, codec]: Stored, plainBytes: number): Buffer => {
    ensure(bytes <= plainBytes + 1024 && at + bytes <= object.length, 'bytes of a frame')
    const numbers = concat(Buffer.from([codec]), u32(number), u32(plainBytes))
    const aad = concat(Buffer.from('BKSTLOGF\u0001\u0000', 'latin1'), hex(keys.repository), numbers, Buffer.from(name))
    const opened = openAes(key, number, object.subarray(at, (at += bytes)), aad)
    ensure(codec === 0 || codec === 1, 'codec')
    const plain = codec === 0 ? opened : zstdDecompressSync(opened, { maxOutputLength: plainBytes + 1 })
    ensure(plain.length === plainBytes, 'plain bytes of a frame')
    return plain
  }
  const sealedNotes = object.subarray(at, at + notes.stored[0])
  ensure(sha256(sealedNotes) === notes.sha256, 'SHA-256 of the notes')
  const plainNotes = openFrame(0, notes.stored, notes.plainBytes)
  ensure(sha256(object.subarray(at)) === body.sha256, 'SHA-256 of the body')
  const frames = body.frames.map((stored, index) =>
    openFrame(index + 1, stored, Math.min(FRAME, Number(to - from) - index * FRAME)))
  ensure(at === object.length, 'end of the object')
  const plain = concat(...frames)
  const contentKey = hkdf(keys.idKey, Buffer.alloc(0), Buffer.from('backstock/1 log content'))
  ensure(createHmac('sha256', contentKey).update(plain).digest('hex') === payload.content, 'content')
  const { sourceKind, begun, completed, previous, epoch } = payload
  return {
    source, branch, shipper, seq: Number(seq), isTail: tail !== undefined, file, from, to, sourceKind, begun, completed,
    previous, epoch, sha256: sha256(signed), notes: plainNotes, body: plain,
  }
}
