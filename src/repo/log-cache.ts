/**
 * The host's copy of verified log headers, one file a branch, so that a listing reads only what is new. Only
 * a cache: a lost or damaged file means reading all headers again. It is never truth: who reads contents
 * verifies each header anew (log-reader.ts), and a check takes none of it.
 *
 * File: "BKSTLOGT", u32 1, u32 bytes of the JSON `{signing, sourceKind, shippers}`, the JSON, rows
 * (log-table.ts), u32 CRC-32 of all before.
 */
import { readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { describeError, errnoOf, Failure } from '../base/failure.ts'
import { randomHex } from '../base/random.ts'
import type { Config } from '../format/config.ts'
import { removeFile, subFolder, type HostFolder } from './host-folder.ts'
import { findDomain } from './keys.ts'
import { LOG_ROW_BYTES, tableOfRows, type LogTable } from './log-table.ts'
import type { LogBranch } from './logs.ts'

const MAGIC = Buffer.from('BKSTLOGT\u0001\u0000\u0000\u0000', 'latin1')
const FRONT_BYTES = MAGIC.length + 4
const CRC_BYTES = 4
/** Two million segments; a larger file is not read. */
const CACHE_BYTES_MAX = 256 * 1024 * 1024

interface CacheHead {
  readonly signing: string
  readonly sourceKind: string
  readonly shippers: readonly string[]
}

/** What was saved of a branch, or undefined: never saved, damaged, or verified with another key. */
export function loadLogTable(host: HostFolder, config: Config, of: LogBranch): LogTable | undefined {
  const bytes = readCache(cachePath(host, of))
  if (bytes === undefined || bytes.length < FRONT_BYTES + CRC_BYTES) return undefined
  const end = bytes.length - CRC_BYTES
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) return undefined
  if (crc32(bytes.subarray(0, end)) !== bytes.readUInt32LE(end)) return undefined
  const rowsAt = FRONT_BYTES + bytes.readUInt32LE(MAGIC.length)
  if (rowsAt > end || (end - rowsAt) % LOG_ROW_BYTES !== 0) return undefined
  // The checksum holds: what follows is what saveLogTable() wrote.
  const head = JSON.parse(bytes.toString('utf8', FRONT_BYTES, rowsAt)) as CacheHead
  if (head.signing !== findDomain(config, of.domain).writer.signing) return undefined
  const { domain, source, branch } = of
  const { sourceKind, shippers } = head
  const rows = bytes.subarray(rowsAt, end)
  return tableOfRows({ domain, source, branch, sourceKind, shippers: [...shippers], rows })
}

/** Saves a listed branch in place of what was saved before. Fails: host.file. */
export function saveLogTable(host: HostFolder, config: Config, table: LogTable): void {
  const { sourceKind, shippers, rows, count } = table
  const { signing } = findDomain(config, table.domain).writer
  const head = Buffer.from(JSON.stringify({ signing, sourceKind, shippers } satisfies CacheHead))
  const headBytes = Buffer.alloc(4)
  headBytes.writeUInt32LE(head.length)
  const parts = [MAGIC, headBytes, head, rows.subarray(0, count * LOG_ROW_BYTES)]
  const check = Buffer.alloc(CRC_BYTES)
  let checksum = 0
  for (const part of parts) checksum = crc32(part, checksum)
  check.writeUInt32LE(checksum)
  const path = cachePath(host, table)
  const unfinished = `${path}.${randomHex(8)}.tmp`
  try {
    writeFileSync(unfinished, Buffer.concat([...parts, check]), { flag: 'wx', mode: 0o600 })
    renameSync(unfinished, path)
  } catch (cause) {
    removeFile(unfinished)
    throw fileFailure('write', path, cause)
  }
}

function readCache(path: string): Buffer | undefined {
  try {
    return statSync(path).size > CACHE_BYTES_MAX ? undefined : readFileSync(path)
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined
    throw fileFailure('read', path, cause)
  }
}

function cachePath(host: HostFolder, { domain, source, branch }: LogBranch): string {
  return join(subFolder(host, 'logs'), `${domain}.${source}.${branch}`)
}

function fileFailure(doing: string, path: string, cause: unknown): Failure {
  const message = `Cannot ${doing} the cache file ${path}: ${describeError(cause)}`
  return new Failure('host.file', message, { facts: { path, errno: errnoOf(cause) }, cause })
}
