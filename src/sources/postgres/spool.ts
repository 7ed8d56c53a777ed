/**
 * The spool: write-ahead log as it was received, on this host's disk until it is durable in the repository.
 * In files as the server's own (spool-files.ts), of one cluster, for one process at a time. What a server is
 * told is flushed is in here, fsynced. How it is written: spool-append.ts.
 *
 * Each timeline is one range without holes. Bytes that were received past the place where a timeline was left
 * stay with that timeline: they are what a lost server had promised.
 */
import { closeSync, constants, fdatasyncSync, openSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { assert, Failure } from '../../base/failure.ts'
import { hasPosix, lockFile } from '../../base/posix.ts'
import { formatLsn, historyName, segmentStart, type Lsn } from './lsn.ts'
import { NO_FACTS, readFacts, writeFacts, type SpoolFacts } from './spool-facts.ts'
import {
  listSystems,
  listTimelines,
  makeSpoolFolder,
  makeSystem,
  onDisk,
  openSegment,
  readHistoryFile,
  readLog,
  readSystem,
  removeSegment,
  removeTimelineFolder,
  writeHistoryFile,
  type LogRange,
  type SpoolSystem,
} from './spool-files.ts'
import { findSoundEnd } from './spool-scan.ts'

export interface SpoolOptions {
  /** Bytes of log that it may hold, at least SEGMENTS_MIN segments. */
  readonly bytesMax: number
  /** The cluster that is expected; undefined: the one that the folder holds, or else the first server's. */
  readonly systemId: string | undefined
}

/** The log of one timeline. from ≤ durable ≤ received ≤ end. */
export interface SpoolLog {
  readonly timeline: number
  /** Always the beginning of a segment. */
  from: Lsn
  /** Up to here it is fsynced. */
  durable: Lsn
  /** Up to here it is sound, and the same as a server sent. */
  received: Lsn
  /** Up to here there are bytes: more than `received` only after a crash, until they came again. */
  end: Lsn
}

/** A place in the history of a cluster. */
export interface LogPosition {
  readonly timeline: number
  readonly lsn: Lsn
}

export interface Spool {
  readonly folder: string
  readonly options: SpoolOptions
  readonly lockFd: number
  /** undefined until the first server is known. */
  system: SpoolSystem | undefined
  facts: SpoolFacts
  /** By timeline, oldest first; only the last one is written to. */
  readonly logs: SpoolLog[]
  /** The open segment at the end of the last log. */
  tail: { fd: number; start: Lsn } | undefined
  bytes: number
  /** Called when room was made. */
  readonly onRoom: Set<() => void>
}

/** Written bytes that may wait for one fsync; after a crash no more than these can be torn. */
export const UNSYNCED_BYTES_MAX = 8 * 1024 * 1024
const READ_BYTES_MAX = 64n << 20n
/** The last segment is never released, so with one of them a full spool would stay full. */
const SEGMENTS_MIN = 3
/** Room on the disk below which nothing is begun. */
const FREE_BYTES_MIN = 1024 * 1024

/**
 * Opens (makes) a spool and finds the sound end of what it holds. End with closeSpool(). Fails: repo.busy,
 * source.foreign, source.gap, config.invalid, host.full, host.file.
 */
export function openSpool(folder: string, options: SpoolOptions): Spool {
  makeSpoolFolder(folder)
  const spool: Spool = {
    folder,
    options,
    lockFd: lockFolder(folder),
    system: undefined,
    facts: NO_FACTS,
    logs: [],
    tail: undefined,
    bytes: 0,
    onRoom: new Set(),
  }
  try {
    const id = heldSystem(folder, options.systemId)
    spool.system = id === undefined ? undefined : readSystem(folder, id)
    if (spool.system !== undefined) loadLogs(spool, spool.system)
  } catch (error) {
    closeSpool(spool)
    throw error
  }
  return spool
}

/** Frees the lock. What was not synced is found again, or received again. */
export function closeSpool(spool: Spool): void {
  if (spool.tail !== undefined) closeSync(spool.tail.fd)
  spool.tail = undefined
  closeSync(spool.lockFd)
}

/** Says which cluster a server is; the first one is the spool's. Fails: source.foreign, source.diverged. */
export function bindSpool(spool: Spool, server: { systemId: string; segmentBytes: number }): SpoolSystem {
  const { systemId, segmentBytes } = server
  const expected = spool.system?.id ?? spool.options.systemId
  if (expected !== undefined && expected !== systemId)
    throw new Failure(
      'source.foreign',
      `Cannot receive log of the system ${systemId}: "${spool.folder}" is for the system ${expected}`,
      { facts: { expected, found: systemId } },
    )
  checkLimit(spool, segmentBytes)
  spool.system ??= makeSystem(spool.folder, systemId, segmentBytes)
  if (spool.system.segmentBytes !== segmentBytes)
    throw new Failure(
      'source.diverged',
      `Cannot receive log in segments of ${segmentBytes} bytes: "${spool.system.path}" has segments of ` +
        `${spool.system.segmentBytes}`,
    )
  return spool.system
}

/** The end of what was received, from where a server has to go on; undefined: there is nothing. */
export function spoolPosition(spool: Spool): LogPosition | undefined {
  const log = spool.logs.at(-1)
  return log && { timeline: log.timeline, lsn: log.received }
}

/**
 * What can be read: durable log, by timeline. After a crash the last may end before what onDurable said, by
 * less than a record, until a server sends that again.
 */
export function spoolRanges(spool: Spool): LogRange[] {
  return spool.logs.map(({ timeline, from, durable }) => ({ timeline, from, to: durable }))
}

/** Durable log, 64 MiB at most; the caller owns the bytes. Fails: host.file, source.gap. */
export function readSpool(spool: Spool, range: LogRange): Buffer {
  const log = spool.logs.find(({ timeline }) => timeline === range.timeline)
  const { from, to } = range
  assert(spool.system && log && from >= log.from && to <= log.durable, 'only what is held is read')
  assert(from <= to && to - from <= READ_BYTES_MAX, 'a read is of bounded length')
  return readLog(spool.system, range)
}

/** Whether log from there on was ever held: what of it is gone is durable elsewhere. */
export function wasHeld({ facts }: Spool, { timeline, lsn }: LogPosition): boolean {
  const begin = facts.begins.get(timeline)
  return begin !== undefined && begin <= lsn
}

/**
 * Says that what is durable came in whole files, so that the next openSpool() does not doubt its end. Durable
 * when it returns. Fails: host.full, host.file.
 */
export function markSound(spool: Spool): void {
  const { system, facts } = spool
  const log = spool.logs.at(-1)
  assert(system && log, 'only log is sound')
  const { timeline, durable } = log
  if (facts.sound?.timeline === timeline && facts.sound.lsn >= durable) return
  saveFacts(spool, system, { ...facts, sound: { timeline, lsn: durable } })
}

/** Fails: host.full, host.file; then nothing has changed. */
export function saveFacts(spool: Spool, system: SpoolSystem, facts: SpoolFacts): void {
  writeFacts(system, facts)
  spool.facts = facts
}

/** The history file that a server sent for a timeline, or undefined. */
export function readHistory(spool: Spool, timeline: number): string | undefined {
  return spool.system && readHistoryFile(spool.system, timeline)
}

/**
 * Keeps a history file, durably; true if it is new. Fails: source.diverged when there is another one of the
 * same name, host.full, host.file.
 */
export function saveHistory(spool: Spool, timeline: number, history: string): boolean {
  assert(spool.system, 'a history is of a known system')
  const held = readHistoryFile(spool.system, timeline)
  if (held === history) return false
  if (held !== undefined)
    throw new Failure(
      'source.diverged',
      `Cannot follow the server: its ${historyName(timeline)} is not the one in "${spool.system.path}"`,
      { facts: { timeline } },
    )
  writeHistoryFile(spool.system, timeline, history)
  return true
}

/**
 * Gives up the log of a timeline below `lsn`, which is durable elsewhere by now: whole segments, but never
 * the one at the end of the last timeline, which says where to go on. Returns the bytes freed. Fails:
 * host.file.
 */
export function releaseSpool(spool: Spool, { timeline, lsn }: LogPosition): number {
  const { system } = spool
  const log = spool.logs.find((held) => held.timeline === timeline)
  if (system === undefined || log === undefined) return 0
  const before = spool.bytes
  const isLast = log === spool.logs.at(-1)
  const segment = BigInt(system.segmentBytes)
  while (log.from < log.end && log.from < lsn) {
    const end = log.from + segment < log.end ? log.from + segment : log.end
    if (end > lsn || end > log.durable || (isLast && end === log.end)) break
    removeSegment(system, timeline, log.from)
    spool.bytes -= Number(end - log.from)
    log.from = end
  }
  if (!isLast && log.from === log.end) {
    removeTimelineFolder(system, timeline)
    spool.logs.splice(spool.logs.indexOf(log), 1)
  }
  if (spool.bytes < before) for (const call of spool.onRoom) call()
  return before - spool.bytes
}

/** Why nothing more can be received just now, or undefined. Fails: host.file. */
export function spoolShortage(spool: Spool): Failure | undefined {
  const { folder, options } = spool
  if (spool.bytes >= options.bytesMax) return limitFailure(spool)
  const { bavail, bsize } = onDisk('look at', folder, () => statfsSync(folder))
  if (bavail * bsize >= FREE_BYTES_MIN) return undefined
  const free = bavail * bsize
  return new Failure('host.full', `Cannot receive log in "${folder}": ${free} bytes are free on its disk`)
}

/** The failure of a spool that is full by its own limit. */
export function limitFailure({ folder, bytes, options }: Spool): Failure {
  const message = `Cannot receive log in "${folder}": it holds ${bytes} bytes (at most ${options.bytesMax})`
  return new Failure('host.full', message, { facts: { bytes } })
}

function heldSystem(folder: string, expected: string | undefined): string | undefined {
  const ids = listSystems(folder)
  if (expected !== undefined) return ids.find((id) => id === expected)
  if (ids.length > 1)
    throw new Failure(
      'source.foreign',
      `Cannot use the log in "${folder}": it is of several systems, ${ids.join(', ')} (say which is meant)`,
    )
  return ids[0]
}

function loadLogs(spool: Spool, system: SpoolSystem): void {
  checkLimit(spool, system.segmentBytes)
  const { begins: told, sound } = readFacts(system)
  const begins = new Map(told)
  for (const { timeline, from, end } of listTimelines(system)) {
    spool.logs.push({ timeline, from, end, durable: end, received: end })
    spool.bytes += Number(end - from)
    const begin = told.get(timeline) ?? from
    begins.set(timeline, begin < from ? begin : from)
  }
  spool.facts = { begins, sound }
  const last = spool.logs.at(-1)
  if (last === undefined) return
  // Older timelines were synced before this one was begun; of this one only the last file may be torn.
  const start = last.end > last.from ? segmentStart(last.end - 1n, system.segmentBytes) : last.from
  const fd = openSegment(system, last.timeline, start)
  spool.tail = { fd, start }
  onDisk('sync the log in', system.path, () => fdatasyncSync(fd))
  const held = { timeline: last.timeline, from: last.from, to: last.end }
  last.received = findSoundEnd(system, held, UNSYNCED_BYTES_MAX)
  const isSound = sound?.timeline === last.timeline && sound.lsn > last.received && sound.lsn <= last.end
  if (isSound) last.received = sound.lsn
  last.durable = last.received
}

function checkLimit({ folder, options }: Spool, segmentBytes: number): void {
  const least = SEGMENTS_MIN * segmentBytes
  if (options.bytesMax >= least) return
  const message = `Cannot use the spool "${folder}": its limit is ${options.bytesMax} bytes`
  throw new Failure('config.invalid', `${message} (must be ${least} at least, three segments of the log)`)
}

function lockFolder(folder: string): number {
  const path = join(folder, 'lock')
  const fd = onDisk('open the lock', path, () => openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600))
  let isLocked = false
  try {
    // Where the system has no locks, nobody else is expected.
    isLocked = onDisk('lock', path, () => !hasPosix() || lockFile(fd))
  } finally {
    if (!isLocked) closeSync(fd)
  }
  if (!isLocked)
    throw new Failure('repo.busy', `Cannot use the spool "${folder}": another process receives log there`)
  return fd
}

/** For messages: "1/2F000000 on timeline 3". */
export function formatPosition({ timeline, lsn }: LogPosition): string {
  return `${formatLsn(lsn)} on timeline ${timeline}`
}
