/**
 * Ships a source's log: what the spool holds goes to the repository each second as a tail piece, and as whole
 * segments of 16 MiB as soon as there are so many; then the tail pieces they cover go. A store that does not
 * answer is waited for, while the spool grows.
 *
 * What was put is found again after a crash: ship-state.ts. A name is used once: what was sealed is kept and
 * put again until the store has it. How a piece is made and put: ship-piece.ts.
 */
import type { Clock } from '../base/clock.ts'
import { Failure, isFailure } from '../base/failure.ts'
import { boundHeap, noteGarbage } from '../base/garbage.ts'
import { LOG_SEGMENT_BYTES } from '../format/log-header.ts'
import { openRepository, type Access } from '../repo/keys.ts'
import { describeRange } from '../repo/log-coverage.ts'
import { newLogRoom, openLogWriter } from '../repo/log-writer.ts'
import type { LogFeedState, LogSource, LogStretch } from '../sources/log-source.ts'
import {
  dropTails,
  putFiles,
  putPiece,
  putSealed,
  type PieceShipper,
  type ShippedEvent,
} from './ship-piece.ts'
import { beginBranch, readShipState, saveShipState, takeOver, type BranchState } from './ship-state.ts'

/** What people and `status` are told. */
export type ShipEvent = LogFeedState | { readonly kind: 'store'; readonly reason: string } | ShippedEvent

export interface ShipOptions {
  /** The folder of the spool: it must outlive restarts, and is no cache. */
  readonly spool: string
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onEvent: (event: ShipEvent) => void
  readonly timing?: Partial<ShipTiming>
  readonly sizes?: Partial<ShipSizes>
}

export interface ShipTiming {
  readonly flushMs: number
  /** With nothing new, how often it is noted that there was nothing. */
  readonly idleMs: number
  readonly retryMsMin: number
  readonly retryMsMax: number
  /** Whether the writer was revoked, or the epoch ended, is looked at so often. */
  readonly configMs: number
  /** When it ends, what is left is put for at most so long. */
  readonly lastMs: number
  /** Calls that go on after they were told to end are left behind after so long. */
  readonly hangMs: number
}

export interface ShipSizes {
  /** Segments end at multiples of it, whoever ships. */
  readonly segmentBytes: number
  /** A quiet log is merged when it has so many pieces. */
  readonly tailsMax: number
}

type ShipRules = ShipTiming & ShipSizes

interface Shipper extends PieceShipper {
  readonly options: ShipOptions
  readonly rules: ShipRules
  /** What was put before this run is known. */
  isTakenOver: boolean
  wake: (() => void) | undefined
  isAwake: boolean
  /** Of what is held, as it was told last. */
  lastEnd: bigint
  lastFlush: number
  lastLook: number
  /** Aborts with the signal, and when the receiving has ended. */
  readonly stop: AbortController
}

const RULES: ShipRules = {
  flushMs: 1000,
  idleMs: 60_000,
  retryMsMin: 1000,
  retryMsMax: 30_000,
  configMs: 60_000,
  lastMs: 10_000,
  hangMs: 2000,
  segmentBytes: LOG_SEGMENT_BYTES,
  tailsMax: 240,
}

/**
 * Runs until the signal; what is durable in the spool by then is in the repository when it resolves, if the
 * store takes it within `lastMs`. Fails: source.gap, source.foreign, source.diverged, key.*, repo.busy,
 * repo.corrupt, host.file, storage.exists.
 */
export async function ship(access: Access, source: LogSource, options: ShipOptions): Promise<void> {
  boundHeap()
  const writer = await openLogWriter(access)
  const hands = { wake: (): void => undefined }
  const feed = source.open(options.spool, { onMore: () => hands.wake(), onState: options.onEvent })
  try {
    const shipper: Shipper = {
      access,
      source,
      options,
      rules: { ...RULES, ...options.timing, ...options.sizes },
      writer,
      feed,
      spool: options.spool,
      clock: options.clock,
      state: readShipState(options.spool, { domain: writer.domain, source: source.name }),
      onShipped: options.onEvent,
      room: newLogRoom(),
      sealed: undefined,
      isLeftBehind: false,
      isTakenOver: false,
      wake: undefined,
      isAwake: true,
      lastEnd: 0n,
      lastFlush: -Infinity,
      lastLook: options.clock.elapsed(),
      stop: new AbortController(),
    }
    hands.wake = () => {
      noteReceived(shipper)
      wake(shipper)
    }
    await runShipper(shipper)
  } finally {
    feed.close()
  }
}

