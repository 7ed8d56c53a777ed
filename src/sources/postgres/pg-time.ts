/** Times of PostgreSQL: microseconds since 2000-01-01 UTC (datatype/timestamp.h). */
const EPOCH_SECONDS = 946_684_800n
const MICROSECONDS = 1_000_000n

/** PostgreSQL's time -> Unix time, both in microseconds. */
export function unixMicroseconds(time: bigint): bigint {
  return time + EPOCH_SECONDS * MICROSECONDS
}
