import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import { assertFails, assertSameBytes, namesOf, patternOf } from '../../test/contract/store-asserts.ts'
import { testStore } from '../../test/contract/store-contract.ts'
import { hostileStore, type HostileRule } from '../../test/harness/hostile-store.ts'
import { isFailure } from '../base/failure.ts'
import { localStore } from './local.ts'
import { type MemoryDisk, memoryStore } from './memory.ts'
import { servePort } from './port-server.ts'
import { portStore } from './port.ts'
import type { BlobStore } from './store.ts'

async function overPort(
  inner: BlobStore,
  inFlightMax?: number,
): Promise<BlobStore & { served: MessagePort }> {
  const { port1, port2 } = new MessageChannel()
  servePort(inner, port1)
  return { ...(await portStore(port2, inFlightMax === undefined ? {} : { inFlightMax })), served: port1 }
}

testStore('port over memory', async () => {
  const disk: MemoryDisk = new Map()
  const inner = memoryStore({ disk })
  return { store: await overPort(inner), reopen: () => overPort(memoryStore({ disk })) }
})

testStore('port over local, one call in flight', async () => {
  const path = await mkdtemp(join(tmpdir(), 'backstock-port-'))
  return {
    store: await overPort(await localStore(path), 1),
    remove: () => rm(path, { recursive: true, force: true }),
  }
})

function hostileOverMemory(...rules: HostileRule[]) {
  return hostileStore(memoryStore(), { rules })
}

it('`portStore()` shows the served store, and leaves it open when it is closed', async () => {
  const inner = memoryStore()
  const store = await overPort(inner)
  assert.equal(store.location, inner.location)
  assert.deepEqual(store.capabilities, inner.capabilities)
  assert.equal(store.workerUrl, undefined)
  await store.close()
  assert.equal(await inner.put('a', patternOf(1)), 'created')
})

it('`portStore()` passes failures with code, message and facts, and bugs with their message', async () => {
  const inner = memoryStore()
  const store = await overPort(inner)
  const failed = await Promise.allSettled([store.get('a'), inner.get('a')])
  const [over, direct] = failed.map((result): unknown =>
    result.status === 'rejected' ? result.reason : undefined,
  )
  assert.ok(isFailure(over, 'storage.missing'))
  assert.ok(isFailure(direct))
  assert.equal(over.message, direct.message)
  assert.deepEqual(over.facts, direct.facts)
  const broken = await overPort({ ...inner, sweep: () => Promise.reject(new Error('Bug: broken')) })
  await assert.rejects(broken.sweep(0), /^Error: Bug: broken$/)
})

it('`portStore()` sends shared bytes without a copy', async () => {
  const seen: Uint8Array[] = []
  const inner = memoryStore()
  const store = await overPort({
    ...inner,
    put(name, bytes, options) {
      seen.push(bytes)
      return inner.put(name, bytes, options)
    },
  })
  const shared = new Uint8Array(new SharedArrayBuffer(1000)).fill(3)
  await store.put('a', shared)
  assertSameBytes(await store.get('a'), Buffer.alloc(1000, 3))
  shared[0] = 9
  assert.equal(seen[0]?.[0], 9)
})

it('`portStore()` uses the buffers of its puts again', async () => {
  const buffers = new Set<ArrayBufferLike>()
  const store = await overPort({
    ...memoryStore(),
    put(_name, bytes) {
      // A transferred buffer is a new object each time: a mark in its unused tail tells it.
      const tail = new Uint8Array(bytes.buffer, bytes.byteLength)
      if (tail[0] === 77) buffers.add(bytes.buffer)
      return Promise.resolve('created')
    },
  })
  await store.put('a', Buffer.alloc(1000, 77))
  for (let at = 0; at < 10; at++) await store.put(`b${at}`, Buffer.alloc(500))
  assert.equal(buffers.size, 10)
})

