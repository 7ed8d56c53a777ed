import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../../base/failure.ts'
import {
  formatLsn,
  historyName,
  isSegmentBytes,
  parseHistory,
  parseLsn,
  parseSegmentName,
  segmentName,
  segmentStart,
  timelineAt,
} from './lsn.ts'

const MIB = 1 << 20
const lsns = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const segmentSizes = fc.integer({ min: 0, max: 10 }).map((power) => MIB * 2 ** power)

test('parseLsn() reads what formatLsn() writes, and what PostgreSQL writes', () => {
  fc.assert(fc.property(lsns, (lsn) => parseLsn(formatLsn(lsn)) === lsn))
  assert.equal(formatLsn(0x16_b374d848n), '16/B374D848')
  assert.equal(parseLsn('0/16b3748'), 0x16b3748n)
  for (const wrong of ['', '1', '1/', '1/G', '1/123456789', ' 1/1', '1/1 ', '-1/1'])
    assert.throws(
      () => parseLsn(wrong),
      (error) => isFailure(error, 'usage.invalid'),
      wrong,
    )
})

test('segmentName() names segments as the server does', () => {
  // select pg_walfile_name('5/AB000000') and the like.
  assert.equal(segmentName(1, 0x5_ab000000n, 16 * MIB), '0000000100000005000000AB')
  assert.equal(segmentName(0x1f, 0x5_abffffffn, 16 * MIB), '0000001F00000005000000AB')
  assert.equal(segmentName(1, 0x5_ab000000n, MIB), '000000010000000500000AB0')
  assert.equal(segmentName(1, 0x5_ab000000n, 1024 * MIB), '000000010000000500000002')
  assert.equal(historyName(2), '00000002.history')
})

test('parseSegmentName() gives back the timeline and the first position', () => {
  fc.assert(
    fc.property(lsns, segmentSizes, fc.integer({ min: 1, max: 0xffff_ffff }), (lsn, bytes, timeline) => {
      const start = segmentStart(lsn, bytes)
      assert.deepEqual(parseSegmentName(segmentName(timeline, lsn, bytes), bytes), { timeline, start })
      assert.ok(start <= lsn && lsn - start < BigInt(bytes))
    }),
  )
  for (const wrong of ['', '00000001.history', '0000000100000005000000ab', '000000010000000500000100'])
    assert.equal(parseSegmentName(wrong, 16 * MIB), undefined)
})

test('isSegmentBytes() takes what initdb takes', () => {
  for (const bytes of [MIB, 16 * MIB, 1024 * MIB]) assert.ok(isSegmentBytes(bytes))
  for (const bytes of [0, MIB / 2, 3 * MIB, 2048 * MIB, MIB + 1]) assert.ok(!isSegmentBytes(bytes))
})

test('parseHistory() reads history files and refuses what PostgreSQL refuses', () => {
  const text = '# a comment\n\n1\t0/3000158\tno recovery target specified\n2\t0/5000000\tbefore 2026-11-22\n'
  const history = parseHistory(3, text)
  assert.deepEqual(history, [
    { timeline: 1, end: 0x3000158n, reason: 'no recovery target specified' },
    { timeline: 2, end: 0x5000000n, reason: 'before 2026-11-22' },
  ])
  assert.equal(timelineAt(3, history, 0n), 1)
  assert.equal(timelineAt(3, history, 0x3000157n), 1)
  assert.equal(timelineAt(3, history, 0x3000158n), 2)
  assert.equal(timelineAt(3, history, 0x5000000n), 3)
  for (const wrong of [
    '2\t0/1\tx\n1\t0/2\tx\n',
    '1\t0/2\tx\n2\t0/1\tx\n',
    '3\t0/1\tx\n',
    'one\t0/1\n',
    '1\n',
  ])
    assert.throws(
      () => parseHistory(3, wrong),
      (error) => isFailure(error, 'source.failed'),
      wrong,
    )
})
