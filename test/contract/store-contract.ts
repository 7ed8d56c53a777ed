/**
 * What every store driver promises, as one suite: run it from a test file beside the driver.
 * Faults (full disks, lost connections) are not here: each driver's own tests make its own.
 */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { isFailure } from '../../src/base/failure.ts'
import type { BlobStore } from '../../src/storage/store.ts'
import { assertFails, assertSameBytes, namesOf, patternOf, statsOf } from './store-asserts.ts'
import { assertLikeMap } from './store-model.ts'

/** An opened, empty store. */
export interface StoreUnderTest {
  readonly store: BlobStore
  /**
   * Another opening of the same place, as another process would have. Absent: openings cannot share a place.
   */
  readonly reopen?: () => Promise<BlobStore>
  /** Removes the place; called after each test, the store already closed. */
  readonly remove?: () => Promise<void>
}

export interface ContractSizes {
  /** Bytes of the big blob; 20 MiB is above a pack and needs several writes on most stores. */
  readonly bigBytes?: number
  /** Blobs in the long list; 1100 is above one page of S3. */
  readonly listCount?: number
  readonly propertyRuns?: number
}

type Open = () => Promise<StoreUnderTest>

/** Defines the suite for one driver; `open` is called before each test and gives a fresh, empty store. */
export function testStore(name: string, open: Open, sizes: ContractSizes = {}): void {
  describe(`store contract: ${name}`, () => {
    let place: StoreUnderTest
    beforeEach(async () => {
      place = await open()
    })
    afterEach(async () => {
      await place.store.close()
      await place.remove?.()
    })
    testPut(() => place)
    testGet(() => place, sizes)
    testList(() => place, sizes)
    testDelete(() => place)
    testOpening(() => place)
    it('does what a map of names to bytes does (property; SEED= runs one again)', async () => {
      await assertLikeMap(open, sizes.propertyRuns ?? 30)
    })
  })
}

