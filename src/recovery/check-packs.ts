/**
 * Every pack that a snapshot may need: is it there, in full length, what the index says it is, and, for those
 * whose data is read, does all of it open? Damage is written into the PackState, for the walk that names
 * files.
 */
import type { Clock } from '../base/clock.ts'
import { mapConcurrent } from '../base/concurrent.ts'
import { describeError, Failure } from '../base/failure.ts'
import { CHUNK_ID_BYTES } from '../format/pack.ts'
import { isDamage } from '../repo/damage.ts'
import { PACK_DEPTHS, type HostState } from '../repo/host-folder.ts'
import type { DomainKeys } from '../repo/keys.ts'
import type { BlobStore } from '../storage/store.ts'
import { chooseForData, rightPacks, type DataCoverage, type StateChange } from './check-coverage.ts'
import {
  addFinding,
  addUnreadFinding,
  type Finding,
  type FindingCode,
  type Findings,
} from './check-findings.ts'
import { strayAt, type Inventory } from './check-inventory.ts'
import {
  checkPackTail,
  failedPack,
  isSameSum,
  readPackHeader,
  type PackKeys,
  type PackResult,
} from './check-pack.ts'
import { entriesOfPack, type CheckedRuns, type PackListing, type PackState } from './check-runs.ts'
import { canOpenPack } from './check-scope.ts'
import { checkInThreads, throwIfCancelled } from './check-threads.ts'

/** Tails read at the same time. */
const TAILS_MAX = 16

export interface PacksContext {
  readonly findings: Findings
  readonly store: BlobStore
  readonly repository: string
  readonly domains: ReadonlyMap<string, DomainKeys>
  /** What the host remembers. */
  readonly state: HostState
  readonly clock: Clock
  readonly workers: number
  readonly signal: AbortSignal | undefined
  readonly onPack: (bytesRead: number) => void
}

/**
 * Checks all packs; of `percent` of their bytes also the data. `change`: what to remember of it. Fails:
 * storage.* that ends the check, cancelled.
 */
export async function checkPacks(
  context: PacksContext,
  checked: CheckedRuns,
  inventory: Inventory,
  percent: number,
): Promise<{ readonly coverage: DataCoverage; readonly change: StateChange }> {
  const there = markMissing(context.findings, checked, inventory)
  const readable = there.filter((pack) => context.domains.has(pack.domain))
  const canOpen = ({ domain, kind }: PackState): boolean => {
    const opened = context.domains.get(domain)
    return opened !== undefined && canOpenPack(opened, kind)
  }
  const chosen = chooseForData(readable, context.state, percent, canOpen)
  const keys = new Map([...context.domains].map(([id, domain]) => [id, packKeys(context.repository, domain)]))
  const results: { pack: PackState; result: PackResult }[] = []
  const now = context.clock.now()
  const right: PackState[] = []
  const byName = new Map(chosen.map((pack) => [pack.name, pack]))
  const { store, workers: count, signal } = context
  await checkInThreads({
    store,
    keys,
    count,
    signal,
    packs: chosen.map(claimOf),
    onResult: (claim, result) => {
      const pack = byName.get(claim.name)
      if (pack === undefined) return
      pack.depth = canOpen(pack) ? PACK_DEPTHS.opened : PACK_DEPTHS.compared
      if (isAllRight(pack, result)) right.push(pack)
      else results.push({ pack, result })
      context.onPack(pack.bytes)
    },
  })
  await mapConcurrent(
    readable.filter((pack) => !byName.has(pack.name)),
    TAILS_MAX,
    async (pack) => {
      throwIfCancelled(signal)
      const result = await checkTail(store, keys, pack)
      if (!isAllRight(pack, result)) results.push({ pack, result })
      context.onPack(0)
    },
  )
  results.sort((a, b) => (a.pack.name < b.pack.name ? -1 : 1))
  for (const { pack, result } of results) await judge(context, pack, result)
  const read = {
    all: chosen,
    proven: right.filter(canOpen),
    compared: right.filter((pack) => !canOpen(pack)),
  }
  return rightPacks(context.state, checked, read, now)
}

