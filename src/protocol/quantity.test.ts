import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseBytes, parseDuration, parseRate } from './quantity.ts'

test('parseBytes() reads binary and decimal units', () => {
  assert.equal(parseBytes('4096'), 4096)
  assert.equal(parseBytes('10MiB'), 10 * 1024 ** 2)
  assert.equal(parseBytes('1.5 GB'), 1_500_000_000)
  assert.equal(parseBytes('2kB'), 2000)
  assert.equal(parseBytes('0'), 0)
})

test('parseBytes() refuses what tools disagree about, signs, junk and sizes above 2^53', () => {
  for (const text of ['10M', '1K', '-1', '1e3', '', 'MiB', '1 MiB ', '99999999TiB', '1MiB/s']) {
    assert.equal(parseBytes(text), undefined, text)
  }
})

test('parseRate() reads bytes a second and refuses none', () => {
  assert.equal(parseRate('10MiB/s'), 10 * 1024 ** 2)
  assert.equal(parseRate('512 kB/s'), 512_000)
  for (const text of ['10MiB', '0B/s', 'fast', '10/s']) assert.equal(parseRate(text), undefined, text)
})

test('parseDuration() reads each unit', () => {
  assert.deepEqual(
    ['500ms', '90s', '10m', '2h', '14d', '3w'].map(parseDuration),
    [0.5, 90, 600, 7200, 1_209_600, 1_814_400],
  )
  for (const text of ['5', '1.5h', '1y', '-1s', '', '1 h']) assert.equal(parseDuration(text), undefined, text)
})
