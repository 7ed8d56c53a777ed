/**
 * Ships a source's log: what the spool holds goes to the repository each second as a tail piece, and as whole
 * segments of 16 MiB as soon as there are so many; then the tail pieces they cover go. A store that does not
 * answer is waited for, while the spool grows.
 *
 * What was put is found again after a crash: ship-state.ts. A name is used once: what was sealed is kept and
 * put again until the store has it.
 */
import type { Clock } from '../base/clock.ts'
import { Failure, isFailure } from '../base/failure.ts'
import { LOG_SEGMENT_BYTES, logName, type LogPiecePlace, type LogPlace } from '../format/log-header.ts'
import { refuseRevoked, type Access } from '../repo/keys.ts'
import {
  deleteTails,
  openLogWriter,
  putLog,
  sealLog,
  type LogPiece,
  type LogWriter,
  type SealedLog,
} from '../repo/log-writer.ts'
import type { LogFeed, LogFeedState, LogSource, LogStretch } from '../sources/log-source.ts'
import { branchState, openShipState, saveShipState, type BranchState, type ShipState } from './ship-state.ts'

/** What people and `status` are told. */
export type ShipEvent = LogFeedState | { readonly kind: 'store'; readonly reason: string } | ShippedEvent

export interface ShippedEvent {
  readonly kind: 'shipped'
  readonly branch: string
  /** Durable in the repository up to here. */
  readonly to: bigint
  /** In the spool beyond that. */
  readonly behind: number
  readonly object: 'tail' | 'segment'
  readonly bytes: number
}

export interface ShipOptions {
  /** The folder of the spool: it must outlive restarts, and is no cache. */
  readonly spool: string
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onEvent: (event: ShipEvent) => void
  readonly timing?: Partial<ShipTiming>
}

export interface ShipTiming {
  readonly flushMs: number
  /** With nothing new, how often it is noted that there was nothing. */
  readonly idleMs: number
  readonly retryMsMin: number
  readonly retryMsMax: number
  /** The credential is looked at so often. */
  readonly revokedMs: number
}

interface Shipper {
  readonly access: Access
  readonly source: LogSource
  readonly options: ShipOptions
  readonly timing: ShipTiming
  readonly writer: LogWriter
  readonly feed: LogFeed
  readonly state: ShipState
  /** Sealed and not known to be stored. */
  sealed: { readonly log: SealedLog; readonly branch: BranchState } | undefined
  wake: (() => void) | undefined
  isAwake: boolean
  lastFlush: number
  lastLook: number
  /** Why the receiving ended. */
  ended: { readonly error: unknown } | undefined
}

const TIMING: ShipTiming = {
  flushMs: 1000,
  idleMs: 60_000,
  retryMsMin: 1000,
  retryMsMax: 30_000,
  revokedMs: 60_000,
}
/** A quiet log is merged when it has so many pieces: four minutes. */
const TAILS_MAX = 240
const SEGMENT_BYTES = BigInt(LOG_SEGMENT_BYTES)
const LAST_FLUSH_MS = 10_000
const NO_BYTES = new Uint8Array(0)
const OF_FILE = { from: 0n, notes: NO_BYTES, previous: null, begun: Infinity } as const

/**
 * Runs until the signal; what is durable in the spool by then is in the repository when it resolves, if the
 * store takes it. Fails: source.gap, source.foreign, source.diverged, key.*, repo.busy, host.file,
 * storage.exists.
 */
export async function ship(access: Access, source: LogSource, options: ShipOptions): Promise<void> {
  const writer = await openLogWriter(access)
  const hands = { wake: (): void => undefined }
  const feed = source.open(options.spool, { onMore: () => hands.wake(), onState: options.onEvent })
  try {
    const of = { domain: writer.domain, source: source.name }
    const shipper: Shipper = {
      access,
      source,
      options,
      timing: { ...TIMING, ...options.timing },
      writer,
      feed,
      state: await openShipState(access, options.spool, of),
      sealed: undefined,
      wake: undefined,
      isAwake: true,
      lastFlush: -Infinity,
      lastLook: options.clock.elapsed(),
      ended: undefined,
    }
    hands.wake = () => wake(shipper)
    await runShipper(shipper)
  } finally {
    feed.close()
  }
}

