import { strict as assert } from 'node:assert'
import { randomBytes, sign } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../base/failure.ts'
import { privateKeyObject, publicKeyOf } from './curve-keys.ts'
import { sha256 } from './seal.ts'
import {
  decodeSigned,
  encodeSigned,
  peekRepository,
  SIGNED_BYTES_MAX,
  signerId,
  verifySigned,
} from './signed.ts'
import type { SignedPlace } from './signed.ts'

const seed = randomBytes(32)
const publicKey = publicKeyOf('ed25519', seed)
const place: SignedPlace = { kind: 'config', repository: 'ab'.repeat(16), name: 'config/7' }
const payload = { type: 'config', shop: 'Käse & Söhne', n: 7, list: [1, 2, 3] }
const bytes = encodeSigned({ ...place, payload }, seed)

const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)

function readWhole(from: Uint8Array): void {
  verifySigned(decodeSigned(from, place), publicKey)
}

test('decodeSigned() gives back what encodeSigned() wrote, and verifySigned() accepts it', () => {
  const object = decodeSigned(bytes, place)
  verifySigned(object, publicKey)
  assert.deepEqual(object.payload, payload)
  assert.equal(object.name, 'config/7')
  assert.match(
    bytes.toString('utf8'),
    /^backstock 1 config (ab){16} config\/7 \d+ [0-9a-f]{64}\n\{.*\}\nsignature [0-9a-f]{16} \S{88}\n$/,
  )
})

test('decodeSigned() gives back any JSON', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (any) => {
      const plain: unknown = JSON.parse(JSON.stringify(any))
      const object = decodeSigned(encodeSigned({ ...place, payload: any }, seed), place)
      verifySigned(object, publicKey)
      assert.deepEqual(object.payload, plain)
    }),
    { numRuns: 50 },
  )
})

test('every cut fails as repo.corrupt', () => {
  for (let length = 0; length < bytes.length; length++) {
    assert.throws(() => readWhole(bytes.subarray(0, length)), fails('repo.corrupt'), `cut to ${length} bytes`)
  }
  assert.throws(() => readWhole(Buffer.concat([bytes, Buffer.from('\n')])), fails('repo.corrupt'))
})

test('every flipped bit fails, as damage or as a lie', () => {
  const expected = ['repo.corrupt', 'repo.forged', 'repo.foreign', 'repo.newer'] as const
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = Buffer.from(bytes)
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    assert.throws(
      () => readWhole(flipped),
      (error) => expected.some((code) => isFailure(error, code)),
      `bit ${bit}`,
    )
  }
})

test('an object under another name or of another kind is repo.forged', () => {
  assert.throws(() => decodeSigned(bytes, { ...place, name: 'config/8' }), fails('repo.forged'))
  assert.throws(() => decodeSigned(bytes, { ...place, kind: 'session' }), fails('repo.forged'))
})

test('an object of another repository is repo.foreign, and peekRepository() says which', () => {
  const other = 'cd'.repeat(16)
  assert.throws(() => decodeSigned(bytes, { ...place, repository: other }), fails('repo.foreign'))
  assert.equal(peekRepository(bytes, place.name), place.repository)
})

test('a newer format is repo.newer, whatever follows; version 0 is damage', () => {
  const newer = Buffer.from('backstock 2 something/else entirely\n')
  assert.throws(() => decodeSigned(newer, place), fails('repo.newer'))
  assert.throws(() => peekRepository(newer, place.name), fails('repo.newer'))
  assert.throws(() => decodeSigned(Buffer.from('backstock 0 config\n'), place), fails('repo.corrupt'))
})

test('verifySigned() refuses another key, and a signature under a borrowed signer id', () => {
  const stranger = randomBytes(32)
  const strange = encodeSigned({ ...place, payload }, stranger)
  assert.throws(() => verifySigned(decodeSigned(strange, place), publicKey), fails('repo.forged'))
  const own = decodeSigned(bytes, place)
  const borrowed = { ...decodeSigned(strange, place), signer: own.signer }
  assert.throws(() => verifySigned(borrowed, publicKey), fails('repo.forged'))
})

test('a payload that is not UTF-8 or not JSON is repo.corrupt even when it is signed', () => {
  for (const text of [Buffer.from('{"a":"\xff"}', 'latin1'), Buffer.from('{"a":'), Buffer.alloc(0)]) {
    const digest = sha256(text).toString('hex')
    const head = `backstock 1 config ${place.repository} ${place.name} ${text.length} ${digest}\n`
    const signed = Buffer.concat([Buffer.from(head), text, Buffer.from('\n')])
    const signature = sign(null, signed, privateKeyObject('ed25519', seed)).toString('base64')
    const whole = Buffer.concat([signed, Buffer.from(`signature ${signerId(publicKey)} ${signature}\n`)])
    assert.throws(() => decodeSigned(whole, place), /payload is not JSON/)
  }
})

test('decodeSigned() refuses to look into more than it may hold', () => {
  const huge = Buffer.alloc(SIGNED_BYTES_MAX + 1)
  bytes.copy(huge)
  assert.throws(() => decodeSigned(huge, place), fails('repo.corrupt'))
})

test('the signature has one spelling: spare base64 bits are refused', () => {
  const text = bytes.toString('latin1')
  const last = text.length - 4
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
  const respelled = alphabet[(alphabet.indexOf(text[last] ?? '') & ~15) | 1] ?? ''
  const changed = Buffer.from(text.slice(0, last) + respelled + text.slice(last + 1), 'latin1')
  assert.throws(() => readWhole(changed), fails('repo.corrupt'))
})
