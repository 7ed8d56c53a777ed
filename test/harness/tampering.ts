/** What a store, a thief of a writer's key or a broken writer could do to a repository in a memory store. */
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { join } from 'node:path'
import { randomBytes } from '../../src/base/random.ts'
import { newWriter } from '../../src/base/bytes.ts'
import {
  encodeIndexPacks,
  encodeIndexRun,
  INDEX_ENTRY_BYTES,
  putIndexEntry,
} from '../../src/format/index-run.ts'
import {
  addFrame,
  CHUNK_CLASSES,
  CODECS,
  finishPack,
  newPack,
  PACK_KINDS,
  type ChunkClass,
} from '../../src/format/pack.ts'
import { encodeRefs } from '../../src/format/refs.ts'
import { sha256 } from '../../src/format/seal.ts'
import { encodeSigned } from '../../src/format/signed.ts'
import { snapshotName, type LineageSet, type Snapshot } from '../../src/format/snapshot.ts'
import { encodeEntry, encodeNode, NODE_LEAF, type TreeEntry } from '../../src/format/tree.ts'
import { currentEpoch, domainKeys, writingDomain } from '../../src/repo/keys.ts'
import { packName, runName } from '../../src/repo/names.ts'
import { openHostFolder } from '../../src/repo/host-folder.ts'
import { memoryStore, type MemoryDisk } from '../../src/storage/memory.ts'
import { through, type TestRepository } from './engine.ts'

/** A copy of the repository on a disk of its own, with nothing cached and nothing remembered. */
export function freshCopy(repository: TestRepository, name: string): TestRepository {
  const disk: MemoryDisk = new Map(repository.disk)
  const host = openHostFolder(join(repository.folder, name), repository.kit.repository)
  return { ...through(repository, memoryStore({ disk })), disk, host }
}

/** Replaces an object's bytes. */
export function change(repository: TestRepository, name: string, to: (bytes: Buffer) => Buffer): void {
  const blob = repository.disk.get(name)
  assert(blob, name)
  repository.disk.set(name, { ...blob, bytes: to(Buffer.from(blob.bytes)) })
}

export function flip(bytes: Buffer, at: number): Buffer {
  bytes[at] = (bytes[at] ?? 0) ^ 0x10
  return bytes
}

export function swap(repository: TestRepository, a: string, b: string): void {
  const [one, other] = [repository.disk.get(a), repository.disk.get(b)]
  assert(one && other)
  repository.disk.set(a, other)
  repository.disk.set(b, one)
}

export function put(repository: TestRepository, name: string, bytes: Uint8Array): void {
  repository.disk.set(name, { bytes: Buffer.from(bytes), modified: 0 })
}

/** Object names that hold `part`, in order. */
export function objectsOf(repository: TestRepository, part: string): string[] {
  return [...repository.disk.keys()].filter((name) => name.includes(part)).sort()
}

/** The payload of a snapshot object. */
export function payloadOf(repository: TestRepository, name: string): Snapshot {
  const text = repository.disk.get(name)?.bytes.toString('utf8').split('\n')[1]
  return JSON.parse(text ?? '') as Snapshot
}

/** Writes a snapshot as whoever holds `seed` could (default: the writer). */
export async function signSnapshot(
  repository: TestRepository,
  payload: Snapshot,
  seed?: Uint8Array,
): Promise<string> {
  const { access } = repository
  const keys = await domainKeys(access, writingDomain(access).id)
  assert(keys.signingSeed)
  const name = snapshotName(keys.domain, payload.source, payload.id)
  const place = { kind: 'snapshot', repository: access.config.repository, name } as const
  put(repository, name, encodeSigned({ ...place, payload }, seed ?? keys.signingSeed))
  return name
}

/** A chunk to plant. */
export interface PlantedChunk {
  readonly kind: ChunkClass
  readonly bytes: Uint8Array
  /** The bytes whose id it bears, if it lies. */
  readonly claims?: Uint8Array
}

/** Chunks in a pack of their own. */
export interface Planted {
  readonly ids: Buffer[]
  readonly set: LineageSet
  readonly pack: string
}

