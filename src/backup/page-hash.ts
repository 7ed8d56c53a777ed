/**
 * The keyed hash of a database page: HMAC-SHA-256 (RFC 2104) of which the first 16 bytes are kept. Written
 * out over the one-shot hash, since an Hmac object with its digest costs a third as much as hashing a page of
 * 8 KiB does, and a database has millions of them (bench: full backup of a cluster, processor).
 */
import { hash } from 'node:crypto'
import { assert } from '../base/failure.ts'
import { PAGE_HASH_BYTES } from '../format/content.ts'

/** The two messages of HMAC, each with its padded key in front. Belongs to one thread. */
export interface PageHasher {
  inner: Buffer
  readonly outer: Buffer
}

const BLOCK_BYTES = 64
const DIGEST_BYTES = 32
/** Grows with the first page that is larger. */
const PAGE_BYTES_FIRST = 8192

export function newPageHasher(key: Uint8Array): PageHasher {
  assert(key.length <= BLOCK_BYTES, 'a longer key would have to be hashed first')
  return {
    inner: paddedKey(key, 0x36, PAGE_BYTES_FIRST),
    outer: paddedKey(key, 0x5c, DIGEST_BYTES),
  }
}

/** Puts the kept bytes of the hash of `page` into `hashes` at `at`. */
export function putPageHash(hasher: PageHasher, page: Uint8Array, hashes: Buffer, at: number): void {
  const bytes = BLOCK_BYTES + page.length
  if (bytes > hasher.inner.length) hasher.inner = grown(hasher.inner, bytes)
  const { inner, outer } = hasher
  inner.set(page, BLOCK_BYTES)
  const message = bytes === inner.length ? inner : inner.subarray(0, bytes)
  outer.write(hash('sha256', message, 'binary'), BLOCK_BYTES, DIGEST_BYTES, 'latin1')
  // Strings, since a buffer has memory of its own that somebody must free.
  hashes.write(hash('sha256', outer, 'binary'), at, PAGE_HASH_BYTES, 'latin1')
}

function paddedKey(key: Uint8Array, pad: number, more: number): Buffer {
  const padded = Buffer.alloc(BLOCK_BYTES + more, pad)
  for (let at = 0; at < key.length; at++) padded[at] = key[at]! ^ pad
  return padded
}

function grown(inner: Buffer, bytes: number): Buffer {
  const larger = Buffer.alloc(bytes)
  inner.copy(larger, 0, 0, BLOCK_BYTES)
  return larger
}
