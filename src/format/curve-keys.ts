/**
 * Raw 32-byte X25519 and Ed25519 keys, as files and objects hold them, turned into what node:crypto takes.
 * It holds no protocol: sealing is in seal.ts, signatures in signed.ts, age files in age.ts.
 *
 * The DER prefixes are those of RFC 8410: everything before the 32 raw bytes of PKCS #8 and
 * SubjectPublicKeyInfo. KeyObjects are remembered per buffer (not per value): a caller that keeps using one
 * key keeps one buffer, and must not change its bytes.
 */
import { createPrivateKey, createPublicKey, diffieHellman } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { assert } from '../base/failure.ts'

export const CURVE_KEY_BYTES = 32

const PKCS8_PREFIX = {
  x25519: Buffer.from('302e020100300506032b656e04220420', 'hex'),
  ed25519: Buffer.from('302e020100300506032b657004220420', 'hex'),
}
const SPKI_PREFIX = {
  x25519: Buffer.from('302a300506032b656e032100', 'hex'),
  ed25519: Buffer.from('302a300506032b6570032100', 'hex'),
}

export type Curve = 'x25519' | 'ed25519'

const privateKeys = new WeakMap<Uint8Array, KeyObject>()
const publicKeys = new WeakMap<Uint8Array, KeyObject>()
const publicBytes = new WeakMap<Uint8Array, Buffer>()

/** The KeyObject of a raw private key (of Ed25519: the seed). */
export function privateKeyObject(curve: Curve, raw: Uint8Array): KeyObject {
  const known = privateKeys.get(raw)
  if (known !== undefined) return known
  assert(raw.length === CURVE_KEY_BYTES, `a ${curve} private key has 32 bytes`)
  const key = createPrivateKey({
    key: Buffer.concat([PKCS8_PREFIX[curve], raw]),
    format: 'der',
    type: 'pkcs8',
  })
  privateKeys.set(raw, key)
  return key
}

/** The KeyObject of a raw public key. Any 32 bytes are accepted; bad points fail when they are used. */
export function publicKeyObject(curve: Curve, raw: Uint8Array): KeyObject {
  const known = publicKeys.get(raw)
  if (known !== undefined) return known
  assert(raw.length === CURVE_KEY_BYTES, `a ${curve} public key has 32 bytes`)
  const key = createPublicKey({ key: Buffer.concat([SPKI_PREFIX[curve], raw]), format: 'der', type: 'spki' })
  publicKeys.set(raw, key)
  return key
}

/** The raw public key that belongs to a raw private key; remembered with it, so do not change it. */
export function publicKeyOf(curve: Curve, raw: Uint8Array): Buffer {
  const known = publicBytes.get(raw)
  if (known !== undefined) return known
  const der = createPublicKey(privateKeyObject(curve, raw)).export({ format: 'der', type: 'spki' })
  const bytes = Buffer.from(der.subarray(der.length - CURVE_KEY_BYTES))
  publicBytes.set(raw, bytes)
  return bytes
}

/** X25519 (RFC 7748): the shared secret. Throws node:crypto's error for a point of low order. */
export function agree(privateKey: Uint8Array, publicKey: Uint8Array): Buffer {
  return diffieHellman({
    privateKey: privateKeyObject('x25519', privateKey),
    publicKey: publicKeyObject('x25519', publicKey),
  })
}
