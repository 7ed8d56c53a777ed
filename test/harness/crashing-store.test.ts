import assert from 'node:assert/strict'
import { it } from 'node:test'
import { type MemoryDisk, memoryStore } from '../../src/storage/memory.ts'
import type { BlobStore } from '../../src/storage/store.ts'
import { namesOf, patternOf } from '../contract/store-asserts.ts'
import { testStore } from '../contract/store-contract.ts'
import { crashingStore, endsBeforeCrash, StoreCrash } from './crashing-store.ts'

testStore('crashing store that never comes to its crash', () =>
  Promise.resolve({ store: crashingStore(memoryStore(), { at: Number.POSITIVE_INFINITY }) }),
)

/** Three writes. */
async function flow(store: BlobStore): Promise<void> {
  await store.put('a', patternOf(10))
  await store.put('b', patternOf(11))
  await store.delete('a')
}

async function namesAfterCrash(
  at: number,
  torn: boolean,
): Promise<{ done: boolean; names: string[]; disk: MemoryDisk }> {
  const disk: MemoryDisk = new Map()
  const done = await endsBeforeCrash(() => flow(crashingStore(memoryStore({ disk }), { at, torn })))
  return { done, names: await namesOf(memoryStore({ disk }), ''), disk }
}

it('`crashingStore()` loses the write at which it dies, and all later ones', async () => {
  assert.deepEqual((await namesAfterCrash(0, false)).names, [])
  assert.deepEqual((await namesAfterCrash(1, false)).names, ['a'])
  assert.deepEqual((await namesAfterCrash(2, false)).names, ['a', 'b'])
  const { done, names } = await namesAfterCrash(3, false)
  assert.deepEqual(names, ['b'])
  assert.equal(done, true)
})

it('`crashingStore()` leaves half of a torn put', async () => {
  const { done, names, disk } = await namesAfterCrash(1, true)
  assert.equal(done, false)
  assert.deepEqual(names, ['a', 'b'])
  assert.equal((await memoryStore({ disk }).get('b')).length, 5)
})

it('`crashingStore()` answers no call after the crash, and counts none', async () => {
  const inner = memoryStore()
  await inner.put('x', patternOf(1))
  const store = crashingStore(inner, { at: 0 })
  const listing = store.list('')[Symbol.asyncIterator]()
  await listing.next()
  await assert.rejects(store.put('a', patternOf(1)), StoreCrash)
  assert.equal(store.crashed, true)
  await assert.rejects(store.put('b', patternOf(1)), StoreCrash)
  await assert.rejects(store.get('x'), StoreCrash)
  await assert.rejects(store.stat('x'), StoreCrash)
  await assert.rejects(store.delete('x'), StoreCrash)
  await assert.rejects(store.sweep(0), StoreCrash)
  await assert.rejects(async () => listing.next(), StoreCrash)
  await assert.rejects(namesOf(store, ''), StoreCrash)
  assert.equal(store.operations, 1)
  await store.close()
})

it('`crashingStore()` does not acknowledge a concurrent write that ends after the crash', async () => {
  const store = crashingStore(memoryStore(), { at: 1 })
  const results = await Promise.allSettled([store.put('a', patternOf(1)), store.put('b', patternOf(1))])
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
})

it('`endsBeforeCrash()` passes errors that are no crash', async () => {
  await assert.rejects(
    endsBeforeCrash(() => Promise.reject(new Error('a bug'))),
    /a bug/,
  )
})
