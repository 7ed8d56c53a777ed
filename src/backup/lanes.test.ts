import { strict as assert } from 'node:assert'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { noise } from '../../test/harness/engine.ts'
import { hostileStore, type HostileStore } from '../../test/harness/hostile-store.ts'
import { attachIndex, beginSession, openIndex } from '../repo/chunk-index.ts'
import { newSaver } from '../repo/saver.ts'
import { newKeyPair } from '../format/seal.ts'
import { memoryStore } from '../storage/memory.ts'
import { newLane } from './lane-setup.ts'
import { closeLanes, flushLanes, newLanes, nextResults, submitBatch, type Lanes } from './lanes.ts'
import type { SegmentJob } from './segment.ts'
import { testWriterKeys } from '../../test/harness/writer-keys.ts'

const keys = testWriterKeys(newKeyPair().publicKey)
const settings = {
  sizes: { minBytes: 2048, maskBits: 11, maxBytes: 16_384 },
  runBytes: 16_384,
  inlineBytesMax: 0,
  packBytesMax: 131_072,
}

/** One thread that hangs in its first put, after two batches of one file each. */
async function hangingLanes(t: TestContext): Promise<{ lanes: Lanes; store: HostileStore }> {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-lanes-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const store = hostileStore(memoryStore(), { rules: [{ on: 'put', trick: { kind: 'hang' } }] })
  const shared = beginSession(await openIndex({ folder, runs: [], build: () => Promise.resolve() }))
  const setup = { keys, store, index: attachIndex(shared), packBytesMax: 131_072, packBuffers: 2 } as const
  const lanes = newLanes({
    count: 1,
    inline: newLane(
      newSaver(setup, () => undefined),
      settings,
    ),
    start: () => ({ ...settings, keys, shared, storeUrl: undefined }),
    store,
    onResults: () => undefined,
    onStored: () => undefined,
    signal: undefined,
  })
  t.after(() => closeLanes(lanes))
  for (let index = 0; index < 2; index++) {
    const path = join(folder, `file-${index}`)
    writeFileSync(path, noise(index, 400_000))
    const job: SegmentJob = {
      index,
      path,
      offset: 0,
      whole: true,
      last: true,
      pageBytes: 0,
      parent: undefined,
    }
    await submitBatch(lanes, [job])
  }
  await store.untilHanging()
  return { lanes, store }
}

for (const [what, wait] of [
  ['flushLanes()', flushLanes],
  ['nextResults()', nextResults],
] as const) {
  test(`${what} fails when a thread ends without an error, as by process.exit()`, async (t) => {
    const { lanes } = await hangingLanes(t)
    const waiting = assert.rejects(wait(lanes), /a thread that saves files ended by itself with status 1/)
    await lanes.threads[0]?.worker.terminate()
    await waiting
  })
}

test('closeLanes() ends threads without a failure', async (t) => {
  const { lanes } = await hangingLanes(t)
  await closeLanes(lanes)
  assert.equal(lanes.failure, undefined)
})