function testPut(place: () => StoreUnderTest): void {
  it('`put()` keeps the bytes that were given, also when the buffer changes afterwards', async () => {
    const { store } = place()
    const bytes = patternOf(5000)
    assert.equal(await store.put('d/a/packs/00/x', bytes), 'created')
    bytes.fill(0)
    assertSameBytes(await store.get('d/a/packs/00/x'), patternOf(5000))
  })

  it('`put()` of a view stores the view and not the buffer below it', async () => {
    const { store } = place()
    const whole = patternOf(1000)
    await store.put('view', whole.subarray(100, 200))
    await store.put('plain', new Uint8Array(whole.buffer, whole.byteOffset + 5, 7))
    assertSameBytes(await store.get('view'), whole.subarray(100, 200))
    assertSameBytes(await store.get('plain'), whole.subarray(5, 12))
  })

  it('`put()` leaves the buffer of the caller as it was', async () => {
    const { store } = place()
    const bytes = patternOf(70_000)
    await store.put('a', bytes)
    assertSameBytes(bytes, patternOf(70_000))
  })

  it('`put()` stores an empty blob', async () => {
    const { store } = place()
    assert.equal(await store.put('empty', new Uint8Array(0)), 'created')
    assert.equal(await store.put('empty', new Uint8Array(0)), 'identical')
    assert.equal((await store.get('empty')).length, 0)
    assert.equal((await store.stat('empty'))?.bytes, 0)
    assert.deepEqual(await namesOf(store, ''), ['empty'])
    await assertFails('storage.exists', store.put('empty', patternOf(1)))
  })

  it('`put()` of the same bytes again says identical', async () => {
    const { store } = place()
    assert.equal(await store.put('a/b', patternOf(3_000_000)), 'created')
    assert.equal(await store.put('a/b', patternOf(3_000_000)), 'identical')
  })

  it('`put()` of other bytes fails and keeps the first: shorter, longer, one bit flipped', async () => {
    const { store } = place()
    const first = patternOf(3_000_000)
    const flipped = patternOf(3_000_000)
    flipped[2_999_999] = (flipped[2_999_999] ?? 0) ^ 1
    await store.put('a/b', first)
    for (const other of [new Uint8Array(0), patternOf(2_999_999), patternOf(3_000_001), flipped]) {
      await assertFails('storage.exists', store.put('a/b', other))
    }
    assertSameBytes(await store.get('a/b'), first)
  })

  it('of 20 concurrent `put()` of one name exactly one creates it', async () => {
    const { store, reopen } = place()
    const second = reopen === undefined ? store : await reopen()
    for (let round = 0; round < 5; round++) await raceForName(`race/${round}`, [store, second])
    if (second !== store) await second.close()
  })

  it('of 20 concurrent `put()` of the same bytes one creates, the others are identical', async () => {
    const { store } = place()
    const results = await Promise.all(Array.from({ length: 20 }, () => store.put('same/a', patternOf(1000))))
    assertSameBytes(await store.get('same/a'), patternOf(1000))
    if (store.capabilities.createOnly !== 'atomic') return
    assert.equal(results.filter((result) => result === 'created').length, 1)
    assert.equal(results.filter((result) => result === 'identical').length, 19)
  })

  it('concurrent `put()` of many names in new folders all succeed', async () => {
    const { store } = place()
    const names = Array.from({ length: 50 }, (_, at) => `new/${at % 3}/deep/${at % 7}/n${at}`)
    const results = await Promise.all(names.map((name, at) => store.put(name, patternOf(at))))
    assert.deepEqual(new Set(results), new Set(['created']))
    assert.deepEqual(await namesOf(store, 'new/'), names.toSorted())
  })

  it('every call refuses names that could mean something else to the store', async () => {
    const { store } = place()
    for (const name of REFUSED_NAMES) {
      const said = `name ${JSON.stringify(name)}`
      await assert.rejects(async () => store.put(name, patternOf(1)), /^Error: Bug: blob name/, said)
      await assert.rejects(async () => store.get(name), /^Error: Bug: blob name/, said)
      await assert.rejects(async () => store.stat(name), /^Error: Bug: blob name/, said)
      await assert.rejects(async () => store.delete(name), /^Error: Bug: blob name/, said)
    }
    assert.deepEqual(await namesOf(store, ''), [])
  })

  it('takes names of up to 512 bytes and every allowed letter', async () => {
    const { store } = place()
    const long = `${'0123456789abcdefghijklmnopqrstuvwxyz._-'.repeat(5)}/`.repeat(3).slice(0, 511) + 'z'
    assert.equal(long.length, 512)
    const names = [long, '-', '_', '0/-.', 'a..b', 'a.tmp', 'con']
    for (const name of names) assert.equal(await store.put(name, Buffer.from(name)), 'created')
    for (const name of names) assert.equal(Buffer.from(await store.get(name)).toString(), name)
    assert.deepEqual(await namesOf(store, ''), names.toSorted())
  })

  it('`put()` with a raised signal fails as cancelled and stores nothing', async () => {
    const { store } = place()
    const signal = AbortSignal.abort()
    await assertFails('cancelled', store.put('a', patternOf(10), { signal }))
    assert.equal(await store.stat('a'), undefined)
  })
}

const REFUSED_NAMES = [
  '',
  '/',
  'a/',
  '/a',
  'a//b',
  '.',
  '..',
  '../a',
  'a/../b',
  'a/./b',
  '.a',
  'a/.b',
  '.tmp-1',
  'A',
  'a b',
  'a\n',
  'a\0',
  'a\\b',
  'ä',
  '%2e%2e',
  'a?b',
  'a#b',
  'a:b',
  'a*',
  '~',
  'x'.repeat(513),
]

/**
 * 20 puts of different bytes: one wins; whoever lost is told so; the bytes are those of the winner, whole.
 */
async function raceForName(name: string, stores: readonly BlobStore[]): Promise<void> {
  const puts = Array.from({ length: 20 }, (_, at) => {
    const store = stores[at % stores.length]
    assert.ok(store)
    return store.put(name, Buffer.alloc(10_000, at + 1))
  })
  const results = await Promise.allSettled(puts)
  const winners = results.flatMap((result, at) => (result.status === 'fulfilled' ? [at] : []))
  const [store] = stores
  assert.ok(store)
  const bytes = await store.get(name)
  assert.ok(
    winners.some((winner) => Buffer.alloc(10_000, winner + 1).equals(bytes)),
    'the bytes are those of a winner',
  )
  for (const result of results) {
    if (result.status === 'rejected')
      assert.ok(isFailure(result.reason, 'storage.exists'), String(result.reason))
    else assert.equal(result.value, 'created')
  }
  if (store.capabilities.createOnly === 'atomic') assert.equal(winners.length, 1)
}

