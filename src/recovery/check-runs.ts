/**
 * The index runs that snapshots name: there, unchanged, and what packs they list. The list of packs that
 * results is what the rest of a check holds against the store. Not here: local index files
 * (src/repo/chunk-index.ts).
 */
import { corrupt } from '../base/bytes.ts'
import { CHUNK_ID_BYTES, PACK_KINDS, type PackKind } from '../format/pack.ts'
import {
  beginIndexRun,
  decodeIndexBlocks,
  INDEX_ENTRY_BYTES,
  indexEntryAt,
  indexPackAt,
  scanIndexRun,
  type ExpectedIndexRun,
} from '../format/index-run.ts'
import { sha256 } from '../format/seal.ts'
import type { DomainKeys } from '../repo/keys.ts'
import { packName, runName } from '../repo/names.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import type { BlobStore } from '../storage/store.ts'
import { addFinding, addHurtFile, isDamage, type Finding, type Findings } from './check-findings.ts'
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
}

/** A run that snapshots name, by its hash. */
export interface CheckedRun {
  readonly name: string
  readonly domain: string
  readonly packSet: string
  readonly n: number
  readonly sha256: string
  readonly snapshots: StoredSnapshot[]
  /** What is wrong with it. */
  finding: Finding | undefined
}

export interface CheckedRuns {
  /** By `<object name> <sha256>`. */
  readonly runs: ReadonlyMap<string, CheckedRun>
  /** By object name. */
  readonly packs: Map<string, PackState>
  entries: number
}

/** Reads every run that a snapshot names. Fails: storage.* that ends the check, cancelled. */
export async function checkRuns(
  findings: Findings,
  context: {
    readonly store: BlobStore
    readonly repository: string
    /** Those that can be looked into. */
    readonly domains: ReadonlyMap<string, DomainKeys>
    readonly signal: AbortSignal | undefined
  },
  snapshots: readonly StoredSnapshot[],
): Promise<CheckedRuns> {
  const { store, repository, domains, signal } = context
  const checked: CheckedRuns = { runs: runsOf(snapshots), packs: new Map(), entries: 0 }
  for (const run of checked.runs.values()) {
    throwIfCancelled(signal)
    const domain = domains.get(run.domain)
    if (domain === undefined) continue
    try {
      await checkRun(checked, store, repository, domain, run)
    } catch (error) {
      if (!isDamage(error)) throw error
      const code = error.code === 'storage.missing' ? 'run.missing' : 'run.corrupt'
      const message = `${error.message}; without it the packs of pack set ${run.packSet} cannot be found`
      run.finding = addFinding(findings, code, message, { object: run.name })
      for (const { id } of run.snapshots) addHurtFile(run.finding, id, '/', true)
    }
  }
  return checked
}

function runsOf(snapshots: readonly StoredSnapshot[]): Map<string, CheckedRun> {
  const runs = new Map<string, CheckedRun>()
  for (const snapshot of snapshots)
    for (const { packSet, runs: named } of snapshot.lineage)
      for (const { n, sha256: hash } of named) {
        const name = runName(snapshot.domain, packSet, n)
        const key = `${name} ${hash}`
        let run = runs.get(key)
        if (run === undefined) {
          run = { name, domain: snapshot.domain, packSet, n, sha256: hash, snapshots: [], finding: undefined }
          runs.set(key, run)
        }
        run.snapshots.push(snapshot)
      }
  return runs
}

/** A run of the lineage that cannot be used, if there is one: then nothing of the snapshot can be read. */
export function badRunOf(checked: CheckedRuns, snapshot: StoredSnapshot): CheckedRun | undefined {
  for (const { packSet, runs } of snapshot.lineage)
    for (const { n, sha256: hash } of runs) {
      const run = checked.runs.get(`${runName(snapshot.domain, packSet, n)} ${hash}`)
      if (run?.finding !== undefined) return run
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
      checked.packs.set(name, { name, id, domain, packSet, kind, bytes, chunks, listings, damage: undefined })
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
  // A pack of a run that could not be read is not known to be a leftover.
  if ([...checked.runs.values()].some((run) => run.finding !== undefined)) return
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