async function runShipper(shipper: Shipper): Promise<void> {
  const { feed, options, stop } = shipper
  const onAbort = (): void => endSoon(shipper)
  options.signal.addEventListener('abort', onAbort, { once: true })
  if (options.signal.aborted) onAbort()
  const receiving = feed.run(stop.signal).finally(() => endSoon(shipper))
  // It is awaited below; until then nobody hears of its failure.
  receiving.catch(() => undefined)
  try {
    while (!stop.signal.aborted) {
      await nextFlush(shipper)
      await flush(shipper, stop.signal)
    }
    await receiving.catch(() => undefined)
    // Also before a failure of the receiving is told; for both a store that hangs is not waited for.
    await flushLast(shipper)
  } finally {
    stop.abort()
    options.signal.removeEventListener('abort', onAbort)
    await receiving.catch(() => undefined)
  }
  await receiving
}

function endSoon(shipper: Shipper): void {
  shipper.stop.abort()
  wake(shipper)
}

async function flushLast(shipper: Shipper): Promise<void> {
  if (shipper.isLeftBehind) return
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(), shipper.rules.lastMs)
  try {
    await flush(shipper, late.signal)
  } finally {
    clearTimeout(timer)
  }
}

/** What came over the network lies in buffers that nobody needs any more. */
function noteReceived(shipper: Shipper): void {
  const end = shipper.feed.held().at(-1)?.to ?? 0n
  const bytes = Number(end - shipper.lastEnd)
  if (shipper.lastEnd > 0n && bytes > 0) noteGarbage(bytes)
  shipper.lastEnd = end
}

function wake(shipper: Shipper): void {
  shipper.isAwake = true
  shipper.wake?.()
}

/** Until there is something to do, and a second after the last time, or a whole segment is there. */
async function nextFlush(shipper: Shipper): Promise<void> {
  const { rules, options } = shipper
  for (;;) {
    if (isUrgent(shipper)) return
    const since = options.clock.elapsed() - shipper.lastFlush
    if (shipper.isAwake && since >= rules.flushMs) return
    await sleep(shipper, shipper.isAwake ? rules.flushMs - since : rules.idleMs)
    if (!shipper.isAwake && options.clock.elapsed() - shipper.lastFlush >= rules.idleMs) return
  }
}

function isUrgent({ stop, feed, state, rules }: Shipper): boolean {
  if (stop.signal.aborted) return true
  return feed.held().some(({ branch, to }) => {
    const known = state.branches.get(branch)
    return known !== undefined && to >= segmentEnd(rules, known.merged)
  })
}

/** Ends early when there is more to do than there was. */
async function sleep(shipper: Shipper, milliseconds: number): Promise<void> {
  const wasAwake = shipper.isAwake
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, Math.max(1, milliseconds))
    shipper.wake = () => {
      if (wasAwake && !isUrgent(shipper)) return
      clearTimeout(timer)
      resolve()
    }
  })
  shipper.wake = undefined
}

/**
 * Puts what is held and not stored yet; waits for a store that does not answer until the signal. Ends soon
 * after it even where a call of the store hangs.
 */
async function flush(shipper: Shipper, signal: AbortSignal): Promise<void> {
  const { rules, options } = shipper
  const { promise: hung, resolve } = Promise.withResolvers<void>()
  let timer: NodeJS.Timeout | undefined
  const onAbort = (): void => {
    timer = setTimeout(() => {
      shipper.isLeftBehind = true
      options.onEvent({ kind: 'store', reason: 'the store does not answer' })
      resolve()
    }, rules.hangMs)
  }
  signal.addEventListener('abort', onAbort, { once: true })
  if (signal.aborted) onAbort()
  try {
    await Promise.race([flushUntil(shipper, signal), hung])
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
  }
}

