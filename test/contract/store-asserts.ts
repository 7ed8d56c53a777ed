/** What tests of stores say again and again: patterned bytes, listings as arrays, failures by code. */
import assert from 'node:assert/strict'
import { type FailureCode, isFailure } from '../../src/base/failure.ts'
import type { BlobStat, BlobStore } from '../../src/storage/store.ts'

/** Bytes that differ at every place within any 251, so that a shifted or repeated piece shows. */
export function patternOf(count: number): Buffer {
  const bytes = Buffer.alloc(count)
  for (let at = 0; at < count; at++) bytes[at] = (at % 251) ^ ((at >> 16) & 0xff)
  return bytes
}

export async function statsOf(store: BlobStore, prefix: string): Promise<BlobStat[]> {
  const stats: BlobStat[] = []
  for await (const stat of store.list(prefix)) stats.push(stat)
  return stats
}

export async function namesOf(store: BlobStore, prefix: string): Promise<string[]> {
  return (await statsOf(store, prefix)).map(({ name }) => name)
}

/** The promise rejects with a Failure of this code, whose sentence says what was tried. */
export async function assertFails(code: FailureCode, promise: Promise<unknown>): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(isFailure(error), `not a Failure: ${String(error)}`)
    assert.equal(error.code, code, error.message)
    assert.match(error.message, /^(Cannot|Stopped) /)
    return true
  })
}

/** Equality that does not print megabytes when it fails. */
export function assertSameBytes(is: Uint8Array, must: Uint8Array): void {
  assert.equal(is.length, must.length, 'length')
  assert.ok(Buffer.from(is.buffer, is.byteOffset, is.length).equals(must), 'the bytes differ')
}
