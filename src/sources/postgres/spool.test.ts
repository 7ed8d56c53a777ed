import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { isFailure, type FailureCode } from '../../base/failure.ts'
import { randomBytes } from '../../base/random.ts'
import { fillDisk, growDisk, mountDisk, unmountDisk } from '../../../test/harness/small-disk.ts'
import { appendSpool, syncSpool } from './spool-append.ts'
import {
  bindSpool,
  closeSpool,
  openSpool,
  readHistory,
  readSpool,
  releaseSpool,
  saveHistory,
  spoolPosition,
  spoolRanges,
  spoolShortage,
  wasHeld,
  type Spool,
  type SpoolOptions,
} from './spool.ts'

const SEGMENT = 1 << 20
const SERVER = { systemId: '7001', segmentBytes: SEGMENT }
/** Where the spool of these tests begins: the last segment of the first 4 GiB. */
const START = 0x0_fff0_0000n
let folder: string
let spool: Spool
let isMounted = false

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'backstock-spool-'))
})
afterEach(() => {
  if (isMounted) unmountDisk(folder)
  isMounted = false
  rmSync(folder, { recursive: true })
})

function withSpool(body: () => void, options: Partial<SpoolOptions> = {}): void {
  spool = openSpool(folder, { bytesMax: 1 << 30, systemId: undefined, ...options })
  try {
    bindSpool(spool, SERVER)
    body()
  } finally {
    closeSpool(spool)
  }
}

function append(bytes: Buffer, lsn = START, timeline = 1): void {
  appendSpool(spool, { timeline, lsn }, bytes)
}

function failsWith(code: FailureCode, pattern = /./) {
  return (error: unknown): boolean => isFailure(error, code) && pattern.test(error.message)
}

test('appendSpool() files log as the server does, readSpool() gives it back', () => {
  const log = randomBytes(2.5 * SEGMENT)
  withSpool(() => {
    for (let at = 0; at < log.length;) {
      const piece = log.subarray(at, at + 1 + (randomBytes(2).readUInt16LE(0) % 50_000))
      append(piece, START + BigInt(at))
      at += piece.length
    }
    assert.ok(spoolRanges(spool)[0]!.to < START + BigInt(log.length), 'not durable before the sync')
    syncSpool(spool)
    const range = { timeline: 1, from: START, to: START + BigInt(log.length) }
    assert.deepEqual(spoolRanges(spool), [range])
    assert.deepEqual(readSpool(spool, range), log)
    const [from, to] = [START + 1_000_000n, START + 2_200_000n]
    assert.deepEqual(readSpool(spool, { timeline: 1, from, to }), log.subarray(1_000_000, 2_200_000))
    assert.throws(() => readSpool(spool, { ...range, to: range.to + 1n }), /Bug/)
    const files = readdirSync(join(folder, '7001', '00000001')).sort()
    const names = ['000000000FFF', '000100000000', '000100000001'].map((end) => `000000010000${end}`)
    assert.deepEqual(files, names)
    const sizes = files.map((name) => statSync(join(folder, '7001', '00000001', name)).size)
    assert.deepEqual(sizes, [SEGMENT, SEGMENT, SEGMENT / 2])
    assert.equal(spool.bytes, log.length)
  })
})

test('nobody else may read a spool, whatever the umask', () => {
  const place = join(folder, 'var/spool')
  const umask = process.umask(0)
  try {
    spool = openSpool(place, { bytesMax: 1 << 30, systemId: undefined })
    bindSpool(spool, SERVER)
    append(randomBytes(1.5 * SEGMENT))
    syncSpool(spool)
    saveHistory(spool, 2, `1\t1/80000\tno recovery target specified\n`)
    closeSpool(spool)
  } finally {
    process.umask(umask)
  }
  const names = [
    'var',
    ...readdirSync(join(folder, 'var'), { recursive: true, encoding: 'utf8' }).map((name) => `var/${name}`),
  ]
  const files = names.filter((name) => statSync(join(folder, name)).isFile())
  // Two segments, the history, the mark of the system, what it remembers, the lock.
  assert.equal(files.length, 6, files.join(' '))
  for (const name of names) {
    const stats = statSync(join(folder, name))
    assert.equal(stats.mode & 0o777, stats.isFile() ? 0o600 : 0o700, name)
  }
})

