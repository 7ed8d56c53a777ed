/**
 * One START_REPLICATION: log of one timeline from a segment's beginning on, into the spool (documentation,
 * chapter "Streaming Replication Protocol"). The server sends XLogData ('w': position u64, its end u64, its
 * time i64, log) and keepalives ('k': what it has sent u64, its time i64, whether it wants a reply u8); we
 * send status updates ('r': written u64, flushed u64, applied u64, time i64, whether we want a reply u8).
 *
 * What a turn of the event loop brought shares one fsync; the thread waits for it, so while the disk is busy
 * nothing is read, and the server sees it in the connection's window.
 */
import type { Clock } from '../../base/clock.ts'
import { Failure } from '../../base/failure.ts'
import { formatLsn, parseLsn, type Lsn } from './lsn.ts'
import { unixMicroseconds } from './pg-time.ts'
import { runCommand, sendCopyDone, sendData, type Replication } from './replication.ts'
import { appendSpool, syncSpool } from './spool-append.ts'
import type { LogPosition, Spool } from './spool.ts'

/** A moment at which the server had sent its log up to `lsn`; under load it may have had more. */
export interface CoverageMark {
  readonly timeline: number
  readonly lsn: Lsn
  /** Clock of the server, microseconds since 1970. */
  readonly serverTime: bigint
  /** Clock of this host, milliseconds since 1970. */
  readonly receivedAt: number
}

export interface StreamTiming {
  /** How often is looked whether a status or a mark is due. */
  readonly tickMs: number
  /** A keepalive is asked for when none came for so long. */
  readonly markMs: number
  /** A server that says nothing for so long is given up; it answers after markMs. */
  readonly silenceMs: number
}

export interface StreamTask {
  readonly replication: Replication
  readonly spool: Spool
  readonly slot: string
  /** Where to begin: at or before the end of what the spool holds. */
  readonly start: LogPosition
  readonly clock: Clock
  readonly timing: StreamTiming
  readonly signal: AbortSignal
  readonly onStreaming: (from: LogPosition) => void
  /** All up to here is fsynced, and the same as this server has. */
  readonly onDurable: (position: LogPosition) => void
  readonly onMark: (mark: CoverageMark) => void
  /** What the server has, about once a tick. */
  readonly onServerEnd: (end: Lsn) => void
}

interface Stream extends StreamTask {
  /** The position that the server has to send next. */
  next: Lsn
  serverEnd: Lsn
  /** What was reported as flushed on this timeline; 0 as long as it is not compared. */
  flushed: Lsn
  isSyncDue: boolean
  hasEnded: boolean
  /** Why we ended it. */
  broken: unknown
  markAt: number
  /** When a keepalive was last asked for. */
  askedAt: number
  heardAt: number
}

/** First bytes of CopyData, in both directions. */
export const KIND = { log: 0x77, keepalive: 0x6b, status: 0x72 } as const
export const LOG_HEADER_BYTES = 25
const KEEPALIVE_BYTES = 18
const STATUS_BYTES = 34
/** How long a good-bye may take. */
const FAREWELL_MS = 2000

/**
 * Streams until the timeline ends on the server, and then says where it was left for which; undefined when it
 * was stopped by the signal. What came by then is durable. Fails: source.failed, source.diverged, host.full,
 * host.file.
 */
export async function streamWal(task: StreamTask): Promise<LogPosition | undefined> {
  const now = task.clock.elapsed()
  const stream: Stream = {
    ...task,
    next: task.start.lsn,
    serverEnd: 0n,
    flushed: 0n,
    isSyncDue: false,
    hasEnded: false,
    broken: undefined,
    markAt: now,
    askedAt: now,
    heardAt: now,
  }
  const { replication, slot, start, signal } = task
  // Who listens to a signal that has come hears nothing.
  if (signal.aborted) return undefined
  const stop = (): void => stopStream(stream)
  const timer = setInterval(() => tickStream(stream), task.timing.tickMs)
  signal.addEventListener('abort', stop)
  const sql = `START_REPLICATION SLOT "${slot}" PHYSICAL ${formatLsn(start.lsn)} TIMELINE ${start.timeline}`
  try {
    const [next] = await runCommand(replication, sql, {
      // tickStream() asks before it gives up.
      silenceMs: Infinity,
      onCopyBoth: () => guarded(stream, () => task.onStreaming(start)),
      onData: (payload) => guarded(stream, () => takeData(stream, payload)),
      onCopyDone: () => guarded(stream, () => endCopy(stream)),
    })
    if (signal.aborted || next === undefined) return undefined
    const left = { timeline: Number(next[0]), lsn: parseLsn(next[1] ?? '') }
    if (stream.next === left.lsn) return left
    const places = `${formatLsn(stream.next)} (must be ${formatLsn(left.lsn)})`
    throw new Failure('source.failed', `Cannot follow the server: it ended the timeline at ${places}`)
  } catch (error) {
    if (signal.aborted && stream.broken === undefined) return undefined
    throw stream.broken ?? error
  } finally {
    stream.hasEnded = true
    clearInterval(timer)
    signal.removeEventListener('abort', stop)
    // Also when the server is gone for good: what came from it last counts most.
    syncSpool(task.spool)
    reportDurable(stream)
    if (stream.serverEnd > 0n) task.onServerEnd(stream.serverEnd)
  }
}

