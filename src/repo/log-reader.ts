/**
 * Reading the bytes of logs: a stretch of positions, from whichever objects hold it whole; notes; files.
 * Each object's header is verified again and must be the one that was listed, each section is compared with
 * the checksum that was signed before it is opened. In memory is one sealed body and one frame.
 */
import { corrupt } from '../base/bytes.ts'
import { assert, Failure, isFailure } from '../base/failure.ts'
import { noteGarbage } from '../base/garbage.ts'
import { LOG_FRAME_BYTES, logName } from '../format/log-header.ts'
import {
  checkLogSection,
  logContentId,
  openLogFrame,
  openLogKey,
  type LogOpener,
  type StoredLogHeader,
} from '../format/log-segment.ts'
import { decompress } from './compress.ts'
import { isDamage } from './damage.ts'
import { domainKeys, epochPrivateKey, requireIdKey, type Access } from './keys.ts'
import { coverage, describeRange, missingPositions, type PositionRange } from './log-coverage.ts'
import { bestRow, newLogTable, rangesOf, segmentAt, type LogSegment, type LogTable } from './log-table.ts'
import { decodeFront, listLogs, type StoredLogFile } from './logs.ts'

/** Times that one reading lists again since tail pieces were merged meanwhile. */
const RELISTS_MAX = 16
/** Missing stretches that a message names. */
const RANGES_SHOWN = 10

/** An object that could not be used, and why; another one was read in its place if there was one. */
export interface BadLogObject {
  readonly name: string
  readonly failure: Failure
}

export interface LogReading extends PositionRange {
  readonly signal?: AbortSignal
  readonly onBad?: (bad: BadLogObject) => void
}

/**
 * The plain bytes of positions [from, to) of a listed branch, in order, in pieces of at most 1 MiB that are
 * the caller's. Whole segments are preferred; where one is damaged, its tail pieces or another shipper's copy
 * are read; where a tail piece is gone since it was listed, what it was merged to. Fails before the first
 * byte when the list has a gap there, else at the first position that nothing holds: repo.corrupt, naming all
 * that is missing. Also: key.role, cancelled, as get().
 */
export async function* readLog(
  access: Access,
  listed: LogTable,
  reading: LogReading,
): AsyncGenerator<Uint8Array, void> {
  const { to, signal } = reading
  let branch = listed
  let relists = 0
  const bad: BadRows = new Map()
  refuseMissing(branch, reading, bad)
  let at = reading.from
  while (at < to) {
    const row = bestRow(branch, at, (each) => bad.has(each))
    assert(row !== undefined, 'positions that are not missing lie in a row of a sorted table')
    const segment = segmentAt(branch, row)
    try {
      for await (const piece of readStretch(access, segment, { from: at, to })) {
        if (signal?.aborted === true) throw new Failure('cancelled', 'Stopped reading the log')
        at += BigInt(piece.length)
        yield piece
      }
    } catch (error) {
      if (!isDamage(error)) throw error
      bad.set(row, error)
      const isMerged = segment.place.kind === 'tail' && isFailure(error, 'storage.missing')
      if (!isMerged) reading.onBad?.({ name: logName(segment.place), failure: error })
      else if (relists++ < RELISTS_MAX) {
        branch = await listAgain(access, branch)
        bad.clear()
      }
      refuseMissing(branch, { from: at, to }, bad)
    }
  }
}

async function listAgain(access: Access, branch: LogTable): Promise<LogTable> {
  const { domain, source, branch: name } = branch
  const { branches } = await listLogs(access, { domain, source, branch: name, known: () => branch })
  return branches[0] ?? newLogTable(branch)
}

/** Rows whose objects could not be used, and why. */
type BadRows = Map<number, Failure>

/**
 * The notes of a listed piece: one read of the object's front. Fails: repo.corrupt, repo.forged, key.role, as
 * get().
 */
export async function readNotes(access: Access, segment: LogSegment): Promise<Uint8Array> {
  const name = logName(segment.place)
  const front = await access.store.get(name, { length: segment.bodyAt })
  const opener = await openSection(access, listedHeader(access, segment, front))
  return openFrame(opener, 0, notesOf(opener.header, front))
}

/** A file beside a stream: its bytes and its notes. Fails: repo.corrupt, repo.forged, key.role, as get(). */
export async function readLogFile(
  access: Access,
  file: StoredLogFile,
): Promise<{ body: Uint8Array; notes: Uint8Array }> {
  const object = await access.store.get(file.name, { length: file.bytes })
  const header = decodeFront(access.config, file.name, file.bytes, object)
  if (header.sha256 !== file.sha256) throw corrupt(file.name, 'is not the one that was listed')
  const opener = await openSection(access, header)
  const notes = openFrame(opener, 0, notesOf(header, object))
  return { body: Buffer.concat([...framesOf(opener, object.subarray(header.bodyAt), 0)]), notes }
}

/**
 * The positions of one object within a stretch, frame by frame. Fails: repo.corrupt, repo.forged, key.role,
 * as get().
 */
