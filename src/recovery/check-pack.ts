/**
 * One pack held against itself: its footer and header (tail), or all of its bytes (data). Synchronous on
 * bytes, so that it runs in any thread. Results are records that can be posted. Not here: what indexes and
 * trees say of a pack.
 */
import { createHmac, createSecretKey, hash, type KeyObject } from 'node:crypto'
import { corrupt } from '../base/bytes.ts'
import { Failure } from '../base/failure.ts'
import { noteGarbage } from '../base/garbage.ts'
import {
  CHUNK_ID_BYTES,
  CODECS,
  newFrameOpener,
  openFrame,
  openPackKey,
  scanFrame,
  type FrameOpener,
  type PackFooter,
  type PackHeader,
  type PackKind,
} from '../format/pack.ts'
import { decompress } from '../repo/compress.ts'
import { isUnreadable } from '../repo/damage.ts'
import { openPackTail, readPackTail, type PackOwner, type PackTail } from '../repo/pack-tail.ts'
import type { BlobStore } from '../storage/store.ts'

/** What checking needs of a domain, as far as the credential reaches. Can be posted to a thread. */
export interface PackKeys extends PackOwner {
  readonly idKey: Uint8Array | undefined
  readonly epochs: readonly {
    readonly epoch: number
    readonly dataPrivate: Uint8Array | undefined
    readonly metaPrivate: Uint8Array | undefined
  }[]
}

/** A pack as an index run lists it. */
export interface PackClaim {
  readonly name: string
  readonly id: string
  readonly domain: string
  readonly packSet: string
  readonly kind: PackKind
  readonly bytes: number
}

/** A sum over chunk ids, numbers and classes that does not depend on their order. */
export interface ChunkSum {
  count: number
  low: number
  high: number
}

/** As a record, so that it can be posted. */
export interface PackFailure {
  readonly code: string
  readonly message: string
  /** The store could not hand it out now. */
  readonly unreadable: boolean
}

/** What a pack was found to hold. */
export interface PackResult {
  /** Why nothing of it can be read. */
  readonly failure: PackFailure | undefined
  /** Of the header's chunks. */
  readonly sum: ChunkSum
  readonly packSet: string
  /** Whether all bytes were read and SHA-256 is the pack's name; undefined: only the tail was read. */
  readonly isNamedRight: boolean | undefined
  /** Whether frames were opened: needs the keys of contents. */
  readonly isOpened: boolean
  readonly frames: number
  readonly badFrames: number
  /** Bit i of byte i>>3: chunk number i cannot be read. undefined: all can. */
  readonly badChunks: Uint8Array | undefined
}

const NOTHING: Omit<PackResult, 'failure' | 'isNamedRight'> = {
  sum: { count: 0, low: 0, high: 0 },
  packSet: '',
  isOpened: false,
  frames: 0,
  badFrames: 0,
  badChunks: undefined,
}

/** `isNamedRight`: false for a pack that was to be read whole. */
export function failedPack(failure: Failure, isNamedRight?: boolean): PackResult {
  const { code, message } = failure
  return { ...NOTHING, failure: { code, message, unreadable: isUnreadable(failure) }, isNamedRight }
}

/**
 * Reads and checks the end of a pack: one read, or two when it has very many chunks. Fails: storage._,
 * repo._.
 */
export async function checkPackTail(store: BlobStore, keys: PackKeys, claim: PackClaim): Promise<PackResult> {
  const { footer, header } = await readPackHeader(store, keys, claim)
  return { ...NOTHING, failure: undefined, isNamedRight: undefined, ...headerResult(footer, header) }
}

/** The header of a pack. Fails: storage.*, repo.corrupt, repo.foreign, repo.newer. */
export async function readPackHeader(store: BlobStore, keys: PackKeys, claim: PackClaim): Promise<PackTail> {
  return ofKnownEpoch(keys, claim, await readPackTail(store, keys, claim))
}

/**
 * Checks everything in a pack that is in memory. `bytes` is the caller's again when it returns. Fails:
 * repo.*.
 */
export function checkPackBytes(keys: PackKeys, claim: PackClaim, bytes: Uint8Array): PackResult {
  const isNamedRight = hash('sha256', bytes, 'hex') === claim.id
  const { footer, header } = ofKnownEpoch(keys, claim, openPackTail(keys, claim, bytes))
  const result = { ...NOTHING, failure: undefined, isNamedRight, ...headerResult(footer, header) }
  const epoch = keys.epochs.find((each) => each.epoch === footer.epoch)
  const half = claim.kind === 'refs' ? epoch?.metaPrivate : epoch?.dataPrivate
  if (half === undefined) return result
  const opener = newFrameOpener(footer, header, openPackKey(footer, half, claim.name))
  return { ...result, isOpened: true, ...openAllFrames(opener, keys.idKey, claim.name, bytes) }
}

function ofKnownEpoch(keys: PackKeys, { name }: PackClaim, tail: PackTail): PackTail {
  if (keys.epochs.some((each) => each.epoch === tail.footer.epoch)) return tail
  throw corrupt(name, `is sealed to epoch ${tail.footer.epoch}, which the config does not list`)
}

