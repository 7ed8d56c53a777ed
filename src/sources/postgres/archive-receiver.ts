/**
 * Takes the write-ahead log of a cluster from an inbox (archive-inbox.ts) into a spool for as long as it is
 * told to. A file is removed when its log is durable in the spool; so a crash anywhere is a file taken twice.
 * It never skips log: a piece that is missing is waited for, and said; then it is a failure.
 */
import { watch, type FSWatcher } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import type { Clock } from '../../base/clock.ts'
import { Failure, isFailure } from '../../base/failure.ts'
import type { LogFeedEvents } from '../log-source.ts'
import {
  listInbox,
  makeInbox,
  parseSegments,
  readInboxFile,
  readInboxText,
  removeInboxFile,
  removeLeftovers,
  withInboxFile,
  type InboxNames,
  type InboxSegment,
} from './archive-inbox.ts'
import { nextFile, type NextFile } from './archive-order.ts'
import { checkSegment, partialEnd, readSegmentFacts } from './archive-segment.ts'
import { formatLsn, parseHistory, type Lsn, type TimelineStep } from './lsn.ts'
import { appendSpool, syncSpool } from './spool-append.ts'
import { pauseForRoom } from './spool-pause.ts'
import {
  bindSpool,
  formatPosition,
  markSound,
  readHistory,
  readSpool,
  saveHistory,
  spoolPosition,
  spoolShortage,
  wasHeld,
  type Spool,
  type SpoolLog,
} from './spool.ts'

export interface ArchiveSettings {
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly timing?: Partial<ArchiveTiming>
}

export interface ArchiveTiming {
  /** The inbox is looked at so often where the system does not tell of new files. */
  readonly rescanMs: number
  /** After so long it is said that a piece is missing; after `gapMsMax` it is a failure. */
  readonly gapMs: number
  readonly gapMsMax: number
  /** What a killed command left is removed when it is so old. */
  readonly leftoverMs: number
}

interface Archive {
  readonly spool: Spool
  readonly inbox: string
  readonly settings: ArchiveSettings
  readonly timing: ArchiveTiming
  readonly events: LogFeedEvents
  /** What was said last of whether log is taken. */
  told: 'connected' | 'stalled' | undefined
  /** What is waited for, since when. */
  missing: { name: string; since: number; isTold: boolean } | undefined
  /** Names of what was refused, and told. */
  readonly refused: Set<string>
  /** Calls that end a pause. */
  readonly wakers: Set<() => void>
}

const TIMING: ArchiveTiming = { rescanMs: 5000, gapMs: 10_000, gapMsMax: 600_000, leftoverMs: 3_600_000 }
const READ_BYTES = 1 << 20
/** As long as no segment was seen, they may be as long as any. */
const SEGMENT_BYTES_MAX = 1 << 30
const REFUSED_MAX = 1000

/**
 * Runs until the signal, then resolves. A full spool is told and waited for. Fails, so that a person looks:
 * source.foreign (another cluster), source.diverged (other log at the same place, or no log), source.gap (a
 * piece did not come), source.failed (too much that is not taken), host.file.
 */
export async function receiveArchive(
  spool: Spool,
  settings: ArchiveSettings,
  events: LogFeedEvents,
): Promise<void> {
  const { signal } = settings
  const archive: Archive = {
    spool,
    inbox: makeInbox(spool.folder, filesMax(spool)),
    settings,
    timing: { ...TIMING, ...settings.timing },
    events,
    told: undefined,
    missing: undefined,
    refused: new Set(),
    wakers: new Set(),
  }
  const watcher = watchInbox(archive)
  try {
    while (!signal.aborted) {
      // Begun before the inbox is read, so that what comes meanwhile is not slept through.
      const woken = pauseForRoom(spool, {
        milliseconds: archive.timing.rescanMs,
        signal,
        wakers: archive.wakers,
      })
      await takeFiles(archive)
      await woken
    }
  } finally {
    watcher?.close()
    for (const wake of archive.wakers) wake()
  }
}

/** So many files of the inbox are as large as the spool may be. */
function filesMax({ options, system }: Spool): number {
  return Math.max(1, Math.floor(options.bytesMax / (system?.segmentBytes ?? SEGMENT_BYTES_MAX)))
}

/** undefined: the system cannot tell, as on a network's file system. */
function watchInbox(archive: Archive): FSWatcher | undefined {
  const wake = (): void => {
    for (const call of archive.wakers) call()
  }
  try {
    const watcher = watch(archive.inbox, wake)
    watcher.on('error', () => watcher.close())
    return watcher
  } catch {
    return undefined
  }
}

