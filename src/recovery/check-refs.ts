/**
 * The refs record of a snapshot against what its tree references: what the record lacks, garbage collection
 * would delete. Also for credentials that read no contents but hold the meta key.
 */
import { corrupt } from '../base/bytes.ts'
import { CHUNK_ID_BYTES, newFrameOpener, openFrame, openPackKey, type PackHeader } from '../format/pack.ts'
import { decodeRefs, xorRefs, type RefsMap } from '../format/refs.ts'
import { lookupChunk, packInRuns, type ChunkIndex } from '../repo/chunk-index.ts'
import { decompress } from '../repo/compress.ts'
import { isDamage } from '../repo/damage.ts'
import { epochPrivateKey, type DomainKeys } from '../repo/keys.ts'
import { packName } from '../repo/names.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import type { BlobStore } from '../storage/store.ts'
import {
  addFinding,
  addHurtSnapshot,
  addUnreadFinding,
  type Finding,
  type Findings,
} from './check-findings.ts'
import { blamePack } from './check-hurt.ts'
import { readPackHeader, type PackKeys } from './check-pack.ts'
import { eachBit, isLost, packKeys } from './check-packs.ts'
import type { PackState } from './check-runs.ts'
import type { Counts } from './check-tree.ts'

/** Deltas that are followed; a backup writes at most 16 in a row. */
const DEPTH_MAX = 64
/** Whole records kept for the next snapshot of the chain. */
const CACHED_MAX = 4
/** Differences that are looked at one by one. */
const DIFFERENCES_MAX = 200_000

export interface RefsReader {
  readonly findings: Findings
  readonly store: BlobStore
  readonly domain: DomainKeys
  readonly keys: PackKeys
  /** By object name. */
  readonly packs: ReadonlyMap<string, PackState>
  /** Of this domain, by id. */
  readonly byId: ReadonlyMap<string, PackState>
  /** Snapshots whose record lies in a pack that cannot be read now, which is said of the pack. */
  readonly unread: Set<string>
  /** Records by the ids of their parts, oldest first. */
  readonly cached: Map<string, RefsMap>
}

export function newRefsReader(
  findings: Findings,
  store: BlobStore,
  repository: string,
  domain: DomainKeys,
  packs: ReadonlyMap<string, PackState>,
): RefsReader {
  const byId = new Map(
    [...packs.values()].filter((pack) => pack.domain === domain.domain).map((pack) => [pack.id, pack]),
  )
  return {
    findings,
    store,
    domain,
    keys: packKeys(repository, domain),
    packs,
    byId,
    unread: new Set(),
    cached: new Map(),
  }
}

/** What the record says, or undefined (with a finding). Fails: storage.* that ends the check. */
export async function readRefs(
  reader: RefsReader,
  index: ChunkIndex,
  snapshot: StoredSnapshot,
): Promise<RefsMap | undefined> {
  try {
    return await resolveRefs(reader, index, snapshot, snapshot.refs, 0)
  } catch (error) {
    if (!isDamage(error)) throw error
    if (reader.unread.has(snapshot.id)) return undefined
    const costs = `garbage collection cannot know what ${snapshot.name} needs`
    const of = { object: snapshot.name, snapshots: [snapshot.id], costs }
    addUnreadFinding(reader.findings, 'refs.corrupt', error, of)
    return undefined
  }
}

async function resolveRefs(
  reader: RefsReader,
  index: ChunkIndex,
  snapshot: StoredSnapshot,
  parts: readonly string[],
  depth: number,
): Promise<RefsMap> {
  const what = `the refs record of ${snapshot.name}`
  const key = parts.join()
  const known = reader.cached.get(key)
  if (known !== undefined) return known
  if (depth > DEPTH_MAX) throw corrupt(what, `follows more than ${DEPTH_MAX} others`)
  const bytes: Buffer[] = []
  for (const id of parts) bytes.push(await readRefsChunk(reader, index, snapshot, Buffer.from(id, 'hex')))
  const record = decodeRefs(Buffer.concat(bytes), what)
  let packs = record.packs
  if (record.base !== undefined) {
    const base = await resolveRefs(
      reader,
      index,
      snapshot,
      [Buffer.from(record.base).toString('hex')],
      depth + 1,
    )
    packs = xorRefs(base, record.packs)
  }
  reader.cached.set(key, packs)
  for (const oldest of reader.cached.keys()) if (reader.cached.size > CACHED_MAX) reader.cached.delete(oldest)
  return packs
}

