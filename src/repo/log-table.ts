/**
 * The verified headers of one branch of a log, packed: a month of a busy server is some 100 000 of them. Rows
 * of 120 bytes instead of objects of a kilobyte. Not here: how they are read and verified (logs.ts).
 *
 * | at  | bytes |                         | at  | bytes |                            |
 * | --- | ----- | ----------------------- | --- | ----- | -------------------------- |
 * | 0   | 8     | from                    | 48  | 4     | bytes before the body      |
 * | 8   | 8     | to                      | 52  | 2     | shipper: place in the list |
 * | 16  | 8     | begun, f64 milliseconds | 54  | 1     | 1 segment, 2 tail          |
 * | 24  | 8     | completed               | 55  | 1     | 0                          |
 * | 32  | 8     | seq                     | 56  | 32    | SHA-256 of the header      |
 * | 40  | 4     | bytes of the object     | 88  | 16    | first half of `previous`   |
 * | 44  | 4     | epoch                   | 104 | 16    | first half of `content`    |
 */
import { assert } from '../base/failure.ts'
import { LOG_LIMITS, type LogPiecePlace } from '../format/log-header.ts'
import type { StoredLogHeader } from '../format/log-segment.ts'
import type { PositionRange } from './log-coverage.ts'

export const LOG_ROW_BYTES = 120
const SHIPPERS_MAX = 4096
const HALF_BYTES = 16
const FIRST_ROWS = 64

/** One branch of one source; `rows` is sorted once sortTable() was called. */
export interface LogTable {
  readonly domain: string
  readonly source: string
  readonly branch: string
  readonly sourceKind: string
  readonly shippers: string[]
  rows: Buffer
  count: number
}

/** One row, taken out. */
export interface LogSegment extends PositionRange {
  readonly place: LogPiecePlace
  readonly begun: number
  readonly completed: number
  /** Of the object. */
  readonly bytes: number
  /** Where the body begins: header and notes are before. */
  readonly bodyAt: number
  readonly epoch: number
  /** SHA-256 of the signed header, hex. */
  readonly sha256: string
  /** The first 16 bytes of what the header says, hex; zeros for null. */
  readonly previousHalf: string
  readonly contentHalf: string
}

export function newLogTable(of: Pick<LogTable, 'domain' | 'source' | 'branch' | 'sourceKind'>): LogTable {
  const { domain, source, branch, sourceKind } = of
  return { domain, source, branch, sourceKind, shippers: [], rows: Buffer.alloc(0), count: 0 }
}

/** A table of rows that another one had. Keeps `rows`. */
export function tableOfRows(of: Omit<LogTable, 'count'>): LogTable {
  return { ...of, count: of.rows.length / LOG_ROW_BYTES }
}

/** Adds a verified header. false: the branch has more shippers than a table holds. */
export function addHeader(table: LogTable, header: StoredLogHeader): boolean {
  const { place } = header
  assert(place.kind !== 'file', 'a table holds pieces')
  const shipper = shipperIndex(table, place.shipper)
  if (shipper === undefined) return false
  const row = newRow(table)
  row.writeBigUInt64LE(header.from, 0)
  row.writeBigUInt64LE(header.to, 8)
  row.writeDoubleLE(header.begun, 16)
  row.writeDoubleLE(header.completed, 24)
  row.writeBigUInt64LE(BigInt(place.seq), 32)
  row.writeUInt32LE(header.bytes, 40)
  row.writeUInt32LE(header.epoch, 44)
  row.writeUInt32LE(header.bodyAt, 48)
  row.writeUInt16LE(shipper, 52)
  row[54] = place.kind === 'segment' ? 1 : 2
  row.write(header.sha256, 56, 'hex')
  row.write((header.previous ?? '').slice(0, 2 * HALF_BYTES), 88, 'hex')
  row.write(header.content.slice(0, 2 * HALF_BYTES), 104, 'hex')
  return true
}

/** Adds a row of another table of the same branch. false: as addHeader(). */
export function addRow(table: LogTable, from: LogTable, at: number): boolean {
  const source = from.rows.subarray(at * LOG_ROW_BYTES, (at + 1) * LOG_ROW_BYTES)
  const shipper = shipperIndex(table, from.shippers[source.readUInt16LE(52)] ?? '')
  if (shipper === undefined) return false
  const row = newRow(table)
  source.copy(row)
  row.writeUInt16LE(shipper, 52)
  return true
}

export function segmentAt(table: LogTable, at: number): LogSegment {
  assert(at >= 0 && at < table.count, `row ${at} of ${table.count}`)
  const { domain, source, branch, shippers } = table
  const row = table.rows.subarray(at * LOG_ROW_BYTES, (at + 1) * LOG_ROW_BYTES)
  const kind = row[54] === 1 ? 'segment' : 'tail'
  const shipper = shippers[row.readUInt16LE(52)] ?? ''
  return {
    place: { domain, source, branch, kind, shipper, seq: Number(row.readBigUInt64LE(32)) },
    from: row.readBigUInt64LE(0),
    to: row.readBigUInt64LE(8),
    begun: row.readDoubleLE(16),
    completed: row.readDoubleLE(24),
    bytes: row.readUInt32LE(40),
    epoch: row.readUInt32LE(44),
    bodyAt: row.readUInt32LE(48),
    sha256: row.toString('hex', 56, 88),
    previousHalf: row.toString('hex', 88, 104),
    contentHalf: row.toString('hex', 104, 120),
  }
}

