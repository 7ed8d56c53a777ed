import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { addCrc32c, crc32c, CRC32C_START, endCrc32c } from './crc32c.ts'

test('crc32c() gives the sums of RFC 3720, appendix B.4', () => {
  const rising = Uint8Array.from({ length: 32 }, (_, at) => at)
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa)
  assert.equal(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43)
  assert.equal(crc32c(rising), 0x46dd794e)
  assert.equal(crc32c(rising.toReversed()), 0x113fdb5c)
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
})

test('a sum made in steps is that of the whole', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(), fc.nat({ max: 7 }), (bytes, cut, shift) => {
      const moved = Buffer.concat([Buffer.alloc(shift), bytes])
      const middle = shift + (cut % (bytes.length + 1))
      const half = addCrc32c(CRC32C_START, moved, shift, middle)
      assert.equal(endCrc32c(addCrc32c(half, moved, middle, moved.length)), crc32c(bytes))
    }),
  )
})
