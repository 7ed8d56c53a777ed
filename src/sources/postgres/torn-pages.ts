/**
 * Tells torn pages from damaged ones. A page that the server wrote while it was read comes half old and half
 * new, and its checksum is wrong; recovery mends it, since the log of the backup holds the whole page. So a
 * page that this log touches is no damage. The server itself would read the page again (basebackup.c); over
 * the wire the log is the witness, and it is only read when there is something to be told.
 */
import type { DamagedPages } from '../source.ts'
import { formatLsn, segmentStart, type Lsn } from './lsn.ts'
import { runCommand, sendCopyDone, type Replication } from './replication.ts'
import { feedWal, newWalReader, type OnRecord } from './wal-reader.ts'
import { decodeRecord, newWalRecord } from './wal-record.ts'

export interface BackupLog {
  /** A slot that keeps it. */
  readonly slot: string
  readonly timeline: number
  readonly start: Lsn
  readonly end: Lsn
  readonly segmentBytes: number
  readonly major: number
}

/** Where a file of a relation lies in the server's numbers. */
export interface RelationFile {
  readonly database: number
  readonly relation: number
  /** Number of its first page in the relation. */
  readonly firstBlock: number
}

const KIND_LOG = 0x77
const LOG_HEADER_BYTES = 25
const MAIN_FORK = 0
const INIT_FORK = 3

/**
 * What of `damaged` the log between does not mend. The connection must be idle; it is afterwards. Fails:
 * source.failed.
 */
export async function withoutTornPages(
  replication: Replication,
  log: BackupLog,
  damaged: readonly (DamagedPages & { readonly file: RelationFile })[],
): Promise<DamagedPages[]> {
  if (damaged.length === 0) return []
  const touched = new Set<string>()
  const wanted = new Set(damaged.map(({ file }) => `${file.database}/${file.relation}`))
  await readLog(replication, log, (database, relation, block) => {
    const key = `${database}/${relation}`
    if (wanted.has(key)) touched.add(`${key}/${block}`)
  })
  return damaged.flatMap(({ path, pages, file }) => {
    const { database, relation, firstBlock } = file
    const left = pages.filter((page) => !touched.has(`${database}/${relation}/${firstBlock + page}`))
    return left.length === 0 ? [] : [{ path, pages: left }]
  })
}

async function readLog(
  replication: Replication,
  log: BackupLog,
  onBlock: (database: number, relation: number, block: number) => void,
): Promise<void> {
  const { slot, timeline, start, end, segmentBytes, major } = log
  const record = newWalRecord()
  const onRecord: OnRecord = (bytes, at, length) => {
    decodeRecord(record, bytes, { at, length }, major)
    for (const { database, relation, fork, block } of record.blocks.slice(0, record.blockCount))
      if (fork === MAIN_FORK || fork === INIT_FORK) onBlock(database, relation, block)
  }
  const from = segmentStart(start, segmentBytes)
  const reader = newWalReader({ from, segmentBytes, checkCrc: true, onRecord })
  let hasEnded = false
  const sql = `START_REPLICATION SLOT ${slot} PHYSICAL ${formatLsn(from)} TIMELINE ${timeline}`
  await runCommand(replication, sql, {
    onData: (payload) => {
      if (hasEnded || payload[0] !== KIND_LOG) return
      feedWal(reader, payload.subarray(LOG_HEADER_BYTES))
      if (reader.next < end) return
      hasEnded = true
      sendCopyDone(replication)
    },
    onCopyDone: () => {
      // A timeline that ended meanwhile: the server waits for our word too.
      if (!hasEnded) sendCopyDone(replication)
      hasEnded = true
    },
  })
}
