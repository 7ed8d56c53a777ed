/**
 * The equipment of one running backup: index, saver, lanes and the writing of index runs as packs become
 * durable. tendEngine() is called now and then between batches: every 60 s, or 131 072 chunks, it writes what
 * is durable into an index run, so that an interrupted backup can be adopted, and it turns the session table
 * over when that fills.
 */
import type { Clock } from '../base/clock.ts'
import { boundHeap } from '../base/garbage.ts'
import type { ConfigChunking } from '../format/config.ts'
import {
  adoptRun,
  attachIndex,
  beginSession,
  compactRuns,
  detachIndex,
  isSessionFilling,
  packInRuns,
  recordPack,
  rotateSession,
  type SharedIndex,
} from '../repo/chunk-index.ts'
import {
  buildSessionRun,
  newRunWriter,
  pendingChunks,
  writeRun,
  type AdoptedRuns,
  type RunWriter,
} from '../repo/run-writer.ts'
import { newSaver, type Saver, type StoredPack, type WriterKeys } from '../repo/saver.ts'
import type { BlobStore } from '../storage/store.ts'
import { newLane, type LaneSettings } from './lane-setup.ts'
import { closeLanes, flushLanes, newLanes, refreshLanes, type Lanes } from './lanes.ts'
import type { SegmentResult } from './segment.ts'

const RUN_INTERVAL_MS = 60_000
/** Encoding a run takes about 120 bytes a chunk (bench: growth by files). */
const RUN_CHUNKS = 131_072

export interface Engine {
  readonly saver: Saver
  readonly lanes: Lanes
  readonly runs: RunWriter
  /** Local runs of this session; emptied when it ends. */
  readonly sessionFolder: string
  readonly clock: Clock
  shared: SharedIndex
  /** Packs stored since the session table was last turned over. */
  sinceTurn: StoredPack[]
  lastRun: number
  /** Set by whoever wants the results of the lanes. */
  onResults: (results: readonly SegmentResult[]) => void
}

export interface EngineOptions {
  readonly store: BlobStore
  readonly keys: WriterKeys
  readonly chunking: ConfigChunking
  /** Opened lineage, with adopted runs. */
  readonly index: SharedIndex
  readonly adopted: AdoptedRuns | undefined
  readonly sessionFolder: string
  readonly clock: Clock
  /** Worker threads; 0 does all in this thread. */
  readonly workers: number
  readonly signal: AbortSignal | undefined
}

export function openEngine(options: EngineOptions): Engine {
  boundHeap()
  const { store, keys, chunking, sessionFolder, clock } = options
  const shared = beginSession(options.index)
  const runs = newRunWriter(store, keys, options.adopted)
  const { packBytesMax } = chunking
  const saver = newSaver(
    { keys, store, index: attachIndex(shared), packBytesMax, packBuffers: 2 },
    (pack) => {
      takeStored(engine, pack)
    },
  )
  const settings: LaneSettings = {
    sizes: chunking.cdc,
    runBytes: chunking.pagesRunBytes,
    inlineBytesMax: chunking.inlineBytesMax,
    packBytesMax,
  }
  const lanes = newLanes({
    count: options.workers,
    inline: newLane(saver, settings, clock),
    store,
    signal: options.signal,
    start: () => ({ ...settings, keys, shared: engine.shared, storeUrl: store.workerUrl }),
    onStored: (pack) => {
      takeStored(engine, pack)
    },
    onResults: (results) => {
      engine.onResults(results)
    },
  })
  const engine: Engine = {
    saver,
    lanes,
    runs,
    sessionFolder,
    clock,
    shared,
    sinceTurn: [],
    lastRun: clock.elapsed(),
    onResults: () => undefined,
  }
  return engine
}

/** Keeps the promises of the file header. Fails: as the store's put. */
export async function tendEngine(engine: Engine): Promise<void> {
  if (isSessionFilling(engine.shared)) await turnTable(engine)
  const isDue = engine.clock.elapsed() - engine.lastRun >= RUN_INTERVAL_MS
  if (!isDue && pendingChunks(engine.runs) < RUN_CHUNKS) return
  engine.lastRun = engine.clock.elapsed()
  await writeRun(engine.runs)
}

/** Everything saved so far is durable and listed in index runs when it resolves. Fails: as the store's put. */
export async function flushEngine(engine: Engine): Promise<void> {
  await flushLanes(engine.lanes)
  await writeRun(engine.runs)
}

/** Ends threads and files; also after a failure. */
export async function closeEngine(engine: Engine): Promise<void> {
  await closeLanes(engine.lanes)
  await Promise.allSettled(engine.saver.storing)
  detachIndex(engine.saver.index)
}

/** Pack ids (hex) by their number, '' where no pack has that number. */
export function packIds(engine: Engine): string[] {
  const count = Atomics.load(engine.shared.counter, 0)
  const { index } = engine.saver
  return Array.from(
    { length: count },
    (_, number) => index.packIds.get(number) ?? packInRuns(index, number)?.id ?? '',
  )
}

function takeStored(engine: Engine, pack: StoredPack): void {
  recordPack(engine.saver.index, pack.number, pack.id)
  engine.runs.pending.push(pack)
  engine.sinceTurn.push(pack)
}

/** Moves the chunks of the full session table into a local run, so that memory stays bounded. */
async function turnTable(engine: Engine): Promise<void> {
  engine.shared = rotateSession(engine.shared)
  refreshLanes(engine.lanes, engine.shared)
  await flushLanes(engine.lanes)
  const run = buildSessionRun(engine.sessionFolder, engine.sinceTurn)
  engine.sinceTurn = []
  engine.shared = compactRuns(adoptRun(engine.shared, run), engine.sessionFolder)
  refreshLanes(engine.lanes, engine.shared)
}
