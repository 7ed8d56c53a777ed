/**
 * The index runs that snapshots name: there, unchanged, and what packs they list. The list of packs that
 * results is what the rest of a check holds against the store. Not here: local index files
 * (src/repo/chunk-index.ts).
 */
import { corrupt } from '../base/bytes.ts'
import { isFailure } from '../base/failure.ts'
import { CHUNK_ID_BYTES, PACK_KINDS, type PackKind } from '../format/pack.ts'
import { INDEX_ENTRY_BYTES, indexEntryAt, indexPackAt } from '../format/index-run.ts'
import {
  beginIndexRun,
  decodeIndexBlocks,
  scanIndexRun,
  type ExpectedIndexRun,
} from '../format/index-run-decoder.ts'
import { sha256 } from '../format/seal.ts'
import type { LineageSet } from '../format/snapshot.ts'
import { isDamage } from '../repo/damage.ts'
import { subFolder, type HostFolder } from '../repo/host-folder.ts'
import type { DomainKeys } from '../repo/keys.ts'
import { packName, runName } from '../repo/names.ts'
import { newPackCensus, rebuildSet, type PackCensus, type RebuiltSet } from '../repo/rebuild.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import type { BlobStore } from '../storage/store.ts'
import { addFinding, addUnreadFinding, type Finding, type Findings } from './check-findings.ts'
import { addToSum, type ChunkSum, type PackClaim } from './check-pack.ts'
import type { Inventory } from './check-inventory.ts'
import { throwIfCancelled } from './check-threads.ts'

const LEFTOVERS = 'leftovers, or a backup is under way'

/** What a run says of a pack. */
export interface PackListing {
  readonly run: CheckedRun
  /** Place in the run's list. */
  readonly place: number
  readonly sum: ChunkSum
}

/** Why chunks of a pack cannot be read. */
export interface PackDamage {
  readonly finding: Finding
  whole: boolean
  /** Bit i of byte i>>3: chunk number i. */
  chunks: Uint8Array
}

/** A pack that a snapshot needs or may need. */
export interface PackState extends PackClaim {
  /** Mostly one. */
  readonly listings: PackListing[]
  readonly chunks: number
  damage: PackDamage | undefined
  /** How deeply this check looked at it: of PACK_DEPTHS. */
  depth: number
}

/** A run that snapshots name, by its hash. */
export interface CheckedRun {
  readonly name: string
  readonly domain: string
  readonly packSet: string
  /** As its snapshot lists it. */
  readonly set: LineageSet
  readonly n: number
  readonly sha256: string
  readonly snapshots: StoredSnapshot[]
  /** What is wrong with it. */
  finding: Finding | undefined
  /** What takes its place, if it is lost. */
  rebuilt: RebuiltSet | undefined
}

export interface CheckedRuns {
  /** By `<object name> <sha256>`. */
  readonly runs: ReadonlyMap<string, CheckedRun>
  /** By object name. */
  readonly packs: Map<string, PackState>
  /** By domain: which runs are lost, and what was made from packs in their place. */
  readonly censuses: ReadonlyMap<string, PackCensus>
  entries: number
}

export interface RunsContext {
  readonly store: BlobStore
  readonly repository: string
  /** Those that can be looked into. */
  readonly domains: ReadonlyMap<string, DomainKeys>
  readonly inventory: Inventory
  readonly host: HostFolder
  readonly signal: AbortSignal | undefined
}

/**
 * Reads every run that a snapshot names; what lost ones listed is taken from the packs. Fails: storage.* that
 * ends the check, cancelled.
 */
export async function checkRuns(
  findings: Findings,
  context: RunsContext,
  snapshots: readonly StoredSnapshot[],
): Promise<CheckedRuns> {
  const { store, repository, domains, signal } = context
  const censuses = new Map([...domains].map(([id, keys]) => [id, censusOf(context, keys)]))
  const checked: CheckedRuns = { runs: runsOf(snapshots), packs: new Map(), censuses, entries: 0 }
  for (const run of checked.runs.values()) {
    throwIfCancelled(signal)
    const domain = domains.get(run.domain)
    if (domain === undefined) continue
    try {
      await checkRun(checked, store, repository, domain, run)
    } catch (error) {
      if (!isDamage(error)) throw error
      const code = error.code === 'storage.missing' ? 'run.missing' : 'run.corrupt'
      run.finding = addUnreadFinding(findings, code, error, { object: run.name })
      censuses.get(run.domain)?.lost.add(run.sha256)
    }
  }
  for (const run of checked.runs.values())
    if (run.finding !== undefined) await rebuildRun(checked, context.host, run, run.finding)
  return checked
}

