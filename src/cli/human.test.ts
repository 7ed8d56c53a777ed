import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  formatBytes,
  formatCount,
  formatCountdown,
  formatCounted,
  formatDuration,
  formatMoment,
  formatRate,
} from './human.ts'

test('formatBytes() shows three digits', () => {
  const shown = [0, 1, 999, 1000, 1024, 1536, 10 * 1024, 123 * 1024 ** 2, 1024 ** 3 - 1, 5 * 1024 ** 5]
  assert.deepEqual(shown.map(formatBytes), [
    '0 B',
    '1 B',
    '999 B',
    '0.98 KiB',
    '1.00 KiB',
    '1.50 KiB',
    '10.0 KiB',
    '123 MiB',
    '1.00 GiB',
    '5.00 PiB',
  ])
  assert.equal(formatRate(1024), '1.00 KiB/s')
})

test('formatBytes() never takes more than ten columns below an exbibyte', () => {
  fc.assert(fc.property(fc.maxSafeInteger(), (bytes) => formatBytes(Math.abs(bytes)).length <= 10))
})

test('formatCount() groups digits', () => {
  assert.equal(formatCount(999), '999')
  assert.equal(formatCount(1_234_567), '1\u00a0234\u00a0567')
  assert.equal(formatCounted(1, 'file'), '1 file')
  assert.equal(formatCounted(2, 'entry', 'entries'), '2 entries')
})

test('formatDuration() takes two units at most and carries over', () => {
  const shown = [0, 999, 1000, 9949, 59_400, 59_600, 125_000, 3_599_600, 11_220_000, 86_400_000, 187_200_000]
  assert.deepEqual(shown.map(formatDuration), [
    '0 ms',
    '999 ms',
    '1.0 s',
    '9.9 s',
    '59 s',
    '1 min 00 s',
    '2 min 05 s',
    '1 h 00 min',
    '3 h 07 min',
    '1 d 00 h',
    '2 d 04 h',
  ])
})

test('formatCountdown() is narrow', () => {
  assert.deepEqual([7, 754, 11_220, 1e9].map(formatCountdown), ['0:07', '12:34', '3:07:00', '99:00:00'])
})

test('formatMoment() is ISO 8601, whose offset leads back to the same time', () => {
  assert.equal(formatMoment(Date.UTC(2026, 10, 22, 14, 33, 23, 120), 'utc'), '2026-11-22T14:33:23Z')
  const moment = fc.integer({ min: 0, max: 4_000_000_000 })
  fc.assert(
    fc.property(moment, (seconds) => Date.parse(formatMoment(seconds * 1000, 'local')) === seconds * 1000),
  )
})
