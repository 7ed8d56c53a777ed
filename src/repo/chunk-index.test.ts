import { strict as assert } from 'node:assert'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import fc from 'fast-check'
import { encodeIndexPacks, INDEX_ENTRY_BYTES, putIndexEntry, sortIndexEntries } from '../format/index-run.ts'
import {
  adoptRun,
  attachIndex,
  beginSession,
  claimChunk,
  compactRuns,
  detachIndex,
  isSessionFilling,
  lookupChunk,
  nextPackNumber,
  openIndex,
  packIdOf,
  recordPack,
  refreshIndex,
  rotateSession,
  runPath,
  RUNS_MAX,
  sweepRuns,
  type RunReference,
  type SharedIndex,
} from './chunk-index.ts'
import { addRunEntries, beginRun, closeRun, finishRun } from './run-builder.ts'
import { openRun, type SortedRun } from './sorted-run.ts'

const THREADS = 3
const RACED = 20_000
const PACKS = 3

function idOf(number: number): Buffer {
  return createHash('sha256').update(String(number)).digest()
}

function hexName(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function newFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-index-'))
  t.after(() => rmSync(folder, { recursive: true }))
  return folder
}

/** Writes a run of these chunks: chunk c is number c % 1000 of the pack `packs[c % packs.length]`. */
function writeRun(path: string, name: string, packs: readonly string[], chunks: readonly number[]): void {
  const entries = Buffer.alloc(chunks.length * INDEX_ENTRY_BYTES)
  chunks.forEach((chunk, place) =>
    putIndexEntry(entries, place * INDEX_ENTRY_BYTES, idOf(chunk), {
      pack: chunk % packs.length,
      chunk: chunk % 1000,
      class: 1,
    }),
  )
  const builder = beginRun(path, name, chunks.length)
  try {
    addRunEntries(builder, sortIndexEntries(entries))
    finishRun(builder, encodeIndexPacks(packs.map((id) => ({ id, bytes: 1, chunks: 1000, kind: 1 }))))
  } finally {
    closeRun(builder)
  }
}

const packsOf = (run: string) => Array.from({ length: PACKS }, (_, place) => hexName(`${run} pack ${place}`))

/** A lineage whose run `r` holds the chunks `parts[r]`; counts what had to be built. */
function lineage(folder: string, parts: readonly (readonly number[])[]) {
  const built: string[] = []
  const runs = parts.map((chunks, place) => ({ name: hexName(`run ${place}`), entryCount: chunks.length }))
  const build = async (run: RunReference, path: string): Promise<void> => {
    built.push(run.name)
    writeRun(path, run.name, packsOf(run.name), parts[runs.findIndex(({ name }) => name === run.name)] ?? [])
  }
  return { built, options: { folder, runs, build } }
}

function openMade(folder: string, name: string): SortedRun {
  const run = openRun(runPath(folder, name), name)
  assert.ok(run)
  return run
}

/** Claims chunks 0 … RACED − 1 for packs of its own; tells which it was told to store. */
function race({ shared, gate }: { shared: SharedIndex; gate: Int32Array<SharedArrayBuffer> }): number[] {
  const index = attachIndex(shared)
  const pack = nextPackNumber(index)
  Atomics.add(gate, 0, 1)
  while (Atomics.load(gate, 0) < THREADS);
  const stored: number[] = []
  for (let chunk = 0; chunk < RACED; chunk++)
    if (claimChunk(index, idOf(chunk), pack, chunk) === undefined) stored.push(chunk)
  detachIndex(index)
  return stored
}

