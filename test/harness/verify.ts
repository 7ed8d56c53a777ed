/**
 * What must hold of a repository after anything whatever: for each snapshot that is there whole, all that it
 * names is there whole. Written against docs/format.md with the codecs only: no index, reader or cache of
 * src/repo takes part, so that a fault there cannot hide itself.
 */
import { createHash, createHmac } from 'node:crypto'
import { isFailure } from '../../src/base/failure.ts'
import {
  decodeContent,
  decodeExtentNode,
  decodeHashLeaf,
  decodeListNode,
  NODE_SPAN_BYTES,
  type Extents,
} from '../../src/format/content.ts'
import {
  indexEntryAt,
  INDEX_ENTRY_BYTES,
  INDEX_PACK_BYTES,
  indexPackAt,
  type IndexPack,
} from '../../src/format/index-run.ts'
import { decodeIndexRun } from '../../src/format/index-run-decoder.ts'
import {
  decodeFooter,
  FOOTER_BYTES,
  newFrameOpener,
  openFrame,
  openHeader,
  openPackKey,
  type PackKind,
} from '../../src/format/pack.ts'
import { decodeRefs, xorRefs, type RefsMap } from '../../src/format/refs.ts'
import { decodeNode } from '../../src/format/tree.ts'
import { decompress } from '../../src/repo/compress.ts'
import { domainKeys, epochPrivateKey, type Access, type DomainKeys } from '../../src/repo/keys.ts'
import { listSnapshots, type StoredSnapshot } from '../../src/repo/snapshots.ts'

const KINDS: readonly PackKind[] = ['data', 'tree', 'refs']

interface Pack {
  /** Chunk ids (hex) by number. */
  readonly ids: readonly string[]
  readonly chunks: readonly Uint8Array[]
}

/** Packs that were found whole, kept from one verify() to the next: their names are the hashes of their bytes. */
export type KnownPacks = Map<string, Pack>

interface Verifying {
  readonly access: Access
  readonly keys: DomainKeys
  readonly packs: KnownPacks
  readonly broken: string[]
}

/** Chunk id -> its places, as the index runs of a lineage say. */
type Places = Map<string, { pack: string; number: number }[]>

/** Chunks that whole packs of one pack set hold more than once: what was there was stored again. */
export async function storedTwice(access: Access): Promise<string[]> {
  const twice: string[] = []
  for (const { id: domain } of access.config.domains) {
    const keys = await domainKeys(access, domain)
    const seen = new Set<string>()
    for (const folder of ['packs', 'meta']) {
      for await (const { name } of access.store.list(`d/${domain}/${folder}/`)) {
        const bytes = await access.store.get(name)
        if (sha256(bytes) !== name.slice(-64)) continue
        const footer = decodeFooter(bytes, name)
        if (footer.kind === 'refs') continue // written anew on purpose: another key opens them
        const sealed = bytes.subarray(footer.dataBytes, footer.dataBytes + footer.headerBytes)
        const { chunkIds } = openHeader(footer, sealed, keys, name)
        for (let at = 0; at < chunkIds.length; at += 32) {
          const chunk = `${footer.packSet.toString('hex')}:${chunkIds.toString('hex', at, at + 32)}`
          if (seen.has(chunk)) twice.push(`${name}: ${chunk}`)
          seen.add(chunk)
        }
      }
    }
  }
  return twice
}

/** Everything that is broken, in words; empty when all is well. */
export async function verifyRepository(access: Access, known: KnownPacks = new Map()): Promise<string[]> {
  const broken: string[] = []
  for (const domain of access.config.domains) {
    const keys = await domainKeys(access, domain.id)
    const verifying: Verifying = { access, keys, packs: known, broken }
    const { snapshots } = await listSnapshots(access.store, access.config, { domain: domain.id })
    verifyStream(snapshots, broken)
    for (const snapshot of snapshots) {
      try {
        await verifySnapshot(verifying, snapshot)
      } catch (error) {
        if (!isFailure(error)) throw error
        broken.push(`${snapshot.id}: ${error.code} ${error.message}`)
      }
    }
  }
  return broken
}

