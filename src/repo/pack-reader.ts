/**
 * Reading packs: footer and header by one read of the tail, frames by ranges; every chunk is checked against
 * its id. Usable from one thread; the pack and frame caches are bounded.
 */
import { createHmac, createSecretKey, type KeyObject } from 'node:crypto'
import { corrupt } from '../base/bytes.ts'
import { Failure } from '../base/failure.ts'
import {
  CHUNK_ID_BYTES,
  newFrameOpener,
  openFrame,
  openPackKey,
  type FrameOpener,
  type PackHeader,
  type PackKind,
} from '../format/pack.ts'
import type { BlobStore } from '../storage/store.ts'
import { decompress } from './compress.ts'
import { packName } from './names.ts'
import { readPackTail, type PackOwner } from './pack-tail.ts'

const OPEN_PACKS_MAX = 64
const FRAME_CACHE_BYTES_MAX = 24 * 1024 * 1024

/** Private halves by epoch, raw, as far as the credential has them; can be posted to a thread. */
export interface ReaderKeys extends PackOwner {
  readonly idKey: Uint8Array
  readonly dataPrivate: ReadonlyMap<number, Uint8Array>
  readonly metaPrivate: ReadonlyMap<number, Uint8Array>
}

/** A pack as an index run lists it. */
export interface PackPlace {
  readonly id: string
  readonly kind: PackKind
  readonly bytes: number
}

export interface OpenedPack {
  readonly place: PackPlace
  readonly name: string
  readonly opener: FrameOpener
}

export interface PackReader {
  readonly store: BlobStore
  readonly keys: ReaderKeys
  readonly idKey: KeyObject
  /** By pack id, least recently used first. */
  readonly packs: Map<string, OpenedPack>
  /** By `pack id:frame`, least recently used first. */
  readonly frames: Map<string, Uint8Array>
  frameBytes: number
}

export function newPackReader(store: BlobStore, keys: ReaderKeys): PackReader {
  return {
    store,
    keys,
    idKey: createSecretKey(keys.idKey),
    packs: new Map(),
    frames: new Map(),
    frameBytes: 0,
  }
}

/** The pack's footer, header and key. Fails: storage.*, repo.corrupt, repo.foreign, key.role. */
export async function openPack(reader: PackReader, place: PackPlace): Promise<OpenedPack> {
  const known = reader.packs.get(place.id)
  if (known !== undefined) {
    reader.packs.delete(place.id)
    reader.packs.set(place.id, known)
    return known
  }
  const { id, kind, bytes } = place
  const name = packName(reader.keys.domain, kind, id)
  const { footer, header } = await readPackTail(reader.store, reader.keys, { name, kind, bytes })
  const halves = kind === 'refs' ? reader.keys.metaPrivate : reader.keys.dataPrivate
  const epochKey = halves.get(footer.epoch)
  if (epochKey === undefined)
    throw new Failure(
      'key.role',
      `Cannot open ${name}: this credential holds no key of epoch ${footer.epoch}`,
    )
  const opened = { place, name, opener: newFrameOpener(footer, header, openPackKey(footer, epochKey, name)) }
  reader.packs.set(id, opened)
  if (reader.packs.size > OPEN_PACKS_MAX) reader.packs.delete(reader.packs.keys().next().value!)
  return opened
}

/** The plaintext of a frame from its stored bytes. Fails: repo.corrupt. */
export function plainFrame(pack: OpenedPack, frame: number, stored: Uint8Array): Uint8Array {
  const { header } = pack.opener
  const body = openFrame(pack.opener, frame, stored, pack.name)
  return decompress(header.frameCodec[frame]!, body, header.framePlain[frame]!, pack.name)
}

/** A view of chunk `number` in the plaintext of its frame, checked against its id. Fails: repo.corrupt. */
export function chunkOfFrame(
  reader: PackReader,
  pack: OpenedPack,
  number: number,
  plain: Uint8Array,
): Uint8Array {
  const { header } = pack.opener
  const start = header.chunkOffset[number]!
  const chunk = plain.subarray(start, start + header.chunkBytes[number]!)
  const id = createHmac('sha256', reader.idKey).update(chunk).digest()
  if (id.compare(header.chunkIds, number * CHUNK_ID_BYTES, (number + 1) * CHUNK_ID_BYTES) !== 0)
    throw corrupt(pack.name, `holds a chunk ${number} that does not match its id`)
  return chunk
}

/**
 * Reads one chunk; neighbours in its frame are cached. `id` is what the caller expects there.
 * The view returned is the cache's: copy what is kept. Fails: storage.*, repo.corrupt, key.role.
 */
export async function readChunkAt(
  reader: PackReader,
  place: PackPlace,
  number: number,
  id: Uint8Array,
): Promise<Uint8Array> {
  const pack = await openPack(reader, place)
  const { header } = pack.opener
  if (number >= header.chunkBytes.length || !isChunk(header, number, id))
    throw corrupt(pack.name, `does not hold chunk ${number} that the index says it has`)
  return chunkOfFrame(reader, pack, number, await readFrame(reader, pack, header.chunkFrame[number]!))
}

/** Whether chunk `number` of the pack has this id. */
export function isChunk(header: PackHeader, number: number, id: Uint8Array): boolean {
  return (
    header.chunkIds.compare(id, 0, CHUNK_ID_BYTES, number * CHUNK_ID_BYTES, (number + 1) * CHUNK_ID_BYTES) ===
    0
  )
}

async function readFrame(reader: PackReader, pack: OpenedPack, frame: number): Promise<Uint8Array> {
  const key = `${pack.place.id}:${frame}`
  const cached = reader.frames.get(key)
  if (cached !== undefined) {
    reader.frames.delete(key)
    reader.frames.set(key, cached)
    return cached
  }
  const { header } = pack.opener
  const stored = await reader.store.get(pack.name, {
    offset: header.frameOffset[frame]!,
    length: header.frameStored[frame]!,
  })
  const plain = plainFrame(pack, frame, stored)
  reader.frames.set(key, plain)
  reader.frameBytes += plain.length
  for (const [oldest, bytes] of reader.frames) {
    if (reader.frameBytes <= FRAME_CACHE_BYTES_MAX) break
    reader.frames.delete(oldest)
    reader.frameBytes -= bytes.length
  }
  return plain
}
