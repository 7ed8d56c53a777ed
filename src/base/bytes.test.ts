import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import fc from 'fast-check'
import { assertFailsCleanly } from '../../test/harness/damage.ts'
import { testSeed } from '../../test/harness/engine.ts'
import {
  expectEnd,
  finishBytes,
  getBytes,
  getCount,
  getI64,
  getSized,
  getU8,
  getVarint,
  newReader,
  newWriter,
  putBytes,
  putI64,
  putSized,
  putU8,
  putVarint,
} from './bytes.ts'
import { isFailure } from './failure.ts'

const seed = testSeed()
const isCorrupt = (error: unknown): boolean => isFailure(error, 'repo.corrupt')

/** Numbers around every power of two, since those are where an encoding changes its length. */
const number = fc.oneof(
  fc.nat({ max: Number.MAX_SAFE_INTEGER }),
  fc.tuple(fc.nat({ max: 53 }), fc.integer({ min: -1, max: 1 })).map(([power, step]) => {
    return Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, 2 ** power + step))
  }),
)

/** LEB128 by its definition, on big integers. */
function leb128(value: bigint): number[] {
  return value < 128n ? [Number(value)] : [Number(value & 127n) | 128, ...leb128(value >> 7n)]
}

function varintBytes(value: number): Buffer {
  const writer = newWriter(0)
  putVarint(writer, value)
  return finishBytes(writer)
}

test(`putVarint() writes LEB128, and getVarint() reads it back (SEED=${seed})`, () => {
  fc.assert(
    fc.property(number, (value) => {
      const bytes = varintBytes(value)
      assert.deepEqual([...bytes], leb128(BigInt(value)))
      assert.equal(getVarint(newReader(bytes, 'x')), value)
    }),
    { seed, numRuns: 500 },
  )
})

test('getVarint() refuses what is above 2^53 - 1, or longer than it must be', () => {
  for (const value of [2n ** 53n, 2n ** 60n, 2n ** 64n, 2n ** 100n])
    assert.throws(() => getVarint(newReader(Buffer.from(leb128(value)), 'x')), isCorrupt, String(value))
  for (const bytes of [[0x80, 0], [0xff, 0x80, 0], Array.from({ length: 40 }, () => 0x80)])
    assert.throws(() => getVarint(newReader(Buffer.from(bytes), 'x')), isCorrupt, bytes.join())
})

const field = fc.oneof(
  fc.nat({ max: 255 }).map((value) => ({ kind: 'u8' as const, value })),
  number.map((value) => ({ kind: 'varint' as const, value })),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((value) => ({ kind: 'i64' as const, value })),
  fc.uint8Array({ maxLength: 20 }).map((value) => ({ kind: 'sized' as const, value })),
  fc.uint8Array({ minLength: 4, maxLength: 4 }).map((value) => ({ kind: 'bytes' as const, value })),
)

test(`records of any fields come back, and fail cleanly when they are damaged (SEED=${seed})`, () => {
  fc.assert(
    fc.property(fc.array(field, { minLength: 1, maxLength: 8 }), (fields) => {
      const writer = newWriter(1)
      for (const each of fields) {
        if (each.kind === 'u8') putU8(writer, each.value)
        else if (each.kind === 'varint') putVarint(writer, each.value)
        else if (each.kind === 'i64') putI64(writer, each.value)
        else if (each.kind === 'sized') putSized(writer, each.value)
        else putBytes(writer, each.value)
      }
      const read = (bytes: Uint8Array): unknown[] => {
        const reader = newReader(bytes, 'x')
        const found = fields.map(({ kind }) => {
          if (kind === 'u8') return getU8(reader)
          if (kind === 'varint') return getVarint(reader)
          if (kind === 'i64') return getI64(reader)
          return Uint8Array.from(kind === 'sized' ? getSized(reader) : getBytes(reader, 4))
        })
        expectEnd(reader)
        return found
      }
      const bytes = finishBytes(writer)
      assert.deepEqual(
        read(bytes),
        fields.map((each) => each.value),
      )
      assertFailsCleanly(bytes, read)
    }),
    { seed, numRuns: 50 },
  )
})

test('getCount() refuses a count of more things than the rest can hold', () => {
  const bytes = Buffer.concat([varintBytes(3), Buffer.alloc(30)])
  assert.equal(getCount(newReader(bytes, 'x'), 10), 3)
  assert.throws(() => getCount(newReader(bytes, 'x'), 11), isCorrupt)
  const huge = Buffer.concat([varintBytes(Number.MAX_SAFE_INTEGER), Buffer.alloc(30)])
  assert.throws(() => getCount(newReader(huge, 'x'), 32), isCorrupt)
})
