/** What a receiver of log asks a server before it streams: who it is, where it stands, what it keeps for us. */
import { assert, Failure, isFailure } from '../../base/failure.ts'
import { isSegmentBytes, parseHistory, parseLsn, type Lsn, type TimelineStep } from './lsn.ts'
import { runCommand, type Replication } from './replication.ts'
import type { LogPosition } from './spool.ts'

export interface ServerState {
  readonly systemId: string
  readonly timeline: number
  /** Up to here its log is on its disk. */
  readonly end: Lsn
  readonly segmentBytes: number
}

/** A physical replication slot: what keeps the server from removing log that we want. */
export interface SlotState {
  /** From here on log is kept. undefined: nothing is, or the server is too old to say. */
  readonly restart: LogPosition | undefined
  /** It was there, and the server says that it keeps nothing. */
  readonly isLost: boolean
}

/** SQLSTATEs that the receiver reads. */
export const STATE = {
  /** A segment of the log is not there any more. */
  undefinedFile: '58P01',
  /** Among other things: a slot that cannot be used any more. */
  notInState: '55000',
} as const

/** From this version on a server tells what a slot keeps. */
const TELLS_SLOTS = 150_000
const DUPLICATE_OBJECT = '42710'
const UNDEFINED_OBJECT = '42704'
const SLOT_NAME = /^[a-z0-9_]{1,63}$/
const SIZE = /^(-?[0-9]+) ?(B|kB|MB|GB|TB)?$/
const UNIT_BYTES: Readonly<Record<string, number>> = {
  B: 1,
  kB: 2 ** 10,
  MB: 2 ** 20,
  GB: 2 ** 30,
  TB: 2 ** 40,
}

/** Fails: source.failed. */
export async function identifyServer(replication: Replication): Promise<ServerState> {
  const [system] = await runCommand(replication, 'IDENTIFY_SYSTEM')
  const segmentBytes = await showBytes(replication, 'wal_segment_size')
  const [systemId, timeline, end] = system ?? []
  if (systemId === undefined || systemId === null || !isSegmentBytes(segmentBytes ?? 0))
    throw new Failure('source.failed', 'Cannot understand the server: it does not say which system it is')
  return { systemId, timeline: Number(timeline), end: parseLsn(end ?? ''), segmentBytes: segmentBytes! }
}

/** Whether it is a standby, which may be behind. Servers before version 14 do not say: no. */
export async function isStandby(replication: Replication): Promise<boolean> {
  try {
    const [row] = await runCommand(replication, 'SHOW in_hot_standby')
    return row?.[0] === 'on'
  } catch (error) {
    if (sqlStateOf(error) === UNDEFINED_OBJECT) return false
    throw error
  }
}

/** Makes the slot if it is missing; log from now on is kept then. Never drops one. Fails: source.failed. */
export async function ensureSlot(replication: Replication, slot: string): Promise<SlotState> {
  assert(SLOT_NAME.test(slot), 'a slot has a name that the server takes')
  const found = await readSlot(replication, slot)
  if (found !== undefined) return found
  const isNew = await createSlot(replication, slot)
  const made = await readSlot(replication, slot)
  if (made !== undefined) return isNew ? { ...made, isLost: false } : made
  return { restart: undefined, isLost: false }
}

/** undefined: there is none, or the server, before version 15, does not know the command. */
async function readSlot(replication: Replication, slot: string): Promise<SlotState | undefined> {
  // Asked first: an unknown command is taken for SQL, and refused as an internal error that says nothing.
  const [version] = await runCommand(replication, 'SHOW server_version_num')
  if (Number(version?.[0] ?? 0) < TELLS_SLOTS) return undefined
  const [row] = await runCommand(replication, `READ_REPLICATION_SLOT "${slot}"`)
  const [type, lsn, timeline] = row ?? []
  if (type === null || type === undefined) return undefined
  if (lsn === null || lsn === undefined) return { restart: undefined, isLost: true }
  return { restart: { timeline: Number(timeline), lsn: parseLsn(lsn) }, isLost: false }
}

/** Returns whether it was missing. */
async function createSlot(replication: Replication, slot: string): Promise<boolean> {
  try {
    await runCommand(replication, `CREATE_REPLICATION_SLOT "${slot}" PHYSICAL RESERVE_WAL`)
    return true
  } catch (error) {
    if (sqlStateOf(error) === DUPLICATE_OBJECT) return false
    throw error
  }
}

/** The history file of a timeline, as the server has it. Fails: source.failed. */
export async function fetchHistory(
  replication: Replication,
  timeline: number,
): Promise<{ text: string; steps: TimelineStep[] }> {
  const [row] = await runCommand(replication, `TIMELINE_HISTORY ${timeline}`)
  const text = row?.[1]
  if (typeof text !== 'string')
    throw new Failure('source.failed', `Cannot understand the server: timeline ${timeline} has no history`)
  return { text, steps: parseHistory(timeline, text) }
}

/** How much log slots keep on the server (max_slot_wal_keep_size); undefined: as much as its disk holds. */
export async function slotKeepBytes(replication: Replication): Promise<number | undefined> {
  const bytes = await showBytes(replication, 'max_slot_wal_keep_size')
  return bytes === undefined || bytes < 0 ? undefined : bytes
}

/** A size as the server shows it; without a unit only -1 and 0. */
async function showBytes(replication: Replication, setting: string): Promise<number | undefined> {
  const [row] = await runCommand(replication, `SHOW ${setting}`)
  const parts = SIZE.exec(row?.[0] ?? '')
  return parts === null ? undefined : Number(parts[1]) * (UNIT_BYTES[parts[2] ?? 'B'] ?? 1)
}

export function sqlStateOf(error: unknown): string | undefined {
  const state = isFailure(error, 'source.failed') ? error.facts['sqlstate'] : undefined
  return typeof state === 'string' ? state : undefined
}
