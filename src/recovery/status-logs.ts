/**
 * Of a database's log in the repository: until when it is there. Times come from notes where they may be
 * read.
 */
import { isFailure } from '../base/failure.ts'
import { isDamage } from '../repo/damage.ts'
import type { HostFolder } from '../repo/host-folder.ts'
import type { Access } from '../repo/keys.ts'
import { readNotes } from '../repo/log-reader.ts'
import { segmentsOf, type LogSegment, type LogTable } from '../repo/log-table.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { formatLsn, type Lsn } from '../sources/postgres/lsn.ts'
import { decodeNotes } from '../sources/postgres/notes-codec.ts'
import { parseWalBranch, systemIdOf } from '../sources/postgres/wal-branch.ts'
import { listKnownLogs } from './known-logs.ts'
import { followLog } from './log-continuity.ts'

export interface LogStatus {
  readonly domain: string
  readonly timeline: number
  readonly lsn: Lsn
  /** Milliseconds: the log is complete until then, as far as it is known. */
  readonly until: number
  /** In words; undefined: from the latest snapshot on, or since it began, there is none. */
  readonly gap: string | undefined
}

/**
 * The newest log of each domain that has some of this source: of the cluster that its latest snapshot is of,
 * since no other can follow it. Fails: storage.*.
 */
export async function readLogStatus(
  access: Access,
  host: HostFolder,
  of: { readonly source: string; readonly latest: readonly StoredSnapshot[] },
): Promise<LogStatus[]> {
  const list = await listKnownLogs(access, host, { source: of.source })
  const found: LogStatus[] = []
  for (const [domain, tables] of Map.groupBy(list.branches, (table) => table.domain)) {
    const latest = of.latest.find((one) => one.domain === domain)
    const cluster = latest && systemIdOf(latest)
    const ofCluster = tables.filter(({ branch }) => parseWalBranch(branch)?.systemId === cluster)
    const newest = newestPiece(cluster === undefined ? tables : ofCluster)
    const branch = newest && parseWalBranch(newest.table.branch)
    if (newest === undefined || branch === undefined) continue
    const { table, piece, lsn } = newest
    const until = (await notedUntil(access, piece)) ?? piece.completed
    const gap = gapOf(tables, latest, { ...branch, table })
    found.push({ domain, timeline: branch.timeline, lsn, until, gap })
  }
  return found
}

/** What was stored last, and up to where its branch goes. */
function newestPiece(
  tables: readonly LogTable[],
): { table: LogTable; piece: LogSegment; lsn: Lsn } | undefined {
  let newest: { table: LogTable; piece: LogSegment; lsn: Lsn } | undefined
  for (const table of tables) {
    let lsn = 0n
    for (const piece of segmentsOf(table)) {
      if (piece.to > lsn) lsn = piece.to
      const { completed, to } = newest?.piece ?? { completed: -Infinity, to: 0n }
      if (piece.completed > completed || (piece.completed === completed && piece.to >= to))
        newest = { table, piece, lsn }
    }
    if (newest?.table === table) newest = { ...newest, lsn }
  }
  return newest
}

/** Its newest mark or commit; undefined when it has none, or the credential may not read it. */
async function notedUntil(access: Access, piece: LogSegment): Promise<number | undefined> {
  try {
    const bytes = await readNotes(access, piece)
    if (bytes.length === 0) return undefined
    const { marks, ends } = decodeNotes(bytes)
    const micros = [...marks.map(({ serverTime }) => serverTime), ...ends.map(({ at }) => at)]
    const last = micros.reduce((newest, at) => (at > newest ? at : newest), 0n)
    return last === 0n ? undefined : Number(last / 1000n)
  } catch (error) {
    if (isFailure(error, 'key.role') || isDamage(error)) return undefined
    throw error
  }
}

/** From the latest snapshot to the end of the log; histories are not read, so that it needs no key. */
function gapOf(
  tables: readonly LogTable[],
  latest: StoredSnapshot | undefined,
  { systemId, timeline, table }: { systemId: string; timeline: number; table: LogTable },
): string | undefined {
  const log = latest?.log
  const base = log && parseWalBranch(log.branch)
  const of = tables.find(({ branch }) => branch === log?.branch)
  const begin = segmentsOf(table).next().value
  const isOwn = log !== undefined && base?.systemId === systemId && of !== undefined
  if (!isOwn && begin === undefined) return undefined
  const known = { systemId, histories: new Map(), tables: new Map([[timeline, table]]) }
  const { gap } =
    isOwn && base !== undefined
      ? followLog(
          { ...known, tables: new Map([[base.timeline, of]]) },
          { ...base, lsn: BigInt(log.to), held: BigInt(log.held ?? log.to) },
        )
      : followLog(known, { timeline, lsn: begin?.from ?? 0n, held: begin?.from ?? 0n })
  if (gap === undefined) return undefined
  return `from ${formatLsn(gap.from)} to ${formatLsn(gap.to)} on timeline ${gap.timeline}`
}
