/**
 * Child process of the bench: how much memory the chunk index holds for 4 million chunks.
 *
 * `fill` makes the sorted runs of a lineage, merged as the index merges them. `hold` opens them in a process
 * of its own, as a backup with two workers does: three threads' readers and two full session tables. It looks
 * chunks up, collects garbage, and prints as JSON what the process holds beyond what it held before
 * the first one, compiled code and uncollected heap included: an upper bound.
 *
 * Run: node --expose-gc bench/index-memory.ts fill|hold FOLDER CHUNKS
 */
import { createHash } from 'node:crypto'
import {
  encodeIndexPacks,
  INDEX_ENTRY_BYTES,
  putIndexEntry,
  sortIndexEntries,
} from '../src/format/index-run.ts'
import {
  attachIndex,
  beginSession,
  claimChunk,
  detachIndex,
  isSessionFilling,
  lookupChunk,
  openIndex,
  refreshIndex,
  rotateSession,
  type ChunkIndex,
  type RunReference,
  type SharedIndex,
} from '../src/repo/chunk-index.ts'
import { addRunEntries, beginRun, closeRun, finishRun } from '../src/repo/run-builder.ts'
import { createNoise, draw, noiseBytes } from './data/noise.ts'
import type { IndexMemory } from './measures/index-memory.ts'

const idBytes = 32
/** Ids are made in blocks: what asks the index must not leave garbage to be counted as the index. */
const blockBytes = 1 << 20
const runChunks = 100_000
const packChunks = 16
const lookupCount = 100_000
const threadCount = 3

const [step, folder = '', chunkText] = process.argv.slice(2)
const chunks = Number(chunkText)
if (step === 'fill') await openIndex({ folder, runs: lineage(chunks), build: buildRunFile })
else if (step === 'hold') process.stdout.write(`${JSON.stringify(await holdIndex(folder, chunks))}\n`)
else throw new Error('Cannot measure without a step: fill or hold')

async function holdIndex(folder: string, chunks: number): Promise<IndexMemory> {
  const before = residentBytes()
  const runs = lineage(chunks)
  const shared = await openIndex({ folder, runs, build: refuseToBuild })
  const indexes = Array.from({ length: threadCount }, () => attachIndex(shared))
  fillSession(indexes, shared)
  const lookupsPerSecond = Math.max(...indexes.map((index) => lookUp(index, runs.length - 1)))
  const after = residentBytes()
  const peakBytes = process.resourceUsage().maxRSS * 1024 - before
  for (const index of indexes) detachIndex(index)
  return { chunks, residentBytes: after - before, peakBytes, lookupsPerSecond }
}

/** Two tables of claims, the most that a session holds. */
function fillSession(indexes: ChunkIndex[], opened: SharedIndex): void {
  const noise = createNoise('index session')
  const claimUntilFilling = (shared: SharedIndex) => {
    for (const index of indexes) refreshIndex(index, shared)
    for (let number = 0; !isSessionFilling(shared);) {
      const ids = noiseBytes(noise, blockBytes)
      for (let at = 0; at < blockBytes; at += idBytes, number++) {
        const index = indexes[number % threadCount]
        if (index !== undefined) claimChunk(index, ids.subarray(at, at + idBytes), number, 0)
      }
    }
  }
  const first = beginSession(opened)
  claimUntilFilling(first)
  claimUntilFilling(rotateSession(first))
}

/** Looks up as many chunks that are stored as chunks that are not; gives how many were answered a second. */
function lookUp(index: ChunkIndex, run: number): number {
  const known = noiseBytes(createNoise(runName(run)), blockBytes)
  const unknown = noiseBytes(createNoise('index lookups'), blockBytes)
  const order = createNoise('index lookup order')
  const started = performance.now()
  for (let lookup = 0; lookup < lookupCount / 2; lookup++) {
    const at = draw(order, 0, blockBytes / idBytes - 1) * idBytes
    const isFound = lookupChunk(index, known, at) !== undefined
    const isInvented = lookupChunk(index, unknown, at) !== undefined
    if (!isFound || isInvented) throw new Error('Cannot trust the index: it misses or invents chunks')
  }
  return Math.round((lookupCount * 1000) / (performance.now() - started))
}

/** The runs of a lineage: 100 000 chunks each, as long sessions and many increments leave them. */
function lineage(chunks: number): RunReference[] {
  const runCount = Math.ceil(chunks / runChunks)
  return Array.from({ length: runCount }, (_, run) => ({ name: runName(run), entryCount: runChunks }))
}

async function buildRunFile(reference: RunReference, path: string): Promise<void> {
  const noise = createNoise(reference.name)
  const entries = Buffer.alloc(reference.entryCount * INDEX_ENTRY_BYTES)
  for (let at = 0; at < reference.entryCount; at++) {
    const place = { pack: Math.floor(at / packChunks), chunk: at % packChunks, class: 1 }
    putIndexEntry(entries, at * INDEX_ENTRY_BYTES, noiseBytes(noise, idBytes), place)
  }
  const packs = Array.from({ length: Math.ceil(reference.entryCount / packChunks) }, () => {
    return { id: noiseBytes(noise, idBytes).toString('hex'), bytes: 16 << 20, chunks: packChunks, kind: 1 }
  })
  const builder = beginRun(path, reference.name, reference.entryCount)
  try {
    addRunEntries(builder, sortIndexEntries(entries))
    finishRun(builder, encodeIndexPacks(packs))
  } finally {
    closeRun(builder)
  }
}

async function refuseToBuild(run: RunReference): Promise<void> {
  throw new Error(`Cannot measure an index that is still being made: run ${run.name} is missing`)
}

/** The name of a run is also the seed of its ids, which are random as keyed hashes are. */
function runName(run: number): string {
  return createHash('sha256').update(`index run ${run}`).digest('hex')
}

/** Resident memory once all that can be collected is. */
function residentBytes(): number {
  if (globalThis.gc === undefined) throw new Error('Cannot measure without --expose-gc')
  for (let pass = 0; pass < 4; pass++) globalThis.gc()
  return process.memoryUsage.rss()
}
