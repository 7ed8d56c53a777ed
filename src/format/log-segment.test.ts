import { strict as assert } from 'node:assert'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../base/failure.ts'
import { publicKeyOf } from './curve-keys.ts'
import {
  LOG_FRAME_BYTES,
  LOG_LIMITS,
  LOG_SEGMENT_BYTES,
  logName,
  logPayload,
  parseLogHeader,
  parseLogName,
  type LogPlace,
} from './log-header.ts'
import {
  checkLogSection,
  decodeLogHeader,
  decodeLogStart,
  encodeLog,
  LOG_START_BYTES,
  logContentId,
  logFrames,
  openLogFrame,
  openLogKey,
  type LogDraft,
  type StoredLogHeader,
} from './log-segment.ts'
import { newKeyPair } from './seal.ts'

const repository = 'ab'.repeat(16)
const signingSeed = randomBytes(32)
const signingPublic = publicKeyOf('ed25519', signingSeed)
const epochKeys = newKeyPair()
const idKey = randomBytes(32)
const stream = { domain: '0123456789abcdef', source: 'orders', branch: '7531234567890123456-00000001' }
const place: LogPlace = { ...stream, kind: 'segment', shipper: 'a1b2c3d4e5f60718', seq: 7 }

const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)
const raw = (bytes: Uint8Array) => ({ codec: 0, body: bytes, plainBytes: bytes.length }) as const

function encode(body: Uint8Array, change: Partial<LogDraft> = {}) {
  const from = change.from ?? 0x1600_0000n
  const draft: LogDraft = {
    place,
    sourceKind: 'postgres',
    from,
    to: from + BigInt(body.length),
    begun: Date.UTC(2026, 10, 22),
    completed: Date.UTC(2026, 10, 22, 0, 0, 1),
    previous: 'cd'.repeat(32),
    content: logContentId(idKey, [body]),
    notes: raw(Buffer.from('marks')),
    body: logFrames(body).map(raw),
    ...change,
  }
  const key = randomBytes(32)
  return encodeLog(draft, { repository, epoch: 3, dataPublic: epochKeys.publicKey, signingSeed, key })
}

function expectation(bytes: Uint8Array, name = logName(place)) {
  return { name, repository, signingPublic, bytes: bytes.length }
}

/** Everything a reader does, and the plaintext. */
function readWhole(bytes: Uint8Array, name = logName(place)): { notes: string; body: Buffer } {
  const header = decodeLogHeader(bytes, expectation(bytes, name))
  const opener = { header, repository, key: openLogKey(header, repository, epochKeys.privateKey) }
  const [notes, body] = [bytes.subarray(header.notesAt, header.bodyAt), bytes.subarray(header.bodyAt)]
  checkLogSection(header, 'notes', notes)
  checkLogSection(header, 'body', body)
  const frames: Buffer[] = []
  let at = 0
  for (const [number, { storedBytes }] of header.frames.entries()) {
    frames.push(openLogFrame(opener, number + 1, body.subarray(at, at + storedBytes)))
    at += storedBytes
  }
  return { notes: openLogFrame(opener, 0, notes).toString(), body: Buffer.concat(frames) }
}

test('decodeLogHeader() and openLogFrame() give back what encodeLog() wrote', () => {
  const body = randomBytes(2 * LOG_FRAME_BYTES + 17)
  const { bytes, header } = encode(body)
  const read = readWhole(bytes)
  assert.equal(read.notes, 'marks')
  assert.ok(read.body.equals(body))
  assert.deepEqual(decodeLogHeader(bytes, expectation(bytes)), header)
  assert.equal(header.frames.length, 3)
  assert.equal(header.bytes, bytes.length)
  assert.equal(header.to - header.from, BigInt(body.length))
})

