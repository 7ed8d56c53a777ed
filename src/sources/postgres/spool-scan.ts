/**
 * Finds where the log in a spool is sound after a crash: the end of the last record whose checksum holds.
 * What lies behind may be half of a record, or bytes that a power cut kept from the disk.
 */
import { isFailure } from '../../base/failure.ts'
import { segmentStart, type Lsn } from './lsn.ts'
import { readLog, type LogRange, type SpoolSystem } from './spool-files.ts'
import { feedWal, newWalReader, recordLsn } from './wal-reader.ts'

const PAGE_BYTES = 8192n
const PAGE_HEADER_BYTES = 24
const READ_BYTES = 1n << 20n

/**
 * `held` is all there is of a timeline, of which the last `unsureBytes` at most may be torn; files before the
 * last one are not, they were synced before it was made.
 */
export function findSoundEnd(system: SpoolSystem, held: LogRange, unsureBytes: number): Lsn {
  const { from, to } = held
  if (from === to) return to
  const fileStart = segmentStart(to - 1n, system.segmentBytes)
  const reach = to - BigInt(unsureBytes)
  const unsure = reach > fileStart ? reach : fileStart
  const read = (begin: Lsn, end: Lsn): Buffer => readLog(system, { ...held, from: begin, to: end })
  const { segmentBytes } = system
  const end = scanLog({ from: recordPage(system, held, unsure), to, segmentBytes, read })
  return end < unsure ? unsure : end
}

/** The last page before `lsn` in which a record begins, or the first page there is. */
function recordPage(system: SpoolSystem, held: LogRange, lsn: Lsn): Lsn {
  let page = lsn - (lsn % PAGE_BYTES)
  for (page -= PAGE_BYTES; page > held.from; page -= PAGE_BYTES) {
    const header = readLog(system, { ...held, from: page, to: page + BigInt(PAGE_HEADER_BYTES) })
    const left = header.readUInt32LE(16)
    if (left < Number(PAGE_BYTES) / 2) return page
  }
  return held.from
}

/** The end of the last record of [from, to) whose checksum holds, and those before it. */
export function scanLog(log: {
  readonly from: Lsn
  readonly to: Lsn
  readonly segmentBytes: number
  readonly read: (from: Lsn, to: Lsn) => Buffer
}): Lsn {
  const { from, to, segmentBytes } = log
  let lastLsn = from
  const reader = newWalReader({
    from,
    segmentBytes,
    checkCrc: true,
    onRecord: () => {
      lastLsn = recordLsn(reader)
    },
  })
  try {
    while (reader.next < to && reader.endedAt === undefined) {
      const end = reader.next + READ_BYTES < to ? reader.next + READ_BYTES : to
      feedWal(reader, log.read(reader.next, end))
    }
  } catch (error) {
    if (!isFailure(error, 'source.failed')) throw error
    return lastLsn
  }
  // Records are aligned, the end of what was received need not be.
  if (reader.endedAt !== undefined) return reader.endedAt < to ? reader.endedAt : to
  if (reader.total === 0) return reader.next - BigInt(reader.carry.length)
  return reader.isHeadless ? lastLsn : reader.gatheredFrom
}