function censusOf({ store, repository, inventory }: RunsContext, keys: DomainKeys): PackCensus {
  const { domain, indexKey, frameBytesMax } = keys
  const own = [...inventory.packs].filter(([name]) => name.startsWith(`d/${domain}/`))
  const packs = own.map(([name, bytes]) => ({ name, bytes }))
  const owner = { repository: Buffer.from(repository, 'hex'), domain, indexKey, frameBytesMax }
  return newPackCensus(store, owner, packs)
}

/** Finds the packs that a lost run listed, and says in its finding how far that goes. */
async function rebuildRun(
  checked: CheckedRuns,
  host: HostFolder,
  run: CheckedRun,
  finding: Finding,
): Promise<void> {
  const census = checked.censuses.get(run.domain)
  if (census === undefined) return
  let rebuilt: RebuiltSet
  try {
    rebuilt = await rebuildSet(census, subFolder(host, 'index'), run.set, () => listedBytes(checked, run))
  } catch (error) {
    // A full cache folder must not cost what was found so far; nor does it make the set whole.
    if (!isFailure(error, 'host.file')) throw error
    finding.message += `; its index could not be made again: ${error.message}`
    return
  }
  run.rebuilt = rebuilt
  const { packs, packsExpected } = rebuilt
  const lost = packsExpected - packs.length
  const but = lost > 0 ? `, of ${packsExpected}: what the others hold cannot be found` : ''
  finding.message += `; its index was made again from ${packs.length} packs of pack set ${run.packSet}${but}`
  for (const pack of packs) {
    const kind = kindOf(pack.kind)
    const name = packName(run.domain, kind, pack.id)
    if (checked.packs.has(name)) continue
    const { domain, packSet } = run
    checked.packs.set(name, {
      ...pack,
      name,
      domain,
      packSet,
      kind,
      listings: [],
      damage: undefined,
      depth: 0,
    })
    checked.entries += pack.chunks
  }
}

/** What the sound runs of the same pack set list. */
function listedBytes(checked: CheckedRuns, run: CheckedRun): Map<string, number> {
  const listed = new Map<string, number>()
  for (const { domain, packSet, listings, id, bytes } of checked.packs.values())
    if (domain === run.domain && packSet === run.packSet && listings.length > 0) listed.set(id, bytes)
  return listed
}

/** Whether all packs that lost runs listed were found. */
export function isIndexWhole(checked: CheckedRuns): boolean {
  return [...checked.runs.values()].every((run) => run.finding === undefined || run.rebuilt?.isWhole === true)
}

function runsOf(snapshots: readonly StoredSnapshot[]): Map<string, CheckedRun> {
  const runs = new Map<string, CheckedRun>()
  for (const snapshot of snapshots)
    for (const set of snapshot.lineage)
      for (const { n, sha256: hash } of set.runs) {
        const { packSet } = set
        const name = runName(snapshot.domain, packSet, n)
        const key = `${name} ${hash}`
        let run = runs.get(key)
        if (run === undefined) {
          run = {
            name,
            domain: snapshot.domain,
            packSet,
            set,
            n,
            sha256: hash,
            snapshots: [],
            finding: undefined,
            rebuilt: undefined,
          }
          runs.set(key, run)
        }
        run.snapshots.push(snapshot)
      }
  return runs
}

/**
 * What is to blame for chunks that no index knows: a lost run of the lineage, some packs of which are lost
 * too.
 */
export function lostRunOf(checked: CheckedRuns, snapshot: StoredSnapshot): Finding | undefined {
  for (const { packSet, runs } of snapshot.lineage)
    for (const { n, sha256: hash } of runs) {
      const run = checked.runs.get(`${runName(snapshot.domain, packSet, n)} ${hash}`)
      if (run?.rebuilt?.isWhole === false) return run.finding
    }
  return undefined
}

