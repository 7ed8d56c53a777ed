/**
 * Child process of the bench: how fast one thread cuts write-ahead log into records. The files are read into
 * memory outside of the time; the first pass, unmeasured, is for the compiler. Prints what it found as JSON.
 *
 * Run: node bench/wal-parsing.ts FOLDER crc|plain
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { feedWal, newWalReader, type WalReader } from '../src/sources/postgres/wal-reader.ts'
import type { WalParsing } from './measures/wal-parsing.ts'

const feedBytes = 1 << 20
const segmentBytes = 16 << 20

const [folder = '', mode] = process.argv.slice(2)
if (mode !== 'crc' && mode !== 'plain') throw new Error('Cannot measure without a mode: crc or plain')
parse()
process.stdout.write(`${JSON.stringify(parse())}\n`)

function parse(): WalParsing {
  const names = readdirSync(folder).toSorted()
  const found: WalParsing = { bytes: 0, records: 0, seconds: 0 }
  const reader = newWalReader({
    from: startOf(names[0] ?? ''),
    segmentBytes,
    checkCrc: mode === 'crc',
    onRecord: () => {
      found.records++
    },
  })
  for (const name of names) {
    const bytes = readFileSync(join(folder, name))
    const started = performance.now()
    found.bytes += feedSegment(reader, bytes)
    found.seconds += (performance.now() - started) / 1000
  }
  return found
}

/** Returns how many bytes were log. */
function feedSegment(reader: WalReader, bytes: Buffer): number {
  const from = reader.next
  for (let at = 0; at < bytes.length; at += feedBytes) feedWal(reader, bytes.subarray(at, at + feedBytes))
  return Number((reader.endedAt ?? reader.next) - from)
}

/** A file is named by its timeline and, in two parts of 8 digits, the number of its segment. */
function startOf(name: string): bigint {
  const [, high = '', low = ''] = /^[0-9A-F]{8}([0-9A-F]{8})([0-9A-F]{8})$/.exec(name) ?? []
  if (low === '') throw new Error(`Cannot read "${name}" as a file of the log`)
  return (BigInt(`0x${high}`) << 32n) + BigInt(`0x${low}`) * BigInt(segmentBytes)
}