function testGet(place: () => StoreUnderTest, sizes: ContractSizes): void {
  const bigBytes = sizes.bigBytes ?? 20 * 1024 * 1024

  it('`get()` returns exactly the asked range', async () => {
    const { store } = place()
    const bytes = patternOf(10_000)
    await store.put('r', bytes)
    for (const [offset, length] of [
      [0, 10_000],
      [0, 1],
      [9_999, 1],
      [1234, 5678],
      [0, 0],
      [5000, 0],
      [10_000, 0],
    ]) {
      assert.ok(offset !== undefined && length !== undefined)
      assertSameBytes(await store.get('r', { offset, length }), bytes.subarray(offset, offset + length))
    }
    assertSameBytes(await store.get('r', { offset: 9000 }), bytes.subarray(9000))
    assertSameBytes(await store.get('r', { length: 10 }), bytes.subarray(0, 10))
    assert.equal((await store.get('r', { offset: 10_000 })).length, 0)
  })

  it('`get()` of a range beyond the end fails as short', async () => {
    const { store } = place()
    await store.put('r', patternOf(100))
    await assertFails('storage.short', store.get('r', { offset: 0, length: 101 }))
    await assertFails('storage.short', store.get('r', { offset: 99, length: 2 }))
    await assertFails('storage.short', store.get('r', { offset: 100, length: 1 }))
    await assertFails('storage.short', store.get('r', { offset: 5000, length: 1 }))
    await assertFails('storage.short', store.get('r', { offset: 101 }))
    await assertFails('storage.short', store.get('r', { offset: 101, length: 0 }))
  })

  it('`get()` reads into the given buffer and touches nothing behind the range', async () => {
    const { store } = place()
    const bytes = patternOf(100)
    await store.put('r', bytes)
    const into = new Uint8Array(60).fill(9)
    const got = await store.get('r', { offset: 10, length: 50, into })
    assert.equal(got.buffer, into.buffer)
    assertSameBytes(got, bytes.subarray(10, 60))
    assertSameBytes(into.subarray(50), new Uint8Array(10).fill(9))
    const view = new Uint8Array(200).subarray(50, 150)
    const whole = await store.get('r', { into: view })
    assert.equal(whole.byteOffset, 50)
    assertSameBytes(view, bytes)
    await assert.rejects(
      async () => store.get('r', { into: new Uint8Array(99) }),
      /Bug: a buffer of 99 bytes/,
    )
    await assert.rejects(async () => store.get('r', { length: 61, into }), /Bug: a buffer of 60 bytes/)
  })

  it('`get()` hands out bytes that the caller may change', async () => {
    const { store } = place()
    await store.put('r', patternOf(100))
    const bytes = await store.get('r')
    bytes.fill(0)
    assertSameBytes(await store.get('r'), patternOf(100))
  })

  it('`get()` refuses ranges that are none', async () => {
    const { store } = place()
    await store.put('r', patternOf(100))
    for (const range of [{ offset: -1 }, { length: -1 }, { offset: 0.5 }, { length: Number.NaN }]) {
      await assert.rejects(async () => store.get('r', range), /^Error: Bug: read (offset|length)/)
    }
  })

  it('`get()` of a name that is not there fails as missing, also for a range of nothing', async () => {
    const { store } = place()
    await store.put('a/b', patternOf(1))
    for (const name of ['a', 'b', 'a/c', 'a/b/c', 'z/z/z']) {
      await assertFails('storage.missing', store.get(name))
      await assertFails('storage.missing', store.get(name, { offset: 0, length: 0 }))
      await assertFails('storage.missing', store.get(name, { offset: 0, length: 1 }))
      assert.equal(await store.stat(name), undefined)
    }
  })

  it('`get()` with a raised signal fails as cancelled', async () => {
    const { store } = place()
    await store.put('a', patternOf(10))
    await assertFails('cancelled', store.get('a', { signal: AbortSignal.abort() }))
  })

  it('`stat()` and `list()` tell size and a time near the put', async () => {
    const { store } = place()
    await store.put('a/1', patternOf(7))
    const first = await store.stat('a/1')
    assert.ok(first)
    assert.equal(first.name, 'a/1')
    assert.equal(first.bytes, 7)
    // A store's clock may differ from ours, but not by a day in a test.
    assert.ok(Math.abs(first.modified - Date.now()) < 86_400_000)
    assert.ok(Number.isSafeInteger(first.modified))
    assert.deepEqual(await statsOf(store, ''), [first])
  })

  it('keeps a big blob whole', async () => {
    const { store } = place()
    const bytes = patternOf(bigBytes)
    assert.equal(await store.put('big', bytes), 'created')
    assert.equal((await store.stat('big'))?.bytes, bigBytes)
    assertSameBytes(await store.get('big'), bytes)
    const range = { offset: bigBytes - 70_001, length: 70_000 }
    assertSameBytes(await store.get('big', range), bytes.subarray(range.offset, range.offset + range.length))
    assert.equal(await store.put('big', bytes), 'identical')
  })
}

