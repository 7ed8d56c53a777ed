/**
 * Receives the write-ahead log of a cluster into a spool for as long as it is told to: makes the slot, comes
 * back after lost connections, restarts and fail-overs, follows timelines. It never skips log and never drops
 * a slot: where the log cannot be continued, or is not the log that came before, it stops with a failure.
 */
import type { Clock } from '../../base/clock.ts'
import { unlessAborted } from '../../base/concurrent.ts'
import { describeError, Failure, isFailure } from '../../base/failure.ts'
import { randomBytes } from '../../base/random.ts'
import { formatLsn, segmentStart, type Lsn } from './lsn.ts'
import { closeReplication, type Replication } from './replication.ts'
import {
  bindSpool,
  formatPosition,
  saveHistory,
  spoolPosition,
  spoolShortage,
  type LogPosition,
  type Spool,
} from './spool.ts'
import { pauseForRoom } from './spool-pause.ts'
import {
  ensureSlot,
  fetchHistory,
  identifyServer,
  isStandby,
  slotKeepBytes,
  sqlStateOf,
  STATE,
  type ServerState,
  type SlotState,
} from './wal-server.ts'
import { streamWal, type CoverageMark, type StreamTask, type StreamTiming } from './wal-stream.ts'

export interface ReceiverSettings {
  /** Lower-case letters, digits and underscores. */
  readonly slot: string
  /** Where to begin when the spool is empty; undefined: where the slot begins. */
  readonly start: LogPosition | undefined
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly timing?: Partial<ReceiverTiming>
}

export interface ReceiverTiming extends StreamTiming {
  /** Pauses before a new try: double each time, and a random part shorter. */
  readonly pauseMsMin: number
  readonly pauseMsMax: number
}

export type ReceiverState =
  | { readonly kind: 'connected'; readonly from: LogPosition }
  /** It comes back by itself. */
  | { readonly kind: 'disconnected'; readonly reason: Failure }
  /**
   * There is no room. The server keeps the log for about `hoursLeft`; undefined: as long as its own disk has
   * room, or not known.
   */
  | { readonly kind: 'stalled'; readonly reason: Failure; readonly hoursLeft: number | undefined }

export interface TimelineSwitch {
  readonly from: number
  readonly to: number
  /** The first position that is not on `from` any more; more of `from` may be in the spool. */
  readonly switchLsn: Lsn
  readonly history: string
}

/** Called synchronously: what they throw ends the receiver. */
export interface ReceiverEvents {
  readonly onDurable: (position: LogPosition & { readonly systemId: string }) => void
  readonly onMark: (mark: CoverageMark) => void
  /**
   * Its history file is durable; nothing of the new timeline came yet. Not told again after a crash:
   * spoolRanges() and readHistory() say what there is at the start.
   */
  readonly onTimeline: (step: TimelineSwitch) => void
  readonly onState: (state: ReceiverState) => void
}

/** Opens a replication connection to the server that is in charge now. */
export type ConnectServer = (signal: AbortSignal) => Promise<Replication>

interface Receiver {
  readonly connect: ConnectServer
  readonly spool: Spool
  readonly settings: ReceiverSettings
  readonly timing: ReceiverTiming
  readonly events: ReceiverEvents
  tries: number
  /** How fast the server's log grows: since the first of two samples, RATE_MS to twice that old. */
  samples: { lsn: Lsn; at: number }[]
  serverEnd: Lsn
  /** Of log that the server keeps for us; undefined: no limit is known. */
  keepBytes: number | undefined
}

const TIMING: ReceiverTiming = {
  tickMs: 1000,
  markMs: 10_000,
  silenceMs: 60_000,
  pauseMsMin: 1000,
  pauseMsMax: 30_000,
}
/** What ends by itself. */
const PASSING = ['source.failed', 'host.full'] as const
const RATE_MS = 600_000
const HOUR_MS = 3_600_000

/**
 * Runs until the signal, then resolves. Lost connections and a full disk are told and waited for. Fails, so
 * that a person looks: source.foreign (another cluster), source.diverged (other log at the same place),
 * source.gap (log that was not received is lost: a full backup is needed), host.file.
 */
export async function receiveWal(
  connect: ConnectServer,
  spool: Spool,
  settings: ReceiverSettings,
  events: ReceiverEvents,
): Promise<void> {
  const { signal, timing } = settings
  const receiver: Receiver = {
    connect,
    spool,
    settings,
    timing: { ...TIMING, ...timing },
    events,
    tries: 0,
    samples: [],
    serverEnd: 0n,
    keepBytes: undefined,
  }
  while (!signal.aborted) {
    try {
      await receiveOnce(receiver)
    } catch (error) {
      if (signal.aborted && isFailure(error, 'cancelled')) return
      if (!isFailure(error) || !PASSING.some((code) => error.code === code)) throw error
      if (signal.aborted) return
      tellState(receiver, error)
      await pauseReceiver(receiver)
    }
  }
}