/** Counters without gaps, each with its predecessor's hash; the rules of the kinds. */
function verifyStream(snapshots: readonly StoredSnapshot[], broken: string[]): void {
  const byId = new Map(snapshots.map((snapshot) => [snapshot.id, snapshot]))
  const before = new Map<string, StoredSnapshot>()
  for (const snapshot of snapshots) {
    const previous = before.get(snapshot.source)
    before.set(snapshot.source, snapshot)
    if (snapshot.counter !== (previous?.counter ?? 0) + 1)
      broken.push(`${snapshot.id}: counter ${snapshot.counter}`)
    if (snapshot.previous !== (previous?.sha256 ?? null)) broken.push(`${snapshot.id}: wrong predecessor`)
    const sets = snapshot.lineage.map((set) => set.packSet).filter((set) => set !== snapshot.packSet)
    const full = byId.get(snapshot.full)
    const parent = byId.get(snapshot.parent ?? '')
    if (full?.generation !== snapshot.generation)
      broken.push(`${snapshot.id}: has another generation than its full`)
    const allowed =
      snapshot.kind === 'full' ? [] : snapshot.kind === 'differential' ? full?.lineage : parent?.lineage
    const names = new Set(allowed?.map((set) => set.packSet))
    if (sets.some((set) => !names.has(set)))
      broken.push(`${snapshot.id}: references a pack set that it may not`)
    if (snapshot.kind === 'differential' && sets.length > 1)
      broken.push(`${snapshot.id}: needs ${sets.length} pack sets`)
  }
}

async function verifySnapshot(verifying: Verifying, snapshot: StoredSnapshot): Promise<void> {
  const { broken } = verifying
  const places: Places = new Map()
  for (const set of snapshot.lineage) {
    const listed = new Map<string, number>()
    for (const run of set.runs)
      for (const pack of await readRun(verifying, set.packSet, run, places)) listed.set(pack.id, pack.bytes)
    const bytes = [...listed.values()].reduce((sum, each) => sum + each, 0)
    if (set.packs !== listed.size || set.bytes !== bytes)
      broken.push(`${snapshot.id}: set ${set.packSet} has ${listed.size} packs of ${bytes} bytes`)
  }
  const used = new Set<string>()
  await verifyNode(verifying, places, snapshot.root, used, '')
  const refs = await readRefs(verifying, places, snapshot.refs)
  const marked = new Set<string>()
  for (const [pack, bits] of refs) {
    const { ids } = await readPack(verifying, pack, undefined)
    for (let number = 0; number < bits.length * 8; number++) {
      if (((bits[number >> 3] ?? 0) & (1 << (number & 7))) === 0) continue
      const id = ids[number]
      if (id === undefined)
        broken.push(`${snapshot.id}: refs mark chunk ${number} of pack ${pack}, which has ${ids.length}`)
      else marked.add(id)
      if (id !== undefined && !places.get(id)?.some((place) => place.pack === pack))
        broken.push(`${snapshot.id}: refs mark pack ${pack}, which is outside of the lineage`)
    }
  }
  for (const id of used) if (!marked.has(id)) broken.push(`${snapshot.id}: refs do not mark chunk ${id}`)
  for (const id of marked)
    if (!used.has(id)) broken.push(`${snapshot.id}: refs mark chunk ${id}, which nothing uses`)
}

async function readRun(
  verifying: Verifying,
  packSet: string,
  run: { n: number; sha256: string; entries: number },
  places: Places,
): Promise<IndexPack[]> {
  const { access, keys, broken } = verifying
  const name = `d/${keys.domain}/index/${packSet}/${String(run.n).padStart(6, '0')}`
  const object = await access.store.get(name)
  if (sha256(object) !== run.sha256) broken.push(`${name}: is another run`)
  const hex = (text: string): Buffer => Buffer.from(text, 'hex')
  const expected = {
    repository: hex(access.config.repository),
    domain: hex(keys.domain),
    packSet: hex(packSet),
    number: run.n,
    what: name,
  }
  const { packs, entries } = decodeIndexRun(object, expected, keys.indexKey)
  if (entries.length / INDEX_ENTRY_BYTES !== run.entries) broken.push(`${name}: has another count of entries`)
  const listed: IndexPack[] = []
  for (let place = 0; place < packs.length / INDEX_PACK_BYTES; place++) {
    const pack = indexPackAt(packs, place)
    listed.push(pack)
    const { ids: chunks } = await readPack(verifying, pack.id, KINDS[pack.kind - 1], pack.bytes)
    if (chunks.length !== pack.chunks) broken.push(`${name}: pack ${pack.id} has another count of chunks`)
  }
  for (let at = 0; at < entries.length; at += INDEX_ENTRY_BYTES) {
    const entry = indexEntryAt(entries, at)
    const id = entries.toString('hex', at, at + 32)
    const pack = listed[entry.pack]!.id
    if (verifying.packs.get(pack)?.ids[entry.chunk] !== id) broken.push(`${name}: chunk ${id} lies elsewhere`)
    places.set(id, [...(places.get(id) ?? []), { pack, number: entry.chunk }])
  }
  return listed
}

