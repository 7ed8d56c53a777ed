/** The log of a PostgreSQL cluster as the shipper takes it: the receiver, and the spool between. */
import type { Clock } from '../../base/clock.ts'
import type { LogFeed, LogFeedEvents, LogFeedState, LogFile, LogSource, LogStretch } from '../log-source.ts'
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
import { historyFile, parseWalBranch, walBranch } from './wal-branch.ts'
import { newNotesTaker, noteMark, notesOf, type NotesSource, type NotesTaker } from './wal-notes.ts'
import type { CoverageMark } from './wal-stream.ts'
import { receiveWal, type ConnectServer, type ReceiverState } from './wal-receiver.ts'

export interface WalFeedSettings {
  readonly connect: ConnectServer
  readonly slot: string
  /** Bytes of log that the spool may hold. */
  readonly spoolBytesMax: number
  readonly clock: Clock
}

const NO_NOTES = new Uint8Array(0)

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
  const onMark = (mark: CoverageMark): void => {
    const { timeline, lsn, serverTime, receivedAt } = mark
    noteMark(takerOf(timeline), { lsn, serverTime, receivedAt })
    events.onMore()
  }
  return {
    run: (signal) => run(spool, settings, { ...events, onMark }, signal),
    held: () =>
      spoolRanges(spool).map(({ timeline, from, to }) => ({ branch: branchOf(timeline), from, to })),
    files: () => historiesOf(spool, branchOf),
    read: ({ branch, from, to }: LogStretch) => readSpool(spool, { timeline: timelineOf(branch), from, to }),
    notes: ({ branch, from, to }) => notesOf(takerOf(timelineOf(branch)), from, to)[0] ?? NO_NOTES,
    hasNews: () => takers.get(spool.logs.at(-1)?.timeline ?? 0)?.mark !== undefined,
    release: ({ branch, at }) => {
      const timeline = timelineOf(branch)
      // A record that ends behind `at` may begin in the segment before.
      const isLast = timeline === spool.logs.at(-1)?.timeline
      const kept = isLast ? BigInt(spool.system?.segmentBytes ?? 0) : 0n
      releaseSpool(spool, { timeline, lsn: at - kept })
    },
    close: () => closeSpool(spool),
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
  { connect, slot, clock }: WalFeedSettings,
  events: LogFeedEvents & { readonly onMark: (mark: CoverageMark) => void },
  signal: AbortSignal,
): Promise<void> {
  await receiveWal(
    connect,
    spool,
    { slot, start: undefined, clock, signal },
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
