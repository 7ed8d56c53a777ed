/**
 * The index of one lineage: where does the chunk with this id lie? Asked for each chunk saved.
 *
 * Three layers, asked in this order: the session's active table, its previous table (session-table.ts, shared
 * memory), then the sorted runs of the lineage (sorted-run.ts, local files with shared filters).
 *
 * The main thread owns a SharedIndex, a plain record that may be posted; each thread makes its ChunkIndex
 * from it with attachIndex() and takes over a newer one with refreshIndex(). The way of a long session:
 *
 * - beginSession: an empty active table.
 * - isSessionFilling: past 70 % load the main thread does rotateSession(). The table becomes `previous`, a new
 *   one is active. It posts the SharedIndex; threads refresh when they come to it.
 * - adoptRun: when all chunks of `previous` are durable in an index run of the repository, and a sorted run was
 *   made of it, that run takes the place of `previous`. So wait until every thread has refreshed and the
 *   packs that it had open by then are stored.
 * - compactRuns: keeps the runs at RUNS_MAX by merging small ones.
 *
 * A thread that still works with an older SharedIndex misses only claims of others that are newer; it stores
 * those chunks a second time. Nothing is ever taken for stored that nobody stores: a table is left out only
 * after its run is in.
 *
 * Packs have global numbers: run packs and session packs count from one shared counter, and a number keeps
 * its meaning for the life of the index, also after runs were merged.
 */
import { readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { assert, Failure, isFailure } from '../base/failure.ts'
import { rawPath } from '../base/file-entry.ts'
import { makeFolders } from '../base/folders.ts'
import type { IndexPack } from '../format/index-run.ts'
import { sha256 } from '../format/seal.ts'
import { mergeRuns } from './run-builder.ts'
import {
  claimSlot,
  findSlot,
  isTableFilling,
  newSessionTable,
  type ChunkPlace,
  type SessionTable,
} from './session-table.ts'
import {
  attachRun,
  detachRun,
  mayHold,
  openRun,
  probesOf,
  readRunPack,
  searchCopies,
  searchRun,
  type RunReader,
  type SortedRun,
} from './sorted-run.ts'

/** More runs than this are merged: a lookup of an unknown chunk asks every filter. */
export const RUNS_MAX = 6
/** Runs merged at once: 256 KiB of memory each. */
const MERGE_RUNS_MAX = 32
/** Chunks of a session table: 3 MB a table, two tables at most. */
const SESSION_CAPACITY = 90_000

/** Packs of a run whose places from `place` on have the global numbers from `base` on. */
interface PackSpan {
  readonly place: number
  readonly base: number
  readonly count: number
}

interface IndexedRun {
  readonly run: SortedRun
  /** Without gaps, by place. */
  readonly spans: readonly PackSpan[]
}

/** The index as threads share it. May be posted to them. */
export interface SharedIndex {
  readonly runs: readonly IndexedRun[]
  readonly active: SessionTable | undefined
  readonly previous: SessionTable | undefined
  /** One word: the next free pack number. */
  readonly counter: Int32Array<SharedArrayBuffer>
}

/** The index as one thread uses it. */
export interface ChunkIndex {
  shared: SharedIndex
  readers: RunReader[]
  /** Ids of the session's own packs, as far as recordPack() told this thread. */
  readonly packIds: Map<number, string>
}

/** A run of the lineage, as the snapshot lists it. */
export interface RunReference {
  /** SHA-256 of the index run's object, hex: names the local file. */
  readonly name: string
  readonly entryCount: number
}

export interface LineageOptions {
  /** Folder of the local files, made if missing. Nothing else lies there. */
  readonly folder: string
  readonly runs: readonly RunReference[]
  /** Makes the sorted run `name` at `path` from the repository (run-builder.ts: buildRun()). */
  readonly build: (run: RunReference, path: string) => Promise<void>
}

// Opening

/**
 * Opens the runs of a lineage, making the local files that are missing or damaged and merging small runs so
 * that at most RUNS_MAX remain. Fails: host.file, and what `build` fails with.
 */
export async function openIndex(options: LineageOptions): Promise<SharedIndex> {
  makeFolders(rawPath(options.folder))
  let shared: SharedIndex = {
    runs: [],
    active: undefined,
    previous: undefined,
    counter: new Int32Array(new SharedArrayBuffer(4)),
  }
  for (const plan of planRuns(options.runs)) shared = addRun(shared, await openPlanned(options, plan))
  return shared
}

/** A run to open: from the repository, or merged from parts. */
interface PlannedRun extends RunReference {
  readonly parts: readonly PlannedRun[]
}

/**
 * Merges the smallest until RUNS_MAX are left. Depends only on the references, so the same merges are found
 * again.
 */
function planRuns(references: readonly RunReference[]): PlannedRun[] {
  let plan: PlannedRun[] = references.map((run) => ({ ...run, parts: [] }))
  while (plan.length > RUNS_MAX) {
    plan.sort(bySize)
    const count = Math.min(MERGE_RUNS_MAX, plan.length - RUNS_MAX + 1)
    const parts = plan.slice(0, count)
    const entryCount = parts.reduce((sum, part) => sum + part.entryCount, 0)
    plan = [...plan.slice(count), { name: mergedName(parts), entryCount, parts }]
  }
  return plan
}

function bySize(a: RunReference, b: RunReference): number {
  return a.entryCount - b.entryCount || (a.name < b.name ? -1 : 1)
}

function mergedName(parts: readonly { readonly name: string }[]): string {
  return sha256('backstock merged run', ...parts.map((part) => Buffer.from(part.name, 'hex'))).toString('hex')
}

async function openPlanned(options: LineageOptions, plan: PlannedRun): Promise<SortedRun> {
  const path = runPath(options.folder, plan.name)
  const there = openUnlessDamaged(path, plan.name)
  if (there !== undefined) return there
  if (plan.parts.length === 0) {
    await options.build(plan, path)
  } else {
    const parts: SortedRun[] = []
    for (const part of plan.parts) parts.push(await openPlanned(options, part))
    mergeRuns(path, plan.name, parts)
  }
  return openBuilt(path, plan.name)
}

/** Where the sorted run `name` lies. */
export function runPath(folder: string, name: string): string {
  return join(folder, `${name}.run`)
}

/** A damaged file counts as missing: it is written anew in its place. Fails: host.file. */
export function openUnlessDamaged(path: string, name: string): SortedRun | undefined {
  try {
    return openRun(path, name)
  } catch (error) {
    if (isFailure(error, 'repo.corrupt')) return undefined
    throw error
  }
}

function openBuilt(path: string, name: string): SortedRun {
  const run = openRun(path, name)
  if (run === undefined)
    throw new Failure('host.file', `Cannot open the index cache "${path}": it was not made`)
  return run
}

/**
 * Removes local files that `shared` does not use and that were not read since `usedSince` (milliseconds since
 * 1970): other backups and restores of this host have theirs in the same folder.
 */
export function sweepRuns(folder: string, shared: SharedIndex, usedSince: number): void {
  const kept = new Set(shared.runs.map(({ run }) => runPath(folder, run.name)))
  for (const file of readdirSync(folder)) {
    const path = join(folder, file)
    const stats = statSync(path, { throwIfNoEntry: false })
    const isUsed = stats === undefined || Math.max(stats.atimeMs, stats.mtimeMs) >= usedSince
    if (!kept.has(path) && !isUsed) rmSync(path, { force: true })
  }
}

// The session: what the main thread does with its SharedIndex. Each returns the next one, to be posted.

/** Begins a session with an empty table. */
export function beginSession(shared: SharedIndex, capacity = SESSION_CAPACITY): SharedIndex {
  return { ...shared, active: newSessionTable(capacity), previous: undefined }
}

/** Whether rotateSession() is due. A table that fills up without it stores chunks twice, and works. */
export function isSessionFilling(shared: SharedIndex): boolean {
  return shared.active !== undefined && isTableFilling(shared.active)
}

/** Makes the active table the previous one. There must be no previous one: adoptRun() goes before. */
export function rotateSession(shared: SharedIndex, capacity = SESSION_CAPACITY): SharedIndex {
  assert(shared.active !== undefined && shared.previous === undefined, 'a session has at most two tables')
  return { ...shared, active: newSessionTable(capacity), previous: shared.active }
}

/**
 * Adds the opened run that holds all chunks of the previous table, whose claims are all durable, and drops
 * that table. The run's packs get numbers of their own beside those they had in the session.
 */
export function adoptRun(shared: SharedIndex, run: SortedRun): SharedIndex {
  return { ...addRun(shared, run), previous: undefined }
}

function addRun(shared: SharedIndex, run: SortedRun): SharedIndex {
  const base = Atomics.add(shared.counter, 0, run.packCount)
  return { ...shared, runs: [...shared.runs, { run, spans: [{ place: 0, base, count: run.packCount }] }] }
}

/**
 * Merges small runs, if there are more than RUNS_MAX. Takes a microsecond an entry. Fails: host.file,
 * repo.corrupt.
 */
export function compactRuns(shared: SharedIndex, folder: string): SharedIndex {
  if (shared.runs.length <= RUNS_MAX) return shared
  const runs = shared.runs.toSorted((a, b) => bySize(a.run, b.run))
  const parts = runs.slice(0, Math.min(MERGE_RUNS_MAX, runs.length - RUNS_MAX + 3))
  const name = mergedName(parts.map(({ run }) => run))
  const path = runPath(folder, name)
  if (openUnlessDamaged(path, name) === undefined)
    mergeRuns(
      path,
      name,
      parts.map(({ run }) => run),
    )
  const spans: PackSpan[] = []
  let place = 0
  for (const part of parts) {
    for (const span of part.spans) spans.push({ ...span, place: place + span.place })
    place += part.run.packCount
  }
  return { ...shared, runs: [...runs.slice(parts.length), { run: openBuilt(path, name), spans }] }
}

// The index of one thread

/** Opens the files of the runs for this thread. End with detachIndex(). Fails: host.file. */
export function attachIndex(shared: SharedIndex): ChunkIndex {
  return { shared, readers: shared.runs.map(({ run }) => attachRun(run)), packIds: new Map() }
}

/** Takes over a newer SharedIndex of the same session; open files are kept. Fails: host.file. */
export function refreshIndex(index: ChunkIndex, shared: SharedIndex): void {
  const open = new Map(index.readers.map((reader) => [reader.run.path, reader]))
  const readers = shared.runs.map(({ run }) => open.get(run.path) ?? attachRun(run))
  const kept = new Set(readers)
  for (const reader of index.readers) if (!kept.has(reader)) detachRun(reader)
  index.readers = readers
  index.shared = shared
}

export function detachIndex(index: ChunkIndex): void {
  for (const reader of index.readers) detachRun(reader)
  index.readers = []
}

/** A known chunk: in a pack of the session, or in one that a run of the lineage lists. */
export interface KnownChunk extends ChunkPlace {
  readonly source: 'session' | 'run'
}

/**
 * Where the chunk lies whose id begins at `at` of `id`. Fails: repo.corrupt if a local file was damaged
 * meanwhile.
 */
export function lookupChunk(index: ChunkIndex, id: Buffer, at = 0): KnownChunk | undefined {
  const { active, previous } = index.shared
  const active_ = active && findSlot(active, id, at)
  const session = active_ ?? (previous && findSlot(previous, id, at))
  if (session !== undefined) return { source: 'session', ...session }
  const place = lookupInRuns(index, id, at)
  return place === undefined ? undefined : { source: 'run', ...place }
}

/**
 * Claims the chunk `id` (32 bytes) as chunk `number` of the session's pack `pack`: undefined means that the
 * caller must store it there or fail the session; else where it lies already. Of all threads that ask, one is
 * told to store it.
 */
export function claimChunk(
  index: ChunkIndex,
  id: Buffer,
  pack: number,
  number: number,
): ChunkPlace | undefined {
  const { active, previous } = index.shared
  assert(active !== undefined, 'claims belong to a session')
  const known =
    findSlot(active, id, 0) ?? (previous && findSlot(previous, id, 0)) ?? lookupInRuns(index, id, 0)
  return known ?? claimSlot(active, id, 0, { pack, number })
}

function lookupInRuns(index: ChunkIndex, id: Buffer, at: number): ChunkPlace | undefined {
  const { runs } = index.shared
  const probes = probesOf(id, at)
  for (let place = 0; place < index.readers.length; place++) {
    const reader = index.readers[place] as RunReader
    const found = mayHold(reader.run, probes) ? searchRun(reader, id, at) : undefined
    if (found === undefined) continue
    const { spans } = runs[place] as IndexedRun
    return { pack: packNumber(spans, found.pack), number: found.chunk }
  }
  return undefined
}

/**
 * Every place where the runs of the lineage say that the chunk `id` lies, the one of lookupChunk() first:
 * threads that save the same chunk at once store it twice. Failures as lookupChunk().
 */
export function lookupCopies(index: ChunkIndex, id: Buffer): ChunkPlace[] {
  const probes = probesOf(id, 0)
  return index.readers.flatMap((reader, place) => {
    if (!mayHold(reader.run, probes)) return []
    const { spans } = index.shared.runs[place] as IndexedRun
    return searchCopies(reader, id, 0).map((found) => ({
      pack: packNumber(spans, found.pack),
      number: found.chunk,
    }))
  })
}

function packNumber(spans: readonly PackSpan[], place: number): number {
  for (const span of spans) if (place < span.place + span.count) return span.base + place - span.place
  throw new Error('Bug: an entry lies in a pack of its run')
}

/** A number for a new pack of the session; never given twice, in no thread. */
export function nextPackNumber(index: ChunkIndex): number {
  return Atomics.add(index.shared.counter, 0, 1)
}

/** Tells this thread's index the id of a stored pack of the session, for packIdOf(). */
export function recordPack(index: ChunkIndex, pack: number, id: string): void {
  index.packIds.set(pack, id)
}

/** The id (hex) of a pack by its number: of a run, or told by recordPack(). */
export function packIdOf(index: ChunkIndex, pack: number): string {
  const id = index.packIds.get(pack) ?? packInRuns(index, pack)?.id
  if (id !== undefined) return id
  throw new Error(`Bug: nobody told the index the id of pack ${pack}`)
}

/** What a run of the lineage says of the pack with this number; undefined for packs of the session. */
export function packInRuns(index: ChunkIndex, pack: number): IndexPack | undefined {
  for (const [place, { spans }] of index.shared.runs.entries())
    for (const span of spans)
      if (pack >= span.base && pack < span.base + span.count)
        return readRunPack(index.readers[place] as RunReader, span.place + pack - span.base)
  return undefined
}
