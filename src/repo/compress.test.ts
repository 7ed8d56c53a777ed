import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { noise, testSeed } from '../../test/harness/engine.ts'
import { isFailure } from '../base/failure.ts'
import { CODECS } from '../format/pack.ts'
import { compress, decompress } from './compress.ts'

const seed = testSeed()
const isCorrupt = (error: unknown): boolean => isFailure(error, 'repo.corrupt')

test(`what was compressed comes back (SEED=${seed})`, () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 10_000 }),
    fc.nat({ max: 20_000 }).map((length) => noise(length, length)),
    fc.nat({ max: 300_000 }).map((length) => Buffer.alloc(length, 'shop ')),
  )
  fc.assert(
    fc.property(bytes, (plain) => {
      const { codec, body } = compress(plain)
      assert.ok(body.length <= plain.length)
      assert.ok(Buffer.from(decompress(codec, body, plain.length, 'x')).equals(plain))
    }),
    { seed },
  )
})

test('noise is kept as it is, text is not', () => {
  const plain = noise(1, 100_000)
  assert.equal(compress(plain).body, plain)
  const text = compress(Buffer.alloc(100_000, 'order 17, 3 pieces; '))
  assert.equal(text.codec, CODECS.zstd)
  assert.ok(text.body.length < 1000)
})

test('a body that opens to more or less than it says, or to nothing, is refused', () => {
  const plain = Buffer.alloc(5000, 1)
  const body = zstdCompressSync(plain)
  for (const bytes of [0, 4999, 5001, 1_000_000])
    assert.throws(() => decompress(CODECS.zstd, body, bytes, 'x'), isCorrupt)
  for (let cut = 0; cut < body.length; cut++)
    assert.throws(() => decompress(CODECS.zstd, body.subarray(0, cut), 5000, 'x'), isCorrupt)
  assert.throws(() => decompress(CODECS.raw, plain, 4999, 'x'), isCorrupt)
  assert.throws(() => decompress(7, plain, 5000, 'x'), isCorrupt)
  const bomb = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024))
  assert.throws(() => decompress(CODECS.zstd, bomb, 100, 'x'), isCorrupt)
})

test('every flipped bit of a compressed body fails cleanly, or opens to as many bytes', () => {
  const plain = Buffer.concat([noise(3, 200), Buffer.alloc(3000, 'order 17, 3 pieces; '), noise(4, 200)])
  const { codec, body } = compress(plain)
  assert.equal(codec, CODECS.zstd)
  let refused = 0
  for (let bit = 0; bit < body.length * 8; bit++) {
    const flipped = Buffer.from(body)
    flipped[bit >> 3]! ^= 1 << (bit & 7)
    try {
      assert.equal(decompress(codec, flipped, plain.length, 'x').length, plain.length)
    } catch (error) {
      assert.ok(isCorrupt(error), `bit ${bit}: ${String(error)}`)
      refused++
    }
  }
  assert.ok(refused > 0)
})
