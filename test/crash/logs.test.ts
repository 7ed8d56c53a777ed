/** Every write at which a shipper can die: tails, the segment that merges them, deletes; and its next start. */
import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { readLog } from '../../src/repo/log-reader.ts'
import { coverage } from '../../src/repo/log-coverage.ts'
import { rangesOf, segmentsOf, type LogTable } from '../../src/repo/log-table.ts'
import { deleteTails, putLog, type SealedLog } from '../../src/repo/log-writer.ts'
import { listLogs, type LogList } from '../../src/repo/logs.ts'
import { memoryStore, type MemoryDisk } from '../../src/storage/memory.ts'
import type { BlobStore } from '../../src/storage/store.ts'
import { crashingStore, endsBeforeCrash } from '../harness/crashing-store.ts'
import { collect, makeLogWorld, newShipper, nextPiece, streamBytes, type LogWorld } from '../harness/logs.ts'

const PIECE = 100n
const ROUNDS = 3n
const TAILS = 3n

/** What a spool has on its disk: every sealed piece before it is put, in order, and what to delete. */
type Step = { readonly put: SealedLog } | { readonly drop: readonly SealedLog[]; readonly whole: SealedLog }

/** Three rounds of three tails, each merged; sealed once, as a spool that keeps what it has sealed. */
function planSteps(world: LogWorld): Step[] {
  const shipper = newShipper(world.writer)
  const steps: Step[] = []
  for (let round = 0n; round < ROUNDS; round++) {
    const start = round * TAILS * PIECE
    const tails: SealedLog[] = []
    for (let tail = 0n; tail < TAILS; tail++) {
      const from = start + tail * PIECE
      const sealed = nextPiece(shipper, 'tail', { from, to: from + PIECE })
      shipper.lastTail = sealed
      tails.push(sealed)
      steps.push({ put: sealed })
    }
    const whole = nextPiece(shipper, 'segment', { from: start, to: start + TAILS * PIECE })
    shipper.segments.push(whole)
    steps.push({ put: whole }, { drop: tails, whole })
  }
  return steps
}

/** Runs steps from `first`; `acknowledged` is told each position that is durable. */
async function run(
  world: LogWorld,
  store: BlobStore,
  steps: readonly Step[],
  acknowledge: (step: number, to: bigint) => void,
): Promise<void> {
  const writer = { ...world.writer, store }
  for (const [number, step] of steps.entries()) {
    if ('put' in step) {
      await putLog(writer, step.put)
      acknowledge(number, step.put.header.to)
    } else {
      const tails = step.drop.map(({ header }) => header)
      await deleteTails(writer, tails, [step.whole.header])
    }
  }
}

async function listThrough(world: LogWorld, disk: MemoryDisk): Promise<LogList> {
  return await listLogs({ ...world.owner, store: memoryStore({ disk }) })
}

async function assertReads(world: LogWorld, disk: MemoryDisk, table: LogTable, to: bigint): Promise<void> {
  const access = { ...world.owner, store: memoryStore({ disk }) }
  const bytes = Buffer.concat(await collect(readLog(access, table, { from: 0n, to })))
  assert.ok(bytes.equals(streamBytes(0n, to)))
}

for (const torn of [false, true]) {
  test(`a shipper may die at any write${torn ? ', torn' : ''}: nothing acknowledged is missing`, async () => {
    const world = await makeLogWorld()
    const steps = planSteps(world)
    let points = 0
    for (let at = 0; ; at++, points++) {
      const disk: MemoryDisk = new Map(world.disk)
      const store = crashingStore(memoryStore({ disk }), { at, torn })
      let [durable, step] = [0n, -1]
      const acknowledge = (number: number, to: bigint): void => {
        step = number
        if (to > durable) durable = to
      }
      const ended = await endsBeforeCrash(() => run(world, store, steps, acknowledge))
      await assertCovered(world, disk, durable, torn)
      // Torn writes do not happen to a store that keeps its promise; the name would stay taken.
      if (!torn) await assertRestarts(world, disk, steps.slice(step + 1))
      if (ended) break
    }
    assert.equal(points, steps.length + Number(ROUNDS * (TAILS - 1n)))
  })
}

/** What a reader sees right after the crash. */
async function assertCovered(
  world: LogWorld,
  disk: MemoryDisk,
  durable: bigint,
  torn: boolean,
): Promise<void> {
  const { branches, findings } = await listThrough(world, disk)
  if (!torn) assert.deepEqual(findings, [])
  for (const { code } of findings) assert.equal(code, 'log.corrupt')
  if (durable === 0n) return
  const [table] = branches
  const [stretch, ...others] = coverage(rangesOf(table!))
  assert.deepEqual(others, [])
  assert.ok(stretch!.from === 0n && stretch!.to >= durable, `${stretch!.to} of ${durable}`)
  await assertReads(world, disk, table!, durable)
}

/** The next start puts the same pieces again and comes to the same end. */
async function assertRestarts(world: LogWorld, disk: MemoryDisk, rest: readonly Step[]): Promise<void> {
  const store = memoryStore({ disk })
  await run(world, store, rest, () => {})
  const { branches, findings } = await listThrough(world, disk)
  const [table] = branches
  assert.deepEqual([findings, coverage(rangesOf(table!))], [[], [{ from: 0n, to: ROUNDS * TAILS * PIECE }]])
  const stale = [...segmentsOf(table!)].filter(({ place }) => place.kind === 'tail')
  assert.deepEqual(
    stale.map(({ from }) => from),
    [],
  )
  await assertReads(world, disk, table!, ROUNDS * TAILS * PIECE)
}
