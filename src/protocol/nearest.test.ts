import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { nearest } from './nearest.ts'

test('nearest() finds the word that was meant', () => {
  assert.equal(nearest('exlude', ['include', 'exclude', 'paths']), 'exclude')
  assert.equal(nearest('bakcup', ['backup', 'restore']), 'backup')
  assert.equal(nearest('Paths', ['paths']), 'paths')
})

test('nearest() stays silent when nothing is near', () => {
  assert.equal(nearest('xyz', ['paths', 'exclude']), undefined)
  assert.equal(nearest('', ['paths']), undefined)
  assert.equal(nearest('a'.repeat(65), ['a'.repeat(65)]), undefined)
})

test('nearest() of a known word is the word itself', () => {
  const word = fc.stringMatching(/^[a-z]{1,20}$/)
  fc.assert(fc.property(word, fc.array(word), (one, others) => nearest(one, [...others, one]) === one))
})

test('nearest() takes one letter too many, too few, wrong, or swapped', () => {
  const word = fc.stringMatching(/^[a-z]{3,12}$/)
  fc.assert(
    fc.property(word, fc.nat(), (one, seed) => {
      const at = seed % (one.length - 1)
      const wrong = [
        `${one.slice(0, at)}${one.slice(at + 1)}`,
        `${one.slice(0, at)}-${one.slice(at)}`,
        `${one.slice(0, at)}-${one.slice(at + 1)}`,
        `${one.slice(0, at)}${one[at + 1]}${one[at]}${one.slice(at + 2)}`,
      ]
      return wrong.every((typed) => nearest(typed, [one]) === one)
    }),
  )
})
