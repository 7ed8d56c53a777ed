/**
 * Opens the index of a lineage: fetches its runs, verifies them, and keeps them as local sorted runs
 * (chunk-index.ts). Runs that are lost are rebuilt from the packs (rebuild.ts): the store's index is a
 * shortcut, not the truth.
 */
import { Failure } from '../base/failure.ts'
import { sha256 } from '../format/seal.ts'
import type { LineageRun, LineageSet } from '../format/snapshot.ts'
import type { BlobStore } from '../storage/store.ts'
import { openIndex, openUnlessDamaged, runPath, type RunReference, type SharedIndex } from './chunk-index.ts'
import { isDamage } from './damage.ts'
import { subFolder, type HostFolder } from './host-folder.ts'
import type { DomainKeys } from './keys.ts'
import { runName } from './names.ts'
import { newPackCensus, packsOfRun, rebuildSet, type PackCensus, type RebuiltSet } from './rebuild.ts'
import { buildRun } from './run-builder.ts'

/** Where a lineage is read. */
export interface LineagePlace {
  readonly store: BlobStore
  readonly repository: string
  readonly keys: DomainKeys
  readonly host: HostFolder
  /** Of this domain: whoever opens many lineages shares it, so that the store is listed once. */
  readonly census?: PackCensus
}

export interface OpenedLineage {
  readonly index: SharedIndex
  /** Pack sets of which index runs are lost: an index was made from their packs instead. */
  readonly rebuilt: readonly RebuiltSet[]
}

/** Fails: storage.* of the whole store, host.file. */
export async function openLineage(
  place: LineagePlace,
  lineage: readonly LineageSet[],
): Promise<OpenedLineage> {
  const { store, repository, keys, host } = place
  const { domain, indexKey, frameBytesMax } = keys
  const owner = { repository: Buffer.from(repository, 'hex'), domain, indexKey, frameBytesMax }
  const census = place.census ?? newPackCensus(store, owner)
  const folder = subFolder(host, 'index')
  const sets = new Map(lineage.flatMap((set) => set.runs.map((run) => [run.sha256, { set, run }] as const)))
  const build = async (reference: RunReference, path: string): Promise<void> => {
    const named = sets.get(reference.name)
    if (named === undefined) throw new Error('Bug: a rebuilt run is there before the index is opened')
    try {
      await fetchRun(place, named.set.packSet, named.run, path)
    } catch (error) {
      if (isDamage(error)) census.lost.add(reference.name)
      throw error
    }
  }
  for (;;) {
    const lostBefore = census.lost.size
    const rebuilt: RebuiltSet[] = []
    for (const set of lineage)
      if (set.runs.some((run) => census.lost.has(run.sha256)))
        rebuilt.push(await rebuildSet(census, folder, set, () => listedPacks(census, folder, set)))
    const sound = lineage.flatMap((set) => set.runs).filter((run) => !census.lost.has(run.sha256))
    const runs = sound.map((run) => ({ name: run.sha256, entryCount: run.entries }))
    runs.push(...rebuilt.map((set) => set.run))
    try {
      return { index: await openIndex({ folder, runs, build }), rebuilt }
    } catch (error) {
      if (!isDamage(error) || census.lost.size === lostBefore) throw error
      await findLost(runs, folder, build)
    }
  }
}

/** Looks at all runs that have no local file, so that those which are lost are known together. */
async function findLost(
  runs: readonly RunReference[],
  folder: string,
  build: (run: RunReference, path: string) => Promise<void>,
): Promise<void> {
  for (const run of runs) {
    const path = runPath(folder, run.name)
    if (openUnlessDamaged(path, run.name) !== undefined) continue
    try {
      await build(run, path)
    } catch (error) {
      if (!isDamage(error)) throw error
    }
  }
}

/** Bytes by id of the packs that the runs of a set list that are not lost. findLost() was there before. */
function listedPacks(census: PackCensus, folder: string, set: LineageSet): Map<string, number> {
  const listed = new Map<string, number>()
  for (const { sha256: name } of set.runs) {
    const run = census.lost.has(name) ? undefined : openUnlessDamaged(runPath(folder, name), name)
    if (run !== undefined) for (const pack of packsOfRun(run)) listed.set(pack.id, pack.bytes)
  }
  return listed
}

/** Fails: storage.missing (the run is gone), repo.corrupt (it is not the one the snapshot names). */
async function fetchRun(
  { store, repository, keys }: LineagePlace,
  packSet: string,
  run: LineageRun,
  path: string,
): Promise<void> {
  const name = runName(keys.domain, packSet, run.n)
  const object = await store.get(name)
  if (sha256(object).toString('hex') !== run.sha256)
    throw new Failure('repo.corrupt', `Cannot trust ${name}: it is not the run that the snapshot names`, {
      facts: { name },
    })
  const expected = {
    repository: Buffer.from(repository, 'hex'),
    domain: Buffer.from(keys.domain, 'hex'),
    packSet: Buffer.from(packSet, 'hex'),
    number: run.n,
    what: name,
  }
  buildRun({ path, name: run.sha256 }, object, expected, keys.indexKey)
}
