import { strict as assert } from 'node:assert'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../base/failure.ts'
import { agree, publicKeyOf } from './curve-keys.ts'
import {
  counterNonce,
  hkdf,
  newKeyPair,
  openAes,
  openWithKey,
  SEALED_EXTRA_BYTES,
  sealAes,
  sealToKey,
  sealToKeyFrom,
  sha256,
} from './seal.ts'

const fromHex = (text: string) => Buffer.from(text, 'hex')
const isCorrupt = (error: unknown) => isFailure(error, 'repo.corrupt')
const context = Buffer.from('a place')

test('hkdf() gives vectors 1 and 3 of RFC 5869', () => {
  const material = fromHex('0b'.repeat(22))
  const first = hkdf(material, fromHex('000102030405060708090a0b0c'), fromHex('f0f1f2f3f4f5f6f7f8f9'), 42)
  const third = hkdf(material, '', '', 42)
  assert.equal(
    first.toString('hex'),
    '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865',
  )
  assert.equal(
    third.toString('hex'),
    '8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8',
  )
})

test('publicKeyOf() and agree() give the vectors of RFC 7748, section 6.1', () => {
  const alice = fromHex('77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a')
  const bob = fromHex('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb')
  const alicePublic = publicKeyOf('x25519', alice)
  const bobPublic = publicKeyOf('x25519', bob)
  assert.equal(
    alicePublic.toString('hex'),
    '8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a',
  )
  assert.equal(bobPublic.toString('hex'), 'de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f')
  const shared = '4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742'
  assert.equal(agree(alice, bobPublic).toString('hex'), shared)
  assert.equal(agree(bob, alicePublic).toString('hex'), shared)
})

test('publicKeyOf() gives vector 1 of RFC 8032, section 7.1', () => {
  const seed = fromHex('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60')
  const expected = 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a'
  assert.equal(publicKeyOf('ed25519', seed).toString('hex'), expected)
})

test('sealToKeyFrom() follows docs/format.md section 3, step by step', () => {
  const { publicKey, privateKey } = newKeyPair()
  const ephemeral = randomBytes(32)
  const sealed = sealToKeyFrom(ephemeral, publicKey, Buffer.from('key'), context)
  const ephemeralPublic = publicKeyOf('x25519', ephemeral)
  const kek = hkdf(agree(privateKey, ephemeralPublic), Buffer.concat([ephemeralPublic, publicKey]), context)
  assert.deepEqual(sealed.subarray(0, 32), ephemeralPublic)
  assert.deepEqual(openAes(kek, Buffer.alloc(12), sealed.subarray(32), context, 'box'), Buffer.from('key'))
})

test('openWithKey() gives back any plaintext that sealToKey() sealed', () => {
  const { publicKey, privateKey } = newKeyPair()
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 100 }), (plaintext, aad) => {
      const sealed = sealToKey(publicKey, plaintext, aad)
      assert.equal(sealed.length, plaintext.length + SEALED_EXTRA_BYTES)
      assert.deepEqual(openWithKey(privateKey, sealed, aad, 'box'), Buffer.from(plaintext))
    }),
    { numRuns: 50 },
  )
})

test('openWithKey() fails as repo.corrupt for every cut and every flipped bit', () => {
  const { publicKey, privateKey } = newKeyPair()
  const sealed = sealToKey(publicKey, randomBytes(32), context)
  for (let length = 0; length < sealed.length; length++) {
    assert.throws(() => openWithKey(privateKey, sealed.subarray(0, length), context, 'box'), isCorrupt)
  }
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const flipped = Buffer.from(sealed)
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    // X25519 ignores the top bit of a public key, but the key derivation does not.
    assert.throws(() => openWithKey(privateKey, flipped, context, 'box'), isCorrupt, `bit ${bit}`)
  }
})

test('openWithKey() fails as repo.corrupt for another key, another context and a point of low order', () => {
  const { publicKey, privateKey } = newKeyPair()
  const sealed = sealToKey(publicKey, randomBytes(32), context)
  const zeroPoint = Buffer.concat([Buffer.alloc(32), sealed.subarray(32)])
  assert.throws(() => openWithKey(newKeyPair().privateKey, sealed, context, 'box'), isCorrupt)
  assert.throws(() => openWithKey(privateKey, sealed, Buffer.from('another place'), 'box'), isCorrupt)
  assert.throws(() => openWithKey(privateKey, zeroPoint, context, 'box'), isCorrupt)
})

test('openAes() names the thing and gives back nothing when nonce, key, tag or AAD differ', () => {
  const key = randomBytes(32)
  const sealed = sealAes(key, counterNonce(7), Buffer.from('plain'), context)
  assert.equal(openAes(key, counterNonce(7), sealed, context, 'frame 7').toString(), 'plain')
  assert.throws(() => openAes(key, counterNonce(8), sealed, context, 'frame 7'), /Cannot read frame 7/)
  assert.throws(() => openAes(randomBytes(32), counterNonce(7), sealed, context, 'frame 7'), isCorrupt)
  assert.throws(() => openAes(key, counterNonce(7), sealed, Buffer.alloc(0), 'frame 7'), isCorrupt)
  assert.throws(() => openAes(key, counterNonce(7), sealed.subarray(0, 15), context, 'frame 7'), isCorrupt)
})

test('counterNonce() is 96 bits, little-endian, and takes counts only', () => {
  assert.equal(counterNonce(0x0102).toString('hex'), '020100000000000000000000')
  assert.throws(() => counterNonce(-1), /Bug/)
})

test('sha256() joins its parts', () => {
  assert.deepEqual(sha256('ab', Buffer.from('c')), sha256('abc'))
  assert.match(sha256('abc').toString('hex'), /^ba7816bf8f01cfea/)
})
