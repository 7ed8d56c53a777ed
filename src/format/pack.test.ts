import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomBytes } from '../base/random.ts'
import { isFailure } from '../base/failure.ts'
import { testSeed } from '../../test/harness/engine.ts'
import {
  addFrame,
  CODECS,
  decodeFooter,
  finishPack,
  FOOTER_BYTES,
  frameFits,
  newFrameOpener,
  newPack,
  openFrame,
  openHeader,
  openPackKey,
  FRAME_PLAIN_BYTES_MAX,
  PACK_CHUNKS_MAX,
  type FrameOpener,
  type OpenPack,
  type PackIdentity,
} from './pack.ts'
import { newKeyPair } from './seal.ts'

const seed = testSeed()
const indexKey = Buffer.alloc(32, 7)
const epoch = newKeyPair()
const identity: PackIdentity = {
  repository: Buffer.alloc(16, 1),
  domain: Buffer.alloc(8, 2),
  packSet: Buffer.alloc(16, 3),
  kind: 'data',
  epoch: 4,
}

function emptyPack(bytes: number): OpenPack {
  return newPack(identity, Buffer.alloc(bytes), randomBytes(16), randomBytes(32))
}

function addRaw(pack: OpenPack, chunks: readonly Uint8Array[]): void {
  const body = Buffer.concat(chunks)
  const list = chunks.map((chunk, i) => ({ id: Buffer.alloc(32, i + 1), bytes: chunk.length }))
  addFrame(pack, { kind: 'data', codec: CODECS.raw, body, plainBytes: body.length, chunks: list })
}

const reading = { indexKey, frameBytesMax: FRAME_PLAIN_BYTES_MAX }

function open(object: Uint8Array, by = reading): { opener: FrameOpener; frames: Buffer[] } {
  const footer = decodeFooter(object, 'a pack')
  const header = openHeader(
    footer,
    object.subarray(footer.dataBytes, footer.dataBytes + footer.headerBytes),
    by,
    'a pack',
  )
  const opener = newFrameOpener(footer, header, openPackKey(footer, epoch.privateKey, 'a pack'))
  const frames = Array.from(header.frameOffset, (offset, frame) =>
    openFrame(opener, frame, object.subarray(offset, offset + header.frameStored[frame]!), 'a pack'),
  )
  return { opener, frames }
}

test(`pack: what goes in comes out, frame by frame (SEED=${seed})`, () => {
  const frames = fc.array(fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 8 }), {
    maxLength: 12,
  })
  fc.assert(
    fc.property(frames, (given) => {
      const pack = emptyPack(65_536)
      for (const chunks of given) addRaw(pack, chunks)
      const { opener, frames: opened } = open(finishPack(pack, indexKey, epoch.publicKey))
      assert.deepEqual(
        opened,
        given.map((chunks) => Buffer.concat(chunks)),
      )
      const { header } = opener
      assert.deepEqual(
        [...header.chunkBytes],
        given.flatMap((chunks) => chunks.map((chunk) => chunk.length)),
      )
      assert.deepEqual(
        [...header.chunkFrame],
        given.flatMap((chunks, frame) => chunks.map(() => frame)),
      )
      let at = 0
      given.forEach((chunks) => {
        let offset = 0
        chunks.forEach((chunk, i) => {
          assert.equal(header.chunkIds[at * 32], i + 1)
          assert.equal(header.chunkOffset[at], offset)
          offset += chunk.length
          at++
        })
      })
    }),
    { seed },
  )
})

test('pack: every truncation and every flipped bit is found', () => {
  const pack = emptyPack(4096)
  addRaw(pack, [Buffer.from('alpha'), Buffer.from('beta')])
  addRaw(pack, [Buffer.from('gamma')])
  const whole = Buffer.from(finishPack(pack, indexKey, epoch.publicKey))
  for (let bytes = 0; bytes < whole.length; bytes++)
    assert.throws(() => open(whole.subarray(0, bytes)), isFailure)
  for (let bit = 0; bit < whole.length * 8; bit++) {
    const flipped = Buffer.from(whole)
    flipped[bit >> 3]! ^= 1 << (bit & 7)
    assert.throws(() => open(flipped), isFailure, `bit ${bit} of ${whole.length} bytes`)
  }
})

test('frameFits() keeps room for a frame of small chunks and a large one behind it', () => {
  for (let spare = 0; spare <= 64; spare++) {
    const small = [Buffer.alloc(100, 1)]
    const large = 3000
    const pack = emptyPack(large + 100 + FOOTER_BYTES + 2 * 36 + spare + 40)
    if (!frameFits(pack, 100 + large, 2)) continue
    addRaw(pack, small)
    addRaw(pack, [Buffer.alloc(large, 2)])
    assert.equal(
      open(finishPack(pack, indexKey, epoch.publicKey)).frames.length,
      2,
      `with ${spare} bytes to spare`,
    )
  }
})

