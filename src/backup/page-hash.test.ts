import assert from 'node:assert/strict'
import { createHmac, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { PAGE_HASH_BYTES } from '../format/content.ts'
import { newPageHasher, putPageHash } from './page-hash.ts'

test('putPageHash() is HMAC-SHA-256 for pages of all sizes in any order', () => {
  for (const keyBytes of [1, 32, 64]) {
    const key = randomBytes(keyBytes)
    const hasher = newPageHasher(key)
    for (const bytes of [8192, 0, 1, 4096, 65_536, 8192, 63, 64, 16_384]) {
      const page = randomBytes(bytes)
      const hashes = Buffer.alloc(3 * PAGE_HASH_BYTES, 0xee)
      putPageHash(hasher, page, hashes, PAGE_HASH_BYTES)
      const wanted = createHmac('sha256', key).update(page).digest().subarray(0, PAGE_HASH_BYTES)
      const around = Buffer.alloc(PAGE_HASH_BYTES, 0xee)
      assert.deepEqual(hashes, Buffer.concat([around, wanted, around]), `${keyBytes}, ${bytes}`)
    }
  }
})

test('newPageHasher() refuses a key that is longer than a block', () => {
  assert.throws(() => newPageHasher(randomBytes(65)), /a longer key/)
})
