import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import fc from 'fast-check'
import { testSeed } from '../../test/harness/engine.ts'
import { assertFailsCleanly } from '../../test/harness/damage.ts'
import { finishBytes, newReader, newWriter } from '../base/bytes.ts'
import { isFailure } from '../base/failure.ts'
import {
  decodeContent,
  decodeExtentNode,
  decodeExtents,
  decodeHashLeaf,
  decodeListNode,
  encodeExtentNode,
  encodeExtents,
  encodeHashLeaf,
  encodeInline,
  encodeListNode,
  encodeMapped,
  extentsBytes,
  type Extents,
} from './content.ts'

const seed = testSeed()
const id = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes))
const ids = fc.array(id, { maxLength: 5 })
const size = fc.oneof(fc.nat({ max: 300 }), fc.integer({ min: 0, max: 2 ** 40 }))

const extents: fc.Arbitrary<Extents> = fc
  .array(fc.record({ id, bytes: size }, { noNullPrototype: true }), { maxLength: 6 })
  .chain((chunks) => {
    const extent = fc.nat({ max: chunks.length }).chain((ref) => {
      const room = ref === 0 ? 2 ** 40 : chunks[ref - 1]!.bytes
      return fc
        .tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true }))
        .map(([a, b]) => {
          const offset = ref === 0 ? 0 : Math.floor(room * a)
          return { length: Math.floor((room - offset) * b), ref, offset }
        })
    })
    return fc.array(extent, { maxLength: 8 }).map((list) => ({ chunks, extents: list }))
  })

function encoded(map: Extents): Buffer {
  const writer = newWriter()
  encodeExtents(writer, map)
  return finishBytes(writer)
}

test(`extents, alone and as a node, come back (SEED=${seed})`, () => {
  fc.assert(
    fc.property(extents, (map) => {
      assert.deepEqual(decodeExtents(newReader(encoded(map), 'x')), map)
      assert.deepEqual(decodeExtentNode(encodeExtentNode(encoded(map)), 'x'), map)
      assert.equal(
        extentsBytes(map),
        map.extents.reduce((sum, each) => sum + each.length, 0),
      )
    }),
    { seed },
  )
})

test(`contents of every class come back (SEED=${seed})`, () => {
  fc.assert(
    fc.property(
      extents,
      ids,
      ids,
      fc.uint8Array({ maxLength: 600 }),
      fc.constantFrom<1 | 2>(1, 2),
      (map, nodes, hashes, bytes, depth) => {
        assert.deepEqual(decodeContent(Buffer.alloc(0), 'x'), { kind: 'empty' })
        assert.deepEqual(decodeContent(encodeInline(bytes), 'x'), {
          kind: 'inline',
          bytes: Buffer.from(bytes),
        })
        const whole = { depth: 0, extents: map }
        assert.deepEqual(decodeContent(encodeMapped({ extents: encoded(map) }, 0, []), 'x'), {
          kind: 'cdc',
          map: whole,
        })
        const given = { depth, nodes }
        assert.deepEqual(decodeContent(encodeMapped(given, 8192, hashes), 'x'), {
          kind: 'pages',
          pageBytes: 8192,
          map: given,
          hashes,
        })
      },
    ),
    { seed },
  )
})

test(`list nodes and hash leaves come back (SEED=${seed})`, () => {
  fc.assert(
    fc.property(ids, fc.array(fc.uint8Array({ minLength: 16, maxLength: 16 })), (nodes, hashes) => {
      assert.deepEqual(decodeListNode(encodeListNode(nodes), 'x'), nodes)
      const leaf = decodeHashLeaf(encodeHashLeaf(4096, Buffer.concat(hashes)), 'x')
      assert.deepEqual(leaf, { pageBytes: 4096, hashes: Buffer.concat(hashes) })
    }),
    { seed },
  )
})

test('an extent outside of its chunk, or of a chunk that is not listed, is refused', () => {
  const chunks = [{ id: Buffer.alloc(32), bytes: 100 }]
  for (const extent of [
    { length: 101, ref: 1, offset: 0 },
    { length: 1, ref: 1, offset: 100 },
    { length: 1, ref: 2, offset: 0 },
  ])
    assert.throws(
      () => decodeExtents(newReader(encoded({ chunks, extents: [extent] }), 'x')),
      (error) => isFailure(error, 'repo.corrupt'),
    )
})

test('damaged contents and nodes fail cleanly', () => {
  const map: Extents = {
    chunks: [
      { id: Buffer.alloc(32, 1), bytes: 5000 },
      { id: Buffer.alloc(32, 2), bytes: 300 },
    ],
    extents: [
      { length: 4096, ref: 1, offset: 0 },
      { length: 200, ref: 2, offset: 100 },
      { length: 9000, ref: 0, offset: 0 },
    ],
  }
  const nodes = [Buffer.alloc(32, 3), Buffer.alloc(32, 4)]
  assertFailsCleanly(encodeInline(Buffer.from('some text')), (bytes) => decodeContent(bytes, 'x'))
  assertFailsCleanly(encodeMapped({ extents: encoded(map) }, 4096, nodes), (bytes) =>
    decodeContent(bytes, 'x'),
  )
  assertFailsCleanly(encodeMapped({ depth: 2, nodes }, 4096, nodes), (bytes) => decodeContent(bytes, 'x'))
  assertFailsCleanly(encodeExtentNode(encoded(map)), (bytes) => decodeExtentNode(bytes, 'x'))
  assertFailsCleanly(encodeListNode(nodes), (bytes) => decodeListNode(bytes, 'x'))
  assertFailsCleanly(encodeHashLeaf(4096, Buffer.alloc(64, 7)), (bytes) => decodeHashLeaf(bytes, 'x'))
})

test(`any damaged content or node fails cleanly (SEED=${seed})`, () => {
  fc.assert(
    fc.property(extents, ids, fc.uint8Array({ minLength: 1, maxLength: 80 }), (map, nodes, bytes) => {
      assertFailsCleanly(encodeInline(bytes), (each) => decodeContent(each, 'x'))
      assertFailsCleanly(encodeMapped({ extents: encoded(map) }, 0, []), (each) => decodeContent(each, 'x'))
      assertFailsCleanly(encodeMapped({ depth: 1, nodes }, 8192, nodes), (each) => decodeContent(each, 'x'))
      assertFailsCleanly(encodeExtentNode(encoded(map)), (each) => decodeExtentNode(each, 'x'))
      assertFailsCleanly(encodeListNode(nodes), (each) => decodeListNode(each, 'x'))
    }),
    { seed, numRuns: 10 },
  )
})
