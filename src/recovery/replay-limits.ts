/**
 * What a server that replays log needs as much of as the one that wrote it had: it fails at a prepared
 * transaction or a lock too many, and with hot standby at once (CheckRequiredParameterValues() in
 * xlogrecovery.c). The restored configuration may say less: it is older than the log, or the source had them
 * on its command line.
 */
import { parseControlFile, readReplayLimits, type ReplayLimits } from '../sources/postgres/control-file.ts'
import type { OnRecord } from '../sources/postgres/wal-reader.ts'
import { decodeRecord, MANAGER_AT, MANAGER_INFO, newWalRecord, RM } from '../sources/postgres/wal-record.ts'
import { isFailure } from '../base/failure.ts'
import { LIMITS_MARK, readAutoConf, writeAutoConf, type FileOwner } from './auto-conf.ts'
import { readConfigFile, settingsOf } from './read-settings.ts'

/** XLOG_PARAMETER_CHANGE */
const PARAMETER_CHANGE = 0x60
/** What counts where nothing is said. */
const USUAL: ReplayLimits = {
  max_connections: 100,
  max_worker_processes: 8,
  max_wal_senders: 10,
  max_prepared_transactions: 0,
  max_locks_per_transaction: 64,
}

export interface LimitsFinder {
  /** One for each time that they were changed. */
  readonly limits: ReplayLimits[]
  /** To be called with each record. */
  readonly look: OnRecord
}

export function newLimitsFinder(major: number): LimitsFinder {
  const limits: ReplayLimits[] = []
  const record = newWalRecord()
  const look: OnRecord = (bytes, at, length) => {
    if (bytes[at + MANAGER_AT] !== RM.xlog) return
    decodeRecord(record, bytes, { at, length }, major)
    if ((record.info & MANAGER_INFO) === PARAMETER_CHANGE) limits.push(readReplayLimits(bytes, record.mainAt))
  }
  return { limits, look }
}

/** Those of a backup, by its pg_control; none where that is of another version: its server will say. */
export function limitsOfControl(bytes: Buffer): ReplayLimits[] {
  try {
    return [parseControlFile(bytes).limits]
  } catch (error) {
    if (!isFailure(error, 'repo.corrupt')) throw error
    return []
  }
}

/** The largest of each. */
export function largestLimits(limits: readonly ReplayLimits[]): ReplayLimits {
  const names = Object.keys(USUAL) as (keyof ReplayLimits)[]
  const largest = names.map((name) => [name, Math.max(0, ...limits.map((each) => each[name]))])
  return Object.fromEntries(largest) as ReplayLimits
}

/**
 * Not synced. Raises in postgresql.auto.conf what is lower in the configuration of `folder`, a data folder,
 * raw. It stays when the server has recovered: prepared transactions do too. Fails: restore.failed.
 */
export function raiseLimits(folder: string, limits: ReplayLimits, owner: FileOwner): void {
  const auto = readAutoConf(folder, LIMITS_MARK)
  const known = new Map([...readConfigFile(folder), ...settingsOf(auto.lines)])
  const settings: Record<string, string> = {}
  for (const [name, usual] of Object.entries(USUAL)) {
    const needed = limits[name as keyof ReplayLimits]
    if (Number(known.get(name) ?? usual) < needed) settings[name] = String(needed)
  }
  if (Object.keys(settings).length > 0) writeAutoConf(folder, auto, { mark: LIMITS_MARK, settings }, owner)
}