async function runShipper(shipper: Shipper): Promise<void> {
  const { feed, options } = shipper
  const stop = new AbortController()
  const onAbort = (): void => {
    stop.abort()
    wake(shipper)
  }
  options.signal.addEventListener('abort', onAbort, { once: true })
  if (options.signal.aborted) onAbort()
  const receiving = feed.run(stop.signal).then(
    () => endReceiving(shipper, undefined),
    (error: unknown) => endReceiving(shipper, error),
  )
  try {
    while (shipper.ended === undefined) {
      await nextFlush(shipper)
      await flush(shipper, options.signal)
    }
    if (options.signal.aborted) await flush(shipper, AbortSignal.timeout(LAST_FLUSH_MS))
    else await flush(shipper, options.signal)
  } finally {
    stop.abort()
    options.signal.removeEventListener('abort', onAbort)
    await receiving
  }
  if (shipper.ended?.error !== undefined) throw shipper.ended.error
}

function endReceiving(shipper: Shipper, error: unknown): void {
  shipper.ended = { error }
  wake(shipper)
}

function wake(shipper: Shipper): void {
  shipper.isAwake = true
  shipper.wake?.()
}

/** Until there is something to do, and a second after the last time, or a whole segment is there. */
async function nextFlush(shipper: Shipper): Promise<void> {
  const { timing, options } = shipper
  for (;;) {
    if (shipper.ended !== undefined || hasSegment(shipper)) return
    const since = options.clock.elapsed() - shipper.lastFlush
    if (shipper.isAwake && since >= timing.flushMs) return
    await sleep(shipper, shipper.isAwake ? timing.flushMs - since : timing.idleMs)
    if (!shipper.isAwake && options.clock.elapsed() - shipper.lastFlush >= timing.idleMs) return
  }
}

function hasSegment({ feed, state }: Shipper): boolean {
  return feed.held().some(({ branch, to }) => {
    const known = state.branches.get(branch)
    return known !== undefined && to >= segmentEnd(known.merged)
  })
}

/** Ends early when there is more to do than there was. */
async function sleep(shipper: Shipper, milliseconds: number): Promise<void> {
  const wasAwake = shipper.isAwake
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, Math.max(1, milliseconds))
    shipper.wake = () => {
      if (wasAwake && shipper.ended === undefined && !hasSegment(shipper)) return
      clearTimeout(timer)
      resolve()
    }
  })
  shipper.wake = undefined
}

/** Puts what is held and not stored yet; waits for a store that does not answer until the signal. */
async function flush(shipper: Shipper, signal: AbortSignal): Promise<void> {
  const { timing, options } = shipper
  shipper.isAwake = false
  for (let pause = timing.retryMsMin; ; pause = Math.min(timing.retryMsMax, pause * 2)) {
    try {
      await flushOnce(shipper, signal)
      shipper.lastFlush = options.clock.elapsed()
      return
    } catch (error) {
      if (!isFailure(error) || !isPassing(error) || signal.aborted) {
        if (signal.aborted && isFailure(error)) return
        throw error
      }
      options.onEvent({ kind: 'store', reason: error.message })
      await pauseFor(pause, signal)
      if (signal.aborted) return
    }
  }
}

function isPassing({ code }: Failure): boolean {
  return code.startsWith('storage.') && code !== 'storage.exists'
}

async function pauseFor(milliseconds: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const end = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, milliseconds)
    signal.addEventListener('abort', end)
    if (signal.aborted) end()
  })
}

async function flushOnce(shipper: Shipper, signal: AbortSignal): Promise<void> {
  const { feed, options, timing, access, writer } = shipper
  if (options.clock.elapsed() - shipper.lastLook >= timing.revokedMs) {
    await refuseRevoked(access, writer.domain)
    shipper.lastLook = options.clock.elapsed()
  }
  if (shipper.sealed !== undefined) await putSealed(shipper, signal)
  await putFiles(shipper, signal)
  const held = feed.held()
  for (const [nth, stretch] of held.entries())
    await shipBranch(shipper, stretch, nth < held.length - 1, signal)
}

async function putFiles(shipper: Shipper, signal: AbortSignal): Promise<void> {
  const { feed, state, writer, source } = shipper
  for (const { branch, name, bytes } of feed.files()) {
    if (state.files.has(`${branch}/${name}`)) continue
    const place = { kind: 'file', domain: writer.domain, source: source.name, branch, file: name } as const
    // Another shipper of the same cluster may have put it.
    if ((await writer.store.stat(logName(place))) === undefined)
      await putLog(writer, seal(shipper, place, { ...OF_FILE, body: bytes }), { signal })
    state.files.add(`${branch}/${name}`)
  }
}

