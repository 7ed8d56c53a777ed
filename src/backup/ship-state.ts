/**
 * What a shipper remembers between runs, in `shipper.json` beside the spool: its id, and by branch what it
 * put last. The file may be behind after a crash; then the objects with the next numbers are in the store,
 * and are taken over from there. Without the file a spool becomes a new shipper and ships all it holds.
 */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'
import { assert, describeError, errnoOf, Failure } from '../base/failure.ts'
import { randomHex } from '../base/random.ts'
import { logName, parseLogName, type LogPiecePlace } from '../format/log-header.ts'
import type { StoredLogHeader } from '../format/log-segment.ts'
import { isDamage, isUnreadable } from '../repo/damage.ts'
import type { Access } from '../repo/keys.ts'
import type { PutPiece } from '../repo/log-writer.ts'
import { readLogHeader } from '../repo/logs.ts'

interface Chain {
  /** Of the next object. */
  readonly seq: number
  readonly previous: string | null
}

export interface BranchState {
  readonly branch: string
  /** Whole segments are stored up to here. */
  merged: bigint
  /** With tails, up to here; never before `merged`. */
  shipped: bigint
  segment: Chain
  tail: Chain
  /** Stored tails that are not deleted yet. */
  tails: PutPiece[]
  /** Stored segments that may cover some of them; with nothing to cover the newest one that is not empty. */
  whole: PutPiece[]
  /** Monotonic milliseconds of this process of the flush that last put something. */
  toldAt: number
  /** Wall clock of the newest piece, and of the newest segment. */
  toldTime: number
  mergedTime: number
}

export interface ShipState {
  shipper: string
  /** `<domain>/<source>` of the objects. */
  readonly domain: string
  readonly source: string
  readonly branches: Map<string, BranchState>
  /** `<branch>/<name>` of the files that are stored. */
  readonly files: Set<string>
  /** The file on the disk says what this record says. */
  isSaved: boolean
}

const FILE = 'shipper.json'
const SHIPPER_BYTES = 8
const NO_CHAIN: Chain = { seq: 1, previous: null }

const position = z
  .string()
  .regex(/^\d{1,20}$/)
  .transform(BigInt)
const chain = z.object({ seq: z.int().min(1), previous: z.string().nullable() })
const shipperId = z.string().regex(/^[0-9a-f]{16}$/)
const piece = z.object({
  shipper: shipperId,
  seq: z.int().min(1),
  from: position,
  to: position,
  bytes: z.int().min(0),
})
const shape = z.object({
  shipper: shipperId,
  domain: z.string(),
  source: z.string(),
  branches: z.array(
    z.object({
      branch: z.string(),
      merged: position,
      shipped: position,
      segment: chain,
      tail: chain,
      tails: z.array(piece),
      whole: z.array(piece),
      toldTime: z.number(),
      mergedTime: z.number(),
    }),
  ),
})

/** A branch of which nothing was put yet. */
export function beginBranch(branch: string, from: bigint, now: number): BranchState {
  return {
    branch,
    merged: from,
    shipped: from,
    segment: NO_CHAIN,
    tail: NO_CHAIN,
    tails: [],
    whole: [],
    toldAt: -Infinity,
    toldTime: now,
    mergedTime: now,
  }
}

/**
 * Writes the file anew, durably: after a crash it is one put behind at most. On a full disk it stays as it is
 * (`isSaved`), since shipping is what makes room. Fails: host.file.
 */
export function saveShipState(spool: string, state: ShipState): void {
  const path = join(spool, FILE)
  const pieceOf = ({ place, from, to, bytes }: PutPiece): object => {
    assert(place.kind !== 'file', 'pieces are remembered, not files')
    const { shipper, seq } = place
    return { shipper, seq, from: `${from}`, to: `${to}`, bytes }
  }
  const branches = Array.from(state.branches.values(), (branch) => ({
    ...branch,
    merged: `${branch.merged}`,
    shipped: `${branch.shipped}`,
    tails: branch.tails.map(pieceOf),
    whole: branch.whole.map(pieceOf),
    toldAt: undefined,
  }))
  const { shipper, domain, source } = state
  state.isSaved = false
  try {
    writeSynced(`${path}.new`, JSON.stringify({ shipper, domain, source, branches }))
    renameSync(`${path}.new`, path)
    syncFolder(spool)
    state.isSaved = true
  } catch (error) {
    if (['ENOSPC', 'EDQUOT'].includes(errnoOf(error) ?? '')) return
    throw new Failure('host.file', `Cannot write "${path}": ${describeError(error)}`, { cause: error })
  }
}

