import { strict as assert } from 'node:assert'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { noise } from '../../test/harness/engine.ts'
import { fileEntry } from '../../test/harness/tampering.ts'
import { isFailure } from '../base/failure.ts'
import {
  abandonTreeCache,
  appendRecord,
  closeTreeCache,
  createTreeCache,
  finishTreeCache,
  nextRecord,
  openTreeCache,
  type CacheRecord,
  type CacheTrailer,
} from './tree-cache.ts'

const folder = mkdtempSync(join(tmpdir(), 'backstock-tree-cache-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const idKey = Buffer.alloc(32, 3)
const trailer: CacheTrailer = {
  snapshot: '20261122t143323z-4f8a2c1d',
  packs: ['', 'ab'.repeat(32)],
  refs: noise(1, 900),
  refsDepth: 3,
}

function recordOf(i: number, pagesBytes = 0): CacheRecord {
  const entry = fileEntry(`f${i}`, 5, Buffer.from(`content ${i}`))
  const pages =
    pagesBytes === 0
      ? []
      : [{ pageBytes: 4096, extents: noise(i, pagesBytes), hashes: noise(i + 1, pagesBytes) }]
  return { kind: 'entry', entry, marks: [i, i * 3], pages }
}

const enter: CacheRecord = {
  ...recordOf(0),
  kind: 'enter',
  marks: [],
  entry: {
    ...recordOf(0).entry!,
    type: 'directory',
    node: Buffer.alloc(32),
    content: Buffer.alloc(0),
    size: 0,
  },
}
const leave: CacheRecord = { kind: 'leave', entry: undefined, marks: [], pages: [] }

function write(name: string, records: readonly CacheRecord[]): string {
  const path = join(folder, name)
  const cache = createTreeCache(path, idKey)
  for (const record of records) appendRecord(cache, record)
  finishTreeCache(cache, trailer)
  abandonTreeCache(cache)
  return path
}

function readAll(path: string, key = idKey): CacheRecord[] | undefined {
  const reader = openTreeCache(path, key)
  if (reader === undefined) return undefined
  try {
    assert.deepEqual(reader.trailer, trailer)
    const records: CacheRecord[] = []
    for (let record = nextRecord(reader); record !== undefined; record = nextRecord(reader))
      records.push(record)
    return records
  } finally {
    closeTreeCache(reader)
  }
}

test('a tree cache gives back its records in order, over many blocks, with records larger than one', () => {
  const records = [
    enter,
    ...Array.from({ length: 9000 }, (_, i) => recordOf(i)),
    recordOf(1, 400_000),
    leave,
    recordOf(2, 10),
  ]
  assert.deepEqual(readAll(write('many', records)), records)
  assert.deepEqual(readAll(write('none', [])), [])
})

test('a cache that is missing, cut, of another key or another kind is no cache', () => {
  const path = write('whole', [enter, recordOf(1), leave])
  assert.equal(openTreeCache(join(folder, 'absent'), idKey), undefined)
  assert.equal(openTreeCache(path, Buffer.alloc(32, 4)), undefined)
  const bytes = readFileSync(path)
  for (let length = 0; length < bytes.length; length++) {
    writeFileSync(join(folder, 'cut'), bytes.subarray(0, length))
    assert.equal(openTreeCache(join(folder, 'cut'), idKey), undefined, `cut to ${length}`)
  }
})

test('every flipped bit of a cache is found, when it is opened or when it is read', () => {
  const records = [enter, recordOf(1), leave]
  const bytes = readFileSync(write('flip', records))
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = Buffer.from(bytes)
    flipped[bit >> 3]! ^= 1 << (bit & 7)
    writeFileSync(join(folder, 'flipped'), flipped)
    try {
      assert.equal(readAll(join(folder, 'flipped')), undefined, `bit ${bit}`)
    } catch (error) {
      assert.ok(
        isFailure(error, 'repo.corrupt'),
        `bit ${bit}: ${error instanceof Error ? error.message : ''}`,
      )
    }
  }
})
