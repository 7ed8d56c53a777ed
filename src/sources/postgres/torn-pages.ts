/**
 * Tells torn pages from damaged ones. A page that the server wrote while it was read comes half old and half
 * new, and its checksum is wrong; recovery mends it, since the log of the backup holds the whole page. So a
 * page that this log touches is no damage. The server itself would read the page again (basebackup.c); over
 * the wire the log is the witness, and it is only read when there is something to be told.
 */
import { isFailure, type Failure } from '../../base/failure.ts'
import type { DamagedPages } from '../source.ts'
import { formatLsn, segmentStart, type Lsn } from './lsn.ts'
import { runCommand, sendCopyDone, sendData, type Replication } from './replication.ts'
import { feedWal, newWalReader, recordLsn, type OnRecord } from './wal-reader.ts'
import { decodeRecord, newWalRecord } from './wal-record.ts'
import { encodeStatus, KIND, LOG_HEADER_BYTES } from './wal-stream.ts'

export interface BackupLog {
  /** A slot that keeps it. */
  readonly slot: string
  readonly timeline: number
  readonly start: Lsn
  readonly end: Lsn
  readonly segmentBytes: number
  readonly major: number
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** What of the damage is left. */
export interface Judged {
  readonly damaged: readonly DamagedPages[]
  /** The log could not be read: some of these pages may only be torn. */
  readonly doubt?: Failure
}

/** Where a file of a relation lies in the server's numbers. */
export interface RelationFile {
  readonly database: number
  readonly relation: number
  /** The initial fork of an unlogged relation, else the main one. */
  readonly isInitial: boolean
  /** Number of its first page in the relation. */
  readonly firstBlock: number
}

const MAIN_FORK = 0
const INIT_FORK = 3

/**
 * What of `damaged` the log between does not mend. The connection must be idle; when there is doubt it is
 * closed. The backup is whole by now, so that nothing here fails it.
 */
export async function withoutTornPages(
  replication: Replication,
  log: BackupLog,
  damaged: readonly (DamagedPages & { readonly file: RelationFile })[],
): Promise<Judged> {
  if (damaged.length === 0) return { damaged }
  // What no record touches is left; a relation may have several files.
  const left = new Map<string, Set<number>>()
  for (const { pages, file } of damaged) {
    const blocks = left.get(keyOf(file)) ?? new Set()
    for (const page of pages) blocks.add(file.firstBlock + page)
    left.set(keyOf(file), blocks)
  }
  try {
    await readLog(replication, log, (file, block) => {
      left.get(keyOf(file))?.delete(block)
    })
  } catch (error) {
    if (!isFailure(error, 'source.failed')) throw error
    return { damaged, doubt: error }
  }
  return {
    damaged: damaged.flatMap(({ path, pages, more, file }) => {
      const its = pages.filter((page) => left.get(keyOf(file))?.has(file.firstBlock + page) === true)
      return its.length + more === 0 ? [] : [{ path, pages: its, more }]
    }),
  }
}

type FileKey = Omit<RelationFile, 'firstBlock'>

function keyOf({ database, relation, isInitial }: FileKey): string {
  return `${database}/${relation}/${isInitial}`
}

async function readLog(
  replication: Replication,
  log: BackupLog,
  onBlock: (file: FileKey, block: number) => void,
): Promise<void> {
  const { slot, timeline, start, end, segmentBytes, major } = log
  const record = newWalRecord()
  const onRecord: OnRecord = (bytes, at, length, reader) => {
    // Reading begins with a segment; recovery does not replay what lies before the backup.
    const lsn = recordLsn(reader)
    if (lsn < start || lsn >= end) return
    decodeRecord(record, bytes, { at, length }, major)
    for (const { database, relation, fork, block } of record.blocks.slice(0, record.blockCount))
      if (fork === MAIN_FORK || fork === INIT_FORK)
        onBlock({ database, relation, isInitial: fork === INIT_FORK }, block)
  }
  const from = segmentStart(start, segmentBytes)
  const reader = newWalReader({ from, segmentBytes, checkCrc: true, onRecord })
  let hasEnded = false
  const sql = `START_REPLICATION SLOT ${slot} PHYSICAL ${formatLsn(from)} TIMELINE ${timeline}`
  await runCommand(replication, sql, {
    onData: (payload) => {
      if (hasEnded) return
      if (payload[0] === KIND.keepalive && payload[17] === 1) {
        const at = { written: reader.next, flushed: reader.next }
        sendData(replication, encodeStatus({ ...at, now: log.now(), wantsReply: false }))
      }
      if (payload[0] !== KIND.log) return
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
