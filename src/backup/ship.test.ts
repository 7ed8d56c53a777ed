import assert from 'node:assert/strict'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import {
  accessThrough,
  assertStored,
  grow,
  newFakeLog,
  piecesOf,
  SEGMENT,
  startShipping,
  type FakeLog,
  type Shipping,
} from '../../test/harness/fake-log.ts'
import { LOG_BRANCH, makeLogWorld, type LogWorld } from '../../test/harness/logs.ts'
import { systemClock } from '../base/clock.ts'
import { Failure, isFailure, type FailureCode } from '../base/failure.ts'
import { logName } from '../format/log-header.ts'
import { revokeWriter, rotateEpoch } from '../repo/key-changes.ts'
import { openRepository } from '../repo/keys.ts'
import { segmentsOf } from '../repo/log-table.ts'
import type { BlobStore } from '../storage/store.ts'

const SEGMENTS = BigInt(SEGMENT)
const folders: string[] = []

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

function newLog(from?: bigint): FakeLog {
  const log = newFakeLog(from)
  folders.push(log.folder)
  return log
}

function codeOf(code: FailureCode, message = /./) {
  return (error: unknown): boolean => isFailure(error, code) && message.test(error.message)
}

/** `inner`, where each put is given to `before` first. */
function hooked(
  inner: BlobStore,
  before: (name: string, signal?: AbortSignal) => Promise<void> | void,
): BlobStore {
  return {
    ...inner,
    put: async (name, bytes, options) => {
      await before(name, options?.signal)
      return await inner.put(name, bytes, options)
    },
  }
}

async function shipAll(world: LogWorld, log: FakeLog): Promise<void> {
  const shipping = startShipping(world.access, log)
  await shipping.reached(log.branches.at(-1)!.to)
  await shipping.stop()
}

async function opened(log: FakeLog): Promise<void> {
  while (log.fail === undefined) await new Promise((resolve) => setImmediate(resolve))
}

function shippedKinds({ events }: Shipping): string[] {
  return events.flatMap((event) => (event.kind === 'shipped' ? [event.object] : []))
}

test('ship() puts what is new as a tail piece at each flush', async () => {
  const world = await makeLogWorld()
  const log = newLog(100n)
  const shipping = startShipping(world.access, log)
  for (let turn = 1n; turn <= 3n; turn++) {
    grow(log, 50)
    await shipping.reached(100n + turn * 50n)
  }
  await shipping.stop()
  assert.deepEqual(shippedKinds(shipping), ['tail', 'tail', 'tail'])
  const { findings } = await assertStored(world, { from: 100n, to: 250n })
  assert.deepEqual([findings, piecesOf(world)], [[], { segments: 0, tails: 3 }])
})

test('ship() flushes once an interval, however often more comes', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  const shipping = startShipping(world.access, log, { timing: { flushMs: 150 } })
  grow(log, 10)
  await shipping.reached(10n)
  const begun = performance.now()
  for (let turn = 0; turn < 20; turn++) {
    grow(log, 10)
    await new Promise((resolve) => setImmediate(resolve))
  }
  await shipping.reached(210n)
  assert.ok(performance.now() - begun > 75, 'the next flush waits for its time')
  await shipping.stop()
  assert.deepEqual(shippedKinds(shipping), ['tail', 'tail'])
})

test('ship() puts whole segments at multiples of their size at once, and deletes their tails', async () => {
  const world = await makeLogWorld()
  const log = newLog(1000n)
  const shipping = startShipping(world.access, log, { timing: { flushMs: 30_000 } })
  grow(log, 500)
  await shipping.reached(1500n)
  grow(log, 3 * SEGMENT)
  await shipping.reached(1500n + 3n * SEGMENTS)
  await shipping.stop()
  assert.deepEqual(shippedKinds(shipping), ['tail', 'segment', 'segment', 'segment', 'tail'])
  const { branches } = await assertStored(world, { from: 1000n, to: 1500n + 3n * SEGMENTS })
  const whole = [...segmentsOf(branches[0]!)].filter(({ place }) => place.kind === 'segment')
  assert.deepEqual(
    whole.map(({ from, to }) => [from, to]),
    [
      [1000n, SEGMENTS],
      [SEGMENTS, 2n * SEGMENTS],
      [2n * SEGMENTS, 3n * SEGMENTS],
    ],
  )
  assert.deepEqual(piecesOf(world), { segments: 3, tails: 1 })
  assert.equal(log.released.at(-1)?.at, 3n * SEGMENTS)
})