function claimOf(pack: PackState): Omit<PackState, 'listings' | 'damage' | 'chunks' | 'depth'> {
  const { name, id, domain, packSet, kind, bytes } = pack
  return { name, id, domain, packSet, kind, bytes }
}

export function packKeys(repository: string, domain: DomainKeys): PackKeys {
  const epochs = domain.epochs.map(({ epoch, dataPrivate, metaPrivate }) => ({
    epoch,
    dataPrivate,
    metaPrivate,
  }))
  const { domain: id, indexKey, idKey, frameBytesMax } = domain
  return { repository: Buffer.from(repository, 'hex'), domain: id, indexKey, idKey, frameBytesMax, epochs }
}

async function checkTail(
  store: BlobStore,
  keys: ReadonlyMap<string, PackKeys>,
  pack: PackState,
): Promise<PackResult> {
  const domain = keys.get(pack.domain)
  if (domain === undefined) throw new Error(`Bug: no keys of domain ${pack.domain}`)
  try {
    return await checkPackTail(store, domain, pack)
  } catch (error) {
    if (isDamage(error)) return failedPack(error)
    throw error
  }
}

/** Packs that are missing or cut get their findings; the others are returned. */
function markMissing(findings: Findings, checked: CheckedRuns, inventory: Inventory): PackState[] {
  const bySet = new Map<string, PackState[]>()
  for (const pack of checked.packs.values()) {
    const set = bySet.get(pack.packSet)
    if (set === undefined) bySet.set(pack.packSet, [pack])
    else set.push(pack)
  }
  const there: PackState[] = []
  for (const [packSet, packs] of bySet) {
    const missing = packs.filter(
      ({ name }) => !inventory.packs.has(name) && strayAt(inventory, name)?.is !== 'link',
    )
    if (missing.length === packs.length) {
      const message = `All ${packs.length} packs of pack set ${packSet} are missing`
      const finding = addFinding(findings, 'set.lost', message, {
        object: `d/${packs[0]?.domain}/index/${packSet}/`,
      })
      for (const pack of packs) loseWhole(pack, finding)
      continue
    }
    for (const pack of packs) {
      const bytes = inventory.packs.get(pack.name)
      if (bytes === undefined) {
        loseWhole(pack, missingPack(findings, inventory, pack))
        continue
      }
      if (bytes !== pack.bytes) {
        const message = `${pack.name} has ${bytes} bytes (must be ${pack.bytes})`
        const finding = addFinding(findings, 'pack.size', message, { object: pack.name })
        // The tail of a longer one still lies where it should.
        if (bytes < pack.bytes) loseWhole(pack, finding)
      }
      if (pack.damage === undefined) there.push(pack)
    }
  }
  return there
}

/** Where a link lies the pack may be elsewhere: that is no damage, as for a restore. */
function missingPack(findings: Findings, inventory: Inventory, { name, bytes, chunks }: PackState): Finding {
  const stray = strayAt(inventory, name)
  const instead = stray === undefined ? '' : `: a ${stray.is} lies at ${stray.name}`
  if (stray?.is === 'link') {
    const message = `Cannot read ${name}${instead} (put the file itself there)`
    return addUnreadFinding(findings, 'pack.missing', { message, unreadable: true }, { object: name })
  }
  const message = `${name} is missing (${bytes} bytes, ${chunks} chunks)${instead}`
  return addFinding(findings, 'pack.missing', message, { object: name })
}

function loseWhole(pack: PackState, finding: Finding): void {
  pack.damage ??= { finding, whole: true, chunks: new Uint8Array(0) }
  pack.damage.whole = true
}

/** Marks chunk `number` as lost; `finding` is the one to name files in, unless the pack has one already. */
export function loseChunk(pack: PackState, number: number, finding: Finding): void {
  pack.damage ??= { finding, whole: false, chunks: new Uint8Array((pack.chunks + 7) >> 3) }
  const { damage } = pack
  if (number >> 3 >= damage.chunks.length) {
    const grown = new Uint8Array((number >> 3) + 1)
    grown.set(damage.chunks)
    damage.chunks = grown
  }
  damage.chunks[number >> 3] = (damage.chunks[number >> 3] ?? 0) | (1 << (number & 7))
}

