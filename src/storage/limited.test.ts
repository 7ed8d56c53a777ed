import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { limitedStore } from './limited.ts'
import { memoryStore } from './memory.ts'

/** A clock that only moves when somebody waits. */
function waitingClock() {
  let at = 5000
  const clock = { now: () => at, elapsed: () => at }
  const wait = (milliseconds: number): Promise<void> => {
    at += milliseconds
    return Promise.resolve()
  }
  return { clock, wait, pass: (milliseconds: number) => void (at += milliseconds), at: () => at }
}

test('limitedStore() sends no more than the rate over any longer time', async () => {
  const time = waitingClock()
  const store = limitedStore(memoryStore(), 1000, time)
  const begun = time.at()
  for (let nth = 0; nth < 10; nth++) await store.put(`a/${nth}`, Buffer.alloc(500))
  assert.equal(time.at() - begun, 5000)
})

test('limitedStore() saves up a second of rest and no more', async () => {
  const time = waitingClock()
  const store = limitedStore(memoryStore(), 1000, time)
  time.pass(60_000)
  const begun = time.at()
  await store.put('a/1', Buffer.alloc(1000))
  assert.equal(time.at() - begun, 0)
  await store.put('a/2', Buffer.alloc(1000))
  assert.equal(time.at() - begun, 1000)
})

test('limitedStore() shares its limit among puts at one time, in their order', async () => {
  const waits: number[] = []
  const clock = { now: () => 0, elapsed: () => 0 }
  const wait = (milliseconds: number): Promise<void> => {
    waits.push(milliseconds)
    return Promise.resolve()
  }
  const store = limitedStore(memoryStore(), 100, { clock, wait })
  await Promise.all([1, 2, 3].map((nth) => store.put(`a/${nth}`, Buffer.alloc(100))))
  assert.deepEqual(waits, [1000, 2000, 3000])
})

test('limitedStore() can be used from one thread only, and does not hold reads back', async () => {
  const inner = memoryStore()
  await inner.put('a/1', Buffer.alloc(1_000_000))
  const wait = (): Promise<void> => Promise.reject(new Error('waited'))
  const store = limitedStore(inner, 1, { wait })
  assert.equal(store.workerUrl, undefined)
  assert.equal((await store.get('a/1')).length, 1_000_000)
})

test('limitedStore() ends its waiting when the run is cancelled, and puts nothing then', async () => {
  const cancelling = new AbortController()
  const inner = memoryStore()
  const store = limitedStore(inner, 1, { signal: cancelling.signal })
  const put = store.put('a/1', Buffer.alloc(1_000_000))
  cancelling.abort()
  await assert.rejects(put, (error) => isFailure(error, 'cancelled'))
  assert.equal(await inner.stat('a/1'), undefined)
})
