/**
 * The objects of a shipped log: makes and seals a piece, puts it, remembers it, removes the tails that a
 * segment covers. When which piece is due is ship.ts.
 */
import type { Clock } from '../base/clock.ts'
import { Failure, isFailure } from '../base/failure.ts'
import { logName, type LogPiecePlace, type LogPlace } from '../format/log-header.ts'
import { logContentId } from '../format/log-segment.ts'
import type { Access } from '../repo/keys.ts'
import { coverage } from '../repo/log-coverage.ts'
import { deleteTails, putLog, sealLog, sealLogInSteps } from '../repo/log-writer.ts'
import type { LogPiece, LogRoom, LogWriter, PutPiece, SealedLog } from '../repo/log-writer.ts'
import { readLogHeader } from '../repo/logs.ts'
import type { LogFeed, LogFile, LogSource } from '../sources/log-source.ts'
import { notePut, saveShipState, type BranchState, type ShipState } from './ship-state.ts'

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

/** What putting takes. */
export interface PieceShipper {
  access: Access
  writer: LogWriter
  readonly source: LogSource
  readonly feed: LogFeed
  /** The folder of the spool. */
  readonly spool: string
  readonly clock: Clock
  readonly state: ShipState
  readonly onShipped: (event: ShippedEvent) => void
  /** Holds what was sealed. */
  readonly room: LogRoom
  /** Sealed and not known to be stored. */
  sealed: { readonly log: SealedLog; readonly branch: BranchState } | undefined
  /** Its run has ended while a call hung: when that comes back, nothing more is done. */
  isLeftBehind: boolean
}

const NO_BYTES = new Uint8Array(0)
const OF_FILE = { from: 0n, notes: NO_BYTES, previous: null, begun: Infinity } as const

/**
 * Stores the files that are held and not known to be stored. Fails: source.diverged (another one has the
 * name), storage.*.
 */
export async function putFiles(shipper: PieceShipper, signal: AbortSignal): Promise<void> {
  const { feed, state } = shipper
  for (const file of feed.files()) {
    const key = `${file.branch}/${file.name}`
    if (state.files.has(key)) continue
    await putFile(shipper, file, signal)
    state.files.add(key)
  }
}

/** Another shipper of the same source may have put it. */
async function putFile(shipper: PieceShipper, file: LogFile, signal: AbortSignal): Promise<void> {
  const { access, writer, source } = shipper
  const { branch, bytes } = file
  const place = { kind: 'file', domain: writer.domain, source: source.name, branch, file: file.name } as const
  const name = logName(place)
  const stat = await writer.store.stat(name)
  refuseLeftBehind(shipper)
  if (stat === undefined) {
    await putLog(writer, sealLog(writer, { ...headOf(shipper, place, OF_FILE), body: bytes }), { signal })
    return
  }
  let content: string
  try {
    content = (await readLogHeader(writer.store, access.config, { name, bytes: stat.bytes })).content
  } catch (error) {
    // The check finds it; the log itself must go on.
    if (isFailure(error, 'repo.corrupt')) return
    throw error
  }
  if (content === logContentId(writer.idKey, [bytes])) return
  const is = `the repository has another ${file.name} of ${branch}`
  throw new Failure('source.diverged', `Cannot ship the log of "${source.name}": ${is}`, { facts: { name } })
}

/** Makes the next piece of the branch, and puts it. Fails: as putSealed(), host.file. */
export async function putPiece(
  shipper: PieceShipper,
  known: BranchState,
  piece: { readonly kind: 'segment' | 'tail'; readonly from: bigint; readonly to: bigint },
  signal: AbortSignal,
): Promise<void> {
  refuseLeftBehind(shipper)
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
  const notes = feed.notes({ branch: known.branch, from, to })
  const begun = kind === 'tail' ? known.toldTime : known.mergedTime
  const head = headOf(shipper, place, { from, notes, previous: known[kind].previous, begun })
  let at = from
  const read = (bytes: number): Uint8Array => {
    refuseLeftBehind(shipper)
    const start = at
    at += BigInt(bytes)
    return feed.read({ branch: known.branch, from: start, to: at })
  }
  // The receiver needs this thread too: a segment at once would keep it from syncing.
  const log = await sealLogInSteps(writer, head, { bytes: Number(to - from), read }, shipper.room)
  shipper.sealed = { log, branch: known }
  await putSealed(shipper, signal)
}

/** Puts what was sealed last until it is stored. Fails: storage.*, host.file. */
export async function putSealed(shipper: PieceShipper, signal: AbortSignal): Promise<void> {
  const { sealed, writer, state, feed, spool } = shipper
  if (sealed === undefined) return
  const { log, branch } = sealed
  await putLog(writer, log, { signal })
  refuseLeftBehind(shipper)
  shipper.sealed = undefined
  const { place, to, bytes } = log.header
  if (place.kind === 'file') return
  notePut(branch, place, log.header)
  saveShipState(spool, state)
  const end = feed.held().find((stretch) => stretch.branch === branch.branch)?.to ?? to
  const behind = end > branch.shipped ? Number(end - branch.shipped) : 0
  const at = { branch: branch.branch, to: branch.shipped, behind }
  shipper.onShipped({ kind: 'shipped', ...at, object: place.kind, bytes })
  if (place.kind === 'segment') await dropTails(shipper, branch)
}

/**
 * Deletes the tails that stored segments cover. Not while the state cannot be written: numbers of tails that
 * are gone must not be used again. Fails: storage.*, repo.corrupt.
 */
export async function dropTails(shipper: PieceShipper, branch: BranchState): Promise<void> {
  const { writer, state, spool } = shipper
  const { whole } = branch
  const stretches = coverage(whole)
  const isCovered = ({ from, to }: PutPiece): boolean =>
    from < to
      ? stretches.some((range) => range.from <= from && to <= range.to)
      : whole.some((segment) => isMarkedBy(segment, from))
  const covered = branch.tails.filter(isCovered)
  if (covered.length > 0) {
    if (!state.isSaved) saveShipState(spool, state)
    if (!state.isSaved) return
    await deleteTails(writer, covered, whole)
    refuseLeftBehind(shipper)
    branch.tails = branch.tails.filter((tail) => !covered.includes(tail))
  }
  branch.whole = whole.filter(({ from, to }) => to > from).slice(-1)
  if (covered.length > 0) saveShipState(spool, state)
}

/** A tail without positions comes after the segment that ends there: the next one has its notes. */
function isMarkedBy({ from, to }: PutPiece, position: bigint): boolean {
  return from <= position && (position < to || from === to)
}

/** Fails: cancelled, once nobody waits any more. */
function refuseLeftBehind({ isLeftBehind, source }: PieceShipper): void {
  if (isLeftBehind) throw new Failure('cancelled', `Stopped shipping the log of "${source.name}"`)
}

function headOf(
  { source, clock }: PieceShipper,
  place: LogPlace,
  piece: Pick<LogPiece, 'from' | 'notes' | 'previous' | 'begun'>,
): Omit<LogPiece, 'body'> {
  const completed = clock.now()
  const begun = Math.min(piece.begun, completed)
  return { ...piece, place, sourceKind: source.kind, begun, completed }
}
