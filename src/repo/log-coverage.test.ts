import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import fc from 'fast-check'
import { coverage, describeRange, missingPositions, type PositionRange } from './log-coverage.ts'

const POSITIONS = 40
const range = fc
  .tuple(fc.integer({ min: 0, max: POSITIONS }), fc.integer({ min: 0, max: POSITIONS }))
  .map(([a, b]): PositionRange => ({ from: BigInt(Math.min(a, b)), to: BigInt(Math.max(a, b)) }))

/** One flag a position. */
function flags(ranges: readonly PositionRange[]): boolean[] {
  return Array.from({ length: POSITIONS }, (_, at) =>
    ranges.some(({ from, to }) => from <= BigInt(at) && BigInt(at) < to),
  )
}

test('coverage() covers what its ranges cover, in stretches that do not touch', () => {
  fc.assert(
    fc.property(fc.array(range), (ranges) => {
      const stretches = coverage(ranges)
      assert.deepEqual(flags(stretches), flags(ranges))
      for (const [at, stretch] of stretches.entries()) {
        assert.ok(stretch.from < stretch.to)
        const next = stretches[at + 1]
        assert.ok(next === undefined || stretch.to < next.from)
      }
    }),
  )
})

test('missingPositions() is what is wanted and not covered', () => {
  fc.assert(
    fc.property(fc.array(range), range, (ranges, wanted) => {
      const missing = missingPositions(coverage(ranges), wanted)
      const [covered, asked] = [flags(ranges), flags([wanted])]
      assert.deepEqual(
        flags(missing),
        asked.map((is, at) => is && !covered[at]),
      )
      assert.deepEqual(coverage(missing), missing)
    }),
  )
})

test('describeRange() writes positions as hex', () => {
  assert.equal(describeRange({ from: 0x16b_3000n, to: 0x200_0000n }), '16b3000–2000000')
})