test('frameFits() stops at the chunk numbers that an index run can hold', () => {
  const pack = emptyPack(16 * 1024 * 1024)
  const chunk = { id: Buffer.alloc(32), bytes: 0 }
  const list = Array.from({ length: PACK_CHUNKS_MAX - 1 }, () => chunk)
  addFrame(pack, { kind: 'data', codec: CODECS.raw, body: Buffer.alloc(0), plainBytes: 0, chunks: list })
  assert.ok(frameFits(pack, 1, 1))
  assert.ok(!frameFits(pack, 1, 2))
})

test('finishPack() does not write a pack that its buffer cannot hold', () => {
  const pack = emptyPack(400)
  addRaw(pack, [Buffer.alloc(150)])
  assert.throws(() => finishPack(pack, indexKey, epoch.publicKey), /a pack overflows its buffer/)
})

test('a pack of another format or suite is refused as newer', () => {
  const pack = emptyPack(4096)
  addRaw(pack, [Buffer.from('alpha')])
  const whole = finishPack(pack, indexKey, epoch.publicKey)
  assert.throws(
    () => decodeFooter(whole.subarray(0, 255), 'a pack'),
    (error) => isFailure(error, 'repo.corrupt'),
  )
  assert.throws(
    () => open(Buffer.alloc(256)),
    (error) => isFailure(error, 'repo.corrupt'),
  )
})

const isCorrupt = (error: unknown): boolean => isFailure(error, 'repo.corrupt')

/** A pack of one frame that says it opens to `plainBytes`. */
function claiming(plainBytes: number, body: Buffer, with_: Partial<PackIdentity> = {}): Buffer {
  const pack = newPack({ ...identity, ...with_ }, Buffer.alloc(65_536), randomBytes(16), randomBytes(32))
  const chunks = [{ id: Buffer.alloc(32, 1), bytes: plainBytes }]
  const kind = pack.identity.kind === 'tree' ? 'tree' : 'data'
  addFrame(pack, { kind, codec: CODECS.zstd, body, plainBytes, chunks })
  return finishPack(pack, indexKey, epoch.publicKey)
}

test('a header whose frames open to more than a chunk may be, or are stored in far more, is refused', () => {
  assert.equal(open(claiming(FRAME_PLAIN_BYTES_MAX, Buffer.alloc(22))).frames.length, 1)
  assert.throws(() => open(claiming(FRAME_PLAIN_BYTES_MAX + 1, Buffer.alloc(22))), isCorrupt)
  assert.throws(() => open(claiming(700 * 1024 * 1024, Buffer.alloc(22_000))), isCorrupt)
  assert.equal(open(claiming(5000, Buffer.alloc(6000))).frames.length, 1)
  assert.throws(() => open(claiming(5000, Buffer.alloc(6009))), isCorrupt)
})

test("frames of file content are bound by the config's sizes, of trees by the hard bound alone", () => {
  const small = { indexKey, frameBytesMax: 9000 }
  assert.equal(open(claiming(9000, Buffer.alloc(22)), small).frames.length, 1)
  assert.throws(() => open(claiming(9001, Buffer.alloc(22)), small), isCorrupt)
  assert.equal(open(claiming(9001, Buffer.alloc(22), { kind: 'tree' }), small).frames.length, 1)
  const large = { indexKey, frameBytesMax: 2 * FRAME_PLAIN_BYTES_MAX }
  assert.throws(() => open(claiming(FRAME_PLAIN_BYTES_MAX + 1, Buffer.alloc(22)), large), isCorrupt)
})

test('a frame of a class that does not belong into its pack is refused', () => {
  assert.throws(() => open(claiming(10, Buffer.alloc(5), { kind: 'refs' })), /of class 1 in a refs pack/)
})

test('a header of more chunks than an index run can number is refused', () => {
  const pack = emptyPack(4 * 1024 * 1024)
  const chunk = { id: Buffer.alloc(32), bytes: 0 }
  const add = (count: number): void => {
    const chunks = Array.from({ length: count }, () => chunk)
    addFrame(pack, { kind: 'data', codec: CODECS.raw, body: Buffer.alloc(0), plainBytes: 0, chunks })
  }
  add(PACK_CHUNKS_MAX - 1)
  add(1)
  add(1)
  assert.throws(() => open(finishPack(pack, indexKey, epoch.publicKey)), /claims 65536 chunks/)
})