/** Takes what there is. Fails: as receiveArchive(). */
async function takeFiles(archive: Archive): Promise<void> {
  const { spool, inbox, settings, timing, events } = archive
  try {
    while (!settings.signal.aborted) {
      const shortage = spoolShortage(spool)
      if (shortage !== undefined) throw shortage
      // Where there was no room, that there is some is known when a file is taken whole, or none is left.
      if (archive.told !== 'stalled') tellTaking(archive)
      const names = listInbox(inbox)
      forgetRefused(archive, names)
      removeLeftovers(inbox, names.temporary, settings.clock.now() - timing.leftoverMs)
      for (const name of names.unknown) refuse(archive, name, 'no file of the log is called so')
      if (!(await bindArchive(archive, names))) return
      await takeHistories(archive, names)
      const next = chooseNext(archive, names)
      noteMissing(archive, next)
      if (next === undefined || next.kind === 'missing') {
        tellTaking(archive)
        return
      }
      await takeNext(archive, next)
      if (!settings.signal.aborted) tellTaking(archive)
    }
  } catch (error) {
    if (!isFailure(error, 'host.full')) throw error
    if (archive.told === 'stalled') return
    archive.told = 'stalled'
    events.onState({ kind: 'stalled', reason: error.message, hoursLeft: undefined })
  }
}

/** Whether it is known whose log this is, and how long its segments are: the first whole one says so. */
async function bindArchive({ spool, inbox }: Archive, names: InboxNames): Promise<boolean> {
  if (spool.system !== undefined) return true
  const first = names.segments.filter((name) => !name.includes('.')).toSorted()[0]
  if (first === undefined) return false
  const path = join(inbox, first)
  bindSpool(spool, await withInboxFile(path, (fd, bytes) => readSegmentFacts(path, fd, bytes)))
  makeInbox(spool.folder, filesMax(spool))
  return true
}

function tellTaking(archive: Archive): void {
  if (archive.told === 'connected') return
  archive.told = 'connected'
  const position = spoolPosition(archive.spool)
  const from = position === undefined ? `the first file in "${archive.inbox}"` : formatPosition(position)
  archive.events.onState({ kind: 'connected', from })
}

/** Histories are kept, where base backups began is not: backups hold that themselves. */
async function takeHistories({ spool, inbox }: Archive, names: InboxNames): Promise<void> {
  for (const { name, timeline } of names.histories) {
    const text = await readInboxText(join(inbox, name))
    parseHistory(timeline, text)
    saveHistory(spool, timeline, text)
    removeInboxFile(inbox, name)
  }
  for (const name of names.backups) removeInboxFile(inbox, name)
}

function chooseNext({ spool, refused }: Archive, names: InboxNames): NextFile | undefined {
  const { segmentBytes = SEGMENT_BYTES_MAX } = spool.system ?? {}
  const segments = parseSegments(names.segments, segmentBytes).filter(({ name }) => !refused.has(name))
  const historyOf = (timeline: number): readonly TimelineStep[] | undefined => {
    const text = readHistory(spool, timeline)
    return text === undefined ? undefined : parseHistory(timeline, text)
  }
  return nextFile({ position: spoolPosition(spool), segmentBytes, segments, historyOf })
}

/** Fails: source.gap when it was waited for long enough. */
function noteMissing(archive: Archive, next: NextFile | undefined): void {
  const { inbox, timing, events, settings, spool } = archive
  if (next?.kind !== 'missing') {
    archive.missing = undefined
    return
  }
  const now = settings.clock.elapsed()
  const { name, later } = next
  if (archive.missing?.name !== name) archive.missing = { name, since: now, isTold: false }
  const { since, isTold } = archive.missing
  const position = spoolPosition(spool)
  const place = position === undefined ? '' : `, behind ${formatPosition(position)}`
  const reason = `"${inbox}" has no "${name}"${place}, but "${later}": archive it again by hand`
  if (now - since >= timing.gapMsMax)
    throw new Failure('source.gap', `Cannot take the log on: ${reason}`, { facts: { name, later } })
  if (isTold || now - since < timing.gapMs) return
  archive.missing.isTold = true
  events.onState({ kind: 'gap', reason })
}

async function takeNext(archive: Archive, next: Exclude<NextFile, { kind: 'missing' }>): Promise<void> {
  const { spool, events } = archive
  const { segment } = next
  if (next.kind === 'old') return takeOld(archive, segment)
  const position = spoolPosition(spool)
  if (next.kind === 'diverged') {
    const is = `timeline ${segment.timeline} does not come from there`
    const from = position === undefined ? '' : ` from ${formatPosition(position)}`
    throw new Failure('source.diverged', `Cannot take "${segment.name}"${from} on: ${is}`)
  }
  const { name, timeline, start } = segment
  if (next.kind === 'take' && position !== undefined && !wasHeld(spool, { timeline, lsn: start }))
    return refuse(archive, name, neverHeld(spool, timeline))
  await takeSegment(archive, segment)
  if (next.kind !== 'switch' || position === undefined) return
  const left = formatPosition({ timeline: position.timeline, lsn: next.switchLsn })
  events.onState({ kind: 'branch', from: left, to: `timeline ${segment.timeline}` })
}