async function flushUntil(shipper: Shipper, signal: AbortSignal): Promise<void> {
  const { rules, options } = shipper
  for (let pause = rules.retryMsMin; !signal.aborted; pause = Math.min(rules.retryMsMax, pause * 2)) {
    shipper.isAwake = false
    shipper.lastFlush = options.clock.elapsed()
    try {
      await flushOnce(shipper, signal)
      return
    } catch (error) {
      if (!isFailure(error)) throw error
      if (signal.aborted && (isPassing(error) || error.code === 'cancelled')) return
      if (!isPassing(error)) throw error
      options.onEvent({ kind: 'store', reason: error.message })
      await pauseFor(pause, signal)
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
  const { feed, options, rules, access, state } = shipper
  if (options.clock.elapsed() - shipper.lastLook >= rules.configMs) await lookAtConfig(shipper)
  if (!shipper.isTakenOver) {
    await takeOver(access, state, state.branches.values())
    shipper.isTakenOver = true
  }
  if (shipper.sealed !== undefined) await putSealed(shipper, signal)
  await putFiles(shipper, signal)
  const held = feed.held()
  for (const [nth, stretch] of held.entries())
    await shipBranch(shipper, stretch, nth < held.length - 1, signal)
}

/** Follows the config: to a new epoch, and to the end if the writer was revoked. Fails: key.revoked. */
async function lookAtConfig(shipper: Shipper): Promise<void> {
  const { access, writer, source, options } = shipper
  const { store, credential, config, configSha256 } = access
  const now = await openRepository(store, credential, { known: { n: config.n, sha256: configSha256 } })
  const own = now.config.domains.find(({ id }) => id === writer.domain)?.writer
  if (own === undefined || own.revoked !== null) {
    const is = `its writer was revoked at ${own?.revoked ?? 'an unknown time'}`
    throw new Failure('key.revoked', `Cannot ship the log of "${source.name}" on: ${is}`)
  }
  if (now.config.n > config.n) {
    shipper.access = now
    shipper.writer = await openLogWriter(now)
  }
  shipper.lastLook = options.clock.elapsed()
}

/** `isOver`: nothing more comes on this branch. */
async function shipBranch(
  shipper: Shipper,
  { branch, from, to }: LogStretch,
  isOver: boolean,
  signal: AbortSignal,
): Promise<void> {
  const { feed, rules } = shipper
  const known = await knownBranch(shipper, branch, from)
  await dropTails(shipper, known)
  if (from > known.merged) {
    const range = describeRange({ from: known.merged, to: from })
    const is = `positions ${range} of ${branch} are neither in the spool nor in the repository as segments`
    throw new Failure('source.gap', `Cannot ship the log of "${shipper.source.name}" on: ${is}`)
  }
  // What a crash kept from being released.
  if (from < known.merged) feed.release({ branch, at: known.merged })
  for (;;) {
    const end = nextEnd(rules, known, to, isOver)
    if (end === undefined) break
    await putPiece(shipper, known, { kind: 'segment', from: known.merged, to: end }, signal)
    known.toldAt = shipper.lastFlush
    feed.release({ branch, at: known.merged })
  }
  if (isOver) return
  const isQuiet = shipper.lastFlush - known.toldAt >= rules.idleMs && feed.hasNews()
  const { shipped } = known
  if (to <= shipped && !isQuiet) return
  await putPiece(shipper, known, { kind: 'tail', from: shipped, to: to > shipped ? to : shipped }, signal)
  known.toldAt = shipper.lastFlush
}

async function knownBranch(shipper: Shipper, branch: string, from: bigint): Promise<BranchState> {
  const { access, state, spool, options } = shipper
  const known = state.branches.get(branch)
  if (known !== undefined) return known
  const begun = beginBranch(branch, from, options.clock.now())
  await takeOver(access, state, [begun])
  state.branches.set(branch, begun)
  // Before its first object: who is killed then finds that object again.
  saveShipState(spool, state)
  return begun
}

/**
 * Where the segment ends that is to be put now, if one is: at a multiple of the size whoever ships; earlier
 * where the branch ends, or where it is quiet and has many tails.
 */
function nextEnd(rules: ShipRules, known: BranchState, to: bigint, isOver: boolean): bigint | undefined {
  const { merged, shipped, tails, whole } = known
  const end = segmentEnd(rules, merged)
  if (to >= end) return end
  if (isOver) return to > merged ? to : undefined
  // Of tails without positions only what lies before them says that they are covered.
  const isCoverable = to > merged || (to === merged && whole.length > 0)
  return tails.length >= rules.tailsMax && to >= shipped && isCoverable ? to : undefined
}

function segmentEnd({ segmentBytes }: ShipRules, position: bigint): bigint {
  return (position / BigInt(segmentBytes) + 1n) * BigInt(segmentBytes)
}
