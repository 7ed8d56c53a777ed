import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import fc from 'fast-check'
import { assertFailsCleanly } from '../../test/harness/damage.ts'
import { testSeed } from '../../test/harness/engine.ts'
import { isFailure } from '../base/failure.ts'
import { decodeRefs, encodeRefs, xorRefs, type RefsMap } from './refs.ts'

const seed = testSeed()
const packId = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((id) => Buffer.from(id).toString('hex'))
/** Pack -> chunk numbers. */
const marks = fc.uniqueArray(fc.tuple(packId, fc.uniqueArray(fc.nat({ max: 600 }), { minLength: 1 })), {
  selector: ([id]) => id,
  maxLength: 6,
})

function mapOf(given: readonly (readonly [string, readonly number[]])[]): RefsMap {
  const refs: RefsMap = new Map()
  for (const [pack, numbers] of given) for (const number of numbers) markChunk(refs, pack, number)
  return refs
}

function numbersOf(refs: RefsMap): Map<string, number[]> {
  const bit = (bits: Uint8Array, number: number): boolean =>
    ((bits[number >> 3] ?? 0) & (1 << (number & 7))) !== 0
  const sorted = [...refs].sort(([a], [b]) => (a < b ? -1 : 1))
  return new Map(
    sorted.map(([pack, bits]) => [
      pack,
      Array.from({ length: bits.length * 8 }, (_, number) => number).filter((number) => bit(bits, number)),
    ]),
  )
}

test(`refs come back, with and without a base (SEED=${seed})`, () => {
  fc.assert(
    fc.property(marks, fc.option(fc.uint8Array({ minLength: 32, maxLength: 32 })), (given, base) => {
      const packs = mapOf(given)
      const record = decodeRefs(encodeRefs({ base: base ?? undefined, packs }), 'x')
      assert.deepEqual(record.base, base === null ? undefined : Buffer.from(base))
      assert.deepEqual(numbersOf(record.packs), numbersOf(packs))
      assert.deepEqual(
        numbersOf(packs),
        new Map(
          [...given]
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .map(([pack, numbers]) => [pack, [...numbers].sort((a, b) => a - b)]),
        ),
      )
    }),
    { seed },
  )
})

test(`xorRefs(): the delta against a record gives the other one back (SEED=${seed})`, () => {
  fc.assert(
    fc.property(marks, marks, (first, second) => {
      const [from, to] = [mapOf(first), mapOf([...first.slice(1), ...second])]
      assert.deepEqual(numbersOf(xorRefs(from, xorRefs(from, to))), numbersOf(to))
      assert.equal(xorRefs(from, from).size, 0)
    }),
    { seed },
  )
})

test('packs out of order or twice are refused', () => {
  const whole = encodeRefs({
    base: undefined,
    packs: mapOf([
      ['aa'.repeat(32), [1]],
      ['bb'.repeat(32), [2]],
    ]),
  })
  const swapped = Buffer.concat([whole.subarray(0, 4), whole.subarray(38), whole.subarray(4, 38)])
  assert.throws(
    () => decodeRefs(swapped, 'x'),
    (error) => isFailure(error, 'repo.corrupt'),
  )
  const twice = Buffer.concat([whole.subarray(0, 38), whole.subarray(4, 38)])
  assert.throws(
    () => decodeRefs(twice, 'x'),
    (error) => isFailure(error, 'repo.corrupt'),
  )
})

test(`damaged refs fail cleanly (SEED=${seed})`, () => {
  const any = fc.property(marks, (given) => {
    const whole = encodeRefs({ base: undefined, packs: mapOf(given.slice(0, 2)) })
    assertFailsCleanly(whole, (bytes) => decodeRefs(bytes, 'x'))
  })
  fc.assert(any, { seed, numRuns: 10 })
  const packs = mapOf([
    ['aa'.repeat(32), [1, 70]],
    ['bb'.repeat(32), [2]],
  ])
  assertFailsCleanly(encodeRefs({ base: Buffer.alloc(32, 5), packs }), (bytes) => decodeRefs(bytes, 'x'))
  assertFailsCleanly(encodeRefs({ base: undefined, packs: new Map() }), (bytes) => decodeRefs(bytes, 'x'))
})

/** Sets the bit of chunk `number`, growing the bitmap as needed. */
function markChunk(refs: RefsMap, pack: string, number: number): void {
  const at = number >> 3
  let bits = refs.get(pack)
  if (bits === undefined || bits.length <= at) {
    const grown = new Uint8Array(at + 1)
    if (bits !== undefined) grown.set(bits)
    refs.set(pack, grown)
    bits = grown
  }
  bits[at] = (bits[at] ?? 0) | (1 << (number & 7))
}