async function* readStretch(
  access: Access,
  segment: LogSegment,
  stretch: PositionRange,
): AsyncGenerator<Uint8Array, void> {
  const object = await access.store.get(logName(segment.place), { length: segment.bytes })
  const opener = await openSection(access, listedHeader(access, segment, object))
  const skipped = stretch.from > segment.from ? Number(stretch.from - segment.from) : 0
  const end = Number((stretch.to < segment.to ? stretch.to : segment.to) - segment.from)
  const first = Math.floor(skipped / LOG_FRAME_BYTES)
  let at = first * LOG_FRAME_BYTES
  for (const frame of framesOf(opener, object.subarray(opener.header.bodyAt), first)) {
    if (at >= end) return
    const [low, high] = [Math.max(0, skipped - at), Math.min(frame.length, end - at)]
    at += frame.length
    yield frame.subarray(low, high)
  }
}

/**
 * Reads one listed object whole and compares it with what its header was signed for; `opens`: also opens all
 * of it and compares the plaintext with its keyed hash. Fails: repo.corrupt, repo.forged, key.role, as get().
 */
export async function verifyLogObject(
  access: Access,
  listed: Pick<StoredLogFile, 'name' | 'bytes' | 'sha256'>,
  opens: boolean,
): Promise<void> {
  const { name, bytes, sha256 } = listed
  const object = await access.store.get(name, { length: bytes })
  const header = decodeFront(access.config, name, bytes, object)
  if (header.sha256 !== sha256) throw corrupt(name, 'is not the one that was listed')
  const [notes, body] = [notesOf(header, object), object.subarray(header.bodyAt)]
  checkLogSection(header, 'body', body)
  if (!opens) return
  const opener = await openSection(access, header)
  openFrame(opener, 0, notes)
  const { domain } = header.place
  const idKey = requireIdKey(await domainKeys(access, domain))
  if (logContentId(idKey, framesOf(opener, body, 0)) !== header.content)
    throw corrupt(name, 'holds other bytes than its header says')
}

/** The header again, at the head of what was read; it must be the one that the list verified. */
function listedHeader(access: Access, segment: LogSegment, front: Uint8Array): StoredLogHeader {
  const name = logName(segment.place)
  const header = decodeFront(access.config, name, segment.bytes, front)
  if (header.sha256 !== segment.sha256) throw corrupt(name, 'is not the one that was listed')
  return header
}

async function openSection(access: Access, header: StoredLogHeader): Promise<LogOpener> {
  const { repository } = access.config
  const keys = await domainKeys(access, header.place.domain)
  const key = openLogKey(header, repository, epochPrivateKey(keys, header.epoch, 'data'))
  return { header, repository, key }
}

function notesOf(header: StoredLogHeader, object: Uint8Array): Uint8Array {
  const sealed = object.subarray(header.notesAt, header.bodyAt)
  checkLogSection(header, 'notes', sealed)
  return sealed
}

/** The plaintext of frame after frame, from frame `first` on (counted from 0). */
function* framesOf(opener: LogOpener, sealed: Uint8Array, first: number): Generator<Uint8Array> {
  const { header } = opener
  checkLogSection(header, 'body', sealed)
  let offset = 0
  for (const [at, { storedBytes, plainBytes }] of header.frames.entries()) {
    const stored = sealed.subarray(offset, offset + storedBytes)
    offset += storedBytes
    if (at < first) continue
    noteGarbage(2 * plainBytes)
    yield openFrame(opener, at + 1, stored)
  }
}

function openFrame(opener: LogOpener, number: number, sealed: Uint8Array): Uint8Array {
  const { header } = opener
  const frame = number === 0 ? header.notes : header.frames[number - 1]!
  return decompress(frame.codec, openLogFrame(opener, number, sealed), frame.plainBytes, header.name)
}

function refuseMissing(branch: LogTable, wanted: PositionRange, bad: BadRows): void {
  const missing = missingPositions(coverage(usableRanges(branch, wanted, bad)), wanted)
  if (missing.length === 0) return
  const cause = bad.values().next().value
  const more = missing.length > RANGES_SHOWN ? ` and ${missing.length - RANGES_SHOWN} more` : ''
  const ranges = missing.slice(0, RANGES_SHOWN).map(describeRange).join(', ') + more
  const why = cause === undefined ? '' : ` (objects not read: ${bad.size}, the first: ${cause.message})`
  const is = `positions ${ranges} are missing${why}`
  const of = `the log of "${branch.source}", branch ${branch.branch}`
  throw new Failure('repo.corrupt', `Cannot read ${of}: ${is}`, {
    facts: { source: branch.source, branch: branch.branch, missing: ranges },
    cause,
  })
}

function* usableRanges(branch: LogTable, wanted: PositionRange, bad: BadRows): Generator<PositionRange> {
  let row = 0
  for (const range of rangesOf(branch)) {
    if (range.from >= wanted.to) return
    if (range.to > wanted.from && !bad.has(row)) yield range
    row++
  }
}
