/**
 * What a file of the log must be before it is taken from an inbox: its pages say the system, the length of
 * segments, the timeline and the place (wal-reader.ts has the page header). Records are not looked at: log
 * that cannot be understood is kept as well.
 */
import { Failure } from '../../base/failure.ts'
import { readInboxFile, type InboxSegment } from './archive-inbox.ts'
import { formatLsn, isSegmentBytes, type Lsn } from './lsn.ts'
import { scanLog } from './spool-scan.ts'

export interface SegmentFacts {
  readonly systemId: string
  readonly segmentBytes: number
}

const PAGE_BYTES = 8192
const FIRST_PAGE_HEADER_BYTES = 40
const READ_BYTES = 1 << 20

/** What the first page says. Fails: source.diverged when it is no segment, or not whole. */
export function readSegmentFacts(path: string, fd: number, bytes: number): SegmentFacts {
  if (bytes < PAGE_BYTES || !isSegmentBytes(bytes)) throw refused(path, `it has ${bytes} bytes`)
  const header = readInboxFile(path, fd, 0, FIRST_PAGE_HEADER_BYTES)
  const segmentBytes = header.readUInt32LE(32)
  if (segmentBytes !== bytes)
    throw refused(path, `it has ${bytes} bytes, and says that segments have ${segmentBytes}`)
  if (header.readUInt32LE(36) !== PAGE_BYTES)
    throw refused(path, `its pages have ${header.readUInt32LE(36)} bytes (must be ${PAGE_BYTES})`)
  return { systemId: header.readBigUInt64LE(24).toString(), segmentBytes }
}

/**
 * Looks at all pages of a segment. Each is of the timeline that the name says, or, before a switch, of an
 * older one; after a switch of the segment there are none. Fails: source.diverged.
 */
export function checkSegment(path: string, fd: number, segment: InboxSegment, bytes: number): void {
  let timeline = 0
  let isOver = false
  for (let at = 0; at < bytes; at += READ_BYTES) {
    const part = readInboxFile(path, fd, at, Math.min(READ_BYTES, bytes - at))
    for (let page = 0; page < part.length; page += PAGE_BYTES) {
      const lsn = segment.start + BigInt(at + page)
      const isEmpty = part.readUInt16LE(page) === 0
      if (at + page === 0 || !isEmpty) {
        const found = part.readUInt32LE(page + 4)
        checkPage(path, { found: part.readBigUInt64LE(page + 8), must: lsn, isOver })
        if (found < timeline || found > segment.timeline)
          throw refused(path, `its page at ${formatLsn(lsn)} is of timeline ${found}`)
        timeline = found
      }
      isOver ||= isEmpty
    }
  }
}

function checkPage(path: string, { found, must, isOver }: { found: Lsn; must: Lsn; isOver: boolean }): void {
  if (found !== must) throw refused(path, `its page for ${formatLsn(must)} says ${formatLsn(found)}`)
  if (isOver) throw refused(path, `it has no log before ${formatLsn(must)}, and goes on there`)
}

/** Up to where the last segment of a timeline is log; behind lies what the file once was. */
export function partialEnd(path: string, fd: number, { start }: InboxSegment, bytes: number): Lsn {
  return scanLog({
    from: start,
    to: start + BigInt(bytes),
    segmentBytes: bytes,
    read: (from, to) => readInboxFile(path, fd, Number(from - start), Number(to - from)),
  })
}

function refused(path: string, is: string): Failure {
  const must = 'a whole segment of the log under its own name'
  return new Failure('source.diverged', `Cannot take "${path}": ${is} (must be ${must})`, { facts: { path } })
}
