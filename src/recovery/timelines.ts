/** The timelines of one cluster as far as its log is in the repository. */
import { isFailure, type Failure } from '../base/failure.ts'
import { isDamage } from '../repo/damage.ts'
import type { Access } from '../repo/keys.ts'
import { readLogFile } from '../repo/log-reader.ts'
import type { LogTable } from '../repo/log-table.ts'
import { listLogs, type LogList, type StoredLogFile } from '../repo/logs.ts'
import { parseHistory, type Lsn, type TimelineStep } from '../sources/postgres/lsn.ts'
import { historyFile, parseWalBranch } from '../sources/postgres/wal-branch.ts'

export interface Timelines {
  readonly systemId: string
  readonly tables: ReadonlyMap<number, LogTable>
  readonly histories: ReadonlyMap<number, { readonly text: string; readonly steps: readonly TimelineStep[] }>
}

export interface ClusterLog {
  readonly domain: string
  readonly source: string
  readonly systemId: string
}

/** Fails: repo.corrupt, source.failed (a history that is none), key.role, storage.*. */
export async function readTimelines(access: Access, of: ClusterLog): Promise<Timelines> {
  const { domain, source } = of
  return await timelinesOf(access, await listLogs(access, { domain, source }), of)
}

/**
 * The same from a list that is there. With `onBad` it is told of each history that cannot be read, which is
 * then not known; without it they fail as in readTimelines().
 */
export async function timelinesOf(
  access: Access,
  list: Pick<LogList, 'branches' | 'files'>,
  of: ClusterLog,
  onBad?: (file: StoredLogFile, failure: Failure) => void,
): Promise<Timelines> {
  const { domain, source, systemId } = of
  const tables = new Map<number, LogTable>()
  const histories = new Map<number, { text: string; steps: TimelineStep[] }>()
  for (const table of list.branches) {
    const branch = parseWalBranch(table.branch)
    if (table.domain === domain && table.source === source && branch?.systemId === systemId)
      tables.set(branch.timeline, table)
  }
  for (const file of list.files) {
    if (file.place.domain !== domain || file.place.source !== source) continue
    const branch = parseWalBranch(file.place.branch)
    if (branch?.systemId !== systemId || file.place.file !== historyFile(branch.timeline)) continue
    try {
      const text = Buffer.from((await readLogFile(access, file)).body).toString('utf8')
      histories.set(branch.timeline, { text, steps: parseHistory(branch.timeline, text) })
    } catch (error) {
      if (!isFailure(error) || onBad === undefined) throw error
      if (!TOLD.includes(error.code) && !isDamage(error)) throw error
      onBad(file, error)
    }
  }
  return { systemId, tables, histories }
}

/** Besides damage: the credential may not read, the text is no history. */
const TOLD: readonly string[] = ['key.role', 'source.failed']

/** The newest one that comes from where the backup ended. */
export function newestTimeline(known: Timelines, base: number, end: Lsn): number {
  const ids = [...known.tables.keys()].filter(
    (id) => id > base && leavesAt(known, id, base, end) !== undefined,
  )
  return Math.max(base, ...ids)
}

/** Where `timeline`, or one it comes from, has left `base`; undefined if it does not come from there. */
function leavesAt(known: Timelines, timeline: number, base: number, after: Lsn): Lsn | undefined {
  const step = known.histories.get(timeline)?.steps.find((each) => each.timeline === base)
  return step !== undefined && step.end >= after ? step.end : undefined
}
