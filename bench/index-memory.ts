/**
 * Child process of the bench: how much memory the chunk index holds for 4 million chunks. Fills the index of
 * src/repo/chunk-index.ts run by run, as a repository of 4 TB would, looks chunks up, collects garbage, and
 * prints one line of JSON: what the process holds then beyond what it held before the first chunk.
 * Run: node --expose-gc bench/index-memory.ts FOLDER [CHUNKS] [MODULE]
 */
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { createNoise, draw, noiseBytes } from './data/noise.ts'
import type { IndexMemory } from './measures/index-memory.ts'

/**
 * What this bench knows of the index: a run is entries sorted by id, the index answers where a chunk lies.
 */
interface ChunkIndexModule {
  openChunkIndex(options: { folder: string }): unknown
  addIndexRun(index: unknown, entries: Iterable<IndexEntry>): unknown
  findChunk(index: unknown, id: Uint8Array): unknown
  closeChunkIndex(index: unknown): unknown
}

interface IndexEntry {
  id: Uint8Array
  pack: Uint8Array
  number: number
  bytes: number
}

const idBytes = 32
const runChunks = 100_000
const packChunks = 64
const lookupCount = 100_000

const [folder, chunkText = '4000000', modulePath = 'src/repo/chunk-index.ts'] = process.argv.slice(2)
if (folder === undefined) throw new Error('Cannot measure without a folder for the index')
if (globalThis.gc === undefined) throw new Error('Cannot measure without --expose-gc')
const loaded = await loadModule(modulePath)
const report = await measureIndex(loaded, { folder, chunks: Number(chunkText) })
process.stdout.write(`${JSON.stringify(report)}\n`)

async function measureIndex(
  module: ChunkIndexModule,
  size: { folder: string; chunks: number },
): Promise<IndexMemory> {
  const before = residentBytes()
  const index = await module.openChunkIndex({ folder: size.folder })
  for (let run = 0; run * runChunks < size.chunks; run++) {
    const count = Math.min(runChunks, size.chunks - run * runChunks)
    await module.addIndexRun(index, runEntries(run, count))
  }
  const known = createNoise('index lookups')
  const runCount = Math.ceil(size.chunks / runChunks)
  const started = performance.now()
  for (let run = 0; run < Math.min(runCount, 10); run++) {
    const ids = runIds(run, Math.min(runChunks, size.chunks - run * runChunks))
    for (let lookup = 0; lookup < lookupCount / 10; lookup++) {
      const found = await module.findChunk(index, idAt(ids, draw(known, 0, ids.length / idBytes - 1)))
      if (found === undefined) throw new Error('Cannot trust the index: a chunk that was added is not found')
    }
  }
  const seconds = (performance.now() - started) / 1000
  for (let lookup = 0; lookup < lookupCount; lookup++) {
    const found = await module.findChunk(index, noiseBytes(known, idBytes))
    if (found !== undefined) throw new Error('Cannot trust the index: it finds a chunk that was never added')
  }
  const after = residentBytes()
  const peakBytes = process.resourceUsage().maxRSS * 1024 - before
  await module.closeChunkIndex(index)
  const lookupsPerSecond = Math.round(Math.min(lookupCount, size.chunks) / seconds)
  return { chunks: size.chunks, residentBytes: after - before, peakBytes, lookupsPerSecond }
}

/** Ids of a run, random as keyed hashes are, sorted. The same run has the same ids. */
function runIds(run: number, count: number): Buffer {
  const noise = createNoise(`index run ${run}`)
  const ids = Array.from({ length: count }, () => noiseBytes(noise, idBytes))
  return Buffer.concat(ids.toSorted((a, b) => Buffer.compare(a, b)))
}

function* runEntries(run: number, count: number): Generator<IndexEntry> {
  const ids = runIds(run, count)
  const packs = createNoise(`packs of run ${run}`)
  let pack = noiseBytes(packs, idBytes)
  for (let at = 0; at < count; at++) {
    if (at % packChunks === 0) pack = noiseBytes(packs, idBytes)
    yield { id: idAt(ids, at), pack, number: at % packChunks, bytes: 1_048_576 }
  }
}

function idAt(ids: Buffer, at: number): Uint8Array {
  return ids.subarray(at * idBytes, (at + 1) * idBytes)
}

/** Resident memory once all that can be collected is. */
function residentBytes(): number {
  for (let pass = 0; pass < 4; pass++) globalThis.gc?.()
  return process.memoryUsage.rss()
}

/** The path is a value because this file must also be checked where the index is another checkout's. */
async function loadModule(path: string): Promise<ChunkIndexModule> {
  const module: unknown = await import(pathToFileURL(resolve(import.meta.dirname, '..', path)).href)
  if (!isChunkIndexModule(module))
    throw new Error(`Cannot use ${path}: it does not export what this bench calls`)
  return module
}

function isChunkIndexModule(value: unknown): value is ChunkIndexModule {
  if (typeof value !== 'object' || value === null) return false
  const names = ['openChunkIndex', 'addIndexRun', 'findChunk', 'closeChunkIndex']
  return names.every((name) => typeof Reflect.get(value, name) === 'function')
}
