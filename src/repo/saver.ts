/**
 * Saves chunks into packs: id, lookup, compress, seal, store. One saver belongs to one thread; threads share
 * the index.
 *
 * Synchronous per chunk; asynchronous only where a pack is full and its buffer must be traded for a free one.
 * At most `packBuffers` packs of a kind exist a saver, so memory is bounded and a slow store holds the
 * reading back. A chunk is durable only once its pack was stored, which `onStored` tells; flushSaver() waits
 * for all of them.
 */
import { createHmac, createSecretKey, hash, type KeyObject } from 'node:crypto'
import {
  addFrame,
  CHUNK_CLASSES,
  CHUNK_ID_BYTES,
  finishPack,
  FRAME_BYTES,
  frameFits,
  newPack,
  OWN_FRAME_BYTES,
  type ChunkClass,
  type FrameChunk,
  type OpenPack,
  type PackKind,
} from '../format/pack.ts'
import { randomBytes } from '../base/random.ts'
import { assert } from '../base/failure.ts'
import { noteGarbage } from '../base/garbage.ts'
import type { BlobStore } from '../storage/store.ts'
import { claimChunk, nextPackNumber, type ChunkIndex } from './chunk-index.ts'
import { compress } from './compress.ts'
import { packName } from './names.ts'

/** Header, footer and tags of a pack with one chunk, with room to spare. */
const PACK_EXTRA_BYTES = 1024

/** What writing needs of a domain: no key here opens a pack. Buffers are raw; all can be posted to a thread. */
export interface WriterKeys {
  readonly repository: Uint8Array
  readonly domain: Uint8Array
  readonly packSet: Uint8Array
  readonly epoch: number
  readonly idKey: Uint8Array
  readonly indexKey: Uint8Array
  readonly dataPublic: Uint8Array
  readonly metaPublic: Uint8Array
}

/** A pack that is durable. `chunkIds`: 32 bytes a chunk, in order of their numbers. */
export interface StoredPack {
  readonly number: number
  readonly id: string
  readonly kind: PackKind
  readonly bytes: number
  readonly chunkIds: Buffer
  readonly chunkClasses: Uint8Array
}

/** Where a chunk lies: global pack number (chunk-index.ts) and chunk number. */
export interface SavedChunk {
  readonly id: Buffer
  readonly pack: number
  readonly number: number
  /** false: it was there already. */
  readonly fresh: boolean
}

interface Lane {
  readonly kind: PackKind
  pack: OpenPack | undefined
  number: number
  frameClass: ChunkClass
  frameBytes: number
  frameChunks: FrameChunk[]
  readonly frame: Buffer
  classes: number[]
}

/** What a saver works with. */
export interface SaverSetup {
  readonly keys: WriterKeys
  readonly store: BlobStore
  readonly index: ChunkIndex
  /** Bytes of a pack at most; larger only for a chunk that does not fit otherwise. */
  readonly packBytesMax: number
  /**
   * Buffers a kind of pack: 2 fill one pack while another is stored, 1 waits (for stores whose put blocks
   * anyway).
   */
  readonly packBuffers: 1 | 2
}

export interface Saver extends SaverSetup {
  readonly idKey: KeyObject
  readonly lanes: Map<PackKind, Lane>
  readonly free: Buffer[]
  buffers: number
  readonly storing: Set<Promise<void>>
  failure: unknown
  readonly onStored: (pack: StoredPack) => void
}

export function newSaver(setup: SaverSetup, onStored: (pack: StoredPack) => void): Saver {
  return {
    ...setup,
    idKey: createSecretKey(setup.keys.idKey),
    onStored,
    lanes: new Map(),
    free: [],
    buffers: 0,
    storing: new Set(),
    failure: undefined,
  }
}

/** The id of `bytes` in this domain. */
function chunkId(saver: Saver, bytes: Uint8Array): Buffer {
  return createHmac('sha256', saver.idKey).update(bytes).digest()
}

/**
 * Saves `bytes` unless the index knows them. Keeps nothing of `bytes` once it resolves.
 * Fails: what the store's put fails with, also for an earlier pack.
 */
export async function saveChunk(saver: Saver, kind: ChunkClass, bytes: Uint8Array): Promise<SavedChunk> {
  if (!hasRoom(saver, kind, bytes.length)) await makeRoom(saver, kind, bytes.length)
  return saveChunkNow(saver, kind, bytes)
}

/** Whether saveChunkNow() may be called: the open pack takes one more chunk of `bytes`. */
export function hasRoom(saver: Saver, kind: ChunkClass, bytes: number): boolean {
  if (saver.failure !== undefined) return false
  const lane = saver.lanes.get(packKindOf(kind))
  if (lane?.pack === undefined) return false
  return frameFits(lane.pack, lane.frameBytes + bytes, lane.frameChunks.length + 1)
}

/**
 * Closes the full pack and opens the next, with room for `bytes`; waits for a free buffer. Fails: as the
 * store's put.
 */
export async function makeRoom(saver: Saver, kind: ChunkClass, bytes: number): Promise<void> {
  const lane = laneOf(saver, packKindOf(kind))
  if (lane.pack !== undefined) closePack(saver, lane)
  const buffer = await freeBuffer(saver, bytes)
  const { repository, domain, packSet, epoch } = saver.keys
  const identity = {
    repository: Buffer.from(repository),
    domain: Buffer.from(domain),
    packSet: Buffer.from(packSet),
    kind: lane.kind,
    epoch,
  }
  lane.pack = newPack(identity, buffer, randomBytes(16), randomBytes(32))
  lane.number = nextPackNumber(saver.index)
  lane.classes = []
}

