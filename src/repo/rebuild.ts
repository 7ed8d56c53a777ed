/**
 * The index of packs whose index run is lost, made anew from what the packs say of themselves: a listing, a
 * footer a pack to find those of the pack set, and the headers of these. The result is a local sorted run;
 * nothing is written to the store.
 *
 * A pack whose end is damaged is left out, and its chunks stay unknown.
 */
import { rmSync } from 'node:fs'
import { mapConcurrent } from '../base/concurrent.ts'
import { indexPackAt, type IndexPack } from '../format/index-run.ts'
import { sha256 } from '../format/seal.ts'
import type { LineageSet } from '../format/snapshot.ts'
import type { BlobStore } from '../storage/store.ts'
import { openUnlessDamaged, runPath, type RunReference } from './chunk-index.ts'
import { isDamage } from './damage.ts'
import { packName } from './names.ts'
import { readPackFooter, readPackTail, storedPackOf, type NamedPack, type PackOwner } from './pack-tail.ts'
import { mergeRuns } from './run-builder.ts'
import { buildSessionRun } from './run-writer.ts'
import type { StoredPack } from './saver.ts'
import { attachRun, detachRun, readRunPacks, type SortedRun } from './sorted-run.ts'

/** Ends of packs read at the same time. */
const READS_MAX = 16
/** Entries sorted in memory at once: 40 MB with the headers that they come from. */
const PART_ENTRIES_MAX = 1 << 18

/** The packs of one domain by pack set, read when the first rebuild asks, and what was rebuilt of them. */
export interface PackCensus {
  readonly store: BlobStore
  readonly owner: PackOwner
  /** The domain's packs, if the caller has listed them; else they are listed here, once. */
  readonly listed: Iterable<NamedPack> | undefined
  /** SHA-256 of the runs known to be lost. */
  readonly lost: Set<string>
  readonly rebuilt: Map<string, RebuiltSet>
  sets: Map<string, NamedPack[]> | undefined
}

/** What takes the place of the lost runs of one pack set. */
export interface RebuiltSet {
  readonly packSet: string
  /** The local run, runPath(). */
  readonly run: RunReference
  /** Packs found that no other run of the set lists. */
  readonly packs: readonly IndexPack[]
  /** How many the lost runs listed, by the lineage; a broken one may say less than there are. */
  readonly packsExpected: number
  /** The packs found are, by number and bytes, exactly those that were listed. */
  readonly isWhole: boolean
}

export function newPackCensus(store: BlobStore, owner: PackOwner, listed?: Iterable<NamedPack>): PackCensus {
  return { store, owner, listed, lost: new Set(), rebuilt: new Map(), sets: undefined }
}

/**
 * Makes the local run for the lost runs of `set` in `folder`. `listed`: ids and bytes of the packs that its
 * other runs list. A whole set is kept for later calls of any process, a part only under a name that says
 * which packs it has. Fails: storage.* of the whole store, host.file.
 */
export async function rebuildSet(
  census: PackCensus,
  folder: string,
  set: LineageSet,
  listed: () => ReadonlyMap<string, number>,
): Promise<RebuiltSet> {
  const name = wholeName(census, set)
  const known = census.rebuilt.get(name)
  if (known !== undefined) return known
  const lost = set.runs.filter((run) => census.lost.has(run.sha256))
  const entryCount = lost.reduce((sum, run) => sum + run.entries, 0)
  const others = listed()
  let bytesExpected = set.bytes
  for (const bytes of others.values()) bytesExpected -= bytes
  const packsExpected = Math.max(0, set.packs - others.size)
  let run = openUnlessDamaged(runPath(folder, name), name)
  let isWhole = run !== undefined
  if (run === undefined) {
    const { parts, packs } = await readParts(census, folder, set.packSet, others)
    const bytes = packs.reduce((sum, pack) => sum + pack.bytes, 0)
    isWhole = packs.length === packsExpected && bytes === bytesExpected
    run = joinParts(folder, isWhole ? name : partName(name, packs), parts)
  }
  const packs = packsOfRun(run)
  const reference = { name: run.name, entryCount }
  const rebuilt = { packSet: set.packSet, run: reference, packs, packsExpected, isWhole }
  census.rebuilt.set(name, rebuilt)
  return rebuilt
}