/** Stores chunks in a pack set of their own, with its run, and says where. */
export async function plantChunks(
  repository: TestRepository,
  kind: 'data' | 'tree' | 'refs',
  chunks: readonly PlantedChunk[],
): Promise<Planted> {
  const { access } = repository
  const keys = await domainKeys(access, writingDomain(access).id)
  const { epoch, dataPublic, metaPublic } = currentEpoch(keys)
  const [domain, packSet] = [Buffer.from(keys.domain, 'hex'), randomBytes(16)]
  const identity = { repository: Buffer.from(access.config.repository, 'hex'), domain, packSet, kind, epoch }
  const pack = newPack(identity, Buffer.alloc(1 << 20), randomBytes(16), randomBytes(32))
  const idKey = keys.idKey
  assert(idKey)
  const idOf = (bytes: Uint8Array): Buffer => createHmac('sha256', idKey).update(bytes).digest()
  const ids = chunks.map(({ bytes, claims }) => idOf(claims ?? bytes))
  for (const [at, { kind: chunkKind, bytes }] of chunks.entries())
    addFrame(pack, {
      kind: chunkKind,
      codec: CODECS.raw,
      body: bytes,
      plainBytes: bytes.length,
      chunks: [{ id: ids[at] ?? Buffer.alloc(0), bytes: bytes.length }],
    })
  const object = finishPack(pack, keys.indexKey, kind === 'refs' ? metaPublic : dataPublic)
  const id = sha256(object).toString('hex')
  put(repository, packName(keys.domain, kind, id), object)
  const entries = ids
    .map((chunk, number) => {
      const entry = Buffer.alloc(INDEX_ENTRY_BYTES)
      const chunkClass = CHUNK_CLASSES[chunks[number]?.kind ?? 'data']
      putIndexEntry(entry, 0, chunk, { pack: 0, chunk: number, class: chunkClass })
      return entry
    })
    .sort((a, b) => a.compare(b))
  const packs = encodeIndexPacks([
    { id, bytes: object.length, chunks: chunks.length, kind: PACK_KINDS[kind] },
  ])
  const records = { packs, entries: Buffer.concat(entries), supersedes: [] }
  const run = encodeIndexRun(
    { repository: identity.repository, domain, packSet, number: 1, ...records },
    keys.indexKey,
    randomBytes(16),
  )
  const setId = packSet.toString('hex')
  put(repository, runName(keys.domain, setId, 1), run)
  const runs = [{ n: 1, sha256: sha256(run).toString('hex'), entries: ids.length }]
  return { ids, set: { packSet: setId, runs, packs: 1, bytes: object.length }, pack: id }
}

/** An incremental made by hand of planted chunks; breaks the rules of its kind, which tests look past. */
export async function plantSnapshot(
  repository: TestRepository,
  like: Snapshot,
  of: { readonly tree: Planted; readonly refs: Planted; readonly data?: readonly Planted[] },
): Promise<string> {
  const { tree, refs, data = [] } = of
  const id = '20260301t010000z-00112233'
  await signSnapshot(repository, {
    ...like,
    id,
    kind: 'incremental',
    counter: 1,
    previous: null,
    source: 'planted',
    parent: null,
    full: id,
    generation: tree.set.packSet,
    packSet: tree.set.packSet,
    begun: '2026-03-01T01:00:00Z',
    completed: '2026-03-01T01:00:00Z',
    lineage: [refs.set, ...data.map(({ set }) => set), tree.set],
    root: tree.ids[0]?.toString('hex') ?? '',
    refs: [refs.ids[0]?.toString('hex') ?? ''],
  })
  return id
}

/** A snapshot of one directory, `root`, whose files need `data` besides; like the first that is there. Its id. */
export async function plantRoot(
  repository: TestRepository,
  root: PlantedChunk,
  data: readonly Planted[] = [],
): Promise<string> {
  const tree = await plantChunks(repository, 'tree', [root])
  const refs = await plantChunks(repository, 'refs', [{ kind: 'refs', bytes: refsOf(tree.pack, [0]) }])
  const like = payloadOf(repository, objectsOf(repository, '/snapshots/')[0] ?? '')
  return await plantSnapshot(repository, like, { tree, refs, data })
}

/** A file's entry in a tree. */
export function fileEntry(name: string, size: number, content: Uint8Array): TreeEntry {
  return {
    name,
    size,
    content,
    type: 'file',
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: 0n,
    ctime: 0n,
    dev: 1,
    inode: 1n,
    links: 1,
    target: '',
    major: 0,
    minor: 0,
    xattrs: [],
    flags: 0,
    node: undefined,
  }
}

/** The bytes of a directory of these entries. */
export function leafOf(entries: readonly TreeEntry[]): Buffer {
  const [below, node] = [newWriter(), newWriter()]
  for (const entry of entries) encodeEntry(below, entry)
  encodeNode(node, NODE_LEAF, entries.length, below.bytes.subarray(0, below.length))
  return Buffer.from(node.bytes.subarray(0, node.length))
}

/** A refs record that names these chunk numbers of one pack, and those of `more` by pack. */
export function refsOf(
  pack: string,
  numbers: readonly number[],
  more: ReadonlyMap<string, readonly number[]> = new Map(),
): Buffer {
  const packs = [...new Map<string, readonly number[]>([[pack, numbers], ...more])].map(
    ([id, of]) => [id, bitsOf(of)] as const,
  )
  return encodeRefs({ base: undefined, packs: new Map(packs) })
}

function bitsOf(numbers: readonly number[]): Uint8Array {
  const bits = new Uint8Array(1 + Math.max(0, ...numbers.map((number) => number >> 3)))
  for (const number of numbers) bits[number >> 3] = (bits[number >> 3] ?? 0) | (1 << (number & 7))
  return bits
}