test('any positions, numbers and lengths survive', () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: (1n << 64n) - 70_000n }),
      fc.uint8Array({ maxLength: 3000 }),
      fc.uint8Array({ maxLength: 300 }),
      fc.record({
        kind: fc.constantFrom('segment', 'tail'),
        seq: fc.integer({ min: 1, max: LOG_LIMITS.seq }),
      }),
      (from, body, notes, { kind, seq }) => {
        const own = { ...place, kind, seq } as LogPlace
        const previous = seq === 1 ? null : 'cd'.repeat(32)
        const { bytes, header } = encode(body, { from, previous, place: own, notes: raw(notes) })
        assert.deepEqual(readWhole(bytes, logName(own)).body, Buffer.from(body))
        assert.deepEqual(decodeLogHeader(bytes, expectation(bytes, logName(own))), header)
      },
    ),
    { numRuns: 50 },
  )
})

test('the header and the notes are within the first small read', () => {
  const { header } = encode(randomBytes(LOG_SEGMENT_BYTES))
  assert.ok(header.bodyAt < 2048, `${header.bodyAt} bytes`)
})

test('every cut fails as repo.corrupt', () => {
  const { bytes } = encode(Buffer.from('a commit'))
  for (let length = 0; length < bytes.length; length++)
    assert.throws(() => readWhole(bytes.subarray(0, length)), fails('repo.corrupt'), `cut to ${length} bytes`)
  assert.throws(() => readWhole(Buffer.concat([bytes, Buffer.from('\n')])), fails('repo.corrupt'))
})

test('every flipped bit fails, as damage or as a lie', () => {
  const { bytes } = encode(Buffer.from('a commit'))
  const isCaught = (error: unknown): boolean =>
    ['repo.corrupt', 'repo.forged', 'repo.foreign', 'repo.newer'].some(
      (code) => error instanceof Error && 'code' in error && error.code === code,
    )
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3]! ^= 1 << (bit & 7)
    assert.throws(() => readWhole(bytes), isCaught, `bit ${bit}`)
    bytes[bit >> 3]! ^= 1 << (bit & 7)
  }
  readWhole(bytes)
})

test('every cut front fails before anything behind it is read', () => {
  const { bytes, header } = encode(Buffer.from('a commit'))
  for (let length = 0; length < header.notesAt; length++)
    assert.throws(
      () => decodeLogHeader(bytes.subarray(0, length), expectation(bytes)),
      fails('repo.corrupt'),
      `front of ${length} bytes`,
    )
  assert.equal(decodeLogHeader(bytes.subarray(0, header.notesAt), expectation(bytes)).sha256, header.sha256)
})

test('an object under another name, of another repository or signed by another key is refused', () => {
  const { bytes } = encode(Buffer.from('a commit'))
  const others: LogPlace[] = [
    { ...place, kind: 'tail' },
    { ...place, seq: 8 },
    { ...place, branch: `${stream.branch}a` },
    { ...stream, kind: 'file', file: 'x' },
  ]
  for (const other of others) assert.throws(() => readWhole(bytes, logName(other)), fails('repo.forged'))
  assert.throws(
    () => decodeLogHeader(bytes, { ...expectation(bytes), repository: 'ff'.repeat(16) }),
    fails('repo.foreign'),
  )
  const signingPublicOfOther = publicKeyOf('ed25519', randomBytes(32))
  assert.throws(
    () => decodeLogHeader(bytes, { ...expectation(bytes), signingPublic: signingPublicOfOther }),
    fails('repo.forged'),
  )
})

test('openLogKey() opens with the private half of the epoch alone', () => {
  const { header } = encode(Buffer.from('a commit'))
  assert.throws(() => openLogKey(header, repository, newKeyPair().privateKey), fails('repo.corrupt'))
  assert.throws(() => openLogKey(header, 'ff'.repeat(16), epochKeys.privateKey), fails('repo.corrupt'))
})

test('a frame opens in its own place alone', () => {
  const { bytes, header } = encode(randomBytes(LOG_FRAME_BYTES * 2))
  const opener = { header, repository, key: openLogKey(header, repository, epochKeys.privateKey) }
  const first = bytes.subarray(header.bodyAt, header.bodyAt + header.frames[0]!.storedBytes)
  assert.equal(openLogFrame(opener, 1, first).length, LOG_FRAME_BYTES)
  assert.throws(() => openLogFrame(opener, 2, first), fails('repo.corrupt'))
  const moved = { ...opener, header: { ...header, name: `${header.name}0` } }
  assert.throws(() => openLogFrame(moved, 1, first), fails('repo.corrupt'))
})