/** saveChunk() without waiting; the caller has asked hasRoom(). */
export function saveChunkNow(saver: Saver, kind: ChunkClass, bytes: Uint8Array): SavedChunk {
  const id = chunkId(saver, bytes)
  const lane = laneOf(saver, packKindOf(kind))
  assert(lane.pack, 'saveChunkNow() follows hasRoom()')
  if (lane.frameChunks.length > 0 && (lane.frameClass !== kind || bytes.length >= OWN_FRAME_BYTES))
    sealFrame(lane)
  const number = lane.pack.chunkCount + lane.frameChunks.length
  // A refs record is opened with another key than the rest: it must not be found in another pack.
  const known = kind === 'refs' ? undefined : claimChunk(saver.index, id, lane.number, number)
  if (known !== undefined) return { id, pack: known.pack, number: known.number, fresh: false }
  lane.frameClass = kind
  lane.classes.push(CHUNK_CLASSES[kind])
  noteGarbage(2 * bytes.length) // compressed, then sealed
  if (bytes.length >= OWN_FRAME_BYTES) {
    addFrame(lane.pack, {
      kind,
      ...compress(bytes),
      plainBytes: bytes.length,
      chunks: [{ id, bytes: bytes.length }],
    })
  } else {
    lane.frame.set(bytes, lane.frameBytes)
    lane.frameBytes += bytes.length
    lane.frameChunks.push({ id, bytes: bytes.length })
    if (lane.frameBytes >= FRAME_BYTES) sealFrame(lane)
  }
  return { id, pack: lane.number, number, fresh: true }
}

/** Stores everything that is open and waits until it is durable. Fails: as the store's put. */
export async function flushSaver(saver: Saver): Promise<void> {
  for (const lane of saver.lanes.values()) if (lane.pack !== undefined) closePack(saver, lane)
  await Promise.all(saver.storing)
  if (saver.failure !== undefined) throw saver.failure
}

function laneOf(saver: Saver, kind: PackKind): Lane {
  let lane = saver.lanes.get(kind)
  if (lane === undefined) {
    const frame = Buffer.allocUnsafeSlow(FRAME_BYTES + OWN_FRAME_BYTES)
    lane = {
      kind,
      pack: undefined,
      number: 0,
      frameClass: 'data',
      frameBytes: 0,
      frameChunks: [],
      frame,
      classes: [],
    }
    saver.lanes.set(kind, lane)
  }
  return lane
}

function packKindOf(kind: ChunkClass): PackKind {
  if (kind === 'refs') return 'refs'
  return kind === 'data' || kind === 'run' || kind === 'delta' ? 'data' : 'tree'
}

function sealFrame(lane: Lane): void {
  assert(lane.pack, 'a frame belongs to an open pack')
  const plain = lane.frame.subarray(0, lane.frameBytes)
  const frame = {
    kind: lane.frameClass,
    ...compress(plain),
    plainBytes: plain.length,
    chunks: lane.frameChunks,
  }
  addFrame(lane.pack, frame)
  lane.frameBytes = 0
  lane.frameChunks = []
}

/** Seals the pack and begins to store it; the outcome is known by flushSaver() or the next makeRoom(). */
function closePack(saver: Saver, lane: Lane): void {
  const pack = lane.pack
  if (pack === undefined) return
  if (lane.frameChunks.length > 0) sealFrame(lane)
  lane.pack = undefined
  if (pack.chunkCount === 0) {
    saver.free.push(pack.buffer)
    return
  }
  const bytes = finishPack(
    pack,
    saver.keys.indexKey,
    lane.kind === 'refs' ? saver.keys.metaPublic : saver.keys.dataPublic,
  )
  const id = hash('sha256', bytes, 'hex')
  const stored = storedPack(pack, lane, id, bytes.length)
  const storing = saver.store
    .put(packName(Buffer.from(saver.keys.domain).toString('hex'), lane.kind, id), bytes)
    .then(
      () => {
        saver.onStored(stored)
      },
      (error: unknown) => {
        saver.failure ??= error
      },
    )
    .finally(() => {
      saver.storing.delete(storing)
      saver.free.push(pack.buffer)
    })
  saver.storing.add(storing)
}

function storedPack(pack: OpenPack, lane: Lane, id: string, bytes: number): StoredPack {
  const chunkIds = Buffer.allocUnsafe(pack.chunkCount * CHUNK_ID_BYTES)
  pack.chunks.forEach((record, number) => record.copy(chunkIds, number * CHUNK_ID_BYTES, 0, CHUNK_ID_BYTES))
  return {
    number: lane.number,
    id,
    kind: lane.kind,
    bytes,
    chunkIds,
    chunkClasses: Uint8Array.from(lane.classes),
  }
}

async function freeBuffer(saver: Saver, chunkBytes: number): Promise<Buffer> {
  if (saver.failure !== undefined) throw saver.failure
  const bytes = Math.max(saver.packBytesMax, chunkBytes + PACK_EXTRA_BYTES)
  const free = saver.free.pop()
  if (free !== undefined)
    return free.length >= bytes ? free.subarray(0, bytes) : Buffer.allocUnsafeSlow(bytes)
  if (saver.buffers < saver.packBuffers * saver.lanes.size) {
    saver.buffers++
    return Buffer.allocUnsafeSlow(bytes)
  }
  await Promise.race(saver.storing)
  return await freeBuffer(saver, chunkBytes)
}