/** `isOver`: nothing more comes on this branch. */
async function shipBranch(
  shipper: Shipper,
  { branch, from, to }: LogStretch,
  isOver: boolean,
  signal: AbortSignal,
): Promise<void> {
  const { feed, state, options } = shipper
  const known = branchState(state, branch, { from, now: options.clock.now() })
  await dropTails(shipper, known)
  if (from > known.merged) {
    const is = `the spool begins at ${from}, and ${known.merged} is where the repository ends`
    throw new Failure('source.gap', `Cannot ship the log of "${shipper.source.name}" on: ${is}`)
  }
  for (let end = segmentEnd(known.merged); known.merged < to; end = segmentEnd(known.merged)) {
    if (to < end && !isOver && known.tails.length < TAILS_MAX) break
    await putPiece(shipper, known, { kind: 'segment', from: known.merged, to: end < to ? end : to }, signal)
    feed.release({ branch, at: known.merged })
  }
  const isQuiet = options.clock.elapsed() - known.toldAt >= shipper.timing.idleMs && feed.hasNews()
  if (to > known.shipped || isQuiet)
    await putPiece(shipper, known, { kind: 'tail', from: known.shipped, to }, signal)
}

/** Segments end at multiples of their size, whoever ships them. */
function segmentEnd(position: bigint): bigint {
  return (position / SEGMENT_BYTES + 1n) * SEGMENT_BYTES
}

async function putPiece(
  shipper: Shipper,
  known: BranchState,
  piece: { readonly kind: 'segment' | 'tail'; readonly from: bigint; readonly to: bigint },
  signal: AbortSignal,
): Promise<void> {
  const { feed, state, writer, source } = shipper
  const { kind, from, to } = piece
  const place: LogPiecePlace = {
    kind,
    domain: writer.domain,
    source: source.name,
    branch: known.branch,
    shipper: state.shipper,
    seq: known[kind].seq,
  }
  const body = to > from ? feed.read({ branch: known.branch, from, to }) : NO_BYTES
  const notes = feed.notes({ branch: known.branch, from, to })
  const begun = kind === 'tail' ? known.toldTime : known.mergedTime
  const log = seal(shipper, place, { from, body, notes, previous: known[kind].previous, begun })
  shipper.sealed = { log, branch: known }
  await putSealed(shipper, signal)
}

async function putSealed(shipper: Shipper, signal: AbortSignal): Promise<void> {
  const { sealed, writer, options, state } = shipper
  if (sealed === undefined) return
  const { log, branch } = sealed
  await putLog(writer, log, { signal })
  shipper.sealed = undefined
  const { place, from, to, bytes, sha256 } = log.header
  if (place.kind === 'file') return
  const put = { place, from, to, bytes }
  branch[place.kind] = { seq: place.seq + 1, previous: sha256 }
  branch.toldAt = options.clock.elapsed()
  branch.toldTime = log.header.completed
  if (to > branch.shipped) branch.shipped = to
  if (place.kind === 'tail') {
    branch.tails.push(put)
  } else {
    branch.merged = to
    branch.mergedTime = log.header.completed
    branch.last = put
  }
  saveShipState(options.spool, state)
  const end = shipper.feed.held().find((stretch) => stretch.branch === branch.branch)?.to ?? to
  const behind = Number(end - branch.shipped)
  options.onEvent({ kind: 'shipped', branch: branch.branch, to, behind, object: place.kind, bytes })
  if (place.kind === 'segment') await dropTails(shipper, branch)
}

/** Tails never reach beyond the segment that is put next: it covers them all. */
async function dropTails({ writer, state, options }: Shipper, branch: BranchState): Promise<void> {
  const { tails, last } = branch
  if (last === undefined || tails.length === 0) return
  const covered = tails.filter(({ from, to }) => from >= last.from && to <= last.to)
  await deleteTails(writer, covered, [last])
  branch.tails = tails.filter((tail) => !covered.includes(tail))
  saveShipState(options.spool, state)
}

function seal(
  { writer, source, options }: Shipper,
  place: LogPlace,
  piece: Pick<LogPiece, 'from' | 'body' | 'notes' | 'previous' | 'begun'>,
): SealedLog {
  const completed = options.clock.now()
  const begun = Math.min(piece.begun, completed)
  return sealLog(writer, { ...piece, place, sourceKind: source.kind, begun, completed })
}
