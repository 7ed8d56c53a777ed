import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, before, test } from 'node:test'
import { DEFAULT_CHUNKING } from '../format/config.ts'
import { isFailure } from '../base/failure.ts'
import { streamSource } from '../sources/files/stream-source.ts'
import {
  backUp,
  dropRepository,
  makeRepository,
  readBack,
  sha256Hex,
  snapshotOf,
  snapshotsOf,
  type TestRepository,
} from '../../test/harness/engine.ts'

const MIB = 1024 ** 2
let small: TestRepository

before(async () => {
  small = await makeRepository()
})
after(() => dropRepository(small))

/** Bytes that look random, the same each time. */
function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length)
  let state = seed
  for (let at = 0; at + 4 <= length; at += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes.writeUInt32LE(state, at)
  }
  return bytes
}

async function* inPieces(bytes: Buffer, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes)
}

function source(content: AsyncIterable<Uint8Array>, options: { path?: string; allowEmpty?: boolean } = {}) {
  const { path = '/dump.sql', allowEmpty = false } = options
  return streamSource('dumps', { path, content, now: 1_800_000_000_000, allowEmpty })
}

async function contentOf(repository: TestRepository, id: string | undefined, path: string) {
  return (await readBack(repository, await snapshotOf(repository, id), path)).get('')
}

test('a stream comes back as it was, in whatever pieces it arrived', async () => {
  const bytes = noise(300_001, 1)
  for (const pieceBytes of [1000, 65_536, 300_001]) {
    const { snapshot, totals } = await backUp(small, source(inPieces(bytes, pieceBytes)))
    assert.equal(totals.bytes, bytes.length)
    assert.equal(totals.bytesRead, bytes.length)
    assert.equal((await contentOf(small, snapshot, '/dump.sql'))?.['sha256'], sha256Hex(bytes))
  }
})

test('the folders of a stream are made: nothing is read of this host', async () => {
  const path = '/no-such-folder/below/dump.sql'
  const { problems, totals } = await backUp(small, source(inPieces(noise(5000, 2), 1000), { path }))
  assert.deepEqual([problems, totals.directories], [[], 2])
})

test('a stream stores only what is new since the last', async () => {
  const bytes = noise(400_000, 2)
  await backUp(small, source(inPieces(bytes, 65_536)))
  bytes.fill(7, 200_000, 200_100)
  const again = source(inPieces(bytes, 65_536))
  const { kind, totals, snapshot } = await backUp(small, again, { kind: 'incremental' })
  assert.equal(kind, 'incremental')
  assert.ok(totals.bytesFresh < 60_000, `${totals.bytesFresh} fresh bytes`)
  assert.equal((await contentOf(small, snapshot, '/dump.sql'))?.['sha256'], sha256Hex(bytes))
})

test('a stream gets the folders of its name', async () => {
  const { snapshot } = await backUp(small, source(inPieces(Buffer.from('hello'), 2), { path: '/a/b/c.sql' }))
  const tree = await readBack(small, await snapshotOf(small, snapshot), '/a')
  assert.deepEqual([...tree.keys()], ['', '/b', '/b/c.sql'])
  assert.equal(tree.get('/b/c.sql')?.['sha256'], sha256Hex(Buffer.from('hello')))
})

test('a stream longer than a segment comes back, also when it ends with one', async () => {
  const repository = await makeRepository({ chunking: DEFAULT_CHUNKING })
  try {
    const piece = noise(MIB, 3)
    for (const count of [64, 65]) {
      const hash = createHash('sha256')
      const content = (async function* () {
        for (let nth = 0; nth < count; nth++) {
          piece.writeUInt32LE(nth, 0)
          hash.update(piece)
          yield piece
        }
      })()
      const { snapshot } = await backUp(repository, source(content))
      const entry = await contentOf(repository, snapshot, '/dump.sql')
      assert.equal(entry?.['size'], count * MIB)
      assert.equal(entry['sha256'], hash.digest('hex'))
    }
  } finally {
    dropRepository(repository)
  }
})

test('a stream that breaks off commits nothing', async () => {
  const had = (await snapshotsOf(small)).length
  const broken = (async function* () {
    yield noise(100_000, 4)
    throw Object.assign(new Error('read EIO'), { code: 'EIO' })
  })()
  await assert.rejects(
    backUp(small, source(broken)),
    (error) => isFailure(error, 'source.failed') && error.message.includes('read EIO'),
  )
  assert.equal((await snapshotsOf(small)).length, had)
})

test('a stream that gives nothing is refused unless that is allowed', async () => {
  const nothing = () => inPieces(Buffer.alloc(0), 1)
  await assert.rejects(backUp(small, source(nothing())), (error) => isFailure(error, 'source.emptied'))
  const { snapshot } = await backUp(small, source(nothing(), { allowEmpty: true }))
  assert.equal((await contentOf(small, snapshot, '/dump.sql'))?.['size'], 0)
})

test('a cancelled run ends in the middle of a stream', async () => {
  const cancelling = new AbortController()
  const endless = (async function* () {
    for (let nth = 0; ; nth++) {
      if (nth === 3) cancelling.abort()
      yield noise(100_000, nth)
    }
  })()
  await assert.rejects(backUp(small, source(endless), { signal: cancelling.signal }), (error) =>
    isFailure(error, 'cancelled'),
  )
})

test('streamSource() refuses a name that is no file', () => {
  assert.throws(
    () => source(inPieces(Buffer.alloc(0), 1), { path: '/..' }),
    (error) => isFailure(error, 'usage.invalid'),
  )
})
