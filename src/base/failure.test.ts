import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errnoOf, Failure } from './failure.ts'

test('errnoOf() knows system errors, and no failure that has been understood already', () => {
  assert.equal(errnoOf(Object.assign(new Error('x'), { code: 'ENOENT' })), 'ENOENT')
  assert.equal(errnoOf(new Failure('storage.missing', 'x', { facts: { errno: 'ENOENT' } })), undefined)
  assert.equal(errnoOf(new Error('x')), undefined)
  assert.equal(errnoOf('ENOENT'), undefined)
})