if (isMainThread) {
  test('threads that share an index store each new chunk once and no known one', async (t) => {
    const known = Array.from({ length: 5000 }, (_, n) => n * 2)
    const { options } = lineage(newFolder(t), [known])
    const shared = beginSession(await openIndex(options), RACED)
    const gate = new Int32Array(new SharedArrayBuffer(4))
    const results = await Promise.all(
      Array.from({ length: THREADS }, async () => {
        const worker = new Worker(new URL(import.meta.url), { workerData: { shared, gate } })
        return (await once(worker, 'message'))[0] as number[]
      }),
    )
    const stored = results.flat().sort((a, b) => a - b)
    const isKnown = new Set(known)
    assert.deepEqual(
      stored,
      Array.from({ length: RACED }, (_, n) => n).filter((n) => !isKnown.has(n)),
    )
  })

  test('an index of many runs answers as a map does, with the right pack ids', async (t) => {
    const root = newFolder(t)
    let turn = 0
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uniqueArray(fc.nat({ max: 400 }), { maxLength: 120 }), { maxLength: 14 }),
        async (parts) => {
          const { options } = lineage(join(root, String(turn++)), parts)
          const shared = await openIndex(options)
          assert.ok(shared.runs.length <= RUNS_MAX)
          const index = attachIndex(shared)
          for (let chunk = 0; chunk <= 400; chunk++) {
            const holders = parts.flatMap((chunks, place) =>
              chunks.includes(chunk) ? [packsOf(hexName(`run ${place}`))[chunk % PACKS]] : [],
            )
            const found = lookupChunk(index, idOf(chunk))
            assert.equal(found !== undefined, holders.length > 0)
            if (found === undefined) continue
            assert.equal(found.source, 'run')
            assert.equal(found.number, chunk % 1000)
            assert.ok(holders.includes(packIdOf(index, found.pack)))
          }
          detachIndex(index)
        },
      ),
      { numRuns: 25 },
    )
  })

  test('openIndex() builds what is missing or damaged, and finds merges again', async (t) => {
    const folder = newFolder(t)
    const parts = Array.from({ length: 12 }, (_, place) => [place, place + 100])
    const first = lineage(folder, parts)
    await openIndex(first.options)
    assert.equal(first.built.length, 12)
    const again = lineage(folder, parts)
    const shared = await openIndex(again.options)
    assert.deepEqual(again.built, [])
    sweepRuns(folder, shared, 0)
    assert.equal(readdirSync(folder).length, RUNS_MAX + 7)
    sweepRuns(folder, shared, Infinity)
    assert.equal(readdirSync(folder).length, RUNS_MAX)
    // The parts of a merged run are not asked for as long as the merged run is there.
    const swept = lineage(folder, parts)
    const last = (await openIndex(swept.options)).runs.at(-1)
    assert.deepEqual(swept.built, [])
    assert.ok(last)
    const bytes = readFileSync(last.run.path)
    bytes[40] = (bytes[40] ?? 0) ^ 1
    writeFileSync(last.run.path, bytes)
    const mended = lineage(folder, parts)
    await openIndex(mended.options)
    assert.equal(mended.built.length, parts.length - RUNS_MAX + 1)
  })

  test('a session finds its chunks through rotation and compaction; pack numbers stay', async (t) => {
    const folder = newFolder(t)
    const { options } = lineage(folder, [[0, 1, 2]])
    let shared = beginSession(await openIndex(options), 10)
    const index = attachIndex(shared)
    const told = new Map<number, string>()
    let next = 10
    for (let round = 0; round < RUNS_MAX + 4; round++) {
      const chunks: number[] = []
      const pack = nextPackNumber(index)
      recordPack(index, pack, hexName(`session pack ${pack}`))
      while (!isSessionFilling(shared)) {
        assert.equal(claimChunk(index, idOf(next), pack, next % 1000), undefined)
        chunks.push(next++)
      }
      shared = rotateSession(shared, 10)
      refreshIndex(index, shared)
      const last = lookupChunk(index, idOf(next - 1))
      assert.deepEqual(last, { source: 'session', pack, number: (next - 1) % 1000 })
      assert.deepEqual(claimChunk(index, idOf(next - 1), pack + 1, 0), { pack, number: (next - 1) % 1000 })
      const name = hexName(`session run ${round}`)
      writeRun(runPath(folder, name), name, [hexName(`session pack ${pack}`)], chunks)
      shared = compactRuns(adoptRun(shared, openMade(folder, name)), folder)
      refreshIndex(index, shared)
      assert.ok(shared.runs.length <= RUNS_MAX)
      for (let chunk = 10; chunk < next; chunk++) {
        const found = lookupChunk(index, idOf(chunk))
        assert.equal(found?.source, 'run')
        assert.equal(found.number, chunk % 1000)
        told.set(found.pack, packIdOf(index, found.pack))
      }
      for (const [number, id] of told) assert.equal(packIdOf(index, number), id)
    }
    assert.equal(new Set(told.values()).size, RUNS_MAX + 4)
    assert.equal(lookupChunk(index, idOf(1))?.source, 'run')
    assert.equal(lookupChunk(index, idOf(next)), undefined)
    detachIndex(index)
  })

  test('an index without runs and without a session knows nothing', async (t) => {
    const { options } = lineage(newFolder(t), [])
    const index = attachIndex(await openIndex(options))
    assert.equal(lookupChunk(index, idOf(1)), undefined)
    assert.throws(() => claimChunk(index, idOf(1), 0, 0), /Bug/)
    assert.throws(() => packIdOf(index, 0), /Bug/)
  })
} else {
  parentPort?.postMessage(race(workerData as Parameters<typeof race>[0]))
}
