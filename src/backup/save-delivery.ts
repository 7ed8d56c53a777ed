/** Saves what a source delivers: its files go to the lanes as they come, then their entries make the tree. */
import { Failure } from '../base/failure.ts'
import { displayName } from '../base/file-entry.ts'
import type { TreeEntry } from '../format/tree.ts'
import type { Saver } from '../repo/saver.ts'
import { appendRecord, type CacheRecord, type CacheWriter } from '../repo/tree-cache.ts'
import { addEntry, enterDirectory, leaveDirectory, type TreeBuilder } from '../repo/tree-builder.ts'
import type { Delivery } from '../sources/source.ts'
import {
  beginFile,
  endFile,
  finishArrivals,
  newArrivals,
  roomForMore,
  takeBytes,
  takeOther,
} from './arrivals.ts'
import { throwIfCancelled } from './cancel.ts'
import { newEntrySorter, sortedEntries, type EntrySorter, type SortedRecord } from './entry-sorter.ts'
import type { Lanes } from './lanes.ts'
import type { Marks } from './marks.ts'
import { newMarkedBuilder, newTotals, type TreeTotals } from './tree-saver.ts'

export interface DeliveryOptions {
  readonly saver: Saver
  readonly lanes: Lanes
  readonly cache: CacheWriter | undefined
  readonly marks: Marks
  /** For what does not fit into memory; the caller empties it. */
  readonly folder: string
  readonly tend: () => Promise<void>
  readonly onProgress: (totals: TreeTotals, path: string) => void
  readonly signal: AbortSignal | undefined
}

interface Folder {
  readonly path: string
  readonly entry: TreeEntry
}

interface DeliveredTree {
  readonly builder: TreeBuilder
  readonly cache: CacheWriter | undefined
  /** Folders that the builder is in, below the root. */
  readonly open: Folder[]
}

/** Entries between two turns of the event loop. */
const TURN_ENTRIES = 1024
const LEAVE = { kind: 'leave', entry: undefined, marks: [], pages: [] } as const

/** Returns the id of the root node. Fails: as the source and the store fail, cancelled. */
export async function saveDelivery(
  options: DeliveryOptions,
  delivery: Delivery,
): Promise<{ root: Uint8Array; totals: TreeTotals }> {
  const totals = newTotals()
  const sorter = newEntrySorter(options.folder)
  const arrivals = newArrivals({ ...options, totals, sorter })
  await delivery.deliver(
    {
      takeEntry: (path, entry) => {
        takeOther(arrivals, path, entry)
      },
      beginFile: (path, entry, format) => {
        beginFile(arrivals, path, entry, format)
      },
      takeBytes: (bytes) => takeBytes(arrivals, bytes),
      endFile: () => {
        endFile(arrivals)
      },
      room: () => roomForMore(arrivals),
      finish: () => finishArrivals(arrivals),
    },
    options.signal,
  )
  return { root: await saveSorted(options, sorter), totals }
}

async function saveSorted(options: DeliveryOptions, sorter: EntrySorter): Promise<Uint8Array> {
  const { saver, marks, cache, signal, tend } = options
  const builder = newMarkedBuilder(saver, marks)
  const tree: DeliveredTree = { builder, cache, open: [] }
  let last = ''
  let seen = 0
  for (const sorted of sortedEntries(sorter)) {
    if (sorted.path === last) throw misplaced(sorted.path, 'came twice')
    last = sorted.path
    await saveOne(tree, sorted)
    if (++seen % TURN_ENTRIES > 0) continue
    await tend()
    await new Promise((resolve) => setImmediate(resolve))
    throwIfCancelled(signal)
  }
  while (tree.open.length > 0) await leaveFolder(tree)
  return await leaveDirectory(builder)
}

async function saveOne(tree: DeliveredTree, { path, record }: SortedRecord): Promise<void> {
  const parent = path.slice(0, path.lastIndexOf('/'))
  while (tree.open.length > 0 && tree.open.at(-1)?.path !== parent) await leaveFolder(tree)
  if ((tree.open.at(-1)?.path ?? '') !== parent) throw misplaced(path, 'came without its folder')
  const entry = record.entry!
  if (record.kind === 'enter') {
    tree.open.push({ path, entry })
    enterDirectory(tree.builder)
  } else {
    await addEntry(tree.builder, entry)
  }
  note(tree, record)
}

async function leaveFolder(tree: DeliveredTree): Promise<void> {
  const { entry } = tree.open.pop()!
  const node = await leaveDirectory(tree.builder)
  await addEntry(tree.builder, { ...entry, node })
  note(tree, LEAVE)
}

function note({ cache }: DeliveredTree, record: CacheRecord): void {
  if (cache !== undefined) appendRecord(cache, record)
}

function misplaced(path: string, what: string): Failure {
  return new Failure('source.failed', `Cannot store what the server sent: "${displayName(path)}" ${what}`)
}
