/**
 * Chooses the server of a base backup where a standby is preferred (`prefer: standby`), so that reading all
 * of the data does not slow the primary. `target_session_attrs` is for the log and plays no part here.
 */
import { describeError, isFailure } from '../../base/failure.ts'
import { lookByCommands, noServer } from './connect.ts'
import { shownPlace } from './log-in.ts'
import { parseLsn, type Lsn } from './lsn.ts'
import {
  closeReplication,
  openReplication,
  runCommand,
  type Replication,
  type ServerPlace,
} from './replication.ts'
import type { ServerTarget } from './server-place.ts'
import { closeSql, openSql, runSql } from './sql-session.ts'

/** A server that answered. */
interface Candidate {
  readonly replication: Replication
  readonly isStandby: boolean
  readonly systemId: string
  /** What it has of the log: a standby what it has replayed, or received where it may not be asked by SQL. */
  readonly position: Lsn
}

/** Log that a standby may be behind its primary: 16 segments of the usual size. */
const STANDBY_BEHIND_BYTES_MAX = 256 * 1024 * 1024

/**
 * The first standby that is of the cluster of the primary and close behind it; where no primary answers, the
 * first standby; else the primary, and `warn` is told why. End with closeReplication(). Fails: source.failed.
 */
export async function connectStandby(
  target: ServerTarget,
  warn: (text: string) => void,
): Promise<Replication> {
  const candidates: Candidate[] = []
  const problems: unknown[] = []
  let chosen: Replication | undefined
  try {
    for (const place of target.places) {
      try {
        candidates.push(await meetServer(place, target.database))
      } catch (error) {
        if (!isFailure(error, 'source.failed')) throw error
        problems.push(error)
      }
    }
    const primary = candidates.find(({ isStandby }) => !isStandby)
    const standbys = candidates.filter(({ isStandby }) => isStandby)
    const unfit = (standby: Candidate): string | undefined => misfit(standby, primary)
    chosen = (standbys.find((standby) => unfit(standby) === undefined) ?? primary)?.replication
    if (chosen === undefined) throw noServer(target.places.length, problems)
    if (chosen === primary?.replication) {
      const reasons = [...problems.map(describeError), ...standbys.map((standby) => unfit(standby) ?? '')]
      const why = reasons.length === 0 ? 'none of its servers is a standby' : reasons.join('; ')
      warn(`backs up the primary ${shownPlace(chosen.place)}, not a standby: ${why}`)
    }
    return chosen
  } finally {
    for (const { replication } of candidates) if (replication !== chosen) closeReplication(replication)
  }
}

/** Why a standby will not do. */
function misfit(standby: Candidate, primary: Candidate | undefined): string | undefined {
  if (primary === undefined) return undefined
  const shown = `the standby ${shownPlace(standby.replication.place)}`
  if (standby.systemId !== primary.systemId)
    return `${shown} is of another cluster (system id ${standby.systemId}, the primary's ${primary.systemId})`
  const behind = primary.position - standby.position
  if (behind <= STANDBY_BEHIND_BYTES_MAX) return undefined
  return `${shown} is ${behind} bytes of log behind (at most ${STANDBY_BEHIND_BYTES_MAX})`
}

async function meetServer(place: ServerPlace, database: string): Promise<Candidate> {
  const replication = await openReplication(place)
  try {
    const { isStandby } = await lookByCommands(replication)
    const [system] = await runCommand(replication, 'IDENTIFY_SYSTEM')
    const said = parseLsn(system?.[2] ?? '')
    const position = isStandby ? ((await replayedBy(place, database)) ?? said) : said
    return { replication, isStandby, systemId: system?.[0] ?? '', position }
  } catch (error) {
    closeReplication(replication)
    throw error
  }
}

/** How far a standby has replayed; undefined: it refuses SQL. The replication protocol does not tell it. */
async function replayedBy(place: ServerPlace, database: string): Promise<Lsn | undefined> {
  try {
    const session = await openSql(place, database)
    try {
      const [row] = await runSql(session, 'select pg_last_wal_replay_lsn()')
      return typeof row?.[0] === 'string' ? parseLsn(row[0]) : undefined
    } finally {
      await closeSql(session)
    }
  } catch (error) {
    if (!isFailure(error, 'source.failed')) throw error
    return undefined
  }
}