function writeSynced(path: string, text: string): void {
  const fd = openSync(path, 'w', 0o600)
  try {
    writeFileSync(fd, text)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
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

/** What the file says; the store may know more, takeOver() has to follow. Fails: host.file. */
export function readShipState(
  spool: string,
  of: { readonly domain: string; readonly source: string },
): ShipState {
  const path = join(spool, FILE)
  const none: ShipState = {
    ...of,
    shipper: randomHex(SHIPPER_BYTES),
    branches: new Map(),
    files: new Set(),
    isSaved: false,
  }
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return none
    throw new Failure('host.file', `Cannot read "${path}": ${describeError(error)}`, { cause: error })
  }
  const found = shape.safeParse(parseJson(text))
  // Of another domain or source, or damaged: another shipper takes nothing over from it.
  if (!found.success || found.data.domain !== of.domain || found.data.source !== of.source) return none
  const { shipper } = found.data
  const branches = found.data.branches.map(({ tails, whole, ...rest }): [string, BranchState] => {
    const pieceOf = (kind: LogPiecePlace['kind'], put: z.output<typeof piece>): PutPiece => {
      const { shipper: sender, seq, ...range } = put
      return { ...range, place: { kind, ...of, branch: rest.branch, shipper: sender, seq } }
    }
    const known = {
      ...rest,
      tails: tails.map((tail) => pieceOf('tail', tail)),
      whole: whole.map((segment) => pieceOf('segment', segment)),
      toldAt: -Infinity,
    }
    return [rest.branch, known]
  })
  return { ...none, shipper, branches: new Map(branches), isSaved: true }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined // cut short by a crash
  }
}

/**
 * Takes over what was put before the file could say so, for a branch that begins or all after a start; may be
 * called again after a failure. A damaged object
 * under the next number is left alone: numbers then begin anew, as those of a new shipper. Fails: storage.*,
 * key.revoked.
 */
export async function takeOver(
  access: Access,
  state: ShipState,
  branches: Iterable<BranchState>,
): Promise<void> {
  try {
    for (const known of branches) {
      await takeSegments(access, state, known)
      await takeTails(access, state, known)
    }
  } catch (error) {
    if (!isDamage(error) || isUnreadable(error) || error.code === 'storage.missing') throw error
    state.shipper = randomHex(SHIPPER_BYTES)
    for (const known of state.branches.values()) {
      known.segment = NO_CHAIN
      known.tail = NO_CHAIN
    }
  }
}

async function takeSegments(access: Access, state: ShipState, known: BranchState): Promise<void> {
  for (;;) {
    const place = placeOf(state, known, 'segment')
    const stat = await access.store.stat(logName(place))
    if (stat === undefined) return
    await takePiece(access, known, place, stat.bytes)
  }
}

/** Tails may be gone again, so that the next number may be taken and the one before it free: all are listed. */
async function takeTails(access: Access, state: ShipState, known: BranchState): Promise<void> {
  const next = placeOf(state, known, 'tail')
  const folder = logName(next).replace(/[^/]*$/, '')
  for await (const { name, bytes } of access.store.list(folder)) {
    const place = parseLogName(name)
    if (place?.kind === 'tail' && place.seq >= next.seq) await takePiece(access, known, place, bytes)
  }
}

function placeOf(
  { domain, source, shipper }: ShipState,
  known: BranchState,
  kind: LogPiecePlace['kind'],
): LogPiecePlace {
  return { kind, domain, source, branch: known.branch, shipper, seq: known[kind].seq }
}

async function takePiece(
  { store, config }: Access,
  known: BranchState,
  place: LogPiecePlace,
  objectBytes: number,
): Promise<void> {
  const object = { name: logName(place), bytes: objectBytes }
  notePut(known, place, await readLogHeader(store, config, object))
}

/** The piece with this header is stored. */
export function notePut(known: BranchState, place: LogPiecePlace, header: StoredLogHeader): void {
  const { from, to, sha256, completed, bytes } = header
  const put = { place, from, to, bytes }
  known[place.kind] = { seq: place.seq + 1, previous: sha256 }
  known.toldTime = completed
  if (to > known.shipped) known.shipped = to
  if (place.kind === 'tail') {
    known.tails.push(put)
  } else {
    known.merged = to
    known.mergedTime = completed
    known.whole.push(put)
  }
}