/** One connection: checks who is there, then streams timeline after timeline. */
async function receiveOnce(receiver: Receiver): Promise<void> {
  const { spool, settings } = receiver
  const connecting = receiver.connect(settings.signal)
  const replication = await unlessAborted(connecting, settings.signal)
  if (replication === undefined) {
    connecting.then(closeReplication, () => undefined)
    return
  }
  try {
    const { systemId, starts } = await withDeadline(receiver, replication, () =>
      prepare(receiver, replication),
    )
    const task = streamTask(receiver, replication, systemId)
    let at: LogPosition | undefined = await followTimeline(receiver, task, starts)
    while (at !== undefined) at = await followTimeline(receiver, task, [at])
    if (!settings.signal.aborted)
      throw new Failure('source.failed', `Cannot receive log for "${spool.folder}": the server sends no more`)
  } finally {
    closeReplication(replication)
  }
}

/** Everything before the stream: where to begin, if it may begin. */
async function prepare(
  receiver: Receiver,
  replication: Replication,
): Promise<{ systemId: string; starts: LogPosition[] }> {
  const { spool, settings } = receiver
  const server = await identifyServer(replication)
  bindSpool(spool, server)
  receiver.keepBytes = await slotKeepBytes(replication)
  noteServerEnd(receiver, server.end)
  const shortage = spoolShortage(spool)
  if (shortage !== undefined) throw shortage
  const slot = await ensureSlot(replication, settings.slot)
  const from = beginAt(receiver, server, slot)
  const switchLsn = await checkServer(receiver, replication, server, from)
  return { systemId: server.systemId, starts: startsAt(spool, from, switchLsn) }
}

/** Commands have no end of their own on a line that is dead. */
async function withDeadline<T>(
  { timing, settings }: Receiver,
  { socket }: Replication,
  body: () => Promise<T>,
): Promise<T> {
  const cut = (): void => {
    socket.destroy()
  }
  const timer = setTimeout(cut, timing.silenceMs)
  settings.signal.addEventListener('abort', cut)
  if (settings.signal.aborted) cut()
  try {
    return await body()
  } finally {
    clearTimeout(timer)
    settings.signal.removeEventListener('abort', cut)
  }
}

/** Where the log has to go on. Fails: source.gap. */
function beginAt({ spool, settings }: Receiver, server: ServerState, slot: SlotState): LogPosition {
  const position = spoolPosition(spool) ?? settings.start
  if (position !== undefined && slot.isLost)
    throw gapFailure(position, `the server keeps no log for the slot "${settings.slot}" any more`)
  if (position !== undefined) return position
  const { timeline, lsn } = slot.restart ?? { timeline: server.timeline, lsn: server.end }
  // A slot may begin where a checkpoint will be, a little after what the server has written.
  return { timeline, lsn: segmentStart(lsn, server.segmentBytes) }
}

/**
 * Whether this server's log can be the continuation of `from`. Returns where the server has left that
 * timeline, if it has. Fails: source.diverged, source.failed.
 */
async function checkServer(
  { spool, settings }: Receiver,
  replication: Replication,
  server: ServerState,
  from: LogPosition,
): Promise<Lsn | undefined> {
  const isBehind =
    server.timeline < from.timeline || (server.timeline === from.timeline && server.end < from.lsn)
  if (isBehind) {
    const is = `the server is at ${formatPosition({ timeline: server.timeline, lsn: server.end })}`
    const message = `Cannot receive log from ${formatPosition(from)} on: ${is}`
    // A backup that begins makes a checkpoint in the next segment: a new slot is there before the log is.
    if ((spoolPosition(spool) ?? settings.start) === undefined)
      throw new Failure('source.failed', `${message} (the slot is ahead of it)`)
    // A standby gets there, or another server is in charge.
    if (await isStandby(replication)) throw new Failure('source.failed', `${message} (a standby)`)
    throw new Failure('source.diverged', message)
  }
  if (server.timeline === 1) return undefined
  const { text, steps } = await fetchHistory(replication, server.timeline)
  if (server.timeline === from.timeline) {
    saveHistory(spool, server.timeline, text)
    return undefined
  }
  const left = steps.find(({ timeline }) => timeline === from.timeline)
  if (left !== undefined) return left.end
  const is = `the server's timeline ${server.timeline} does not come from there`
  throw new Failure('source.diverged', `Cannot receive log from ${formatPosition(from)} on: ${is}`)
}

/**
 * Where to ask the server to begin, in the order of trying: with what is held already, so that it is
 * compared. The server may have removed that, since it knows that we have it.
 */
