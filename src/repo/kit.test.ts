import { strict as assert } from 'node:assert'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import * as peer from 'age-encryption'
import { isFailure } from '../base/failure.ts'
import {
  formatKit,
  formatLockedKit,
  formatWriter,
  newIdentity,
  newKit,
  parseKit,
  parseWriter,
} from './kit.ts'
import type { Writer } from './kit.ts'

const LOG_N = 8
const kit = newKit()
const text = formatKit(kit)
const passphrase = randomBytes(12).toString('hex')
const locked = formatLockedKit(kit, passphrase, LOG_N)
const writer: Writer = {
  type: 'writer',
  repository: kit.repository,
  authority: kit.authority,
  domain: randomBytes(8).toString('hex'),
  signingSeed: randomBytes(32),
  idKey: randomBytes(32),
  indexKey: randomBytes(32),
  epoch: 1,
  meta: randomBytes(32).toString('hex'),
  data: randomBytes(32).toString('hex'),
}

/** A failure of this code whose words hold no secret of the kit or writer. */
const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => {
  const words = error instanceof Error ? `${error.message} ${String(error.cause)}` : ''
  for (const secret of [kit.identity.slice(20, 50), kit.authoritySeed?.toString('hex') ?? '', passphrase]) {
    assert.ok(!words.includes(secret), 'the message holds a secret')
  }
  for (const secret of [writer.signingSeed, writer.idKey]) assert.ok(!words.includes(secret.toString('hex')))
  return isFailure(error, code)
}

test('parseKit() gives back what formatKit() wrote, also with CRLF and without a last newline', () => {
  assert.deepEqual(parseKit(Buffer.from(text), 'kit'), kit)
  assert.deepEqual(parseKit(Buffer.from(text.replaceAll('\n', '\r\n')), 'kit'), kit)
  assert.deepEqual(parseKit(Buffer.from(text.trimEnd()), 'kit'), kit)
  assert.notEqual(newKit().repository, kit.repository)
})

test('parseKit() gives back an identity without the authority seed', () => {
  const identity = newIdentity(kit.repository, kit.authority)
  assert.deepEqual(parseKit(Buffer.from(formatKit(identity)), 'identity'), identity)
  assert.ok(!formatKit(identity).includes('authority-key'))
})

test('age-encryption takes the key line of a kit as an identity', async () => {
  const encrypter = new peer.Encrypter()
  encrypter.addRecipient(kit.recipient)
  const decrypter = new peer.Decrypter()
  decrypter.addIdentity(text.split('\n').find((line) => line.startsWith('AGE-')) ?? '')
  assert.equal(await decrypter.decrypt(await encrypter.encrypt('x'), 'text'), 'x')
})

test("a locked kit opens with its passphrase only, armored or binary, ours or age-encryption's", async () => {
  assert.deepEqual(parseKit(Buffer.from(locked), 'kit', passphrase), kit)
  const encrypter = new peer.Encrypter()
  encrypter.setPassphrase(passphrase)
  encrypter.setScryptWorkFactor(LOG_N)
  assert.deepEqual(parseKit(await encrypter.encrypt(text), 'kit', passphrase), kit)
  assert.throws(() => parseKit(Buffer.from(locked), 'kit'), fails('key.missing'))
  assert.throws(() => parseKit(Buffer.from(locked), 'kit', 'wrong'), fails('key.wrong'))
})

test('parseKit() refuses every kit that is cut', () => {
  const trimmed = text.trimEnd()
  for (let length = 0; length < trimmed.length; length++) {
    assert.throws(
      () => parseKit(Buffer.from(trimmed.slice(0, length)), 'kit'),
      fails('key.invalid'),
      `${length}`,
    )
  }
  const armored = locked.trimEnd()
  for (let length = 0; length < armored.length; length += 7) {
    assert.throws(
      () => parseKit(Buffer.from(armored.slice(0, length)), 'kit', passphrase),
      fails('key.invalid'),
    )
  }
})

test('parseKit() says what is wrong with another file', () => {
  const hybrid = `AGE-SECRET-KEY-PQ-1${'Q'.repeat(60)}`
  const wrong: [string, RegExp][] = [
    [formatWriter(writer), /writer credential/],
    ['-----BEGIN OPENSSH PRIVATE KEY-----\n', /no line "AGE-SECRET-KEY/],
    [kit.recipient, /no line "AGE-SECRET-KEY/],
    [kit.identity, /no line "# repository/],
    [`${text}${text}`, /more than one line/],
    [text.replace(/repository: ..../, 'repository: XXXX'), /repository.*damaged/],
    [text.replace(/authority-key: ..../, 'authority-key: XXXX'), /authority-key.*damaged/],
    [text.replace(/^# authority-key.*\n/m, ''), /no line "# authority: /],
    [text.replace(kit.identity, hybrid), /not supported/],
    [text.replace(kit.identity, kit.identity.toLowerCase()), /damaged/],
    ['x'.repeat(100_000), /too large/],
  ]
  for (const [other, says] of wrong) {
    const parse = () => parseKit(Buffer.from(other), '"kit.age"')
    assert.throws(parse, fails('key.invalid'), String(says))
    assert.throws(parse, says)
    assert.throws(parse, /"kit\.age"/)
  }
})

test('parseWriter() gives back what formatWriter() wrote', () => {
  assert.deepEqual(parseWriter(Buffer.from(formatWriter(writer)), 'writer'), writer)
})

test('parseWriter() refuses cuts, other files and missing fields, and newer versions as repo.newer', () => {
  const json = formatWriter(writer).trimEnd()
  for (let length = 0; length < json.length; length++) {
    assert.throws(
      () => parseWriter(Buffer.from(json.slice(0, length)), 'writer'),
      fails('key.invalid'),
      `${length}`,
    )
  }
  for (const field of Object.keys(writer)) {
    const { [field]: _gone, ...rest } = JSON.parse(json) as Record<string, unknown>
    assert.throws(() => parseWriter(Buffer.from(JSON.stringify(rest)), 'writer'), fails('key.invalid'), field)
  }
  assert.throws(() => parseWriter(Buffer.from(text), 'writer'), /an identity, not a writer/)
  assert.throws(() => parseWriter(Buffer.alloc(100_000), 'writer'), fails('key.invalid'))
  const newer = json.replace('"version": 1', '"version": 2')
  assert.throws(() => parseWriter(Buffer.from(newer), 'writer'), fails('repo.newer'))
})