function headerResult(
  footer: PackFooter,
  header: PackHeader,
): { sum: ChunkSum; packSet: string; frames: number } {
  const sum: ChunkSum = { count: 0, low: 0, high: 0 }
  for (let number = 0; number < footer.chunkCount; number++) {
    const frameClass = header.frameClass[header.chunkFrame[number] ?? 0] ?? 0
    addToSum(sum, header.chunkIds, number * CHUNK_ID_BYTES, number, frameClass)
  }
  return { sum, packSet: footer.packSet.toString('hex'), frames: footer.frameCount }
}

/** Adds a chunk whose id begins at `at` of `ids`. */
export function addToSum(sum: ChunkSum, ids: Buffer, at: number, number: number, chunkClass: number): void {
  let low = Math.imul(number + 1, 0x9e3779b1) ^ Math.imul(chunkClass + 1, 0x85ebca6b)
  let high = low
  for (let word = at; word < at + CHUNK_ID_BYTES; word += 4) {
    const value = ids.readInt32LE(word)
    low = Math.imul(low ^ value, 0x01000193)
    low ^= low >>> 15
    high = Math.imul(high ^ value, 0xc2b2ae35 | 0)
    high ^= high >>> 13
  }
  sum.count++
  sum.low = (sum.low + low) | 0
  sum.high = (sum.high + high) | 0
}

export function isSameSum(a: ChunkSum, b: ChunkSum): boolean {
  return a.count === b.count && a.low === b.low && a.high === b.high
}

function openAllFrames(
  opener: FrameOpener,
  idKeyBytes: Uint8Array | undefined,
  name: string,
  bytes: Uint8Array,
): { badFrames: number; badChunks: Uint8Array | undefined } {
  const { header, footer } = opener
  const idKey = idKeyBytes && createSecretKey(idKeyBytes)
  let badFrames = 0
  let badChunks: Uint8Array | undefined
  for (let frame = 0, chunk = 0; frame < footer.frameCount; frame++) {
    const offset = header.frameOffset[frame] ?? 0
    const stored = bytes.subarray(offset, offset + (header.frameStored[frame] ?? 0))
    const first = chunk
    while (chunk < footer.chunkCount && header.chunkFrame[chunk] === frame) chunk++
    const isRight = frameJudge(opener, frame, { name, stored, idKey, isSingle: chunk === first + 1 })
    let isBad = false
    for (let number = first; number < chunk; number++) {
      if (isRight(number)) continue
      isBad = true
      badChunks ??= new Uint8Array((footer.chunkCount + 7) >> 3)
      badChunks[number >> 3] = (badChunks[number >> 3] ?? 0) | (1 << (number & 7))
    }
    if (isBad) badFrames++
  }
  return { badFrames, badChunks }
}

/** Opens a frame and returns what tells whether a chunk of it is right. */
function frameJudge(
  opener: FrameOpener,
  frame: number,
  of: {
    readonly name: string
    readonly stored: Uint8Array
    readonly idKey: KeyObject | undefined
    readonly isSingle: boolean
  },
): (chunk: number) => boolean {
  const { name, stored, idKey, isSingle } = of
  const { header } = opener
  if (isSingle && idKey !== undefined && header.frameCodec[frame] === CODECS.raw)
    return (chunk) => isRawChunkRight(opener, chunk, stored, idKey)
  const plain = openOneFrame(opener, frame, stored, name)
  return (chunk) => plain !== undefined && (idKey === undefined || isChunkRight(header, chunk, plain, idKey))
}

/** For a chunk that is its frame's body: most bytes of a shop are such, and need not be kept for this. */
function isRawChunkRight(opener: FrameOpener, chunk: number, stored: Uint8Array, idKey: KeyObject): boolean {
  const { header } = opener
  const frame = header.chunkFrame[chunk] ?? 0
  const id = createHmac('sha256', idKey)
  let bytes = 0
  const isSealed = scanFrame(opener, frame, stored, (piece) => {
    id.update(piece)
    bytes += piece.length
    noteGarbage(piece.length)
  })
  return isSealed && bytes === header.framePlain[frame] && isIdOf(header, chunk, id.digest())
}

/** undefined for a frame that does not open; what is wrong with its bytes makes no difference to anyone. */
function openOneFrame(
  opener: FrameOpener,
  frame: number,
  stored: Uint8Array,
  name: string,
): Uint8Array | undefined {
  const { header } = opener
  try {
    const body = openFrame(opener, frame, stored, name)
    const codec = header.frameCodec[frame] ?? CODECS.raw
    const plainBytes = header.framePlain[frame] ?? 0
    noteGarbage(body.length + (codec === CODECS.raw ? 0 : plainBytes)) // a raw body is the plaintext itself
    return decompress(codec, body, plainBytes, name)
  } catch (error) {
    if (error instanceof Failure) return undefined
    throw error
  }
}

function isChunkRight(header: PackHeader, chunk: number, plain: Uint8Array, idKey: KeyObject): boolean {
  const start = header.chunkOffset[chunk] ?? 0
  const bytes = plain.subarray(start, start + (header.chunkBytes[chunk] ?? 0))
  return isIdOf(header, chunk, createHmac('sha256', idKey).update(bytes).digest())
}

function isIdOf(header: PackHeader, chunk: number, id: Buffer): boolean {
  return id.compare(header.chunkIds, chunk * CHUNK_ID_BYTES, (chunk + 1) * CHUNK_ID_BYTES) === 0
}