/** A whole pack, every chunk checked against its id. Fails: storage.missing, repo.corrupt. */
async function readPack(
  verifying: Verifying,
  id: string,
  kind: PackKind | undefined,
  bytesMust?: number,
): Promise<Pack> {
  const { access, keys, packs, broken } = verifying
  const folders = kind === undefined ? ['packs', 'meta'] : [kind === 'data' ? 'packs' : 'meta']
  const names = folders.map((folder) => `d/${keys.domain}/${folder}/${id.slice(0, 2)}/${id}`)
  const stats = await Promise.all(names.map((each) => access.store.stat(each)))
  const name = names.find((_, i) => stats[i] !== undefined) ?? names[0]!
  const stat = stats.find((each) => each !== undefined)
  if (stat !== undefined && bytesMust !== undefined && stat.bytes !== bytesMust)
    broken.push(`${name}: is ${stat.bytes} bytes long (must be ${bytesMust})`)
  const known = packs.get(id)
  if (known !== undefined && stat !== undefined) return known
  const bytes = await access.store.get(name)
  if (sha256(bytes) !== id) broken.push(`${name}: its name is not its hash`)
  const footer = decodeFooter(bytes, name)
  const end = footer.dataBytes + footer.headerBytes
  if (end + FOOTER_BYTES !== bytes.length) broken.push(`${name}: has bytes that belong to nothing`)
  const header = openHeader(footer, bytes.subarray(footer.dataBytes, end), keys, name)
  const half = footer.kind === 'refs' ? 'meta' : 'data'
  const opener = newFrameOpener(
    footer,
    header,
    openPackKey(footer, epochPrivateKey(keys, footer.epoch, half), name),
  )
  const frames = Array.from(header.frameOffset, (offset, frame) => {
    const body = openFrame(opener, frame, bytes.subarray(offset, offset + header.frameStored[frame]!), name)
    return decompress(header.frameCodec[frame]!, body, header.framePlain[frame]!, name)
  })
  const ids: string[] = []
  const chunks = Array.from(header.chunkBytes, (length, number) => {
    const start = header.chunkOffset[number]!
    const chunk = frames[header.chunkFrame[number]!]!.subarray(start, start + length)
    const chunkId = header.chunkIds.toString('hex', number * 32, number * 32 + 32)
    if (createHmac('sha256', keys.idKey!).update(chunk).digest('hex') !== chunkId)
      broken.push(`${name}: chunk ${number} is not what its id says`)
    ids.push(chunkId)
    return chunk
  })
  packs.set(id, { ids, chunks })
  return { ids, chunks }
}

/** A chunk of the lineage by its id (hex). */
function chunkOf(verifying: Verifying, places: Places, id: string, what: string): Uint8Array | undefined {
  const place = places.get(id)?.[0]
  const chunk = place && verifying.packs.get(place.pack)?.chunks[place.number]
  if (chunk === undefined) verifying.broken.push(`${what}: chunk ${id} is in no pack of the lineage`)
  return chunk
}