test('log that comes again is compared, other log at the same place is refused', () => {
  const log = randomBytes(1.5 * SEGMENT)
  withSpool(() => {
    append(log)
    append(log.subarray(0, SEGMENT + 10), START)
    append(log.subarray(SEGMENT, 1.5 * SEGMENT), START + BigInt(SEGMENT))
    const other = Buffer.from(log)
    other[SEGMENT + 77]! ^= 1
    assert.throws(() => append(other), failsWith('source.diverged', /differs .* at 1\/4D on/))
    assert.throws(() => append(log, START + BigInt(log.length) + 1n), /Bug: log comes without holes/)
    syncSpool(spool)
    const [range] = spoolRanges(spool)
    assert.deepEqual(readSpool(spool, range!), log)
  })
})

test('releaseSpool() gives up whole segments, but never the end', () => {
  withSpool(() => {
    append(randomBytes(3 * SEGMENT))
    syncSpool(spool)
    const at = (segments: number): bigint => START + BigInt(segments * SEGMENT)
    let calls = 0
    spool.onRoom.add(() => calls++)
    assert.equal(releaseSpool(spool, { timeline: 1, lsn: at(1) - 1n }), 0)
    assert.equal(calls, 0)
    assert.equal(releaseSpool(spool, { timeline: 1, lsn: at(1) + 5n }), SEGMENT)
    assert.equal(releaseSpool(spool, { timeline: 1, lsn: at(9) }), SEGMENT)
    assert.equal(releaseSpool(spool, { timeline: 4, lsn: at(9) }), 0)
    assert.equal(calls, 2)
    assert.deepEqual(spoolRanges(spool), [{ timeline: 1, from: at(2), to: at(3) }])
    assert.equal(spool.bytes, SEGMENT)
    append(Buffer.from('more'), at(3))
  })
  withSpool(() => {
    assert.equal(spool.bytes, SEGMENT + 4)
    assert.equal(spoolPosition(spool)!.lsn, START + BigInt(3 * SEGMENT))
  })
})

test('a spool keeps to its limit, and goes on after a release', () => {
  const log = randomBytes(4 * SEGMENT)
  const again = (): void => append(log.subarray(2 * SEGMENT), START + BigInt(2 * SEGMENT))
  withSpool(
    () => {
      assert.throws(() => append(log), failsWith('host.full', /at most 3145728/))
      assert.ok(isFailure(spoolShortage(spool), 'host.full'))
      syncSpool(spool)
      const [held] = spoolRanges(spool)
      assert.deepEqual(readSpool(spool, held!), log.subarray(0, 3 * SEGMENT))
      releaseSpool(spool, { timeline: 1, lsn: START + BigInt(SEGMENT) })
      assert.equal(spoolShortage(spool), undefined)
      again()
      assert.equal(spool.bytes, 3 * SEGMENT)
    },
    { bytesMax: 3 * SEGMENT },
  )
  const small = { bytesMax: 2 * SEGMENT }
  assert.throws(() => withSpool(again, small), failsWith('config.invalid', /must be 3145728 at least/))
})

test('a full disk takes what it can and loses nothing', (t) => {
  if (!mountDisk(folder, '3m')) return t.skip('this user may not mount')
  isMounted = true
  const log = randomBytes(5 * SEGMENT)
  withSpool(() => {
    assert.throws(() => append(log), failsWith('host.full', /ENOSPC/))
    syncSpool(spool)
    const [held] = spoolRanges(spool)
    assert.ok(held!.to > START + BigInt(SEGMENT))
    assert.deepEqual(readSpool(spool, held!), log.subarray(0, Number(held!.to - START)))
    assert.ok(isFailure(spoolShortage(spool), 'host.full'))
    assert.throws(() => saveHistory(spool, 2, 'x'.repeat(9000)), failsWith('host.full'))
    growDisk(folder, '20m')
    assert.equal(spoolShortage(spool), undefined)
    append(log)
    syncSpool(spool)
    assert.deepEqual(readSpool(spool, spoolRanges(spool)[0]!), log)
    fillDisk(folder)
  })
  withSpool(() => assert.equal(spoolRanges(spool).length, 1))
})