function testList(place: () => StoreUnderTest, sizes: ContractSizes): void {
  const listCount = sizes.listCount ?? 1100

  it('`list()` of an empty store, and of a prefix that is not there, is empty', async () => {
    const { store } = place()
    assert.deepEqual(await namesOf(store, ''), [])
    await store.put('ab/c', patternOf(1))
    assert.deepEqual(await namesOf(store, 'a/'), [])
    assert.deepEqual(await namesOf(store, 'ab/c/'), [])
  })

  it('`list()` is in byte order of full names: a slash comes after - and . and before 0', async () => {
    const { store } = place()
    const names = [
      '0',
      'a-/x',
      'a.b',
      'a.b.c/y',
      'a/-',
      'a/0',
      'a/b-',
      'a/b/c',
      'a/b0',
      'a0',
      'a_',
      'aa',
      'b/a',
    ]
    for (const name of names.toReversed()) await store.put(name, Buffer.from(name))
    assert.deepEqual(await namesOf(store, ''), names)
    for (const stat of await statsOf(store, '')) assert.equal(stat.bytes, stat.name.length)
  })

  it('`list()` gives all names below the prefix and no others', async () => {
    const { store } = place()
    for (const name of ['a/b/1', 'a/b/2/3', 'a/b-/1', 'a/bb/1', 'a/c', 'b/b/1'])
      await store.put(name, patternOf(1))
    assert.deepEqual(await namesOf(store, 'a/b/'), ['a/b/1', 'a/b/2/3'])
    assert.deepEqual(await namesOf(store, 'a/'), ['a/b-/1', 'a/b/1', 'a/b/2/3', 'a/bb/1', 'a/c'])
  })

  it('`list()` refuses prefixes that are no folder', async () => {
    const { store } = place()
    for (const prefix of ['a', '/', '../', 'a//', './', 'A/', '.tmp/']) {
      await assert.rejects(async () => statsOf(store, prefix), /^Error: Bug: (prefix|blob name)/, prefix)
    }
  })

  it(`\`list()\` of ${listCount} blobs misses none and repeats none`, async () => {
    const { store } = place()
    const names = Array.from({ length: listCount }, (_, at) => `many/n${at}`)
    for (let at = 0; at < listCount; at += 50) {
      await Promise.all(names.slice(at, at + 50).map((name) => store.put(name, patternOf(3))))
    }
    assert.deepEqual(await namesOf(store, 'many/'), names.toSorted())
  })

  it('`list()` can be left early and begun again', async () => {
    const { store } = place()
    for (const name of ['a', 'b', 'c']) await store.put(name, patternOf(1))
    for await (const stat of store.list('')) {
      assert.equal(stat.name, 'a')
      break
    }
    assert.deepEqual(await namesOf(store, ''), ['a', 'b', 'c'])
  })

  it('`list()` while its blobs are deleted gives each that stays exactly once', async () => {
    const { store } = place()
    const names = Array.from({ length: 200 }, (_, at) => `l/${at % 4}/n${at}`)
    await Promise.all(names.map((name) => store.put(name, patternOf(1))))
    const stays = names.filter((_, at) => at % 3 !== 0)
    const goes = names.filter((_, at) => at % 3 === 0)
    const seen: string[] = []
    for await (const { name } of store.list('l/')) {
      seen.push(name)
      const next = goes.pop()
      if (next !== undefined) await store.delete(next)
    }
    assert.equal(new Set(seen).size, seen.length)
    assert.deepEqual(
      seen.filter((name) => stays.includes(name)),
      stays.toSorted(),
    )
  })

  it('`list()` begun after `put()` resolved shows the blob', async () => {
    const { store } = place()
    if (!store.capabilities.listAfterPut) return
    for (let at = 0; at < 20; at++) {
      await store.put(`after/${at}`, patternOf(1))
      assert.ok((await namesOf(store, 'after/')).includes(`after/${at}`))
    }
  })
}

