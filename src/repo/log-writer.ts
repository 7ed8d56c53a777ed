/**
 * Writing a source's change stream: seals pieces, puts them, and removes tail pieces once whole segments hold
 * them. With a credential that can write and not read. Where the pieces come from, and when they are merged,
 * is the shipper's.
 *
 * Sealing and putting are two calls on purpose: a sealed piece is different each time (fresh key), and a
 * store takes a name once. Keep what sealLog() gave until putLog() has resolved, and put the same again after
 * a failure.
 */
import type { Hmac } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Failure, assert, isFailure } from '../base/failure.ts'
import { noteGarbage } from '../base/garbage.ts'
import { randomBytes } from '../base/random.ts'
import { LOG_FRAME_BYTES, LOG_LIMITS, logName, type LogPlace } from '../format/log-header.ts'
import {
  addLogFrame,
  beginLog,
  beginLogContent,
  endLog,
  logFrames,
  logRoomBytes,
  type LogEncoder,
  type LogFrame,
  type StoredLogHeader,
} from '../format/log-segment.ts'
import type { BlobStore } from '../storage/store.ts'
import { compress } from './compress.ts'
import { currentEpoch, domainKeys, requireIdKey, writingDomain, type Access } from './keys.ts'
import { coverage, type PositionRange } from './log-coverage.ts'
import { segmentsOf, type LogSegment, type LogTable } from './log-table.ts'

/** What sealing takes; no key here opens what it seals. */
export interface LogWriter {
  readonly store: BlobStore
  /** Hex. */
  readonly repository: string
  readonly domain: string
  readonly epoch: number
  readonly dataPublic: Uint8Array
  readonly idKey: Uint8Array
  readonly signingSeed: Uint8Array
}

/** A piece of log, or a file beside it, before it is sealed. */
export interface LogPiece {
  readonly place: LogPlace
  readonly sourceKind: string
  /** Position of the first byte; 0 of a file. */
  readonly from: bigint
  /** At most LOG_LIMITS.bodyBytes; may be empty where only the notes tell something. */
  readonly body: Uint8Array
  /** At most LOG_LIMITS.notesBytes. */
  readonly notes: Uint8Array
  /** Wall clock when the first and the last byte came in, milliseconds. */
  readonly begun: number
  readonly completed: number
  /** `sha256` of the header with the number before; null for number 1 and files. */
  readonly previous: string | null
}

/** A piece ready to be put. `bytes` must not change until it has been. */
export interface SealedLog {
  readonly bytes: Uint8Array
  readonly header: StoredLogHeader
}

/**
 * Opens the credential's own domain for logs. Who ships for long calls refuseRevoked() now and then, and
 * opens anew when the config has a newer epoch. Fails: key.missing, key.revoked, key.role.
 */
export async function openLogWriter(access: Access): Promise<LogWriter> {
  const { id } = writingDomain(access)
  const keys = await domainKeys(access, id)
  const { epoch, dataPublic } = currentEpoch(keys)
  const { signingSeed } = keys
  if (signingSeed === undefined)
    throw new Failure('key.missing', `Cannot write to domain ${id}: this credential signs nothing`)
  const { store, config } = access
  const { repository } = config
  return { store, repository, domain: id, epoch, dataPublic, idKey: requireIdKey(keys), signingSeed }
}

/** Compresses, seals and signs a piece. Keeps no view of its buffers. */
export function sealLog(writer: LogWriter, piece: LogPiece): SealedLog {
  const { body, ...head } = piece
  const sealing = beginSealing(writer, head, body.length, newLogRoom())
  for (const part of logFrames(body)) sealPart(sealing, part)
  return endSealing(sealing)
}

/** Memory that sealed pieces are made in, one after the other: as much as the largest one took. */
export interface LogRoom {
  bytes: Buffer
}

export function newLogRoom(): LogRoom {
  return { bytes: Buffer.alloc(0) }
}

/** A body that is read while it is sealed: `read` gives the bytes behind those it gave before. */
export interface LogBody {
  readonly bytes: number
  readonly read: (bytes: number) => Uint8Array
}

/**
 * The same a frame at a time: between two others get this thread, and no more than a frame is in memory
 * unsealed. What it gives lies in `room`, which may be used again once that was put.
 */
export async function sealLogInSteps(
  writer: LogWriter,
  head: Omit<LogPiece, 'body'>,
  { bytes, read }: LogBody,
  room: LogRoom,
): Promise<SealedLog> {
  const sealing = beginSealing(writer, head, bytes, room)
  for (let left = bytes; left > 0; left -= LOG_FRAME_BYTES) {
    sealPart(sealing, read(Math.min(left, LOG_FRAME_BYTES)))
    await nextTurn()
  }
  return endSealing(sealing)
}

interface Sealing {
  readonly encoder: LogEncoder
  readonly content: Hmac
  readonly to: bigint
}