test('decodeLogStart() refuses a header beyond its bound before it is read', () => {
  const { bytes } = encode(Buffer.from('a commit'))
  assert.ok(decodeLogStart(bytes, 'x') + LOG_START_BYTES < bytes.length)
  assert.throws(() => decodeLogStart(Buffer.alloc(LOG_START_BYTES), 'x'), fails('repo.corrupt'))
})

test('parseLogHeader() refuses what does not add up', () => {
  const { header } = encode(Buffer.from('a commit'))
  const payload = logPayload(header) as Record<string, unknown>
  const refuse = (
    change: object,
    of: LogPlace = place,
    code: Parameters<typeof fails>[0] = 'repo.corrupt',
  ) => {
    assert.throws(
      () => parseLogHeader({ ...payload, ...change }, of, 'x'),
      fails(code),
      JSON.stringify(change),
    )
  }
  refuse({ version: 2 }, place, 'repo.newer')
  refuse({ to: '0'.repeat(16) })
  refuse({ to: 'f'.repeat(16) })
  refuse({ from: '-1' })
  refuse({ previous: null })
  refuse({}, { ...place, seq: 1 })
  refuse({ previous: null }, { ...stream, kind: 'file', file: 'x' })
  refuse({ epoch: 0 })
  refuse({ begun: 'yesterday' })
  refuse({ content: 'x' })
  refuse({ key: 'AAAA' })
  const { frames, sha256 } = payload['body'] as { frames: number[][]; sha256: string }
  refuse({ body: { frames: [...frames, ...frames], sha256 } })
  refuse({ body: { frames: [], sha256 } })
  refuse({ body: { frames: [[1_000_000_000, 0]], sha256 } })
  refuse({ notes: { plainBytes: LOG_LIMITS.notesBytes + 1, stored: [20, 0], sha256 } })
  refuse({ notes: { plainBytes: 0, stored: [2000, 0], sha256 } })
})

test('checkLogSection() refuses a codec that is not known', () => {
  const body = Buffer.from('a commit')
  const { bytes, header } = encode(body)
  const strange: StoredLogHeader = {
    ...header,
    frames: header.frames.map((frame) => ({ ...frame, codec: 9 })),
  }
  assert.throws(() => checkLogSection(strange, 'body', bytes.subarray(header.bodyAt)), fails('repo.newer'))
})

test('parseLogName() is the inverse of logName()', () => {
  const name = fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,62}$/)
  const hex16 = fc.stringMatching(/^[0-9a-f]{16}$/)
  const of = { domain: hex16, source: name, branch: name }
  const seq = fc.integer({ min: 1, max: LOG_LIMITS.seq })
  const places = fc.oneof(
    fc.record({ ...of, kind: fc.constantFrom('segment', 'tail'), shipper: hex16, seq }),
    fc.record({
      ...of,
      kind: fc.constant('file'),
      file: fc.stringMatching(/^[a-z0-9_-][a-z0-9._-]{0,127}$/),
    }),
  )
  fc.assert(
    fc.property(places, (any) => {
      const text = logName(any)
      assert.deepEqual(parseLogName(text), { ...any })
    }),
  )
})

test('parseLogName() knows no other names', () => {
  const base = 'd/0123456789abcdef/logs/orders/b'
  for (const name of [
    `${base}/0011223344556677/1`,
    `${base}/0011223344556677/000000000000`,
    `${base}/0011223344556677/tail/x`,
    `${base}/001122334455667/000000000001`,
    `${base}/files/a/b`,
    `${base}/files/`,
    'd/0123456789abcdef/logs/x',
  ])
    assert.equal(parseLogName(name), undefined, name)
})

test('logContentId() is the same however the bytes are cut, and another under another key', () => {
  const bytes = randomBytes(1000)
  const id = logContentId(idKey, [bytes])
  assert.equal(logContentId(idKey, [bytes.subarray(0, 7), bytes.subarray(7)]), id)
  assert.notEqual(logContentId(randomBytes(32), [bytes]), id)
})
