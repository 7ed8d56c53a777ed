/**
 * What a shipper remembers between runs, in `shipper.json` beside the spool: its id, and by branch what it
 * put last. The file may be some puts behind after a crash; then the objects with the next numbers are in the
 * store, and are taken over from there. Without the file a spool becomes a new shipper and ships all it
 * holds.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'
import { describeError, errnoOf, Failure } from '../base/failure.ts'
import { randomHex } from '../base/random.ts'
import { logName, type LogPiecePlace } from '../format/log-header.ts'
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
  /** Stored tails that no segment covers yet. */
  tails: PutPiece[]
  /** The newest segment. */
  last: PutPiece | undefined
  /** Monotonic milliseconds of this process when something was last put. */
  toldAt: number
  /** Wall clock of the newest piece, and of the newest segment. */
  toldTime: number
  mergedTime: number
}

export interface ShipState {
  readonly shipper: string
  /** `<domain>/<source>` of the objects. */
  readonly domain: string
  readonly source: string
  readonly branches: Map<string, BranchState>
  /** `<branch>/<name>` of the files that are stored. */
  readonly files: Set<string>
}

const FILE = 'shipper.json'
const SHIPPER_BYTES = 8

const position = z
  .string()
  .regex(/^\d{1,20}$/)
  .transform(BigInt)
const chain = z.object({ seq: z.int().min(1), previous: z.string().nullable() })
const piece = z.object({ seq: z.int().min(1), from: position, to: position, bytes: z.int().min(0) })
const shape = z.object({
  shipper: z.string().regex(/^[0-9a-f]{16}$/),
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
      last: piece.optional(),
      toldTime: z.number(),
      mergedTime: z.number(),
    }),
  ),
})

/** Reads the file, and the store for what the file does not know. Fails: host.file, storage.*, repo.corrupt. */
export async function openShipState(
  access: Access,
  spool: string,
  of: { readonly domain: string; readonly source: string },
): Promise<ShipState> {
  const state = readState(spool, of)
  for (const branch of state.branches.values()) {
    await takeOver(access, state, branch, 'segment')
    await takeOver(access, state, branch, 'tail')
  }
  return state
}

/** The branch, as it is known or as it begins. */
export function branchState(
  state: ShipState,
  branch: string,
  begin: { readonly from: bigint; readonly now: number },
): BranchState {
  let known = state.branches.get(branch)
  if (known === undefined) {
    known = {
      branch,
      merged: begin.from,
      shipped: begin.from,
      segment: { seq: 1, previous: null },
      tail: { seq: 1, previous: null },
      tails: [],
      last: undefined,
      toldAt: -Infinity,
      toldTime: begin.now,
      mergedTime: begin.now,
    }
    state.branches.set(branch, known)
  }
  return known
}

/** Writes the file anew; not synced: see the head of this file. Fails: host.file. */
export function saveShipState(spool: string, state: ShipState): void {
  const path = join(spool, FILE)
  const pieceOf = ({ place, from, to, bytes }: PutPiece): object => ({
    seq: place.kind === 'file' ? 0 : place.seq,
    from: `${from}`,
    to: `${to}`,
    bytes,
  })
  const branches = Array.from(state.branches.values(), (branch) => ({
    ...branch,
    merged: `${branch.merged}`,
    shipped: `${branch.shipped}`,
    tails: branch.tails.map(pieceOf),
    last: branch.last && pieceOf(branch.last),
    toldAt: undefined,
  }))
  const { shipper, domain, source } = state
  try {
    writeFileSync(`${path}.new`, JSON.stringify({ shipper, domain, source, branches }), { mode: 0o600 })
    renameSync(`${path}.new`, path)
  } catch (error) {
    throw new Failure('host.file', `Cannot write "${path}": ${describeError(error)}`, { cause: error })
  }
}

function readState(spool: string, of: { readonly domain: string; readonly source: string }): ShipState {
  const path = join(spool, FILE)
  const none = { ...of, shipper: randomHex(SHIPPER_BYTES), branches: new Map(), files: new Set<string>() }
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
  const branches = found.data.branches.map(({ tails, last, ...rest }): [string, BranchState] => {
    const pieceOf = (kind: LogPiecePlace['kind'], { seq, ...range }: z.output<typeof piece>): PutPiece => ({
      ...range,
      place: { kind, ...of, branch: rest.branch, shipper, seq },
    })
    const known = {
      ...rest,
      tails: tails.map((tail) => pieceOf('tail', tail)),
      last: last && pieceOf('segment', last),
      toldAt: -Infinity,
    }
    return [rest.branch, known]
  })
  return { ...of, shipper, branches: new Map(branches), files: new Set() }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined // cut short by a crash
  }
}

/** Objects with the next numbers, which were put before the file could say so. */
async function takeOver(
  { store, config }: Access,
  state: ShipState,
  known: BranchState,
  kind: LogPiecePlace['kind'],
): Promise<void> {
  const { domain, source, shipper } = state
  for (;;) {
    const place: LogPiecePlace = { kind, domain, source, branch: known.branch, shipper, seq: known[kind].seq }
    const name = logName(place)
    const stat = await store.stat(name)
    if (stat === undefined) return
    const { from, to, sha256, completed, bytes } = await readLogHeader(store, config, {
      name,
      bytes: stat.bytes,
    })
    const put = { place, from, to, bytes }
    known[kind] = { seq: place.seq + 1, previous: sha256 }
    known.toldTime = completed
    if (to > known.shipped) known.shipped = to
    if (kind === 'tail') {
      known.tails.push(put)
    } else {
      known.merged = to
      known.mergedTime = completed
      known.last = put
    }
  }
}