/** Whether chunk `number` of the pack is known to be lost. */
export function isLost(pack: PackState, number: number): boolean {
  if (pack.damage === undefined) return false
  return pack.damage.whole || ((pack.damage.chunks[number >> 3] ?? 0) & (1 << (number & 7))) !== 0
}

function isAllRight(pack: PackState, result: PackResult): boolean {
  return (
    result.failure === undefined &&
    result.isNamedRight !== false &&
    result.badFrames === 0 &&
    result.packSet === pack.packSet &&
    pack.listings.every((listing) => isSameSum(listing.sum, result.sum))
  )
}

/** Findings for a pack that is not all right. */
async function judge(context: PacksContext, pack: PackState, result: PackResult): Promise<void> {
  const { findings } = context
  const object = pack.name
  if (result.failure !== undefined) {
    const { failure } = result
    loseWhole(pack, addUnreadFinding(findings, failureCode(failure.code), failure, { object }))
    return
  }
  for (const listing of pack.listings)
    if (!isSameSum(listing.sum, result.sum)) await judgeIndex(context, pack, listing)
  if (result.packSet !== pack.packSet) {
    const message = `${object} is of pack set ${result.packSet}, but a run of ${pack.packSet} lists it`
    addFinding(findings, 'pack.index', message, { object, severity: 'warning' })
  }
  if (result.badChunks !== undefined || result.badFrames > 0) {
    const message = `${object} is damaged: ${result.badFrames} of ${result.frames} frames do not open`
    const finding = addFinding(findings, 'pack.corrupt', message, { object })
    eachBit(result.badChunks ?? new Uint8Array(0), (number) => {
      loseChunk(pack, number, finding)
    })
  } else if (result.isNamedRight === false) {
    const still = result.isOpened ? 'all its chunks still open' : 'this credential cannot look inside'
    const finding = addFinding(findings, 'pack.corrupt', `${object} does not match its name; ${still}`, {
      object,
    })
    if (!result.isOpened) loseWhole(pack, finding)
  }
}

export function failureCode(code: string): FindingCode {
  if (code === 'storage.missing') return 'pack.missing'
  if (code === 'repo.foreign') return 'pack.foreign'
  return code === 'repo.newer' ? 'pack.newer' : 'pack.corrupt'
}

/** The exact difference between what a run says and what the pack's header says. */
async function judgeIndex(context: PacksContext, pack: PackState, listing: PackListing): Promise<void> {
  const { findings, store, repository, domains } = context
  const domain = domains.get(pack.domain)
  if (domain === undefined) return
  const entries = await entriesOfPack(store, repository, domain, listing)
  let header: Awaited<ReturnType<typeof readPackHeader>>['header']
  try {
    header = (await readPackHeader(store, packKeys(repository, domain), pack)).header
  } catch (error) {
    if (!isDamage(error)) throw error
    throw new Failure('storage.offline', `The store changes under the check: ${describeError(error)}`, {
      cause: error,
    })
  }
  const object = pack.name
  const message = `${object} does not hold what ${listing.run.name} says`
  const finding = addFinding(findings, 'pack.index', message, { object })
  let wrong = 0
  for (const [number, { id, class: chunkClass }] of entries) {
    const start = number * CHUNK_ID_BYTES
    const isThere =
      start < header.chunkIds.length && id.compare(header.chunkIds, start, start + CHUNK_ID_BYTES) === 0
    if (isThere && header.frameClass[header.chunkFrame[number] ?? 0] === chunkClass) continue
    wrong++
    if (!isThere) loseChunk(pack, number, finding)
  }
  const more = header.chunkBytes.length - (entries.size - wrong)
  finding.message =
    `${message}: ${wrong} of ${entries.size} entries are wrong, ` +
    `${Math.max(0, more)} chunks are not listed`
}

export function eachBit(bits: Uint8Array, take: (number: number) => void): void {
  for (let at = 0; at < bits.length; at++)
    for (let bit = 0; bit < 8; bit++) if (((bits[at] ?? 0) & (1 << bit)) !== 0) take(at * 8 + bit)
}
