import assert from 'node:assert/strict'
import { it } from 'node:test'
import { memoryStore } from '../../src/storage/memory.ts'
import type { BlobStore } from '../../src/storage/store.ts'
import { assertFails, assertSameBytes, namesOf, patternOf } from '../contract/store-asserts.ts'
import { testStore } from '../contract/store-contract.ts'
import { type HostileRule, type HostileStore, hostileStore } from './hostile-store.ts'

testStore('hostile store without a rule', () =>
  Promise.resolve({ store: hostileStore(memoryStore(), { rules: [] }) }),
)

/** A hostile store over blobs a, b, c of 100, 50 and 50 bytes. */
async function hostileOver(...rules: HostileRule[]): Promise<{ inner: BlobStore; store: HostileStore }> {
  const inner = memoryStore()
  await inner.put('a', patternOf(100))
  await inner.put('b', Buffer.alloc(50, 1))
  await inner.put('c', Buffer.alloc(50, 2))
  return { inner, store: hostileStore(inner, { rules, seed: 7 }) }
}

it('`hostileStore()` fails the chosen calls of the chosen names, so many times', async () => {
  const trick = { kind: 'fail', code: 'storage.full' } as const
  const { inner, store } = await hostileOver({ on: ['put', 'delete'], name: /^x/, after: 1, times: 2, trick })
  assert.equal(await store.put('x1', patternOf(1)), 'created')
  await assertFails('storage.full', store.put('x2', patternOf(1)))
  assert.equal(await store.put('y', patternOf(1)), 'created')
  await assertFails('storage.full', store.delete('x1'))
  assert.equal(await store.delete('x1'), 'deleted')
  assert.equal(await inner.stat('x2'), undefined)
  assert.deepEqual(store.tricks, ['put x2: fail', 'delete x1: fail'])
})

it('`hostileStore()` lies: about puts, gets, stats, deletes and in lists', async () => {
  const rule = { trick: { kind: 'lie' } } as const
  const { inner, store } = await hostileOver(
    { on: ['put', 'get', 'stat', 'delete'], ...rule },
    { on: 'list', name: /^b$/, ...rule },
  )
  assert.equal(await store.put('new', patternOf(1)), 'created')
  assert.equal(await inner.stat('new'), undefined)
  await assertFails('storage.missing', store.get('a'))
  assert.equal(await store.stat('a'), undefined)
  assert.equal(await store.delete('a'), 'deleted')
  assert.deepEqual(await namesOf(inner, ''), ['a', 'b', 'c'])
  assert.deepEqual(await namesOf(store, ''), ['a', 'c'])
})

it('`hostileStore()` cuts reads and lists', async () => {
  const { store } = await hostileOver({ on: ['get', 'list'], trick: { kind: 'cut', to: 2 } })
  assertSameBytes(await store.get('a', { offset: 10, length: 20 }), patternOf(12).subarray(10))
  assert.deepEqual(await namesOf(store, ''), ['a', 'b'])
})

it('`hostileStore()` flips exactly one bit, the same one for the same seed', async () => {
  const reads = []
  for (let run = 0; run < 2; run++) {
    const { inner, store } = await hostileOver({ on: 'get', trick: { kind: 'flip' } })
    const bytes = await store.get('a')
    const bits = patternOf(100).reduce((sum, byte, at) => sum + bitsOf(byte ^ (bytes[at] ?? 0)), 0)
    assert.equal(bits, 1)
    assertSameBytes(await inner.get('a'), patternOf(100))
    reads.push(Buffer.from(bytes).toString('hex'))
  }
  assert.equal(reads[0], reads[1])
})

function bitsOf(byte: number): number {
  return byte.toString(2).replaceAll('0', '').length
}

it('`hostileStore()` returns the bytes of another blob', async () => {
  const { store } = await hostileOver({ on: 'get', name: /^b$/, trick: { kind: 'swap', name: 'c' } })
  assertSameBytes(await store.get('b'), Buffer.alloc(50, 2))
})

it('`hostileStore()` loses the answer of what it did', async () => {
  const { inner, store } = await hostileOver({
    on: ['put', 'delete', 'list', 'sweep'],
    trick: { kind: 'lose-answer' },
  })
  await assertFails('storage.offline', store.put('new', patternOf(3)))
  assertSameBytes(await inner.get('new'), patternOf(3))
  await assertFails('storage.offline', store.delete('a'))
  assert.equal(await inner.stat('a'), undefined)
  await assertFails('storage.offline', namesOf(store, ''))
  await assertFails('storage.offline', store.sweep(0))
})

it('`hostileStore()` tears a put', async () => {
  const { inner, store } = await hostileOver({ on: 'put', trick: { kind: 'tear' } })
  await assertFails('storage.offline', store.put('new', patternOf(11)))
  assertSameBytes(await inner.get('new'), patternOf(5))
})

it('`hostileStore()` hangs until it is released', async () => {
  const { inner, store } = await hostileOver({ on: 'put', trick: { kind: 'hang' } })
  const put = store.put('new', patternOf(3))
  await store.untilHanging()
  assert.equal(await inner.stat('new'), undefined)
  store.release()
  assert.equal(await put, 'created')
  assert.equal(await store.put('new2', patternOf(3)), 'created')
})

it('`hostileStore()` hangs until the call is aborted', async () => {
  const { inner, store } = await hostileOver({ on: ['put', 'get'], trick: { kind: 'hang' } })
  const abort = new AbortController()
  const put = store.put('new', patternOf(3), { signal: abort.signal })
  const get = store.get('a', { signal: abort.signal })
  const failed = Promise.all([assertFails('cancelled', put), assertFails('cancelled', get)])
  await store.untilHanging()
  abort.abort()
  await failed
  assert.equal(await inner.stat('new'), undefined)
})

it('`hostileStore()` is slow', async (context) => {
  context.mock.timers.enable({ apis: ['setTimeout'] })
  const { store } = await hostileOver({ on: 'get', trick: { kind: 'slow', milliseconds: 60_000 } })
  let done = false
  const get = store.get('a').then(() => {
    done = true
  })
  context.mock.timers.tick(59_999)
  await new Promise(setImmediate)
  assert.equal(done, false)
  context.mock.timers.tick(1)
  await get
})

it('`hostileStore()` plays a rule of chance as its seed says', async () => {
  const runs: string[][] = []
  for (let run = 0; run < 2; run++) {
    const { store } = await hostileOver({ on: 'stat', chance: 0.5, trick: { kind: 'lie' } })
    const seen: string[] = []
    for (let at = 0; at < 100; at++) seen.push((await store.stat('a')) === undefined ? 'lie' : 'truth')
    runs.push(seen)
  }
  assert.deepEqual(runs[0], runs[1])
  const lies = runs[0]?.filter((word) => word === 'lie').length ?? 0
  assert.ok(lies > 25 && lies < 75, `${lies} lies of 100`)
})
