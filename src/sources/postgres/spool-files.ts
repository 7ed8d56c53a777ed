/**
 * The files of a spool, and what they are called. Not what is known of their content: spool.ts.
 *
 * ```
 * <folder>/lock
 * <folder>/<system id>/spool.json                            {"segmentBytes":16777216}
 * <folder>/<system id>/facts.json                            spool-facts.ts
 * <folder>/<system id>/00000002.history
 * <folder>/<system id>/00000002/000000020000000000000003     log, from its segment's first byte on
 * ```
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describeError, errnoOf, Failure } from '../../base/failure.ts'
import { rawPath } from '../../base/file-entry.ts'
import { makeFolders } from '../../base/folders.ts'
import { historyName, isSegmentBytes, parseSegmentName, segmentName, segmentStart, type Lsn } from './lsn.ts'

/** One cluster, by the number that initdb gave it. */
export interface SpoolSystem {
  readonly id: string
  readonly segmentBytes: number
  readonly path: string
}

export interface LogRange {
  readonly timeline: number
  readonly from: Lsn
  readonly to: Lsn
}

/** What lies there of a timeline: its segments follow each other, all but the last are whole. */
export interface TimelineFiles {
  readonly timeline: number
  readonly from: Lsn
  readonly end: Lsn
}

const SYSTEM_FILE = 'spool.json'
const SYSTEM_ID = /^[0-9]{1,20}$/
const TIMELINE_FOLDER = /^[0-9A-F]{8}$/

/** Makes the folder if it is missing, durably. Fails: host.full, host.file. */
export function makeSpoolFolder(path: string): void {
  onDisk('make the folder', path, () => {
    if (!makeFolders(rawPath(path))) return
    syncFolder(path)
    syncFolder(join(path, '..'))
  })
}

/** Ids of the systems that the folder holds log of. */
export function listSystems(folder: string): string[] {
  return onDisk('read the folder', folder, () => readdirSync(folder)).filter((name) => SYSTEM_ID.test(name))
}

/** undefined: nothing of this system was ever begun. Fails: source.gap when what was begun is damaged. */
export function readSystem(folder: string, id: string): SpoolSystem | undefined {
  const path = join(folder, id)
  const file = join(path, SYSTEM_FILE)
  const text = readSmall(file)
  if (text === undefined) return undefined
  const said = parseJson(text)
  const segmentBytes =
    typeof said === 'object' && said !== null && 'segmentBytes' in said && Number(said.segmentBytes)
  if (typeof segmentBytes !== 'number' || !isSegmentBytes(segmentBytes))
    throw new Failure('source.gap', `Cannot use the log in "${path}": "${file}" is damaged`)
  return { id, segmentBytes, path }
}

export function makeSystem(folder: string, id: string, segmentBytes: number): SpoolSystem {
  if (!SYSTEM_ID.test(id)) throw new Failure('source.failed', `Cannot understand the system id "${id}"`)
  const path = join(folder, id)
  makeSpoolFolder(path)
  writeDurably(path, SYSTEM_FILE, Buffer.from(JSON.stringify({ segmentBytes })))
  return { id, segmentBytes, path }
}

export function timelineFolder(system: SpoolSystem, timeline: number): string {
  return join(system.path, historyName(timeline).slice(0, 8))
}

export function segmentPath(system: SpoolSystem, timeline: number, lsn: Lsn): string {
  return join(timelineFolder(system, timeline), segmentName(timeline, lsn, system.segmentBytes))
}

/** All timelines that there is log of, by number. Fails: source.gap when a segment is missing or short. */
export function listTimelines(system: SpoolSystem): TimelineFiles[] {
  return onDisk('read the folder', system.path, () => readdirSync(system.path))
    .filter((name) => TIMELINE_FOLDER.test(name))
    .sort()
    .flatMap((name) => timelineFiles(system, Number.parseInt(name, 16)) ?? [])
}

