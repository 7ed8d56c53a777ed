import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cronProblem } from './cron.ts'

test('cronProblem() takes the usual lines', () => {
  const lines = ['0 2 * * 0', '0 2 * * 1-6', '0 * * * *', '*/15 0,12 1-31/2 jan-mar mon-fri', ' 5  4 * * 7 ']
  for (const line of lines) assert.equal(cronProblem(line), undefined, line)
})

test('cronProblem() names the field that is wrong', () => {
  assert.match(cronProblem('0 25 * * 0') ?? '', /field 2 \("25"\) is the hour, from 0 to 23/)
  assert.match(cronProblem('0 2 * * 5-1') ?? '', /day of the week/)
  assert.match(cronProblem('*/0 * * * *') ?? '', /minute/)
  assert.match(cronProblem('0 2 0 * *') ?? '', /day of the month/)
})

test('cronProblem() wants five fields', () => {
  for (const line of ['', '0 2 * *', '0 0 2 * * 0', '@daily'])
    assert.match(cronProblem(line) ?? '', /five fields/)
})