/** Names what is lost, so that it can be found again without a look at the store. */
function wholeName(census: PackCensus, set: LineageSet): string {
  const runs = set.runs.map((run) => (census.lost.has(run.sha256) ? `lost ${run.sha256}` : run.sha256))
  const { domain } = census.owner
  const counts = `${set.packs} ${set.bytes}`
  return sha256(['backstock rebuilt run', domain, set.packSet, counts, ...runs].join('\n')).toString('hex')
}

function partName(name: string, packs: readonly { readonly id: string }[]): string {
  return sha256([name, ...packs.map((pack) => pack.id).sort()].join('\n')).toString('hex')
}

/** Sorted runs in a folder, to be merged, of all packs of the set that can be read and are not `listed`. */
async function readParts(
  census: PackCensus,
  folder: string,
  packSet: string,
  listed: ReadonlyMap<string, number>,
): Promise<{ parts: SortedRun[]; packs: { id: string; bytes: number }[] }> {
  const { store, owner } = census
  census.sets ??= await findSets(census)
  const parts: SortedRun[] = []
  const packs: { id: string; bytes: number }[] = []
  let pending: StoredPack[] = []
  let entryCount = 0
  await mapConcurrent(census.sets.get(packSet) ?? [], READS_MAX, async (named) => {
    const id = named.name.slice(-64)
    if (listed.has(id)) return
    const tail = await unlessDamaged(() => readPackTail(store, owner, named))
    if (tail === undefined) return
    const pack = storedPackOf(tail, { id, bytes: named.bytes })
    packs.push({ id, bytes: named.bytes })
    pending.push(pack)
    entryCount += pack.chunkClasses.length
    if (entryCount < PART_ENTRIES_MAX) return
    parts.push(buildSessionRun(folder, pending))
    pending = []
    entryCount = 0
  })
  parts.push(buildSessionRun(folder, pending))
  return { parts, packs }
}

/** Reads the footer of every pack. */
async function findSets(census: PackCensus): Promise<Map<string, NamedPack[]>> {
  const { store, owner } = census
  const sets = new Map<string, NamedPack[]>()
  await mapConcurrent(census.listed ?? (await listPacks(census)), READS_MAX, async (pack) => {
    const footer = await unlessDamaged(() => readPackFooter(store, owner, pack))
    if (footer === undefined) return
    // A pack of another kind than its folder's would be looked for elsewhere.
    if (packName(owner.domain, footer.kind, pack.name.slice(-64)) !== pack.name) return
    const packSet = footer.packSet.toString('hex')
    const set = sets.get(packSet)
    if (set === undefined) sets.set(packSet, [pack])
    else set.push(pack)
  })
  return sets
}

async function listPacks({ store, owner }: PackCensus): Promise<NamedPack[]> {
  const packs: NamedPack[] = []
  for (const folder of ['packs', 'meta'])
    for await (const { name, bytes } of store.list(`d/${owner.domain}/${folder}/`))
      packs.push({ name, bytes })
  return packs
}

async function unlessDamaged<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if (isDamage(error)) return undefined
    throw error
  }
}

function joinParts(folder: string, name: string, parts: readonly SortedRun[]): SortedRun {
  const path = runPath(folder, name)
  mergeRuns(path, name, parts)
  for (const part of parts) rmSync(part.path, { force: true })
  const run = openUnlessDamaged(path, name)
  if (run === undefined) throw new Error(`Bug: the run "${path}" was just written`)
  return run
}

/** The pack table of a local run. */
export function packsOfRun(run: SortedRun): IndexPack[] {
  const reader = attachRun(run)
  const table = readRunPacks(reader)
  detachRun(reader)
  return Array.from({ length: run.packCount }, (_, place) => indexPackAt(table, place))
}