test('ship() merges the tails of a quiet log', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  const shipping = startShipping(world.access, log)
  for (let turn = 1n; turn <= 7n; turn++) {
    grow(log, 10)
    await shipping.reached(turn * 10n)
  }
  await shipping.stop()
  const { findings } = await assertStored(world, { from: 0n, to: 70n })
  assert.deepEqual([findings, piecesOf(world)], [[], { segments: 1, tails: 1 }])
})

test('ship() notes that there is nothing new, and merges these marks too', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  grow(log, SEGMENT)
  log.hasNews = true
  const shipping = startShipping(world.access, log)
  await shipping.until(() => shippedKinds(shipping).filter((kind) => kind === 'segment').length === 3)
  await shipping.stop()
  const kinds = shippedKinds(shipping).join(' ')
  assert.match(kinds, /^segment( tail){5} segment( tail){5} segment/)
  const { findings } = await assertStored(world, { from: 0n, to: SEGMENTS })
  assert.deepEqual(findings, [])
  assert.ok(piecesOf(world).tails <= 1)
  assert.deepEqual(log.notes.at(-1), { branch: LOG_BRANCH, from: SEGMENTS, to: SEGMENTS })
})

test('ship() puts nothing while nothing is new', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  grow(log, 10)
  const shipping = startShipping(world.access, log, { timing: { idleMs: 1 } })
  await shipping.reached(10n)
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve, 1))
  await shipping.stop()
  assert.equal(shipping.events.length, 1)
})

test('ship() waits for a store that is offline, says so, and catches up without doubling', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  let left = 6
  const store = hooked(world.store, () => {
    if (left-- > 0) throw new Failure('storage.offline', 'Cannot reach the store')
  })
  const shipping = startShipping(accessThrough(world, store), log)
  grow(log, 100)
  await shipping.until(() => shipping.events.some(({ kind }) => kind === 'store'))
  grow(log, 3 * SEGMENT)
  await shipping.reached(100n + 3n * SEGMENTS)
  await shipping.stop()
  assert.equal(shipping.events.filter(({ kind }) => kind === 'store').length, 6)
  const { findings } = await assertStored(world, { from: 0n, to: 100n + 3n * SEGMENTS })
  assert.deepEqual([findings, piecesOf(world)], [[], { segments: 3, tails: 1 }])
})

test('ship() puts the same bytes again when an answer was lost', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  let isLost = true
  const store: BlobStore = {
    ...world.store,
    put: async (name, bytes, options) => {
      const done = await world.store.put(name, bytes, options)
      isLost = !isLost
      if (!isLost) throw new Failure('storage.timeout', 'Cannot hear the store')
      return done
    },
  }
  const shipping = startShipping(accessThrough(world, store), log)
  for (let turn = 1n; turn <= 4n; turn++) {
    grow(log, 2000)
    await shipping.reached(turn * 2000n)
  }
  await shipping.stop()
  const { findings } = await assertStored(world, { from: 0n, to: 8000n })
  assert.deepEqual(findings, [])
})

test('ship() takes the spool in before the store answers at its start', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  grow(log, 10)
  await shipAll(world, log)
  let left = 2
  const store: BlobStore = {
    ...world.store,
    stat: async (name) => {
      if (left-- > 0) throw new Failure('storage.offline', 'Cannot reach the store')
      return await world.store.stat(name)
    },
  }
  const shipping = startShipping(accessThrough(world, store), log)
  grow(log, 10)
  await shipping.reached(20n)
  await shipping.stop()
  assert.equal(shipping.events.filter(({ kind }) => kind === 'store').length, 2)
  await assertStored(world, { from: 0n, to: 20n })
})

test('ship() stops when its next name is taken by other bytes', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  grow(log, 10)
  await shipAll(world, log)
  const { shipper } = JSON.parse(readFileSync(join(log.folder, 'shipper.json'), 'utf8')) as {
    shipper: string
  }
  const shipping = startShipping(world.access, log)
  const { domain } = world.writer
  const stream = { domain, source: 'orders', branch: LOG_BRANCH }
  await opened(log)
  // It has looked for what it does not know.
  grow(log, 10)
  await shipping.reached(20n)
  await world.store.put(logName({ ...stream, kind: 'tail', shipper, seq: 3 }), Buffer.from('another'))
  grow(log, 10)
  await assert.rejects(shipping.ended, codeOf('storage.exists'))
})

