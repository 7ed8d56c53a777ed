/**
 * Sealing: AES-256-GCM in one call, HKDF-SHA-256, and boxes to an X25519 public key (suite 1 of
 * docs/format.md, section 3). Who may open what, and where keys lie, is src/repo/keys.ts.
 *
 * | sealed to a key                                   | bytes          |
 * | ------------------------------------------------- | -------------- |
 * | E, ephemeral public key                           | 32             |
 * | box = AES(KEK, nonce 0, plaintext, AAD = context) | plaintext + 16 |
 *
 * shared = X25519(e, P), KEK = HKDF(ikm = shared, salt = E ‖ P, info = context). The KEK serves one box, so
 * the nonce may be 0. The context binds the box to its place: opened elsewhere, it fails.
 */
import { createCipheriv, createDecipheriv, createHash, hkdfSync } from 'node:crypto'
import { corrupt } from '../base/bytes.ts'
import { assert, Failure } from '../base/failure.ts'
import { randomBytes } from '../base/random.ts'
import { agree, CURVE_KEY_BYTES, publicKeyOf } from './curve-keys.ts'

const AES_KEY_BYTES = 32
export const AES_TAG_BYTES = 16
const AES_NONCE_BYTES = 12
/** What sealToKey() adds to the plaintext. */
export const SEALED_EXTRA_BYTES = CURVE_KEY_BYTES + AES_TAG_BYTES

export interface KeyPair {
  readonly publicKey: Buffer
  readonly privateKey: Buffer
}

/** A fresh X25519 pair, raw. */
export function newKeyPair(): KeyPair {
  const privateKey = randomBytes(CURVE_KEY_BYTES)
  return { privateKey, publicKey: publicKeyOf('x25519', privateKey) }
}

/** Seals to a raw X25519 public key. `publicKey` is remembered by buffer: reuse one, never change it. */
export function sealToKey(publicKey: Uint8Array, plaintext: Uint8Array, context: Uint8Array): Buffer {
  return sealToKeyFrom(randomBytes(CURVE_KEY_BYTES), publicKey, plaintext, context)
}

/** sealToKey() with a given ephemeral private key: for test vectors only, which must be the same twice. */
export function sealToKeyFrom(
  ephemeral: Uint8Array,
  publicKey: Uint8Array,
  plaintext: Uint8Array,
  context: Uint8Array,
): Buffer {
  const ephemeralPublic = publicKeyOf('x25519', ephemeral)
  const key = hkdf(agree(ephemeral, publicKey), Buffer.concat([ephemeralPublic, publicKey]), context)
  return Buffer.concat([ephemeralPublic, sealAes(key, counterNonce(0), plaintext, context)])
}

/**
 * Opens what sealToKey() made. `what` names the thing in failures. Fails: repo.corrupt (also for another
 * key).
 */
export function openWithKey(
  privateKey: Uint8Array,
  sealed: Uint8Array,
  context: Uint8Array,
  what: string,
): Buffer {
  if (sealed.length < SEALED_EXTRA_BYTES) throw corrupt(what, 'is shorter than a sealed box')
  const ephemeralPublic = sealed.subarray(0, CURVE_KEY_BYTES)
  const shared = openWithKeyAgree(privateKey, ephemeralPublic, what)
  const key = hkdf(shared, Buffer.concat([ephemeralPublic, publicKeyOf('x25519', privateKey)]), context)
  return openAes(key, counterNonce(0), sealed.subarray(CURVE_KEY_BYTES), context, what)
}

function openWithKeyAgree(privateKey: Uint8Array, ephemeralPublic: Uint8Array, what: string): Buffer {
  try {
    return agree(privateKey, ephemeralPublic)
  } catch (cause) {
    throw corruptFrom(cause, what, 'holds an impossible public key')
  }
}

/** AES-256-GCM: ciphertext, then the 16-byte tag, in a fresh buffer. One key must never see one nonce twice. */
export function sealAes(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Buffer {
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: AES_TAG_BYTES })
  cipher.setAAD(aad)
  const body = cipher.update(plaintext)
  cipher.final()
  return Buffer.concat([body, cipher.getAuthTag()])
}

/** Opens what sealAes() made, into a fresh buffer. `what` names the thing in failures. Fails: repo.corrupt. */
export function openAes(
  key: Uint8Array,
  nonce: Uint8Array,
  sealed: Uint8Array,
  aad: Uint8Array,
  what: string,
): Buffer {
  if (sealed.length < AES_TAG_BYTES) throw corrupt(what, 'is shorter than its tag')
  const bodyBytes = sealed.length - AES_TAG_BYTES
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: AES_TAG_BYTES })
  decipher.setAAD(aad)
  decipher.setAuthTag(sealed.subarray(bodyBytes))
  const plaintext = decipher.update(sealed.subarray(0, bodyBytes))
  try {
    decipher.final()
  } catch (cause) {
    throw corruptFrom(cause, what, 'does not match its tag (damaged, moved, or sealed with another key)')
  }
  return plaintext
}

function corruptFrom(cause: unknown, what: string, is: string): Failure {
  return new Failure('repo.corrupt', `Cannot read ${what}: it ${is}`, { facts: { what }, cause })
}

/** A number as a 96-bit little-endian nonce. */
export function counterNonce(number: number): Buffer {
  assert(Number.isSafeInteger(number) && number >= 0, 'a nonce counts from 0')
  const nonce = Buffer.alloc(AES_NONCE_BYTES)
  nonce.writeBigUInt64LE(BigInt(number))
  return nonce
}

/** HKDF-SHA-256 (RFC 5869), extract and expand; 32 bytes unless told. A text is taken as its UTF-8 bytes. */
export function hkdf(
  keyMaterial: Uint8Array,
  salt: Uint8Array | string,
  info: Uint8Array | string,
  bytes = AES_KEY_BYTES,
): Buffer {
  return Buffer.from(hkdfSync('sha256', keyMaterial, salt, info, bytes))
}

/** SHA-256 of the parts, joined. */
export function sha256(...parts: readonly (Uint8Array | string)[]): Buffer {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest()
}
