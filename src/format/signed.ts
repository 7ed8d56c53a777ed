/**
 * Signed text: config, snapshot, session, and the header of a log object (docs/format.md, sections 2 and 9).
 * Bytes <-> records; which key must have signed what is decided by the callers, and the fields of each
 * payload are in config.ts, snapshot.ts and log-header.ts.
 *
 * ```
 * backstock 1 <kind> <repository 32 hex> <object name> <payload bytes, decimal> <SHA-256 of payload, hex>
 * <payload: one line of JSON>
 * signature <signer, 16 hex> <Ed25519 signature, base64>
 * ```
 *
 * The signature covers every byte before the line `signature …`. There is one way to write each object, so
 * any changed bit is seen: as `repo.corrupt` here, or as `repo.forged` by verifySigned().
 */
import { sign, verify } from 'node:crypto'
import { corrupt } from '../base/bytes.ts'
import { Failure } from '../base/failure.ts'
import { privateKeyObject, publicKeyObject, publicKeyOf } from './curve-keys.ts'
import { sha256 } from './seal.ts'

const SIGNED_VERSION = 1
/** A signed object is read whole; the largest are snapshots of long lineages. */
export const SIGNED_BYTES_MAX = 64 * 1024 * 1024
/** First line: fixed words, a name of up to 512 bytes, two numbers. */
const HEAD_BYTES_MAX = 800
const SIGNATURE_BYTES = 64
const SIGNATURE_LINE = /^signature ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)\n$/
const SIGNATURE_LINE_BYTES = 'signature '.length + 16 + 1 + 88 + 1

export type SignedKind = 'config' | 'snapshot' | 'session' | 'log'

/** What an object must say about itself: its kind, its repository (hex) and the name it lies under. */
export interface SignedPlace {
  readonly kind: SignedKind
  readonly repository: string
  readonly name: string
}

export interface SignedObject extends SignedPlace {
  /** Parsed JSON, of unknown shape. */
  readonly payload: unknown
  /** First 8 bytes of SHA-256 of the public key that is said to have signed; hex. */
  readonly signer: string
  readonly signature: Buffer
  /** A view of the bytes the signature covers. */
  readonly signedBytes: Buffer
  /** SHA-256 of the whole object, hex: what a successor's `previous` holds. */
  readonly sha256: string
}

/** The bytes of a signed object. `payload` must survive JSON; `signingSeed` is a raw Ed25519 seed. */
export function encodeSigned(object: SignedPlace & { payload: object }, signingSeed: Uint8Array): Buffer {
  const payload = Buffer.from(JSON.stringify(object.payload), 'utf8')
  const digest = sha256(payload).toString('hex')
  const { kind, repository, name } = object
  const head = `backstock ${SIGNED_VERSION} ${kind} ${repository} ${name} ${payload.length} ${digest}\n`
  const signed = Buffer.concat([Buffer.from(head, 'utf8'), payload, Buffer.from('\n')])
  const signature = sign(null, signed, privateKeyObject('ed25519', signingSeed))
  const signer = signerId(publicKeyOf('ed25519', signingSeed))
  return Buffer.concat([signed, Buffer.from(`signature ${signer} ${signature.toString('base64')}\n`)])
}

/**
 * Takes a signed object apart and checks everything but the signature itself: verifySigned() comes next.
 * Fails: repo.corrupt, repo.newer, repo.foreign (another repository's), repo.forged (another object's bytes).
 */
export function decodeSigned(bytes: Uint8Array, place: SignedPlace): SignedObject {
  const { name } = place
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (whole.length > SIGNED_BYTES_MAX) throw corrupt(name, `has more than ${SIGNED_BYTES_MAX} bytes`)
  const head = decodeSignedHead(whole, name)
  if (head.repository !== place.repository) throw foreign(name, head.repository, place.repository)
  if (head.kind !== place.kind || head.name !== name) {
    throw new Failure('repo.forged', `Cannot trust ${name}: it was written as ${head.kind} "${head.name}"`, {
      facts: { name, writtenAs: head.name },
    })
  }
  const end = head.bytes + head.payloadBytes
  if (whole.length !== end + 1 + SIGNATURE_LINE_BYTES) throw corrupt(name, 'has another length than it says')
  const payload = whole.subarray(head.bytes, end)
  if (whole[end] !== 0x0a) throw corrupt(name, 'is not made of three lines')
  if (sha256(payload).toString('hex') !== head.digest) throw corrupt(name, 'does not match its checksum')
  const signedBytes = whole.subarray(0, end + 1)
  const { signer, signature } = decodeSignature(whole.subarray(end + 1), name)
  return {
    ...place,
    payload: decodePayload(payload, name),
    signer,
    signature,
    signedBytes,
    sha256: sha256(whole).toString('hex'),
  }
}