function timelineFiles(system: SpoolSystem, timeline: number): TimelineFiles | undefined {
  const folder = timelineFolder(system, timeline)
  let from: Lsn | undefined
  let end: Lsn = 0n
  for (const name of onDisk('read the folder', folder, () => readdirSync(folder)).sort()) {
    const segment = parseSegmentName(name, system.segmentBytes)
    if (segment === undefined || segment.timeline !== timeline) continue
    const path = join(folder, name)
    const { size } = onDisk('look at', path, () => statSync(path))
    from ??= segment.start
    if ((end !== 0n && end !== segment.start) || size > system.segmentBytes)
      throw new Failure(
        'source.gap',
        `Cannot use the log in "${folder}": the file before "${name}" is not whole`,
      )
    end = segment.start + BigInt(size)
  }
  return from === undefined ? undefined : { timeline, from, end }
}

/** Bytes of files that were listed; the caller owns them. Fails: host.file, source.gap when they are short. */
export function readLog(system: SpoolSystem, { timeline, from, to }: LogRange): Buffer {
  const bytes = Buffer.allocUnsafe(Number(to - from))
  for (let at = 0; at < bytes.length;) {
    const lsn = from + BigInt(at)
    const offset = Number(lsn - segmentStart(lsn, system.segmentBytes))
    const part = bytes.subarray(at, at + Math.min(bytes.length - at, system.segmentBytes - offset))
    readPart(segmentPath(system, timeline, lsn), offset, part)
    at += part.length
  }
  return bytes
}

function readPart(path: string, offset: number, part: Buffer): void {
  const count = onDisk('read', path, () => {
    const fd = openSync(path, 'r')
    try {
      return readSync(fd, part, 0, part.length, offset)
    } finally {
      closeSync(fd)
    }
  })
  if (count !== part.length)
    throw new Failure(
      'source.gap',
      `Cannot read the log in "${path}": it ends ${part.length - count} bytes early`,
    )
}

/** Opens a segment for writing; a new one is durable as an empty file. Fails: host.full, host.file. */
export function openSegment(system: SpoolSystem, timeline: number, lsn: Lsn): number {
  const folder = timelineFolder(system, timeline)
  const path = segmentPath(system, timeline, lsn)
  makeSpoolFolder(folder)
  return onDisk('open', path, () => {
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600)
    syncFolder(folder)
    return fd
  })
}

export function removeSegment(system: SpoolSystem, timeline: number, lsn: Lsn): void {
  const path = segmentPath(system, timeline, lsn)
  onDisk('remove', path, () => rmSync(path, { force: true }))
}

export function removeTimelineFolder(system: SpoolSystem, timeline: number): void {
  const path = timelineFolder(system, timeline)
  onDisk('remove', path, () => rmdirSync(path))
}

/** The history file of a timeline as the server sent it, or undefined. */
export function readHistoryFile(system: SpoolSystem, timeline: number): string | undefined {
  return readSmall(join(system.path, historyName(timeline)))
}

/** Durable when it returns. Fails: host.full, host.file. */
export function writeHistoryFile(system: SpoolSystem, timeline: number, history: string): void {
  writeDurably(system.path, historyName(timeline), Buffer.from(history))
}

/** The one failure for what the system refuses: host.full where there is no room, else host.file. */
export function diskFailure(action: string, path: string, cause: unknown): Failure {
  const isFull = ['ENOSPC', 'EDQUOT'].includes(errnoOf(cause) ?? '')
  const message = `Cannot ${action} "${path}": ${describeError(cause)}`
  return new Failure(isFull ? 'host.full' : 'host.file', message, { facts: { path }, cause })
}

export function onDisk<T>(action: string, path: string, call: () => T): T {
  try {
    return call()
  } catch (cause) {
    throw diskFailure(action, path, cause)
  }
}

/**
 * Whole or not at all, and durable; `mode` holds whatever the umask says. The draft lies in `draftFolder`, of
 * the same file system, in which nobody else may write. Fails: host.full, host.file.
 */
export function writeDurably(
  folder: string,
  name: string,
  bytes: Uint8Array,
  { mode = 0o600, draftFolder = folder }: { mode?: number; draftFolder?: string } = {},
): void {
  const path = join(folder, name)
  const temporary = join(draftFolder, `${name}.tmp`)
  onDisk('write', path, () => {
    const fd = openSync(temporary, 'w', 0o600)
    try {
      fchmodSync(fd, mode)
      writeFileSync(fd, bytes)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, path)
    syncFolder(folder)
  })
}

/** undefined: there is no such file. Fails: host.file. */
export function readSmall(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined
    throw diskFailure('read', path, cause)
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function syncFolder(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