test('a timeline begins with a segment; the one before keeps what is past the switch', () => {
  const log = randomBytes(1.5 * SEGMENT)
  const history = '1\t0/FFF10000\tno recovery target specified\n'
  withSpool(() => {
    append(log)
    assert.equal(saveHistory(spool, 2, history), true)
    assert.equal(saveHistory(spool, 2, history), false)
    assert.throws(
      () => saveHistory(spool, 2, `${history}#`),
      failsWith('source.diverged', /00000002\.history/),
    )
    assert.throws(() => append(log, START + 1n, 2), /Bug: a timeline begins/)
    append(log.subarray(0, 1000), START, 2)
    assert.throws(() => append(log, START, 1), /Bug: only the last/)
    syncSpool(spool)
  })
  withSpool(() => {
    assert.equal(readHistory(spool, 2), history)
    assert.equal(readHistory(spool, 3), undefined)
    assert.deepEqual(readSpool(spool, spoolRanges(spool)[0]!), log)
    assert.equal(spoolPosition(spool)!.timeline, 2)
    releaseSpool(spool, { timeline: 1, lsn: START + BigInt(log.length) })
    const names = ['00000002', '00000002.history', 'facts.json', 'spool.json']
    assert.deepEqual(readdirSync(join(folder, '7001')).sort(), names)
    assert.ok(wasHeld(spool, { timeline: 1, lsn: START }))
  })
})

test('a spool without what it remembers began where its log begins', () => {
  const [released, kept] = [START, START + BigInt(SEGMENT)]
  const known = (): boolean[] => [released, kept].map((lsn) => wasHeld(spool, { timeline: 1, lsn }))
  const facts = join(folder, '7001', 'facts.json')
  withSpool(() => {
    append(randomBytes(2.5 * SEGMENT))
    syncSpool(spool)
    releaseSpool(spool, { timeline: 1, lsn: kept })
  })
  withSpool(() => assert.deepEqual(known(), [true, true]))
  for (const text of ['{"begins":[{}]}', '{"beg']) {
    writeFileSync(facts, text)
    withSpool(() => assert.deepEqual(known(), [false, true]))
  }
  rmSync(facts)
  withSpool(() => assert.deepEqual(known(), [false, true]))
  const sound = { timeline: 1, lsn: String(START + BigInt(9 * SEGMENT)) }
  writeFileSync(facts, JSON.stringify({ begins: [], sound }))
  withSpool(() => assert.ok(spoolPosition(spool)!.lsn < START + BigInt(2.5 * SEGMENT)))
})

test('one process at a time has a spool', () => {
  withSpool(() => {
    const options = { bytesMax: 1 << 30, systemId: undefined }
    assert.throws(() => openSpool(folder, options), failsWith('repo.busy', /another process/))
  })
  withSpool(() => undefined)
})

test('a spool is of one system', () => {
  withSpool(() => {
    append(randomBytes(10))
    const other = { ...SERVER, systemId: '7002' }
    assert.throws(() => bindSpool(spool, other), failsWith('source.foreign', /is for the system 7001/))
    const larger = { ...SERVER, segmentBytes: 2 * SEGMENT }
    assert.throws(() => bindSpool(spool, larger), failsWith('source.diverged', /segments of 2097152/))
  })
  const expecting = { systemId: '7002' }
  assert.throws(() => withSpool(() => undefined, expecting), failsWith('source.foreign', /7001: .* 7002/))
  mkdirSync(join(folder, '7002'))
  assert.throws(() => withSpool(() => undefined), failsWith('source.foreign', /7001, 7002/))
  withSpool(() => assert.ok(spoolPosition(spool)), { systemId: '7001' })
})

test('a spool with a hole, or a lost description, is a gap', () => {
  withSpool(() => append(randomBytes(2.5 * SEGMENT)))
  const [, second = ''] = readdirSync(join(folder, '7001', '00000001')).sort()
  truncateSync(join(folder, '7001', '00000001', second), 5)
  const open = (): void => withSpool(() => undefined)
  assert.throws(open, failsWith('source.gap', /is not whole/))
  rmSync(join(folder, '7001', '00000001', second))
  assert.throws(open, failsWith('source.gap', /is not whole/))
  writeFileSync(join(folder, '7001', 'spool.json'), '{}')
  assert.throws(open, failsWith('source.gap', /spool\.json" is damaged/))
})