function beginSealing(
  writer: LogWriter,
  head: Omit<LogPiece, 'body'>,
  bytes: number,
  room: LogRoom,
): Sealing {
  const { place, from, notes } = head
  assert(place.domain === writer.domain, 'a writer writes to its own domain')
  assert(bytes <= LOG_LIMITS.bodyBytes, `a log object of ${bytes} bytes`)
  assert(notes.length <= LOG_LIMITS.notesBytes, `notes of ${notes.length} bytes`)
  const sealer = { ...writer, key: randomBytes(32) }
  const frame = frameOf(notes)
  const roomBytes = logRoomBytes(frame, bytes)
  if (room.bytes.length < roomBytes) room.bytes = Buffer.allocUnsafeSlow(roomBytes)
  return {
    encoder: beginLog({ ...head, notes: frame }, sealer, room.bytes),
    content: beginLogContent(writer.idKey),
    to: from + BigInt(bytes),
  }
}

function sealPart({ encoder, content }: Sealing, part: Uint8Array): void {
  content.update(part)
  addLogFrame(encoder, frameOf(part))
  noteGarbage(3 * part.length) // read, compressed, sealed
}

function endSealing({ encoder, content, to }: Sealing): SealedLog {
  return endLog(encoder, { to, content: content.digest('hex') })
}

/**
 * Puts a sealed piece; durable when it resolves. `identical`: an earlier try of the same sealed piece had
 * arrived. Fails: storage.exists (another piece has this name: two processes ship as one shipper), as put().
 */
export async function putLog(
  writer: LogWriter,
  sealed: SealedLog,
  options: { readonly signal?: AbortSignal } = {},
): Promise<'created' | 'identical'> {
  return await writer.store.put(sealed.header.name, sealed.bytes, options)
}

/**
 * Tail pieces of a shipper that its whole segments of a listed branch cover: what a shipper that died between
 * putLog() and deleteTails() left. `whole`: the segments to name to deleteTails().
 */
export function coveredTails(
  table: LogTable,
  shipper: string,
): { readonly tails: LogSegment[]; readonly whole: LogSegment[] } {
  const ofShipper = [...segmentsOf(table)].filter(({ place }) => place.shipper === shipper)
  const segments = ofShipper.filter(({ place }) => place.kind === 'segment')
  const covered = coverage(segments)
  const isCovered = ({ from, to }: PositionRange): boolean =>
    from < to && covered.some((range) => range.from <= from && to <= range.to)
  const tails = ofShipper.filter((piece) => piece.place.kind === 'tail' && isCovered(piece))
  const touches = (segment: LogSegment): boolean =>
    tails.some(({ from, to }) => from < segment.to && to > segment.from)
  return { tails, whole: segments.filter(touches) }
}

/** A stored piece, as its header or a listing has it. */
export interface PutPiece extends PositionRange {
  readonly place: LogPlace
  /** Of the object. */
  readonly bytes: number
}

/**
 * Deletes tail pieces that `whole` segments cover: the only objects that a writer deletes besides its
 * sessions. Looks first that these segments are in the store, so that no position is ever without a copy.
 * Returns how many tails are gone; `kept`: the store forbids to delete, they stay. Fails: repo.corrupt (a
 * segment is not as it was put), as delete().
 */
export async function deleteTails(
  writer: LogWriter,
  tails: readonly PutPiece[],
  whole: readonly PutPiece[],
): Promise<{ deleted: number; kept: number }> {
  const covered = coverage(whole)
  for (const { place, from, to } of tails) {
    assert(place.kind === 'tail' && place.domain === writer.domain, 'only own tails are deleted')
    const isCovered = covered.some((range) => range.from <= from && to <= range.to)
    assert(isCovered, 'only tails that whole segments cover are deleted')
  }
  for (const segment of whole) await requireStored(writer.store, segment)
  let deleted = 0
  for (const { place } of tails) {
    try {
      await writer.store.delete(logName(place))
    } catch (error) {
      if (!isFailure(error, 'storage.denied') && !isFailure(error, 'storage.readonly')) throw error
      return { deleted, kept: tails.length - deleted }
    }
    deleted++
  }
  return { deleted, kept: 0 }
}

async function requireStored(store: BlobStore, segment: PutPiece): Promise<void> {
  assert(segment.place.kind === 'segment', 'tails are covered by whole segments')
  const name = logName(segment.place)
  const stat = await store.stat(name)
  if (stat?.bytes === segment.bytes) return
  const is = stat === undefined ? 'is not in the store' : `has ${stat.bytes} bytes there`
  const message = `Cannot delete what ${name} covers: it ${is} (it was put with ${segment.bytes} bytes)`
  throw new Failure('repo.corrupt', message, { facts: { name } })
}

function frameOf(plain: Uint8Array): LogFrame {
  return { ...compress(plain), plainBytes: plain.length }
}