async function verifyNode(
  verifying: Verifying,
  places: Places,
  id: string,
  used: Set<string>,
  path: string,
): Promise<number> {
  used.add(id)
  const bytes = chunkOf(verifying, places, id, path)
  if (bytes === undefined) return 0
  const node = decodeNode(bytes, path)
  if (node.kind === 'branch') {
    let entries = 0
    for (const child of node.children) {
      const below = await verifyNode(verifying, places, hexOf(child.node), used, path)
      if (below !== child.entries)
        verifying.broken.push(`${path}: a branch counts ${child.entries}, there are ${below}`)
      entries += below
    }
    return entries
  }
  for (const entry of node.entries) {
    const below = `${path}/${entry.name}`
    if (entry.node !== undefined) await verifyNode(verifying, places, hexOf(entry.node), used, below)
    if (entry.type === 'file') verifyContent(verifying, places, entry, used, below)
  }
  return node.entries.length
}

function verifyContent(
  verifying: Verifying,
  places: Places,
  entry: { size: number; content: Uint8Array },
  used: Set<string>,
  path: string,
): void {
  const content = decodeContent(entry.content, path)
  const bytesOf = (id: string): Uint8Array => {
    used.add(id)
    return chunkOf(verifying, places, id, path) ?? new Uint8Array(0)
  }
  let size = content.kind === 'inline' ? content.bytes.length : 0
  if (content.kind === 'cdc' || content.kind === 'pages') {
    const { map } = content
    const nodes = map.depth === 0 ? [] : map.nodes.map(hexOf)
    const ids = map.depth === 2 ? nodes.flatMap((id) => decodeListNode(bytesOf(id), path).map(hexOf)) : nodes
    const parts: Extents[] =
      map.depth === 0 ? [map.extents] : ids.map((id) => decodeExtentNode(bytesOf(id), path))
    const spans = parts.map((part) => verifyExtents(verifying, part, bytesOf, path))
    if (spans.some((span, i) => span > NODE_SPAN_BYTES || (i < spans.length - 1 && span !== NODE_SPAN_BYTES)))
      verifying.broken.push(`${path}: has extent nodes of ${spans.join(', ')} bytes`)
    size = spans.reduce((sum, span) => sum + span, 0)
    if (content.kind === 'pages') verifyHashes(verifying, content, spans, bytesOf, path)
  }
  if (size !== entry.size)
    verifying.broken.push(`${path}: its content is ${size} bytes, its size ${entry.size}`)
}

/** Returns the bytes of file covered. */
function verifyExtents(
  verifying: Verifying,
  part: Extents,
  bytesOf: (id: string) => Uint8Array,
  path: string,
): number {
  for (const chunk of part.chunks)
    if (bytesOf(hexOf(chunk.id)).length !== chunk.bytes)
      verifying.broken.push(`${path}: a chunk has another length`)
  const used = new Set(part.extents.map((extent) => extent.ref))
  part.chunks.forEach((_, i) => {
    if (!used.has(i + 1)) verifying.broken.push(`${path}: lists a chunk that no extent uses`)
  })
  return part.extents.reduce((sum, extent) => sum + extent.length, 0)
}

function verifyHashes(
  verifying: Verifying,
  content: { pageBytes: number; hashes: readonly Uint8Array[] },
  spans: readonly number[],
  bytesOf: (id: string) => Uint8Array,
  path: string,
): void {
  if (content.hashes.length !== spans.length)
    verifying.broken.push(`${path}: has ${content.hashes.length} hash leaves`)
  content.hashes.forEach((id, i) => {
    const leaf = decodeHashLeaf(bytesOf(hexOf(id)), path)
    const pages = Math.ceil(spans[i]! / content.pageBytes)
    if (leaf.pageBytes !== content.pageBytes || leaf.hashes.length !== pages * 16)
      verifying.broken.push(`${path}: hash leaf ${i} does not fit its segment`)
  })
}

/** The whole refs record: a delta is applied to the record it names. */
async function readRefs(verifying: Verifying, places: Places, ids: readonly string[]): Promise<RefsMap> {
  const parts = ids.map((id) => chunkOf(verifying, places, id, 'refs') ?? new Uint8Array(0))
  const record = decodeRefs(Buffer.concat(parts), 'refs')
  if (record.base === undefined) return record.packs
  return xorRefs(await readRefs(verifying, places, [hexOf(record.base)]), record.packs)
}

function hexOf(id: Uint8Array): string {
  return Buffer.from(id).toString('hex')
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