it('`portStore()` takes no buffer away from the served store', async () => {
  const cache = Buffer.from(patternOf(1000))
  const store = await overPort({ ...memoryStore(), get: () => Promise.resolve(cache.subarray(100, 200)) })
  assertSameBytes(await store.get('a'), patternOf(1000).subarray(100, 200))
  assertSameBytes(cache, patternOf(1000))
})

it('`portStore()` has no more calls in flight than it may', async () => {
  let open = 0
  let openMax = 0
  const inner = memoryStore()
  const store = await overPort(
    {
      ...inner,
      async put(name, bytes) {
        openMax = Math.max(openMax, ++open)
        await new Promise(setImmediate)
        open -= 1
        return inner.put(name, bytes)
      },
    },
    3,
  )
  await Promise.all(Array.from({ length: 30 }, (_, at) => store.put(`n${at}`, patternOf(at))))
  assert.equal(openMax, 3)
  assert.equal((await namesOf(store, '')).length, 30)
})

it('`portStore()` aborts the served call', async () => {
  const inner = hostileOverMemory({ on: 'put', trick: { kind: 'hang' } })
  const store = await overPort(inner)
  const abort = new AbortController()
  const failed = assertFails('cancelled', store.put('a', patternOf(10), { signal: abort.signal }))
  await inner.untilHanging()
  abort.abort()
  await failed
  assert.equal(await store.stat('a'), undefined)
})

it('`portStore()` fails calls under way, waiting and later when the serving side ends', async () => {
  const inner = hostileOverMemory({ on: 'put', trick: { kind: 'hang' } })
  const store = await overPort(inner, 1)
  const failed = Promise.all([
    assertFails('storage.offline', store.put('a', patternOf(10))),
    assertFails('storage.offline', store.put('b', patternOf(10))),
  ])
  await inner.untilHanging()
  store.served.close()
  await failed
  await assertFails('storage.offline', store.get('a'))
  inner.release()
})

it('`portStore()` fails calls under way when it is closed, and the served call is stopped', async () => {
  const inner = hostileOverMemory({ on: 'put', trick: { kind: 'hang' } })
  const served = Promise.withResolvers<unknown>()
  const store = await overPort({
    ...inner,
    put(name, bytes, options) {
      const put = inner.put(name, bytes, options)
      put.then(served.resolve, served.reject)
      return put
    },
  })
  const failed = assertFails('storage.offline', store.put('a', patternOf(10)))
  await inner.untilHanging()
  await store.close()
  await failed
  await assertFails('cancelled', served.promise)
})

it('`portStore()` ends a list that is left, and one that fails', async () => {
  let left = 0
  const inner = memoryStore()
  for (let at = 0; at < 600; at++) await inner.put(`n${at}`, patternOf(1))
  const store = await overPort({
    ...inner,
    async *list(prefix) {
      try {
        yield* inner.list(prefix)
      } finally {
        left += 1
      }
    },
  })
  for await (const _stat of store.list('')) break
  assert.equal(left, 1)
  assert.equal((await namesOf(store, '')).length, 600)
  assert.equal(left, 2)
  const failing = await overPort(
    hostileOverMemory({ on: 'list', trick: { kind: 'fail', code: 'storage.denied' } }),
  )
  await assertFails('storage.denied', namesOf(failing, ''))
})

it('`portStore()` works in a worker thread, which ends by itself', async () => {
  const inner = memoryStore()
  await inner.put('given', patternOf(100_000))
  const { port1, port2 } = new MessageChannel()
  servePort(inner, port1)
  const program = `
    import { workerData } from 'node:worker_threads'
    import { portStore } from ${JSON.stringify(import.meta.resolve('./port.ts'))}
    const store = await portStore(workerData.port)
    const bytes = await store.get('given')
    await store.put('taken', bytes)
  `
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), {
    workerData: { port: port2 },
    transferList: [port2],
  })
  const ended = Promise.withResolvers<number>()
  worker.once('exit', ended.resolve)
  worker.once('error', ended.reject)
  assert.equal(await ended.promise, 0)
  assertSameBytes(await inner.get('taken'), patternOf(100_000))
})
