import assert from 'node:assert/strict'
import { it } from 'node:test'
import { namesOf } from '../../test/contract/store-asserts.ts'
import { testStore } from '../../test/contract/store-contract.ts'
import { type MemoryDisk, memoryStore } from './memory.ts'

testStore('memory', () => {
  const disk: MemoryDisk = new Map()
  return Promise.resolve({
    store: memoryStore({ disk }),
    reopen: () => Promise.resolve(memoryStore({ disk })),
  })
})

it('`memoryStore()` without a disk is empty each time', async () => {
  await memoryStore().put('a', Buffer.from('x'))
  assert.deepEqual(await namesOf(memoryStore(), ''), [])
})

it('`memoryStore()` stamps blobs with its own clock', async () => {
  const store = memoryStore({ clock: { now: () => 1234.5, elapsed: () => 0 } })
  await store.put('a', Buffer.from('x'))
  assert.equal((await store.stat('a'))?.modified, 1234)
})
