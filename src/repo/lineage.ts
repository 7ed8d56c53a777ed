/**
 * Opens the index of a lineage: fetches its runs, verifies them, and keeps them as local sorted runs
 * (chunk-index.ts).
 */
import type { DomainKeys } from './keys.ts'
import { Failure } from '../base/failure.ts'
import { sha256 } from '../format/seal.ts'
import type { LineageSet } from '../format/snapshot.ts'
import type { BlobStore } from '../storage/store.ts'
import { openIndex, type SharedIndex } from './chunk-index.ts'
import { subFolder, type HostFolder } from './host-folder.ts'
import { runName } from './names.ts'
import { buildRun } from './run-builder.ts'

/** Fails: storage.missing (a run is gone), repo.corrupt (a run is not the one the snapshot names). */
export async function openLineage(
  store: BlobStore,
  repository: string,
  keys: DomainKeys,
  host: HostFolder,
  lineage: readonly LineageSet[],
): Promise<SharedIndex> {
  const places = new Map<string, { packSet: string; n: number }>()
  for (const set of lineage)
    for (const run of set.runs) places.set(run.sha256, { packSet: set.packSet, n: run.n })
  const runs = lineage.flatMap((set) =>
    set.runs.map((run) => ({ name: run.sha256, entryCount: run.entries })),
  )
  return await openIndex({
    folder: subFolder(host, 'index'),
    runs,
    build: async (run, path) => {
      const place = places.get(run.name)!
      const name = runName(keys.domain, place.packSet, place.n)
      const object = await store.get(name)
      if (sha256(object).toString('hex') !== run.name)
        throw new Failure('repo.corrupt', `Cannot trust ${name}: it is not the run that the snapshot names`, {
          facts: { name },
        })
      const expected = {
        repository: Buffer.from(repository, 'hex'),
        domain: Buffer.from(keys.domain, 'hex'),
        packSet: Buffer.from(place.packSet, 'hex'),
        number: place.n,
        what: name,
      }
      buildRun({ path, name: run.name }, object, expected, keys.indexKey)
    },
  })
}