/** A failure in a callback ends the stream, and is what streamWal() fails with. */
function guarded(stream: Stream, body: () => void): void {
  if (stream.broken !== undefined) return
  try {
    body()
  } catch (error) {
    stream.broken = error
    stream.replication.socket.destroy()
  }
}

function takeData(stream: Stream, payload: Buffer): void {
  stream.heardAt = stream.clock.elapsed()
  const kind = payload[0]
  if (kind === KIND.log && payload.length >= LOG_HEADER_BYTES) takeLog(stream, payload)
  else if (kind === KIND.keepalive && payload.length >= KEEPALIVE_BYTES) takeKeepalive(stream, payload)
  else throw new Failure('source.failed', `Cannot understand the server: it sends a message of kind ${kind}`)
}

function takeLog(stream: Stream, payload: Buffer): void {
  const lsn = payload.readBigUInt64BE(1)
  stream.serverEnd = payload.readBigUInt64BE(9)
  if (lsn !== stream.next)
    throw new Failure(
      'source.failed',
      `Cannot receive log: the server sends ${formatLsn(lsn)} (must be ${formatLsn(stream.next)})`,
    )
  const log = payload.subarray(LOG_HEADER_BYTES)
  appendSpool(stream.spool, { timeline: stream.start.timeline, lsn }, log)
  stream.next = lsn + BigInt(log.length)
  if (stream.isSyncDue) return
  stream.isSyncDue = true
  setImmediate(() => {
    stream.isSyncDue = false
    if (!stream.hasEnded) guarded(stream, () => syncStream(stream))
  })
}

function takeKeepalive(stream: Stream, payload: Buffer): void {
  const lsn = payload.readBigUInt64BE(1)
  stream.serverEnd = lsn
  stream.markAt = stream.heardAt
  // Else the mark would be known before the log that it speaks of.
  syncStream(stream)
  stream.onMark({
    timeline: stream.start.timeline,
    lsn,
    serverTime: unixMicroseconds(payload.readBigInt64BE(9)),
    receivedAt: stream.clock.now(),
  })
  if (payload[17] === 1) sendStatus(stream, false)
}

/** Makes durable what came, and says so if there is news. */
function syncStream(stream: Stream): void {
  syncSpool(stream.spool)
  if (reportDurable(stream)) sendStatus(stream, false)
}

/**
 * Whether more is durable than was told. Before the server has sent again all that the spool holds nothing is
 * told: it may be another server's.
 */
function reportDurable(stream: Stream): boolean {
  const log = stream.spool.logs.at(-1)
  if (log?.timeline !== stream.start.timeline || stream.next < log.received) return false
  if (log.durable <= stream.flushed) return false
  stream.flushed = log.durable
  stream.onDurable({ timeline: log.timeline, lsn: log.durable })
  return true
}

/** A flushed position of 0 tells the server nothing. */
function sendStatus(stream: Stream, wantsReply: boolean): void {
  const { clock, flushed } = stream
  const written = stream.next > flushed && flushed > 0n ? stream.next : flushed
  sendData(stream.replication, encodeStatus({ written, flushed, now: clock.now(), wantsReply }))
  if (wantsReply) stream.askedAt = clock.elapsed()
}

/** "Standby status update"; `now` in milliseconds since 1970. */
export function encodeStatus(status: {
  readonly written: Lsn
  readonly flushed: Lsn
  readonly now: number
  readonly wantsReply: boolean
}): Buffer {
  const { written, flushed, now, wantsReply } = status
  const bytes = Buffer.alloc(STATUS_BYTES)
  bytes[0] = KIND.status
  bytes.writeBigUInt64BE(written, 1)
  bytes.writeBigUInt64BE(flushed, 9)
  bytes.writeBigInt64BE(BigInt(now) * 1000n - unixMicroseconds(0n), 25)
  bytes[33] = wantsReply ? 1 : 0
  return bytes
}

function tickStream(stream: Stream): void {
  const { clock, timing } = stream
  const now = clock.elapsed()
  if (stream.serverEnd > 0n) stream.onServerEnd(stream.serverEnd)
  if (now - stream.heardAt >= timing.silenceMs)
    guarded(stream, () => {
      throw new Failure(
        'source.failed',
        `Cannot receive log: the server says nothing for ${timing.silenceMs} ms`,
      )
    })
  else if (now - Math.max(stream.markAt, stream.askedAt) >= timing.markMs) sendStatus(stream, true)
}

/** The server has no more of this timeline, or answers our own end. */
function endCopy(stream: Stream): void {
  syncStream(stream)
  if (!stream.signal.aborted) sendCopyDone(stream.replication)
}

function stopStream(stream: Stream): void {
  guarded(stream, () => syncStream(stream))
  const { socket } = stream.replication
  if (stream.broken !== undefined || socket.destroyed) return
  sendCopyDone(stream.replication)
  setTimeout(() => socket.destroy(), FAREWELL_MS).unref()
}
