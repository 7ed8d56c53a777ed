/**
 * The end of a pack: the footer, and the header that lists its chunks. Opened with the index key alone, so
 * that whoever may write may also list. Not here: frames (pack-reader.ts).
 */
import { corrupt } from '../base/bytes.ts'
import { Failure } from '../base/failure.ts'
import {
  CHUNK_ID_BYTES,
  decodeFooter,
  FOOTER_BYTES,
  openHeader,
  type HeaderReading,
  type PackFooter,
  type PackHeader,
  type PackKind,
} from '../format/pack.ts'
import type { BlobStore } from '../storage/store.ts'
import type { StoredPack } from './saver.ts'

/** One read that holds the footer and, nearly always, the header. */
const TAIL_BYTES = 32 * 1024

/** Whose packs are read. */
export interface PackOwner extends HeaderReading {
  readonly repository: Uint8Array
  readonly domain: string
}

/** A pack in the store; `kind`: what it must be, if that is known. */
export interface NamedPack {
  readonly name: string
  readonly bytes: number
  readonly kind?: PackKind
}

export interface PackTail {
  readonly footer: PackFooter
  readonly header: PackHeader
}

/**
 * Reads footer and header: in one read, or two if it has very many chunks. Fails: as get(), repo.corrupt,
 * repo.foreign, repo.newer.
 */
export async function readPackTail(store: BlobStore, owner: PackOwner, pack: NamedPack): Promise<PackTail> {
  const { name, bytes } = pack
  const tailBytes = Math.min(bytes, TAIL_BYTES)
  let tail = await store.get(name, { offset: bytes - tailBytes, length: tailBytes })
  const needed = bytes - checkedFooter(owner, pack, tail).dataBytes
  if (needed > tail.length) tail = await store.get(name, { offset: bytes - needed, length: needed })
  return openPackTail(owner, pack, tail)
}

/** The same of bytes in memory, the whole pack or enough of its end. Fails as readPackTail(). */
export function openPackTail(owner: PackOwner, pack: NamedPack, tail: Uint8Array): PackTail {
  const footer = checkedFooter(owner, pack, tail)
  const at = tail.length - (pack.bytes - footer.dataBytes)
  if (at < 0) throw corrupt(pack.name, 'is shorter than its footer says')
  const sealed = tail.subarray(at, at + footer.headerBytes)
  return { footer, header: openHeader(footer, sealed, owner, pack.name) }
}

/** Reads the footer alone: 256 bytes. Fails: as get(), repo.corrupt, repo.foreign, repo.newer. */
export async function readPackFooter(
  store: BlobStore,
  owner: PackOwner,
  pack: NamedPack,
): Promise<PackFooter> {
  const tailBytes = Math.min(pack.bytes, FOOTER_BYTES)
  const tail = await store.get(pack.name, { offset: pack.bytes - tailBytes, length: tailBytes })
  return checkedFooter(owner, pack, tail)
}

function checkedFooter(owner: PackOwner, pack: NamedPack, tail: Uint8Array): PackFooter {
  const { name, bytes, kind } = pack
  const footer = decodeFooter(tail, name)
  if (!footer.repository.equals(owner.repository) || footer.domain.toString('hex') !== owner.domain)
    throw new Failure('repo.foreign', `Cannot use ${name}: it belongs to another repository or domain`)
  if (kind !== undefined && footer.kind !== kind)
    throw corrupt(name, `is a ${footer.kind} pack (must be ${kind})`)
  if (footer.dataBytes + footer.headerBytes + FOOTER_BYTES > bytes)
    throw corrupt(name, 'has a footer that does not fit its length')
  return footer
}

/** What an index run says of a pack, by its own header. The number is 0. */
export function storedPackOf(tail: PackTail, pack: { id: string; bytes: number }): StoredPack {
  const { footer, header } = tail
  const chunkClasses = Uint8Array.from(header.chunkFrame, (frame) => header.frameClass[frame] ?? 0)
  const chunkIds = Buffer.from(header.chunkIds.subarray(0, footer.chunkCount * CHUNK_ID_BYTES))
  return { number: 0, id: pack.id, kind: footer.kind, bytes: pack.bytes, chunkIds, chunkClasses }
}
