/**
 * Every write at which a running shipper can die, in the middle of tails, segments, merges, deletes and a
 * branch that is left: the next run from the same spool completes the log.
 */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { test } from 'node:test'
import { coveredTails } from '../../src/repo/log-writer.ts'
import { memoryStore } from '../../src/storage/memory.ts'
import type { BlobStore } from '../../src/storage/store.ts'
import { crashingStore, endsBeforeCrash } from '../harness/crashing-store.ts'
import { accessThrough, assertStored, grow, newFakeLog, SEGMENT, startShipping } from '../harness/fake-log.ts'
import type { FakeLog } from '../harness/fake-log.ts'
import { LOG_BRANCH, makeLogWorld, type LogWorld } from '../harness/logs.ts'

const NEXT_BRANCH = '7531234567890123456-00000002'
/** What comes in, one after the other; undefined: a new branch. With six small ones a merge is due. */
const STEPS = [10, 10, SEGMENT, 10, 10, 10, 10, 10, 10, undefined, 20, 2 * SEGMENT, 20]
const ENDS = [BigInt(80 + SEGMENT), BigInt(40 + 2 * SEGMENT)] as const

/** Takes the steps that were not taken yet. */
async function shipSteps(
  world: LogWorld,
  store: BlobStore,
  log: FakeLog,
  steps: (number | undefined)[],
): Promise<void> {
  const shipping = startShipping(accessThrough(world, store), log)
  const caughtUp = (): Promise<void> => {
    const { branch, to } = log.branches.at(-1)!
    const has = (): boolean =>
      shipping.events.some((event) => event.kind === 'shipped' && event.branch === branch && event.to >= to)
    return shipping.until(has)
  }
  while (steps.length > 0) {
    const step = steps.shift()
    if (step === undefined) {
      log.branches.push({ branch: NEXT_BRANCH, from: 0n, to: 0n })
      log.files.push({ branch: NEXT_BRANCH, name: '00000002.history', bytes: Buffer.from('1\t0/1050\n') })
    } else {
      grow(log, step)
      await caughtUp()
    }
  }
  await shipping.stop()
}

for (const torn of [false, true]) {
  test(`ship() may die at any write${torn ? ', torn' : ''}: the next run completes the log`, async () => {
    const first = await makeLogWorld()
    let points = 0
    for (let at = 0; ; at++, points++) {
      const world = { ...first, disk: new Map(first.disk) }
      const log = newFakeLog()
      const steps = [...STEPS]
      try {
        const store = crashingStore(memoryStore({ disk: world.disk }), { at, torn })
        const ended = await endsBeforeCrash(() => shipSteps(world, store, log, steps))
        await shipSteps(world, memoryStore({ disk: world.disk }), log, [...steps, 10])
        await assertComplete(world, torn && !ended)
        if (ended) break
      } finally {
        rmSync(log.folder, { recursive: true })
      }
    }
    assert.ok(points > 20, `${points} points`)
  })
}

async function assertComplete(world: LogWorld, wasTorn: boolean): Promise<void> {
  await assertStored(world, { from: 0n, to: ENDS[0] }, LOG_BRANCH)
  const { branches, findings, files } = await assertStored(
    world,
    { from: 0n, to: ENDS[1] + 10n },
    NEXT_BRANCH,
  )
  const codes = findings.map(({ code }) => code)
  assert.deepEqual(codes, wasTorn && codes.length > 0 ? ['log.corrupt'] : [])
  assert.equal(files.length, findings[0]?.object?.includes('/files/') === true ? 0 : 1)
  for (const table of branches)
    for (const shipper of table.shippers) assert.deepEqual(coveredTails(table, shipper).tails, [])
}
