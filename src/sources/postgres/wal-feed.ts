/** The log of a PostgreSQL cluster as the shipper takes it: the receiver, and the spool between. */
import { setTimeout } from 'node:timers/promises'
import type { Clock } from '../../base/clock.ts'
import { unlessAborted } from '../../base/concurrent.ts'
import { isFailure } from '../../base/failure.ts'
import type { LogFeed, LogFeedEvents, LogFeedState, LogFile, LogSource, LogStretch } from '../log-source.ts'
import { receiveArchive } from './archive-receiver.ts'
import {
  formatPosition,
  openSpool,
  closeSpool,
  readHistory,
  readSpool,
  releaseSpool,
  spoolRanges,
} from './spool.ts'
import type { Spool } from './spool.ts'
import type { NameNote } from './log-notes.ts'
import { loadNames, saveNames } from './name-store.ts'
import { newNames, type NameSnapshot } from './relation-names.ts'
import { historyFile, parseWalBranch, walBranch } from './wal-branch.ts'
import {
  forgetNotes,
  newNotesTaker,
  noteMark,
  noteNames,
  notesOf,
  unmergedNames,
  type NotesSource,
  type NotesTaker,
} from './wal-notes.ts'
import type { CoverageMark } from './wal-stream.ts'
import { receiveWal, type ConnectServer, type ReceiverState } from './wal-receiver.ts'

export interface WalFeedSettings {
  /** Whose log is streamed; undefined: its archive_command puts it into the inbox of the spool. */
  readonly server: { readonly connect: ConnectServer; readonly slot: string } | undefined
  /** Bytes of log that the spool may hold. */
  readonly spoolBytesMax: number
  /** What relations are called now; undefined: nobody is asked, and drops have numbers only. */
  readonly readNames: (() => Promise<NameSnapshot>) | undefined
  readonly clock: Clock
}

/** A relation that comes and goes between has no name in the notes. */
const NAMES_MS = 30_000
const NAMES_MS_FIRST = 1000

export function walSource(name: string, settings: WalFeedSettings): LogSource {
  return {
    name,
    kind: 'postgres',
    open: (folder, events) => {
      const spool = openSpool(folder, { bytesMax: settings.spoolBytesMax, systemId: undefined })
      return feedOf(spool, settings, events)
    },
  }
}

function feedOf(spool: Spool, settings: WalFeedSettings, events: LogFeedEvents): LogFeed {
  const branchOf = (timeline: number): string => walBranch(spool.system?.id ?? '', timeline)
  const timelineOf = (branch: string): number => parseWalBranch(branch)?.timeline ?? 0
  const takers = new Map<number, NotesTaker>()
  const takerOf = (timeline: number): NotesTaker => {
    const known = takers.get(timeline) ?? newNotesTaker(notesSource(spool, timeline, events))
    takers.set(timeline, known)
    return known
  }
  const last = spool.logs.at(-1)
  if (last !== undefined) noteNames(takerOf(last.timeline), loadNames(spool.folder))
  const onMark = (mark: CoverageMark): void => {
    const { timeline, lsn, serverTime, receivedAt } = mark
    noteMark(takerOf(timeline), { lsn, serverTime, receivedAt })
    events.onMore()
  }
  return {
    run: async (signal) => {
      const end = new AbortController()
      const either = AbortSignal.any([signal, end.signal])
      const naming = followNames(settings, either, (names) => {
        const last = spool.logs.at(-1)
        if (last === undefined || names.length === 0) return false
        const taker = takerOf(last.timeline)
        noteNames(taker, names)
        saveNames(spool.folder, unmergedNames(taker))
        events.onMore()
        return true
      })
      // What is no failure is a bug, and ends the run.
      naming.catch(() => end.abort())
      try {
        await run(spool, settings, { ...events, onMark }, either)
      } finally {
        end.abort()
        await naming
      }
    },
    held: () =>
      spoolRanges(spool).map(({ timeline, from, to }) => ({ branch: branchOf(timeline), from, to })),
    files: () => historiesOf(spool, branchOf),
    read: ({ branch, from, to }: LogStretch) => readSpool(spool, { timeline: timelineOf(branch), from, to }),
    notes: ({ branch, from, to }) => notesOf(takerOf(timelineOf(branch)), from, to),
    hasNews: () => takers.get(spool.logs.at(-1)?.timeline ?? 0)?.mark !== undefined,
    release: ({ branch, at }) => {
      const timeline = timelineOf(branch)
      const taker = takerOf(timeline)
      const named = unmergedNames(taker).length
      forgetNotes(taker, at)
      const left = unmergedNames(taker)
      if (left.length < named) saveNames(spool.folder, left)
      // A record that ends behind `at` may begin in the segment before.
      const isLast = timeline === spool.logs.at(-1)?.timeline
      const kept = isLast ? BigInt(spool.system?.segmentBytes ?? 0) : 0n
      releaseSpool(spool, { timeline, lsn: at - kept })
    },
    close: () => closeSpool(spool),
  }
}

/** Reads names now and then; a server that does not answer is asked again the next time. */
async function followNames(
  { readNames }: WalFeedSettings,
  signal: AbortSignal,
  take: (names: readonly NameNote[]) => boolean,
): Promise<void> {
  if (readNames === undefined) return
  let before: NameSnapshot | undefined
  while (!signal.aborted) {
    try {
      // Nobody waits for a server that hangs when it is time to stop.
      const names = await unlessAborted(readNames(), signal)
      if (names === undefined) return
      if (take(newNames(before, names))) before = names
    } catch (error) {
      if (!isFailure(error)) throw error
    }
    const pause = before === undefined ? NAMES_MS_FIRST : NAMES_MS
    await setTimeout(pause, undefined, { signal }).catch(() => undefined)
  }
}

function notesSource(spool: Spool, timeline: number, events: LogFeedEvents): NotesSource {
  return {
    segmentBytes: spool.system?.segmentBytes ?? 0,
    from: () => spool.logs.find((log) => log.timeline === timeline)?.from ?? 0n,
    read: (from, to) => readSpool(spool, { timeline, from, to }),
    onUnread: (reason) => events.onState({ kind: 'unread', reason }),
  }
}

function historiesOf(spool: Spool, branchOf: (timeline: number) => string): LogFile[] {
  return spool.logs.flatMap(({ timeline }) => {
    const text = readHistory(spool, timeline)
    if (text === undefined) return []
    return [{ branch: branchOf(timeline), name: historyFile(timeline), bytes: Buffer.from(text, 'utf8') }]
  })
}

async function run(
  spool: Spool,
  { server, clock }: WalFeedSettings,
  events: LogFeedEvents & { readonly onMark: (mark: CoverageMark) => void },
  signal: AbortSignal,
): Promise<void> {
  if (server === undefined) return receiveArchive(spool, { clock, signal }, events)
  await receiveWal(
    server.connect,
    spool,
    { slot: server.slot, start: undefined, clock, signal },
    {
      onDurable: () => events.onMore(),
      onMark: events.onMark,
      onTimeline: ({ from, to, switchLsn }) => {
        const left = formatPosition({ timeline: from, lsn: switchLsn })
        events.onState({ kind: 'branch', from: left, to: `timeline ${to}` })
      },
      onState: (state) => events.onState(shownState(state)),
    },
  )
}

function shownState(state: ReceiverState): LogFeedState {
  if (state.kind === 'connected') return { kind: 'connected', from: formatPosition(state.from) }
  const reason = state.reason.message
  if (state.kind === 'disconnected') return { kind: 'disconnected', reason }
  return { kind: 'stalled', reason, hoursLeft: state.hoursLeft }
}
