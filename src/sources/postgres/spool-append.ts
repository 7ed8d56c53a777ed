/**
 * Writing to a spool (spool.ts): bytes come in order, are compared with what is there already, and are
 * durable after syncSpool(). A spool never overwrites log with other log.
 */
import { closeSync, fdatasyncSync, ftruncateSync, writeSync } from 'node:fs'
import { assert, Failure } from '../../base/failure.ts'
import { formatLsn, segmentStart, type Lsn } from './lsn.ts'
import {
  formatPosition,
  limitFailure,
  saveFacts,
  UNSYNCED_BYTES_MAX,
  type LogPosition,
  type Spool,
  type SpoolLog,
} from './spool.ts'
import { NO_FACTS } from './spool-facts.ts'
import { diskFailure, openSegment, readLog, segmentPath, type SpoolSystem } from './spool-files.ts'

/** A disk writes a sector whole or not at all. */
const SECTOR_BYTES = 512

/**
 * Takes log that a server sent for a position at or before the end of what is held; a new timeline begins
 * with a segment. What it cannot take any more is not there: the server sends it again later. Fails:
 * source.diverged when the same place has other content, host.full, host.file.
 */
export function appendSpool(spool: Spool, position: LogPosition, bytes: Buffer): void {
  const { system } = spool
  assert(system, 'log is of a known system')
  const log = logOf(spool, system, position)
  assert(position.lsn <= log.received, 'log comes without holes')
  let at = compareHeld(spool, log, position.lsn, bytes)
  while (at < bytes.length) {
    const lsn = position.lsn + BigInt(at)
    openTail(spool, system, log, lsn)
    const room = system.segmentBytes - Number(lsn % BigInt(system.segmentBytes))
    const part = bytes.subarray(at, at + Math.min(room, bytes.length - at))
    if (spool.bytes + part.length > spool.options.bytesMax) throw limitFailure(spool)
    writeTail(spool, log, lsn, part)
    at += part.length
  }
  if (log.received - log.durable >= UNSYNCED_BYTES_MAX) syncSpool(spool)
}

/**
 * Makes durable what was received. When the disk refuses, what was not durable is taken out again, since the
 * system may say of the same bytes that they are written the next time. Fails: host.full, host.file.
 */
export function syncSpool(spool: Spool): void {
  const { system, tail } = spool
  const log = spool.logs.at(-1)
  if (system === undefined || tail === undefined || log === undefined || log.durable === log.received) return
  try {
    fdatasyncSync(tail.fd)
  } catch (cause) {
    const held = log.durable > tail.start ? log.durable : tail.start
    ftruncateSync(tail.fd, Number(held - tail.start))
    spool.bytes -= Number(log.end - held)
    log.end = held
    log.received = held
    throw diskFailure('sync', segmentPath(system, log.timeline, tail.start), cause)
  }
  log.durable = log.received
}

function logOf(spool: Spool, system: SpoolSystem, { timeline, lsn }: LogPosition): SpoolLog {
  const last = spool.logs.at(-1)
  if (last?.timeline === timeline) return last
  assert(last === undefined || last.timeline < timeline, 'only the last timeline is written to')
  assert(lsn === segmentStart(lsn, system.segmentBytes), 'a timeline begins with a segment')
  syncSpool(spool)
  noteBegin(spool, system, { timeline, lsn })
  const log: SpoolLog = { timeline, from: lsn, durable: lsn, received: lsn, end: lsn }
  openTail(spool, system, log, lsn)
  spool.logs.push(log)
  return log
}

/** Of a spool without log nothing counts any more that was said before. */
function noteBegin(spool: Spool, system: SpoolSystem, { timeline, lsn }: LogPosition): void {
  const { begins, sound } = spool.logs.length === 0 ? NO_FACTS : spool.facts
  saveFacts(spool, system, { begins: new Map(begins).set(timeline, lsn), sound })
}

/** Has the segment of `lsn` open, the one before it durable. */
function openTail(spool: Spool, system: SpoolSystem, log: SpoolLog, lsn: Lsn): void {
  const start = segmentStart(lsn, system.segmentBytes)
  const isSameLog = log === spool.logs.at(-1)
  if (isSameLog && spool.tail?.start === start) return
  if (isSameLog) syncSpool(spool)
  const fd = openSegment(system, log.timeline, start)
  if (spool.tail !== undefined) closeSync(spool.tail.fd)
  spool.tail = { fd, start }
}

/** Writes at the end of the log; also what a full disk took of it counts. */
function writeTail(spool: Spool, log: SpoolLog, lsn: Lsn, part: Buffer): void {
  assert(lsn === log.end && lsn === log.received, 'log is written at its end')
  for (let at = 0; at < part.length;) {
    const count = writePart(spool, log, lsn + BigInt(at), part.subarray(at))
    at += count
    log.end += BigInt(count)
    log.received = log.end
    spool.bytes += count
  }
}

/** Writes into the open segment; returns how many bytes the system took. */
function writePart({ system, tail }: Spool, log: SpoolLog, lsn: Lsn, part: Buffer): number {
  assert(system && tail && lsn >= tail.start, 'log is written to the open segment')
  try {
    return writeSync(tail.fd, part, 0, part.length, Number(lsn - tail.start))
  } catch (cause) {
    throw diskFailure('write to', segmentPath(system, log.timeline, lsn), cause)
  }
}

/** How many of the bytes were there already. What a power cut tore is written again. */
function compareHeld(spool: Spool, log: SpoolLog, lsn: Lsn, bytes: Buffer): number {
  const { system } = spool
  const end = lsn + BigInt(bytes.length)
  const to = end < log.end ? end : log.end
  if (system === undefined || to <= lsn) return 0
  // What was released can be compared no more.
  const from = lsn > log.from ? lsn : log.from
  if (from < to) {
    const held = readLog(system, { timeline: log.timeline, from, to })
    const sent = bytes.subarray(Number(from - lsn), Number(to - lsn))
    if (!held.equals(sent)) mendTorn(spool, log, from, { held, sent })
  }
  if (to > log.received) log.received = to
  return Number(to - lsn)
}

/** Puts right the sectors that never reached the disk; any other difference is another history. */
function mendTorn(spool: Spool, log: SpoolLog, from: Lsn, both: { held: Buffer; sent: Buffer }): void {
  const { held, sent } = both
  for (let at = 0; at < held.length;) {
    const lsn = from + BigInt(at)
    const end = Math.min(held.length, at + SECTOR_BYTES - Number(lsn % BigInt(SECTOR_BYTES)))
    const differs = firstDifference(both, at, end)
    if (differs < end) {
      const place = from + BigInt(differs)
      if (place < log.received || held.subarray(differs, end).some((byte) => byte !== 0))
        throw divergedFailure(spool, { timeline: log.timeline, lsn: place })
      const part = sent.subarray(differs, end)
      const count = writePart(spool, log, place, part)
      assert(count === part.length, 'bytes that are there are written over whole')
    }
    at = end
  }
}

function firstDifference({ held, sent }: { held: Buffer; sent: Buffer }, at: number, end: number): number {
  if (held.compare(sent, at, end, at, end) === 0) return end
  let place = at
  while (held[place] === sent[place]) place++
  return place
}

function divergedFailure(spool: Spool, position: LogPosition): Failure {
  const { timeline, lsn } = position
  return new Failure(
    'source.diverged',
    `Cannot receive log for "${spool.folder}": the server's differs from what was received before, at ` +
      formatPosition(position),
    { facts: { timeline, lsn: formatLsn(lsn) } },
  )
}
