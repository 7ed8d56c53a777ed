import { strict as assert } from 'node:assert'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import * as peer from 'age-encryption'
import fc from 'fast-check'
import { isFailure } from '../base/failure.ts'
import {
  AGE_RANDOM_BYTES,
  ageRecipient,
  armor,
  decryptWithIdentity,
  decryptWithPassphrase,
  encryptToRecipient,
  encryptWithPassphrase,
  isAgeFile,
  isAgeRecipient,
  newAgeIdentity,
  unarmor,
} from './age.ts'

const identity = newAgeIdentity()
const recipient = ageRecipient(identity) ?? ''
const SIZES = [0, 1, 31, 1000, 65_535, 65_536, 65_537, 200_000]
const LOG_N = 8

const fresh = () => randomBytes(AGE_RANDOM_BYTES)
const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)

async function peerDecrypt(
  file: Uint8Array,
  open: { identity?: string; passphrase?: string },
): Promise<Buffer> {
  const decrypter = new peer.Decrypter()
  if (open.identity !== undefined) decrypter.addIdentity(open.identity)
  if (open.passphrase !== undefined) decrypter.addPassphrase(open.passphrase)
  return Buffer.from(await decrypter.decrypt(file))
}

test('age-encryption opens what encryptToRecipient() wrote, at every size around a chunk', async () => {
  for (const size of SIZES) {
    const plaintext = randomBytes(size)
    const file = encryptToRecipient(recipient, plaintext, fresh())
    assert.deepEqual(await peerDecrypt(file, { identity }), plaintext, `${size} bytes`)
    assert.deepEqual(decryptWithIdentity(identity, file, 'file'), plaintext, `${size} bytes`)
  }
})

test('decryptWithIdentity() opens what age-encryption wrote, among other recipients too', async () => {
  for (const size of SIZES) {
    const plaintext = randomBytes(size)
    const encrypter = new peer.Encrypter()
    encrypter.addRecipient(await peer.identityToRecipient(await peer.generateX25519Identity()))
    encrypter.addRecipient(await peer.identityToRecipient(await peer.generateHybridIdentity()))
    encrypter.addRecipient(recipient)
    const file = await encrypter.encrypt(plaintext)
    assert.deepEqual(decryptWithIdentity(identity, file, 'file'), plaintext, `${size} bytes`)
    const armored = Buffer.from(peer.armor.encode(file))
    assert.deepEqual(decryptWithIdentity(identity, armored, 'file'), plaintext, `${size} bytes, armored`)
  }
})

test('both sides name the same recipient, and passphrases open both ways', async () => {
  assert.equal(await peer.identityToRecipient(identity), recipient)
  const theirs = await peer.generateX25519Identity()
  assert.equal(ageRecipient(theirs), await peer.identityToRecipient(theirs))
  const passphrase = randomBytes(12).toString('base64')
  const ours = encryptWithPassphrase(passphrase, Buffer.from('kit'), LOG_N)
  assert.equal((await peerDecrypt(ours, { passphrase })).toString(), 'kit')
  const encrypter = new peer.Encrypter()
  encrypter.setPassphrase(passphrase)
  encrypter.setScryptWorkFactor(LOG_N)
  const file = await encrypter.encrypt('their kit')
  assert.equal(decryptWithPassphrase(passphrase, file, 'file').toString(), 'their kit')
})

test('encryptToRecipient() gives the same file for the same random bytes', () => {
  const random = fresh()
  const first = encryptToRecipient(recipient, Buffer.from('x'), random)
  assert.deepEqual(encryptToRecipient(recipient, Buffer.from('x'), random), first)
  assert.notDeepEqual(encryptToRecipient(recipient, Buffer.from('x'), fresh()), first)
})

test('another identity or passphrase is key.wrong; a file of the other kind says so', () => {
  const file = encryptToRecipient(recipient, Buffer.from('x'), fresh())
  const locked = encryptWithPassphrase('right', Buffer.from('x'), LOG_N)
  assert.throws(() => decryptWithIdentity(newAgeIdentity(), file, 'file'), fails('key.wrong'))
  assert.throws(() => decryptWithPassphrase('left', locked, 'file'), fails('key.wrong'))
  assert.throws(() => decryptWithPassphrase('right', file, 'file'), fails('key.invalid'))
  assert.throws(() => decryptWithIdentity(identity, locked, 'file'), fails('key.wrong'))
})