/** Appends a file to the spool, and removes it when that is durable; less when it is told to stop. */
async function takeSegment(archive: Archive, segment: InboxSegment): Promise<void> {
  const { spool, inbox, settings, events } = archive
  const { name, timeline, start, isPartial } = segment
  const path = join(inbox, name)
  const isTaken = await withInboxFile(path, async (fd, bytes) => {
    bindSpool(spool, readSegmentFacts(path, fd, bytes))
    if (!isPartial) checkSegment(path, fd, segment, bytes)
    const end = isPartial ? partialEnd(path, fd, segment, bytes) : start + BigInt(bytes)
    for (let lsn = start; lsn < end; lsn += BigInt(READ_BYTES)) {
      if (settings.signal.aborted) return false
      const count = Math.min(READ_BYTES, Number(end - lsn))
      appendSpool(spool, { timeline, lsn }, readInboxFile(path, fd, Number(lsn - start), count))
      await turn()
    }
    return true
  })
  syncSpool(spool)
  events.onMore()
  if (!isTaken) return
  // A record at its end may go on behind it: without the file openSpool() could not know that it is whole.
  markSound(spool)
  removeInboxFile(inbox, name)
}

/** Why a file from before the log that was ever held may not go as one that was stored. */
function neverHeld({ facts }: Spool, timeline: number): string {
  const begin = facts.begins.get(timeline)
  const is = begin === undefined ? 'has nothing' : `begins at ${formatLsn(begin)}`
  return `the log that is shipped ${is} on timeline ${timeline}`
}

/**
 * A file of a timeline that was left: what is held of it is compared. Beyond the switch a server wrote that
 * is not in charge any more, or the one that is: a person has to look.
 */
async function takeOld(archive: Archive, segment: InboxSegment): Promise<void> {
  const { spool, inbox } = archive
  const { name, timeline, start, isPartial } = segment
  const path = join(inbox, name)
  const now = spool.logs.at(-1)?.timeline ?? 0
  const text = readHistory(spool, now)
  const steps = text === undefined ? [] : parseHistory(now, text)
  const left = steps.find((step) => step.timeline === timeline)?.end
  if (left !== undefined && start >= left)
    throw new Failure(
      'source.diverged',
      `Cannot take "${path}": timeline ${timeline} was left at ${formatLsn(left)} for ${now}, and a server ` +
        'goes on with it',
    )
  const log = spool.logs.find((held) => held.timeline === timeline)
  const end = await withInboxFile(path, async (fd, bytes) => {
    if (log !== undefined && !isPartial) await compareHeld(archive, log, { path, fd, start, bytes })
    return start + BigInt(bytes)
  })
  const isKnown = isPartial ? isGoneOn(spool, segment) : wasHeld(spool, { timeline, lsn: start })
  if (!isKnown) refuse(archive, name, neverHeld(spool, timeline))
  else if (isPartial || end <= (log?.durable ?? left ?? 0n)) removeInboxFile(inbox, name)
  else refuse(archive, name, `timeline ${timeline} was left for ${now}`)
}

/** What counts of the last segment of a timeline is in the first one of the next, too. */
function isGoneOn({ facts }: Spool, { timeline, start }: InboxSegment): boolean {
  return Array.from(facts.begins).some(([later, begin]) => later > timeline && begin <= start)
}

/** Fails: source.diverged when held log and the file differ where they overlap. */
async function compareHeld(
  { spool }: Archive,
  { timeline, from, durable }: SpoolLog,
  file: { path: string; fd: number; start: Lsn; bytes: number },
): Promise<void> {
  const { path, fd, start, bytes } = file
  const end = start + BigInt(bytes) < durable ? start + BigInt(bytes) : durable
  for (let lsn = start > from ? start : from; lsn < end; lsn += BigInt(READ_BYTES)) {
    const count = Math.min(READ_BYTES, Number(end - lsn))
    const held = readSpool(spool, { timeline, from: lsn, to: lsn + BigInt(count) })
    if (!held.equals(readInboxFile(path, fd, Number(lsn - start), count))) {
      const is = `it differs from what was taken before, near ${formatLsn(lsn)}`
      throw new Failure('source.diverged', `Cannot take "${path}": ${is}`)
    }
    await turn()
  }
}

/** What was taken away counts no more; under the same name it is looked at again. */
function forgetRefused({ refused }: Archive, names: InboxNames): void {
  if (refused.size === 0) return
  const there = new Set([...names.segments, ...names.unknown])
  for (const name of refused) if (!there.has(name)) refused.delete(name)
}

/** Once for each name. Fails: source.failed when they are too many to be remembered. */
function refuse({ refused, inbox, events }: Archive, name: string, why: string): void {
  if (refused.has(name)) return
  if (refused.size >= REFUSED_MAX) {
    const is = `more than ${REFUSED_MAX} of its files are refused, "${name}" too: ${why}`
    throw new Failure('source.failed', `Cannot take log from "${inbox}": ${is} (move them elsewhere)`)
  }
  refused.add(name)
  events.onState({ kind: 'refused', reason: `"${join(inbox, name)}" is not taken: ${why}` })
}
