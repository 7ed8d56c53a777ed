/**
 * Positions in the write-ahead log of PostgreSQL, and the names of its files (src/include/access/
 * xlog_internal.h). A position (LSN) is a bigint, since it has 64 bits.
 */
import { Failure } from '../../base/failure.ts'

export type Lsn = bigint

/** One step of a cluster's history: `timeline` was left at `end` (timeline.c). */
export interface TimelineStep {
  readonly timeline: number
  /** The first position that is not on it any more. */
  readonly end: Lsn
  readonly reason: string
}

const LSN_TEXT = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/
const SEGMENT_NAME = /^([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})$/
const WAL_SEGMENT_BYTES_MIN = 1 << 20
const WAL_SEGMENT_BYTES_MAX = 1 << 30
const HISTORY_LINE = /^\s*([0-9]+)\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)(?:\s+(.*))?$/

/** "16/B374D848" -> position. Fails: usage.invalid. */
export function parseLsn(text: string): Lsn {
  const parts = LSN_TEXT.exec(text)
  if (parts === null)
    throw new Failure(
      'usage.invalid',
      `Cannot read the position "${text}" (must be two hexadecimal numbers like 16/B374D848)`,
    )
  return (BigInt(`0x${parts[1]}`) << 32n) | BigInt(`0x${parts[2]}`)
}

export function formatLsn(lsn: Lsn): string {
  return `${hex(lsn >> 32n, 1)}/${hex(lsn & 0xffff_ffffn, 1)}`
}

/** Whether a server can have WAL segments of this size (initdb --wal-segsize). */
export function isSegmentBytes(bytes: number): boolean {
  const isPowerOfTwo = (bytes & (bytes - 1)) === 0
  return isPowerOfTwo && bytes >= WAL_SEGMENT_BYTES_MIN && bytes <= WAL_SEGMENT_BYTES_MAX
}

/** Where the segment that holds `lsn` begins. */
export function segmentStart(lsn: Lsn, segmentBytes: number): Lsn {
  return lsn - (lsn % BigInt(segmentBytes))
}

/** The first beginning of a segment at or behind `lsn`. */
export function nextSegment(lsn: Lsn, segmentBytes: number): Lsn {
  const start = segmentStart(lsn, segmentBytes)
  return start === lsn ? lsn : start + BigInt(segmentBytes)
}

/** The file name of the segment that holds `lsn`: timeline, and the segment's number in two halves. */
export function segmentName(timeline: number, lsn: Lsn, segmentBytes: number): string {
  const number = lsn / BigInt(segmentBytes)
  const perHalf = 0x1_0000_0000n / BigInt(segmentBytes)
  return hex(BigInt(timeline), 8) + hex(number / perHalf, 8) + hex(number % perHalf, 8)
}

/** The timeline and first position that a segment's file name says; undefined if it is none. */
export function parseSegmentName(
  name: string,
  segmentBytes: number,
): { timeline: number; start: Lsn } | undefined {
  const parts = SEGMENT_NAME.exec(name)
  if (parts === null) return undefined
  const perHalf = 0x1_0000_0000n / BigInt(segmentBytes)
  const low = BigInt(`0x${parts[3]}`)
  if (low >= perHalf) return undefined
  const number = BigInt(`0x${parts[2]}`) * perHalf + low
  return { timeline: Number.parseInt(parts[1]!, 16), start: number * BigInt(segmentBytes) }
}

export function historyName(timeline: number): string {
  return `${hex(BigInt(timeline), 8)}.history`
}

/**
 * Reads a timeline history file: the ancestors of `timeline`, oldest first. Fails: source.failed when lines
 * are not in order, as PostgreSQL does.
 */
export function parseHistory(timeline: number, text: string): TimelineStep[] {
  const steps: TimelineStep[] = []
  for (const line of text.split('\n')) {
    if (/^\s*(#.*)?$/.test(line)) continue
    const parts = HISTORY_LINE.exec(line)
    const step = parts && {
      timeline: Number(parts[1]),
      end: parseLsn(parts[2]!),
      reason: (parts[3] ?? '').trim(),
    }
    const last = steps.at(-1)
    const isInOrder =
      step !== null &&
      step.timeline < timeline &&
      (last === undefined || (step.timeline > last.timeline && step.end >= last.end))
    if (!isInOrder)
      throw new Failure(
        'source.failed',
        `Cannot read ${historyName(timeline)}: "${line}" is no timeline that comes after the one before it`,
      )
    steps.push(step)
  }
  return steps
}

/** The timeline that a position belongs to, for a cluster that is on `timeline` and has this history. */
export function timelineAt(timeline: number, history: readonly TimelineStep[], lsn: Lsn): number {
  return history.find((step) => lsn < step.end)?.timeline ?? timeline
}

function hex(value: bigint, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, '0')
}