async function readRun(store: BlobStore, run: CheckedRun): Promise<Uint8Array> {
  const object = await store.get(run.name)
  if (sha256(object).toString('hex') === run.sha256) return object
  throw corrupt(run.name, `is not the run that ${run.snapshots[0]?.name ?? 'a snapshot'} names`)
}

function expectedRun(run: CheckedRun, repository: string): ExpectedIndexRun {
  return {
    repository: Buffer.from(repository, 'hex'),
    domain: Buffer.from(run.domain, 'hex'),
    packSet: Buffer.from(run.packSet, 'hex'),
    number: run.n,
    what: run.name,
  }
}

async function checkRun(
  checked: CheckedRuns,
  store: BlobStore,
  repository: string,
  keys: DomainKeys,
  run: CheckedRun,
): Promise<void> {
  const object = await readRun(store, run)
  const decoder = beginIndexRun(object, object.length, expectedRun(run, repository), keys.indexKey)
  const sums: ChunkSum[] = Array.from({ length: decoder.header.packCount }, () => ({
    count: 0,
    low: 0,
    high: 0,
  }))
  decodeIndexBlocks(decoder, object, (entries) => {
    for (let at = 0; at < entries.length; at += INDEX_ENTRY_BYTES) {
      const { pack, chunk, class: chunkClass } = indexEntryAt(entries, at)
      const sum = sums[pack]
      if (sum !== undefined) addToSum(sum, entries, at, chunk, chunkClass)
    }
  })
  checked.entries += decoder.header.entryCount
  for (const [place, sum] of sums.entries()) {
    const { id, bytes, kind: code, chunks } = indexPackAt(decoder.packs, place)
    const kind = kindOf(code)
    const name = packName(run.domain, kind, id)
    const known = checked.packs.get(name)
    const listing = { run, place, sum }
    if (known !== undefined) known.listings.push(listing)
    else {
      const { domain, packSet } = run
      const listings = [listing]
      checked.packs.set(name, {
        name,
        id,
        domain,
        packSet,
        kind,
        bytes,
        chunks,
        listings,
        damage: undefined,
        depth: 0,
      })
    }
  }
}

function kindOf(code: number): PackKind {
  if (code === PACK_KINDS.data) return 'data'
  return code === PACK_KINDS.tree ? 'tree' : 'refs'
}

/**
 * The entries that a run has for one pack: ids by chunk number. Reads the run again. Fails: storage._,
 * repo._.
 */
export async function entriesOfPack(
  store: BlobStore,
  repository: string,
  keys: DomainKeys,
  listing: PackListing,
): Promise<Map<number, { id: Buffer; class: number }>> {
  const found = new Map<number, { id: Buffer; class: number }>()
  const object = await readRun(store, listing.run)
  scanIndexRun(object, expectedRun(listing.run, repository), keys.indexKey, (entries) => {
    for (let at = 0; at < entries.length; at += INDEX_ENTRY_BYTES) {
      const entry = indexEntryAt(entries, at)
      if (entry.pack !== listing.place) continue
      found.set(entry.chunk, {
        id: Buffer.from(entries.subarray(at, at + CHUNK_ID_BYTES)),
        class: entry.class,
      })
    }
  })
  return found
}

/** Runs and packs that no snapshot names: what dead backups left, or a newer backup is writing. */
export function checkUnlisted(
  findings: Findings,
  checked: CheckedRuns,
  inventory: Inventory,
  domains: ReadonlyMap<string, DomainKeys>,
): void {
  const named = new Set([...checked.runs.values()].map((run) => run.name))
  const runs = [...inventory.runs.keys()].filter((name) => !named.has(name))
  if (runs.length > 0)
    addFinding(findings, 'run.unlisted', `${runs.length} index runs belong to no snapshot: ${LEFTOVERS}`)
  // A pack of a lost run whose end is damaged is not known to be a leftover.
  if (!isIndexWhole(checked)) return
  let [count, bytes] = [0, 0]
  for (const [name, size] of inventory.packs) {
    if (checked.packs.has(name) || !domains.has(name.split('/')[1] ?? '')) continue
    count++
    bytes += size
  }
  if (count === 0) return
  const message = `${count} packs (${bytes} bytes) belong to no snapshot: ${LEFTOVERS}`
  addFinding(findings, 'pack.unlisted', message)
}