function testDelete(place: () => StoreUnderTest): void {
  it('`delete()` removes the blob, and frees its name', async () => {
    const { store } = place()
    await store.put('a/b', patternOf(10))
    await store.put('a/c', patternOf(10))
    assert.equal(await store.delete('a/b'), 'deleted')
    assert.equal(await store.delete('a/b'), 'absent')
    assert.equal(await store.stat('a/b'), undefined)
    await assertFails('storage.missing', store.get('a/b'))
    assert.deepEqual(await namesOf(store, ''), ['a/c'])
    assert.equal(await store.put('a/b', patternOf(20)), 'created')
    assertSameBytes(await store.get('a/b'), patternOf(20))
  })

  it('`delete()` of a name that never was, or that only begins other names, is absent', async () => {
    const { store } = place()
    await store.put('a/b/c', patternOf(1))
    for (const name of ['z', 'z/z', 'a', 'a/b', 'a/b/c/d']) assert.equal(await store.delete(name), 'absent')
    assert.deepEqual(await namesOf(store, ''), ['a/b/c'])
  })

  it('20 concurrent `delete()` of one name delete it', async () => {
    const { store } = place()
    await store.put('a', patternOf(1))
    const results = await Promise.all(Array.from({ length: 20 }, () => store.delete('a')))
    // Not every server tells which of them deleted, but one at least was told so.
    assert.ok(results.includes('deleted'))
    assert.equal(await store.stat('a'), undefined)
  })

  it('`sweep()` finds nothing where no put has died, and touches no blob', async () => {
    const { store } = place()
    await store.put('a/b', patternOf(10))
    assert.equal(await store.sweep(0), 0)
    assert.equal(await store.sweep(3_600_000), 0)
    assert.deepEqual(await namesOf(store, ''), ['a/b'])
  })
}

function testOpening(place: () => StoreUnderTest): void {
  it('a closed store fails every call, and closes twice', async () => {
    const { store } = place()
    await store.put('a', patternOf(10))
    await store.close()
    await store.close()
    await assertFails('storage.offline', store.put('b', patternOf(10)))
    await assertFails('storage.offline', store.get('a'))
    await assertFails('storage.offline', store.stat('a'))
    await assertFails('storage.offline', store.delete('a'))
    await assertFails('storage.offline', store.sweep(0))
    await assertFails('storage.offline', namesOf(store, ''))
  })

  it('another opening sees the blobs, and outlives the first', async () => {
    const { store, reopen } = place()
    if (reopen === undefined) return
    await store.put('a/b', patternOf(10))
    const second = await reopen()
    await store.close()
    assertSameBytes(await second.get('a/b'), patternOf(10))
    assert.equal(await second.put('a/c', patternOf(5)), 'created')
    assert.deepEqual(await namesOf(second, ''), ['a/b', 'a/c'])
    await second.close()
  })

  it('`location` and `workerUrl` hold no secret and no line break', () => {
    const { store } = place()
    assert.match(store.location, /^[a-z]+:[^\s@]*$/)
    assert.match(store.workerUrl ?? 'none:', /^[a-z]+:[^\s]*$/)
  })
}