/** Checks that `publicKey` (raw) signed the object. Fails: repo.forged. */
export function verifySigned(object: SignedObject, publicKey: Uint8Array): void {
  const expected = signerId(publicKey)
  const facts = { name: object.name, signer: object.signer, expected }
  if (object.signer !== expected) {
    const message = `Cannot trust ${object.name}: key ${object.signer} signed it (it must be key ${expected})`
    throw new Failure('repo.forged', message, { facts })
  }
  if (!verify(null, object.signedBytes, publicKeyObject('ed25519', publicKey), object.signature)) {
    throw new Failure('repo.forged', `Cannot trust ${object.name}: its signature does not fit it`, { facts })
  }
}

/** The repository id that the first line claims; nothing is verified. Fails: repo.corrupt, repo.newer. */
export function peekRepository(bytes: Uint8Array, name: string): string {
  return decodeSignedHead(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), name).repository
}

/** How a signature line names its key: the first 8 bytes of SHA-256 of the raw public key, hex. */
export function signerId(publicKey: Uint8Array): string {
  return sha256(publicKey).subarray(0, 8).toString('hex')
}

interface SignedHead {
  readonly kind: string
  readonly repository: string
  readonly name: string
  readonly payloadBytes: number
  readonly digest: string
  /** Length of the first line with its end. */
  readonly bytes: number
}

function decodeSignedHead(whole: Buffer, name: string): SignedHead {
  const lineEnd = whole.subarray(0, HEAD_BYTES_MAX).indexOf(0x0a)
  const line = whole.subarray(0, lineEnd < 0 ? HEAD_BYTES_MAX : lineEnd).toString('latin1')
  const version = /^backstock ([1-9][0-9]{0,5}) /.exec(line)?.[1]
  if (version === undefined) throw corrupt(name, 'does not begin as a signed object')
  if (Number(version) > SIGNED_VERSION) {
    const is = `it is written in format ${version} (this program knows ${SIGNED_VERSION})`
    const message = `Cannot read ${name}: ${is}`
    throw new Failure('repo.newer', message, { facts: { name, version: Number(version) } })
  }
  if (lineEnd < 0) throw corrupt(name, 'ends within its first line')
  const parts = /^backstock 1 ([a-z]+) ([0-9a-f]{32}) ([!-~]+) (0|[1-9][0-9]{0,9}) ([0-9a-f]{64})$/.exec(line)
  if (parts === null) throw corrupt(name, 'has a first line that makes no sense')
  const [, kind = '', repository = '', ownName = '', payloadBytes = '', digest = ''] = parts
  const bytes = lineEnd + 1
  return { kind, repository, name: ownName, payloadBytes: Number(payloadBytes), digest, bytes }
}

function decodeSignature(line: Buffer, name: string): { signer: string; signature: Buffer } {
  const [, signer = '', text = ''] = SIGNATURE_LINE.exec(line.toString('latin1')) ?? []
  const signature = Buffer.from(text, 'base64')
  // Base64 has spare bits at its end: only the one spelling is accepted.
  const isWhole = signature.length === SIGNATURE_BYTES && signature.toString('base64') === text
  if (!isWhole) throw corrupt(name, 'has a signature line that makes no sense')
  return { signer, signature }
}

function decodePayload(payload: Buffer, name: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload))
  } catch (cause) {
    throw new Failure('repo.corrupt', `Cannot read ${name}: its payload is not JSON`, {
      facts: { name },
      cause,
    })
  }
}

function foreign(name: string, is: string, mustBe: string): Failure {
  return new Failure('repo.foreign', `Cannot use ${name}: it belongs to repository ${is} (not ${mustBe})`, {
    facts: { name, repository: is, expected: mustBe },
  })
}