function startsAt(spool: Spool, from: LogPosition, switchLsn: Lsn | undefined): LogPosition[] {
  const { timeline } = from
  const held = spool.logs.find((log) => log.timeline === timeline)
  const { segmentBytes = 1 } = spool.system ?? {}
  const isPast = switchLsn !== undefined && switchLsn <= from.lsn
  const lsn = isPast ? switchLsn : from.lsn
  const starts = [segmentStart(lsn, segmentBytes)]
  if (held !== undefined && lsn === starts[0] && lsn > held.from) starts.unshift(lsn - BigInt(segmentBytes))
  // Nothing of this timeline is wanted any more: there the server at once names the next one.
  if (isPast && lsn !== starts.at(-1)) starts.push(lsn)
  return starts.map((start) => ({ timeline, lsn: start }))
}

/**
 * Streams a timeline to its end; returns where the next one begins, undefined at the end of all. Fails:
 * source.gap, and as streamWal().
 */
async function followTimeline(
  receiver: Receiver,
  task: Omit<StreamTask, 'start'>,
  starts: readonly LogPosition[],
): Promise<LogPosition | undefined> {
  const [start, ...others] = starts
  if (start === undefined) return undefined
  let left: LogPosition | undefined
  try {
    left = await streamWal({ ...task, start })
  } catch (error) {
    const state = sqlStateOf(error)
    if (state === STATE.undefinedFile && others.length > 0) return followTimeline(receiver, task, others)
    if (state !== STATE.undefinedFile && state !== STATE.notInState) throw error
    throw gapFailure(spoolPosition(receiver.spool) ?? start, describeError(error), error)
  }
  if (left === undefined) return undefined
  const { spool, events } = receiver
  const { replication } = task
  const next = left.timeline
  const { text } = await withDeadline(receiver, replication, () => fetchHistory(replication, next))
  saveHistory(spool, left.timeline, text)
  events.onTimeline({ from: start.timeline, to: left.timeline, switchLsn: left.lsn, history: text })
  const { segmentBytes = 1 } = spool.system ?? {}
  return { timeline: left.timeline, lsn: segmentStart(left.lsn, segmentBytes) }
}

function streamTask(
  receiver: Receiver,
  replication: Replication,
  systemId: string,
): Omit<StreamTask, 'start'> {
  const { spool, settings, timing, events } = receiver
  const { slot, clock, signal } = settings
  return {
    replication,
    spool,
    slot,
    clock,
    signal,
    timing,
    onStreaming: (from) => events.onState({ kind: 'connected', from }),
    onDurable: (position) => {
      receiver.tries = 0
      events.onDurable({ ...position, systemId })
    },
    onMark: events.onMark,
    onServerEnd: (end) => noteServerEnd(receiver, end),
  }
}

function gapFailure(position: LogPosition, is: string, cause?: unknown): Failure {
  const { timeline, lsn } = position
  const message = `Cannot receive log from ${formatPosition(position)} on, a full backup is needed: ${is}`
  return new Failure('source.gap', message, { facts: { timeline, lsn: formatLsn(lsn) }, cause })
}

function tellState(receiver: Receiver, reason: Failure): void {
  if (reason.code !== 'host.full') return receiver.events.onState({ kind: 'disconnected', reason })
  receiver.events.onState({ kind: 'stalled', reason, hoursLeft: hoursLeft(receiver) })
}

function noteServerEnd(receiver: Receiver, lsn: Lsn): void {
  const { samples, settings } = receiver
  const at = settings.clock.elapsed()
  receiver.serverEnd = lsn
  const last = samples.at(-1)
  if (last === undefined || at - last.at >= RATE_MS) samples.push({ lsn, at })
  if (samples.length > 2) samples.shift()
}

/** How long the server keeps what we do not take, if it goes on writing as it did. */
function hoursLeft({ spool, samples, serverEnd, keepBytes, settings }: Receiver): number | undefined {
  const [first] = samples
  if (keepBytes === undefined || first === undefined) return undefined
  const bytesPerMs = Number(serverEnd - first.lsn) / (settings.clock.elapsed() - first.at)
  const lag = serverEnd - (spool.logs.at(-1)?.durable ?? serverEnd)
  const bytesLeft = Math.max(0, keepBytes - Number(lag))
  return bytesPerMs > 0 ? bytesLeft / bytesPerMs / HOUR_MS : undefined
}

/** Waits before the next try, no longer than until there is room again, or the signal. */
async function pauseReceiver(receiver: Receiver): Promise<void> {
  const { settings, spool, timing } = receiver
  const { signal } = settings
  const whole = Math.min(timing.pauseMsMax, timing.pauseMsMin * 2 ** receiver.tries)
  receiver.tries++
  // Receivers of one lost server do not all come back at once.
  const milliseconds = whole * (1 - randomBytes(1)[0]! / 512)
  await pauseForRoom(spool, { milliseconds, signal })
}
