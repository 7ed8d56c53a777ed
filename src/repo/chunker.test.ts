import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import fc from 'fast-check'
import { noise, testSeed } from '../../test/harness/engine.ts'
import { cutPoint, gearTable, type ChunkSizes } from './chunker.ts'

const seed = testSeed()
const table = gearTable(Buffer.alloc(32, 9))
const sizes: ChunkSizes = { minBytes: 64, maskBits: 6, maxBytes: 512 }

/** Chunk lengths of all of `bytes`, which are in memory as a whole. */
function cutAll(bytes: Buffer, with_ = sizes): number[] {
  const lengths: number[] = []
  for (let at = 0; at < bytes.length;) {
    const cut = cutPoint(bytes, at, bytes.length, with_, table)
    lengths.push(cut - at)
    at = cut
  }
  return lengths
}

/** The same through a window that is filled `step` bytes at a time, as a lane reads a file. */
function cutByWindow(bytes: Buffer, step: number): number[] {
  const lengths: number[] = []
  let [start, filled] = [0, 0]
  while (start < bytes.length) {
    filled = Math.min(bytes.length, filled + step)
    while (start < filled) {
      const cut = cutPoint(bytes, start, filled, sizes, table)
      if (cut === filled && filled < bytes.length && cut - start < sizes.maxBytes) break
      lengths.push(cut - start)
      start = cut
    }
  }
  return lengths
}

const content = fc.oneof(
  fc.nat().map((from) => noise(from, 5000 + (from % 3000))),
  fc.uint8Array({ maxLength: 3000 }).map((bytes) => Buffer.from(bytes)),
  fc
    .record({ byte: fc.nat({ max: 255 }), bytes: fc.nat({ max: 4000 }) })
    .map(({ byte, bytes }) => Buffer.alloc(bytes, byte)),
)

test(`cutPoint(): chunks join to the input, and keep to their sizes (SEED=${seed})`, () => {
  fc.assert(
    fc.property(content, (bytes) => {
      const lengths = cutAll(bytes)
      assert.equal(
        lengths.reduce((sum, length) => sum + length, 0),
        bytes.length,
      )
      lengths.forEach((length, i) => {
        assert.ok(length <= sizes.maxBytes)
        if (i < lengths.length - 1) assert.ok(length > sizes.minBytes, `${length}`)
      })
    }),
    { seed },
  )
})

test(`cutPoint(): the cuts do not depend on how the window was filled (SEED=${seed})`, () => {
  fc.assert(
    fc.property(content, fc.integer({ min: 1, max: 2000 }), (bytes, step) => {
      assert.deepEqual(cutByWindow(bytes, step), cutAll(bytes))
    }),
    { seed },
  )
})

test(`cutPoint(): a byte inserted or removed changes few chunks (SEED=${seed})`, () => {
  const changes = fc.record({
    from: fc.nat(),
    at: fc.nat({ max: 19_999 }),
    byte: fc.nat({ max: 255 }),
    insert: fc.boolean(),
  })
  let [sum, most, runs] = [0, 0, 0]
  fc.assert(
    fc.property(changes, ({ from, at, byte, insert }) => {
      const bytes = noise(from, 20_000)
      const middle = insert ? Buffer.from([byte]) : Buffer.alloc(0)
      const changed = Buffer.concat([bytes.subarray(0, at), middle, bytes.subarray(insert ? at : at + 1)])
      const known = new Set(chunksOf(bytes))
      const fresh = chunksOf(changed).filter((chunk) => !known.has(chunk)).length
      sum += fresh
      most = Math.max(most, fresh)
      runs++
    }),
    { seed },
  )
  assert.ok(sum / runs < 3, `${sum / runs} chunks on average`)
  assert.ok(most < 30, `${most} chunks of ${20_000 / 128}`)
})

function chunksOf(bytes: Buffer): string[] {
  let at = 0
  return cutAll(bytes).map((length) => bytes.toString('latin1', at, (at += length)))
}

/** docs/format.md, section 3, word by word. */
function cutByThePage(bytes: Buffer): number[] {
  const lengths: number[] = []
  for (let start = 0; start < bytes.length; start += lengths.at(-1) ?? 0) {
    let h = 0
    let length = sizes.minBytes - 32
    while (length < Math.min(sizes.maxBytes, bytes.length - start)) {
      h = (2 * h + (table[bytes[start + length]!]! >>> 0)) % 2 ** 32
      length++
      if (length > sizes.minBytes && h < 2 ** (32 - sizes.maskBits)) break
    }
    lengths.push(Math.min(length, bytes.length - start))
  }
  return lengths
}

test(`cutPoint() cuts where docs/format.md says (SEED=${seed})`, () => {
  fc.assert(
    fc.property(content, (bytes) => {
      assert.deepEqual(cutAll(bytes), cutByThePage(bytes))
    }),
    { seed },
  )
})

test('cutPoint() cuts at the greatest size where the content gives no cut', () => {
  const still = Buffer.alloc(10_000)
  const isCutAtOnce = cutPoint(still, 0, still.length, sizes, table) === sizes.minBytes + 1
  assert.equal(
    cutPoint(still, 0, still.length, sizes, table),
    isCutAtOnce ? sizes.minBytes + 1 : sizes.maxBytes,
  )
  assert.equal(cutPoint(still, 0, sizes.minBytes, sizes, table), sizes.minBytes)
  assert.equal(cutPoint(still, 5, 5, sizes, table), 5)
})

test('chunks are about as large as the sizes promise', () => {
  const lengths = cutAll(noise(11, 400_000))
  const mean = 400_000 / lengths.length
  assert.ok(mean > 64 + 64 * 0.8 && mean < 64 + 64 * 1.2, `${mean}`)
})

test('gearTable() depends on the key alone', () => {
  assert.deepEqual(gearTable(Buffer.alloc(32, 9)), table)
  assert.notDeepEqual(gearTable(Buffer.alloc(32, 8)), table)
  assert.equal(table.length, 256)
  assert.ok(new Set(table).size > 250)
})
