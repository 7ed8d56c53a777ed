import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { markPairs, refsOfMarks, type Marks } from './marks.ts'

const A = 'aa'.repeat(32)

test('refsOfMarks() joins the bits of a pack that has two numbers', () => {
  const marks: Marks = []
  markPairs(marks, [0, 1, 2, 9, 2, 900])
  const refs = refsOfMarks(marks, () => A)
  const bits = refs.get(A)!
  assert.equal(refs.size, 1)
  assert.deepEqual([...bits.subarray(0, 2)], [2, 2])
  assert.equal(bits.length, 113)
  assert.equal(bits[112], 16)
})

test('a chunk of an unknown pack is a bug that is said, never a mark that is lost', () => {
  assert.throws(() => markPairs([], [-1, 0]), /a marked chunk has a pack/)
  assert.throws(() => markPairs([], [NaN, 0]), /a marked chunk has a pack/)
  const marks: Marks = []
  markPairs(marks, [1, 5])
  for (const id of ['', 'aa', A.toUpperCase()])
    assert.throws(() => refsOfMarks(marks, () => id), /a marked pack has an id/, id)
})