/** A janitor cannot name chunks by their content, so that the pack's own seal has to do. */
async function readRefsChunk(
  reader: RefsReader,
  index: ChunkIndex,
  snapshot: StoredSnapshot,
  id: Buffer,
): Promise<Buffer> {
  const found = lookupChunk(index, id, 0)
  const listed = found && packInRuns(index, found.pack)
  const pack = listed && reader.packs.get(packName(reader.domain.domain, 'refs', listed.id))
  if (found === undefined || pack === undefined)
    throw corrupt(`the refs record of ${snapshot.name}`, 'lies in no pack that an index run lists')
  try {
    if (pack.damage !== undefined && isLost(pack, found.number))
      throw corrupt(pack.name, 'is damaged or missing')
    return await readRefsChunkFrom(reader, pack, found.number, id)
  } catch (error) {
    if (isDamage(error)) {
      const finding = blamePack(reader.findings, pack, found.number, error)
      addHurtSnapshot(finding, snapshot.id)
      if (finding.code === 'object.unreadable') reader.unread.add(snapshot.id)
    }
    throw error
  }
}

async function readRefsChunkFrom(
  reader: RefsReader,
  pack: PackState,
  number: number,
  id: Buffer,
): Promise<Buffer> {
  const { store, keys, domain } = reader
  const { footer, header } = await readPackHeader(store, keys, pack)
  if (!isIdAt(header, number, id))
    throw corrupt(pack.name, `does not hold chunk ${number} that the index says it has`)
  const frame = header.chunkFrame[number] ?? 0
  const key = openPackKey(footer, epochPrivateKey(domain, footer.epoch, 'meta'), pack.name)
  const stored = await store.get(pack.name, {
    offset: header.frameOffset[frame] ?? 0,
    length: header.frameStored[frame] ?? 0,
  })
  const body = openFrame(newFrameOpener(footer, header, key), frame, stored, pack.name)
  const plain = decompress(header.frameCodec[frame] ?? 0, body, header.framePlain[frame] ?? 0, pack.name)
  const start = header.chunkOffset[number] ?? 0
  return Buffer.from(plain.subarray(start, start + (header.chunkBytes[number] ?? 0)))
}

function isIdAt(header: PackHeader, number: number, id: Buffer): boolean {
  const start = number * CHUNK_ID_BYTES
  return start < header.chunkIds.length && id.compare(header.chunkIds, start, start + CHUNK_ID_BYTES) === 0
}

/** A chunk by its pack and number. */
interface Place {
  readonly pack: PackState
  readonly number: number
}

export interface RefsDifference {
  /** Referenced by the tree, not in the record. */
  readonly lacking: Place[]
  /** In the record, not referenced. */
  readonly surplus: Place[]
  /** Packs in the record that no run lists. */
  readonly strangers: number
}

/** Compares by place. Equal for nearly every snapshot; if not, the same chunk may lie in two places. */
export function compareRefs(reader: RefsReader, refs: RefsMap, counts: Counts): RefsDifference {
  const lacking: Place[] = []
  const surplus: Place[] = []
  let strangers = 0
  for (const [pack, numbers] of counts) {
    const bits = refs.get(pack.id)
    for (const [number, count] of numbers.entries())
      if (count > 0 && ((bits?.[number >> 3] ?? 0) & (1 << (number & 7))) === 0)
        lacking.push({ pack, number })
  }
  for (const [id, bits] of refs) {
    const pack = reader.byId.get(id)
    if (pack === undefined) strangers++
    else {
      const numbers = counts.get(pack)
      eachBit(bits, (number) => {
        if ((numbers?.[number] ?? 0) === 0) surplus.push({ pack, number })
      })
    }
  }
  return { lacking, surplus, strangers }
}