test('every cut and every flipped bit of a file fails', () => {
  const file = encryptToRecipient(recipient, Buffer.from('the bundle'), fresh())
  const isSeen = (error: unknown) => isFailure(error, 'repo.corrupt') || isFailure(error, 'key.wrong')
  for (let length = 0; length < file.length; length++) {
    assert.throws(() => decryptWithIdentity(identity, file.subarray(0, length), 'file'), isSeen, `${length}`)
  }
  for (let bit = 0; bit < file.length * 8; bit++) {
    const flipped = Buffer.from(file)
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    assert.throws(() => decryptWithIdentity(identity, flipped, 'file'), isSeen, `bit ${bit}`)
  }
})

test('a file of several chunks cannot lose its last one', () => {
  const file = encryptToRecipient(recipient, Buffer.alloc(130_000), fresh())
  const lastChunk = 130_000 - 65_536 + 16
  const cut = file.subarray(0, file.length - lastChunk)
  assert.throws(() => decryptWithIdentity(identity, cut, 'file'), fails('repo.corrupt'))
})

test('unarmor() gives back what armor() wrote, and refuses a cut', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      assert.deepEqual(unarmor(Buffer.from(armor(bytes)), 'file'), Buffer.from(bytes))
      assert.deepEqual(Buffer.from(peer.armor.decode(armor(bytes))), Buffer.from(bytes))
    }),
    { numRuns: 50 },
  )
  const text = armor(randomBytes(200))
  assert.ok(isAgeFile(Buffer.from(text)))
  for (let length = 40; length < text.length - 1; length++) {
    assert.throws(
      () => unarmor(Buffer.from(text.slice(0, length)), 'file'),
      fails('repo.corrupt'),
      `${length}`,
    )
  }
})

test('identities and recipients with a wrong character, a wrong case or a cut are refused', () => {
  assert.ok(isAgeRecipient(recipient))
  for (let at = 0; at < recipient.length; at++) {
    const other = recipient[at] === 'q' ? 'p' : 'q'
    assert.equal(
      isAgeRecipient(recipient.slice(0, at) + other + recipient.slice(at + 1)),
      false,
      `char ${at}`,
    )
    assert.equal(isAgeRecipient(recipient.slice(0, at)), false, `cut to ${at}`)
  }
  assert.equal(isAgeRecipient(recipient.toUpperCase()), false)
  assert.equal(ageRecipient(identity.toLowerCase()), undefined)
  assert.equal(ageRecipient(identity.slice(0, -1)), undefined)
  assert.throws(() => encryptToRecipient('age1nobody', Buffer.alloc(1), fresh()), fails('key.invalid'))
})

test('headers and armor that age does not write are refused, as its test vectors demand', () => {
  const file = encryptToRecipient(recipient, Buffer.from('x'), fresh())
  const locked = encryptWithPassphrase('right', Buffer.from('x'), LOG_N)
  const split = file.indexOf('\n--- ')
  const withStanza = (stanza: string) =>
    Buffer.concat([file.subarray(0, split), Buffer.from(`\n${stanza}`), file.subarray(split)])
  for (const stanza of [
    '-> a  b\n',
    '-> \n',
    '->\n',
    '-> caf\u00e9\n',
    '-> a\nnot base64!',
    `-> a\n${'A'.repeat(72)}\n`,
  ]) {
    assert.throws(() => decryptWithIdentity(identity, withStanza(stanza), 'file'), /stanza/, stanza)
  }
  const extra = Buffer.from(locked.toString('latin1').replace(/(-> scrypt .*)\n/, '$1 9\n'), 'latin1')
  assert.throws(() => decryptWithPassphrase('right', extra, 'file'), fails('repo.corrupt'))
  const costly = Buffer.from(locked.toString('latin1').replace(/(-> scrypt \S+) 8\n/, '$1 40\n'), 'latin1')
  assert.throws(() => decryptWithPassphrase('right', costly, 'file'), fails('repo.corrupt'))

  const [begin = '', first = '', ...rest] = armor(file).trimEnd().split('\n')
  const spellings = [
    [begin, '', first, ...rest],
    [begin, first, ...rest.slice(0, -1), '', rest.at(-1)],
    [begin, first.slice(0, 32), first.slice(32), ...rest],
    [begin, first + (rest[0] ?? ''), ...rest.slice(1)],
  ]
  for (const lines of spellings) {
    const text = Buffer.from(lines.join('\n'))
    assert.throws(() => decryptWithIdentity(identity, text, 'file'), fails('repo.corrupt'), lines.join('|'))
  }
})