/** All of them: after sortTable() by position, whole segments before tails. */
export function* segmentsOf(table: LogTable): Generator<LogSegment> {
  for (let at = 0; at < table.count; at++) yield segmentAt(table, at)
}

/** The positions of every row: what segmentsOf() gives, at a tenth of its cost. */
export function* rangesOf(table: LogTable): Generator<PositionRange> {
  for (let at = 0; at < table.count; at++) yield rangeAt(table, at)
}

/**
 * The best row that holds `position` and is not `isBad`: whole segments first, then the one that reaches
 * farthest. The table is sorted.
 */
export function bestRow(
  table: LogTable,
  position: bigint,
  isBad: (row: number) => boolean,
): number | undefined {
  let best: { row: number; isTail: boolean; to: bigint } | undefined
  for (let row = firstAbove(table, position) - 1; row >= 0; row--) {
    const { from, to } = rangeAt(table, row)
    if (from + BigInt(LOG_LIMITS.bodyBytes) <= position) break
    if (to <= position) continue
    const isTail = table.rows[row * LOG_ROW_BYTES + 54] === 2
    const isBetter = best === undefined || (isTail === best.isTail ? to > best.to : best.isTail)
    if (isBetter && !isBad(row)) best = { row, isTail, to }
  }
  return best?.row
}

function rangeAt({ rows }: LogTable, at: number): PositionRange {
  return {
    from: rows.readBigUInt64LE(at * LOG_ROW_BYTES),
    to: rows.readBigUInt64LE(at * LOG_ROW_BYTES + 8),
  }
}

/** The number of the first row whose `from` is above `position`. */
function firstAbove(table: LogTable, position: bigint): number {
  let [low, high] = [0, table.count]
  while (low < high) {
    const middle = (low + high) >> 1
    if (table.rows.readBigUInt64LE(middle * LOG_ROW_BYTES) > position) high = middle
    else low = middle + 1
  }
  return low
}

/** By from, whole segments before tails, shipper, number. */
export function sortTable(table: LogTable): void {
  table.rows = permute(table.rows, orderOf(table, byPosition))
}

/** Row numbers by shipper, kind and number. */
export function chainOrder(table: LogTable): Uint32Array {
  return orderOf(
    table,
    (rows, a, b) => rows.compare(rows, b + 52, b + 55, a + 52, a + 55) || bySeq(rows, a, b),
  )
}

/** Finds the row of a name in a table that was listed before. */
export function rowFinder(table: LogTable): (place: LogPiecePlace) => number | undefined {
  const order = chainOrder(table)
  const key = Buffer.alloc(LOG_ROW_BYTES)
  return ({ shipper, kind, seq }) => {
    const index = table.shippers.indexOf(shipper)
    if (index < 0) return undefined
    key.writeUInt16LE(index, 52)
    key[54] = kind === 'segment' ? 1 : 2
    let [low, high] = [0, order.length]
    while (low < high) {
      const middle = (low + high) >> 1
      const at = order[middle]! * LOG_ROW_BYTES
      const compared =
        table.rows.compare(key, 52, 55, at + 52, at + 55) || Number(table.rows.readBigUInt64LE(at + 32)) - seq
      if (compared === 0) return order[middle]
      if (compared > 0) high = middle
      else low = middle + 1
    }
    return undefined
  }
}

type Order = (rows: Buffer, a: number, b: number) => number

function orderOf({ rows, count }: LogTable, order: Order): Uint32Array {
  const numbers = Uint32Array.from({ length: count }, (_, at) => at)
  return numbers.sort((a, b) => order(rows, a * LOG_ROW_BYTES, b * LOG_ROW_BYTES))
}

function permute(rows: Buffer, order: Uint32Array): Buffer {
  const sorted = Buffer.allocUnsafe(order.length * LOG_ROW_BYTES)
  order.forEach((from, to) => {
    rows.copy(sorted, to * LOG_ROW_BYTES, from * LOG_ROW_BYTES, (from + 1) * LOG_ROW_BYTES)
  })
  return sorted
}

function byPosition(rows: Buffer, a: number, b: number): number {
  const [x, y] = [rows.readBigUInt64LE(a), rows.readBigUInt64LE(b)]
  if (x !== y) return x < y ? -1 : 1
  if (rows[a + 54] !== rows[b + 54]) return rows[a + 54]! - rows[b + 54]!
  return rows.readUInt16LE(a + 52) - rows.readUInt16LE(b + 52) || bySeq(rows, a, b)
}

function bySeq(rows: Buffer, a: number, b: number): number {
  return Number(rows.readBigUInt64LE(a + 32)) - Number(rows.readBigUInt64LE(b + 32))
}

function newRow(table: LogTable): Buffer {
  const at = table.count * LOG_ROW_BYTES
  if (at === table.rows.length) {
    const grown = Buffer.alloc(Math.max(FIRST_ROWS * LOG_ROW_BYTES, table.rows.length * 2))
    table.rows.copy(grown)
    table.rows = grown
  }
  table.count++
  return table.rows.subarray(at, at + LOG_ROW_BYTES)
}

function shipperIndex(table: LogTable, shipper: string): number | undefined {
  const known = table.shippers.lastIndexOf(shipper)
  if (known >= 0) return known
  if (table.shippers.length === SHIPPERS_MAX) return undefined
  return table.shippers.push(shipper) - 1
}
