/**
 * Looks through the log that a restored copy would replay for what would reach out of the copy: a tablespace
 * made in it lies by its absolute path, and the server empties that folder before it fills it
 * (tablespace.c create_tablespace_directories). On the host of the source that would be the source's own.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { displayName, pathBytes } from '../base/file-entry.ts'
import { errnoOf, Failure, isFailure } from '../base/failure.ts'
import { formatLsn, parseLsn, parseSegmentName, type Lsn } from '../sources/postgres/lsn.ts'
import {
  feedWal,
  newWalReader,
  recordLsn,
  type OnRecord,
  type WalReader,
} from '../sources/postgres/wal-reader.ts'
import { decodeRecord, MANAGER_AT, MANAGER_INFO, newWalRecord, RM } from '../sources/postgres/wal-record.ts'
import { throwIfCancelled } from './check-threads.ts'
import type { RecoveryTarget } from './cluster-log.ts'

/** XLOG_TBLSPC_CREATE: number u32, path with a zero behind it. */
const CREATE = 0x00
const NUMBER_BYTES = 4
const READ_BYTES = 1024 * 1024
const START = /^START WAL LOCATION: ([0-9A-F]+\/[0-9A-F]+)/m

export interface MadeTablespace {
  /** Raw. */
  readonly place: string
  /** The record that makes it. */
  readonly lsn: Lsn
}

interface CopyLog {
  readonly major: number
  readonly segmentBytes: number
  readonly signal: AbortSignal | undefined
}

/**
 * Refuses a copy whose recovery to `target` (or to the end of what it has) would empty a folder of somebody
 * else. `own`, raw, are those that were restored with it to where they had been. Returns folders, raw, that
 * the server needs and does not make. Fails: restore.refused.
 */
export function refuseEmptying(
  made: readonly MadeTablespace[],
  of: {
    readonly major: number
    readonly own: readonly string[]
    readonly target: RecoveryTarget | undefined
  },
): string[] {
  const needed = new Set<string>()
  for (const { place, lsn } of made) {
    if (isBehind(lsn, of.target) || of.own.includes(place)) continue
    const state = stateOf(place, of.major)
    if (state === 'missing') needed.add(place)
    if (state !== 'used') continue
    const folder = displayName(place)
    const is = `the log makes a tablespace in "${folder}", which holds one: the server would first delete it`
    const early = `stop before it: --lsn ${formatLsn(lsn)} --exclusive`
    const hint = `Restore on another host, or ${early}; or remove it if it is not needed, and restore again.`
    throw new Failure('restore.refused', `Cannot make the cluster ready to start: ${is}`, { facts: { hint } })
  }
  return [...needed]
}

function isBehind(lsn: Lsn, target: RecoveryTarget | undefined): boolean {
  if (target === undefined) return false
  return target.isInclusive ? lsn > target.lsn : lsn >= target.lsn
}

/** The server empties only the folder of its own version. What cannot be looked at counts as used. */
function stateOf(place: string, major: number): 'free' | 'missing' | 'used' {
  try {
    const isUsed = readdirSync(pathBytes(place)).some((name) => name.startsWith(`PG_${major}_`))
    return isUsed ? 'used' : 'free'
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return errnoOf(error) === 'ENOENT' ? 'missing' : 'used'
  }
}

export interface TablespaceFinder {
  readonly made: MadeTablespace[]
  /** To be called with each record. */
  readonly look: OnRecord
}

/** Finds the records at or behind `start` that make a tablespace. */
export function newTablespaceFinder(major: number, start: Lsn): TablespaceFinder {
  const made: MadeTablespace[] = []
  const record = newWalRecord()
  const look: OnRecord = (bytes, at, length, reader) => {
    if (bytes[at + MANAGER_AT] !== RM.tablespace || recordLsn(reader) < start) return
    decodeRecord(record, bytes, { at, length }, major)
    if ((record.info & MANAGER_INFO) !== CREATE) return
    const text = bytes.toString('latin1', record.mainAt + NUMBER_BYTES, record.end)
    const place = text.slice(0, text.indexOf('\0'))
    // In the data folder itself (allow_in_place_tablespaces) it has none.
    if (place !== '') made.push({ place, lsn: recordLsn(reader) })
  }
  return { made, look }
}

/**
 * The tablespaces that the log of the stopped copy in `data`, a raw path, makes. What cannot be read of it is
 * for the server to say.
 */
export async function tablespacesMade(data: string, of: CopyLog): Promise<MadeTablespace[]> {
  const { major, segmentBytes, signal } = of
  const folder = join(data, 'pg_wal')
  const label = readFileSync(pathBytes(join(data, 'backup_label')), 'latin1')
  const { made, look } = newTablespaceFinder(major, parseLsn(START.exec(label)?.[1] ?? '0/0'))
  let reader: (WalReader & { readonly branch: number }) | undefined
  for (const name of readdirSync(pathBytes(folder)).toSorted()) {
    const segment = parseSegmentName(name, segmentBytes)
    if (segment === undefined) continue
    const { timeline, start: from } = segment
    if (reader === undefined || reader.branch !== timeline || reader.next !== from)
      reader = { ...newWalReader({ from, segmentBytes, checkCrc: false, onRecord: look }), branch: timeline }
    await feedFile(reader, join(folder, name), signal)
  }
  return made
}

async function feedFile(reader: WalReader, path: string, signal: AbortSignal | undefined): Promise<void> {
  const file = await open(pathBytes(path))
  try {
    const bytes = Buffer.allocUnsafe(READ_BYTES)
    for (;;) {
      throwIfCancelled(signal)
      const { bytesRead } = await file.read(bytes, 0, READ_BYTES)
      if (bytesRead === 0 || reader.endedAt !== undefined) return
      feedWal(reader, bytes.subarray(0, bytesRead))
    }
  } catch (error) {
    if (!isFailure(error, 'source.failed')) throw error
  } finally {
    await file.close()
  }
}
