import { strict as assert } from 'node:assert'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { test } from 'node:test'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import fc from 'fast-check'
import {
  claimSlot,
  findSlot,
  isTableFilling,
  newSessionTable,
  takenSlots,
  type ChunkPlace,
  type SessionTable,
} from './session-table.ts'

const THREADS = 4
const RACED = 50_000

function idOf(number: number): Buffer {
  return createHash('sha256').update(String(number)).digest()
}

/** What a thread of the race gets: all threads claim the same ids, each from another place on. */
interface Racer {
  table: SessionTable
  gate: Int32Array<SharedArrayBuffer>
  thread: number
}

/**
 * Claims all ids; tells which it won, and how often a place it was given is not one that a winner could have
 * given.
 */
function race({ table, gate, thread }: Racer): { won: number[]; torn: number } {
  const ids = Array.from({ length: RACED }, (_, number) => idOf(number))
  // All threads begin at once.
  Atomics.add(gate, 0, 1)
  while (Atomics.load(gate, 0) < THREADS);
  const won: number[] = []
  let torn = 0
  for (let number = 0; number < RACED; number++) {
    const place = claimSlot(table, ids[number] as Buffer, 0, { pack: thread, number })
    if (place === undefined) won.push(number)
    else if (place.number !== number || place.pack < 0 || place.pack >= THREADS) torn++
  }
  return { won, torn }
}

if (isMainThread) {
  test('of many threads that claim the same chunks, each chunk is claimed by exactly one', async () => {
    const table = newSessionTable(RACED)
    const gate = new Int32Array(new SharedArrayBuffer(4))
    const threads = Array.from(
      { length: THREADS },
      (_, thread) =>
        new Worker(new URL(import.meta.url), { workerData: { table, gate, thread } satisfies Racer }),
    )
    const results = await Promise.all(
      threads.map(async (worker) => (await once(worker, 'message'))[0] as ReturnType<typeof race>),
    )
    assert.deepEqual(
      results.map(({ torn }) => torn),
      [0, 0, 0, 0],
    )
    const winners = new Map<number, number>()
    results.forEach(({ won }, thread) => {
      for (const number of won) {
        assert.ok(!winners.has(number), `chunk ${number} was claimed twice`)
        winners.set(number, thread)
      }
    })
    assert.equal(winners.size, RACED)
    assert.equal(takenSlots(table), RACED)
    for (const [number, thread] of winners)
      assert.deepEqual(findSlot(table, idOf(number), 0), { pack: thread, number })
  })

  test('a table answers as a map does', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: 60 }), fc.nat({ max: 999 })), { maxLength: 57 }),
        (claims) => {
          const table = newSessionTable(1)
          const model = new Map<number, ChunkPlace>()
          for (const [number, pack] of claims) {
            const place = { pack, number: number * 7 }
            assert.deepEqual(claimSlot(table, idOf(number), 0, place), model.get(number))
            if (!model.has(number)) model.set(number, place)
          }
          for (let number = 0; number <= 60; number++)
            assert.deepEqual(findSlot(table, idOf(number), 0), model.get(number))
          assert.equal(takenSlots(table), model.size)
        },
      ),
    )
  })

  test('ids that share all but one byte of their first sixteen are told apart', () => {
    const table = newSessionTable(40)
    const ids = Array.from({ length: 16 }, (_, at) => {
      const id = Buffer.alloc(32, 0xee)
      id[at] = 0x11
      return id
    })
    ids.push(Buffer.alloc(32), Buffer.alloc(32, 0xff))
    ids.forEach((id, number) => assert.equal(claimSlot(table, id, 0, { pack: 1, number }), undefined))
    ids.forEach((id, number) => assert.equal(findSlot(table, id, 0)?.number, number))
  })

  test('a table that is nearly full lets chunks be stored twice and keeps what it knows', () => {
    const table = newSessionTable(40)
    for (let number = 0; number < 1000; number++)
      assert.equal(claimSlot(table, idOf(number), 0, { pack: 0, number }), undefined)
    assert.ok(isTableFilling(table))
    assert.ok(takenSlots(table) < table.slots)
    const known = takenSlots(table)
    for (let number = 0; number < 1000; number++) {
      const place = claimSlot(table, idOf(number), 0, { pack: 1, number })
      assert.deepEqual(place, number < known ? { pack: 0, number } : undefined)
    }
  })

  test('a claimer that died between two instructions costs a duplicate, not a hang', () => {
    const table = newSessionTable(40)
    const id = idOf(1)
    claimSlot(table, id, 0, { pack: 3, number: 4 })
    // The dead thread took the slot and never wrote the rest.
    const taken = table.words.findIndex((word, at) => at >= 16 && word !== 0)
    Atomics.store(table.words, taken + 5, 0)
    assert.equal(findSlot(table, id, 0), undefined)
    assert.equal(claimSlot(table, id, 0, { pack: 5, number: 6 }), undefined)
    assert.deepEqual(claimSlot(table, id, 0, { pack: 7, number: 8 }), { pack: 5, number: 6 })
  })

  test('isTableFilling() turns true at 70 % load', () => {
    const table = newSessionTable(1000)
    for (let number = 0; number < 1000; number++) claimSlot(table, idOf(number), 0, { pack: 0, number })
    assert.ok(table.slots * 0.7 > 1000)
    assert.ok(!isTableFilling(table))
    for (let number = 1000; number < table.slots * 0.7; number++)
      claimSlot(table, idOf(number), 0, { pack: 0, number })
    assert.ok(isTableFilling(table))
  })
} else {
  parentPort?.postMessage(race(workerData as Racer))
}
