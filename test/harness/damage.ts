/** Damage done to small records on purpose: what a decoder may and may not do with it. */
import { strict as assert } from 'node:assert'
import { isFailure } from '../../src/base/failure.ts'

/**
 * Every truncation of `whole` fails with repo.corrupt; every flipped bit and every byte set to 255 either
 * does, or decodes (no tag guards a record by itself: its chunk id does). Nothing else may happen.
 */
export function assertFailsCleanly(whole: Uint8Array, decode: (bytes: Uint8Array) => unknown): void {
  decode(Buffer.from(whole))
  for (let bytes = whole.length === 0 ? 0 : 1; bytes < whole.length; bytes++)
    assert.throws(
      () => decode(Buffer.from(whole.subarray(0, bytes))),
      (error) => isFailure(error, 'repo.corrupt'),
      `cut to ${bytes}`,
    )
  assert.throws(() => decode(Buffer.concat([whole, Buffer.from([0])])), isFailure, 'a byte too many')
  for (let at = 0; at < whole.length; at++) {
    for (const change of [1, 2, 4, 8, 16, 32, 64, 128, 255]) {
      const damaged = Buffer.from(whole)
      damaged[at] = change === 255 ? 255 : damaged[at]! ^ change
      try {
        decode(damaged)
      } catch (error) {
        assert.ok(isFailure(error), `byte ${at}: ${error instanceof Error ? error.stack : ''}`)
      }
    }
  }
}