export function isSameRefs(difference: RefsDifference): boolean {
  return difference.lacking.length + difference.surplus.length + difference.strangers === 0
}

/**
 * Findings for a difference that is real: chunks that lie in two places, of which the record names the other,
 * are none.
 */
export async function reportRefs(
  reader: RefsReader,
  snapshot: StoredSnapshot,
  difference: RefsDifference,
): Promise<void> {
  const { findings } = reader
  const { lacking, surplus } = await withoutTwins(reader, difference)
  const of = { object: snapshot.name, snapshots: [snapshot.id] }
  if (lacking.length > 0) {
    const example = `chunk ${lacking[0]?.number} of ${lacking[0]?.pack.name}`
    const message =
      `The refs record of ${snapshot.name} lacks ${lacking.length} chunks that its tree needs, ` +
      `such as ${example}: ` +
      'garbage collection would delete them'
    addFinding(findings, 'refs.lacking', message, of)
  }
  if (surplus.length + difference.strangers === 0) return
  const strangers = difference.strangers > 0 ? ` and ${difference.strangers} packs that no run lists` : ''
  const message =
    `The refs record of ${snapshot.name} keeps ${surplus.length} chunks${strangers} ` +
    'that its tree does not need'
  addFinding(findings, 'refs.surplus', message, of)
}

async function withoutTwins(
  reader: RefsReader,
  difference: RefsDifference,
): Promise<Pick<RefsDifference, 'lacking' | 'surplus'>> {
  const { lacking, surplus } = difference
  if (lacking.length === 0 || surplus.length === 0) return { lacking, surplus }
  if (lacking.length + surplus.length > DIFFERENCES_MAX) return { lacking, surplus }
  const kept = new Map<string, Place>()
  const idOf = newIdReader(reader)
  for (const place of surplus) kept.set((await idOf(place)) ?? `${place.pack.id}:${place.number}`, place)
  const missing: Place[] = []
  for (const place of lacking) {
    const id = await idOf(place)
    if (id === undefined || !kept.delete(id)) missing.push(place)
  }
  return { lacking: missing, surplus: [...kept.values()] }
}

/** Ids of chunks by their places; places come pack by pack. undefined if the pack cannot say. */
function newIdReader(reader: RefsReader): (place: Place) => Promise<string | undefined> {
  let open: PackState | undefined
  let header: PackHeader | undefined
  return async ({ pack, number }) => {
    if (pack !== open) {
      open = pack
      header = undefined
      try {
        header = (await readPackHeader(reader.store, reader.keys, pack)).header
      } catch (error) {
        if (!isDamage(error)) throw error
      }
    }
    if (header === undefined || number >= header.chunkBytes.length) return undefined
    return header.chunkIds.toString('hex', number * CHUNK_ID_BYTES, (number + 1) * CHUNK_ID_BYTES)
  }
}

/** For who cannot read trees: whether the record names chunks that are lost, and packs that exist. */
export function checkRefsAlone(
  reader: RefsReader,
  snapshot: StoredSnapshot,
  refs: RefsMap,
  lostRun: Finding | undefined,
): void {
  let strangers = 0
  for (const [id, bits] of refs) {
    const pack = reader.byId.get(id)
    if (pack === undefined) strangers++
    if (pack?.damage === undefined) continue
    const { damage } = pack
    let hits = false
    eachBit(bits, (number) => {
      hits ||= isLost(pack, number)
    })
    if (hits) addHurtSnapshot(damage.finding, snapshot.id)
  }
  if (strangers === 0) return
  if (lostRun !== undefined) {
    addHurtSnapshot(lostRun, snapshot.id)
    return
  }
  const message = `The refs record of ${snapshot.name} keeps ${strangers} packs that no run lists`
  addFinding(reader.findings, 'refs.surplus', message, { object: snapshot.name, snapshots: [snapshot.id] })
}