test('ship() stops soon after its writer was revoked', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  const shipping = startShipping(world.access, log, { timing: { configMs: 0 } })
  grow(log, 10)
  await shipping.reached(10n)
  await revokeWriter({ store: world.store, kit: world.kit, clock: systemClock }, world.writer.domain)
  grow(log, 10)
  await assert.rejects(shipping.ended, codeOf('key.revoked'))
  await assertStored(world, { from: 0n, to: 10n })
})

test('ship() seals to the newest epoch', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  const shipping = startShipping(world.access, log, { timing: { configMs: 0 } })
  grow(log, 10)
  await shipping.reached(10n)
  await rotateEpoch({ store: world.store, kit: world.kit, clock: systemClock }, world.writer.domain)
  grow(log, 10)
  await shipping.reached(20n)
  await shipping.stop()
  const owner = await openRepository(world.store, world.kit)
  const { branches } = await assertStored({ ...world, owner }, { from: 0n, to: 20n })
  assert.deepEqual(
    [...segmentsOf(branches[0]!)].map(({ epoch }) => epoch),
    [1, 2],
  )
})

test('ship() puts what is held when it is told to stop', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  const shipping = startShipping(world.access, log, { timing: { flushMs: 30_000 } })
  grow(log, 10)
  await shipping.reached(10n)
  grow(log, 10)
  await shipping.stop()
  await assertStored(world, { from: 0n, to: 20n })
})

test('ship() puts what is held before it tells why the receiving ended', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  const shipping = startShipping(world.access, log, { timing: { flushMs: 30_000 } })
  grow(log, 10)
  await shipping.reached(10n)
  grow(log, 10)
  log.fail?.(new Failure('source.gap', 'Cannot receive log'))
  await assert.rejects(shipping.ended, codeOf('source.gap'))
  await assertStored(world, { from: 0n, to: 20n })
})

test('ship() tells why the receiving ended also while the store is offline', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  const store = hooked(world.store, () => {
    throw new Failure('storage.offline', 'Cannot reach the store')
  })
  const shipping = startShipping(accessThrough(world, store), log)
  await opened(log)
  log.fail?.(new Failure('source.gap', 'Cannot receive log'))
  grow(log, 10)
  await assert.rejects(shipping.ended, codeOf('source.gap'))
})

for (const call of ['put', 'stat', 'delete'] as const) {
  test(`ship() stops while ${call}() of the store hangs`, async () => {
    const world = await makeLogWorld()
    const log = newLog()
    grow(log, 10)
    await shipAll(world, log)
    const { promise: hung, resolve: tellHung } = Promise.withResolvers<void>()
    const { promise: released, resolve: release } = Promise.withResolvers<void>()
    const hang = async (): Promise<void> => {
      tellHung()
      await released
    }
    const { store } = world
    const hanging: BlobStore = {
      ...store,
      put: async (...args) => {
        if (call === 'put') await hang()
        return await store.put(...args)
      },
      stat: async (name) => {
        if (call === 'stat') await hang()
        return await store.stat(name)
      },
      delete: async (name) => {
        await hang()
        return await store.delete(name)
      },
    }
    const shipping = startShipping(accessThrough(world, hanging), log)
    grow(log, SEGMENT)
    await hung
    await shipping.stop()
    const said = shipping.events.at(-1)
    assert.ok(said?.kind === 'store' && said.reason.includes('does not answer'))
    // What comes back late does nothing more: the next shipper has the spool.
    const next = startShipping(world.access, log)
    await next.reached(10n + SEGMENTS)
    release()
    grow(log, 10)
    await next.reached(20n + SEGMENTS)
    await next.stop()
    const { findings } = await assertStored(world, { from: 0n, to: 20n + SEGMENTS })
    assert.deepEqual(findings, [])
  })
}

test('ship() ends at once when it is told to before it begins', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  grow(log, 10)
  const shipping = startShipping(world.access, log)
  await shipping.stop()
  await assertStored(world, { from: 0n, to: 10n })
})

test('ship() does not spin between the signal and the end of the receiving', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  grow(log, 10)
  await shipAll(world, log)
  const shipping = startShipping(world.access, log)
  await opened(log)
  // A segment is due when the signal comes: only a turn of the event loop later the receiving ends.
  log.branches[0]!.to += SEGMENTS
  await shipping.stop()
  await assertStored(world, { from: 0n, to: 10n + SEGMENTS })
})
