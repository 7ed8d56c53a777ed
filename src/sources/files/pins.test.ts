import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import { normalPath, parsePathList, planPins } from './pins.ts'
import type { Pin } from './pins.ts'

/** `name(kind)[children]` */
function shown(pin: Pin): string {
  const children = [...pin.children].map(([name, child]) => `${name}(${child.kind})${shown(child)}`)
  return children.length === 0 ? '' : `[${children.join(' ')}]`
}

test('`normalPath()` resolves what needs no disk', () => {
  for (const [given, normal] of [
    ['/', '/'],
    ['//a///b/', '/a/b'],
    ['/a/./b/../c', '/a/c'],
    ['/../..', '/'],
  ] as const) {
    assert.equal(normalPath(given), normal)
  }
  for (const given of ['a', '', './a', '/a\0']) {
    assert.throws(
      () => normalPath(given),
      (error) => isFailure(error, 'usage.invalid'),
    )
  }
})

test('`planPins()` makes one tree of all named places', () => {
  const { root, problems } = planPins(['/none-x/a', '/none-x/a/b/c'], ['/none-x/d', '/none-x/a'])
  assert.equal(shown(root), '[none-x(way)[a(tree)[b(way)[c(tree)]] d(single)]]')
  assert.deepEqual(problems, [])
  assert.equal(planPins(['/'], []).root.kind, 'tree')
})

test('`parsePathList()` splits at NUL if there is one, else at newlines', () => {
  assert.deepEqual(parsePathList(Buffer.from('/a\n/b c\n\n/d')), ['/a', '/b c', '/d'])
  assert.deepEqual(parsePathList(Buffer.from('/a\n/b\0/c\0')), ['/a\n/b', '/c'])
  assert.deepEqual(parsePathList(Buffer.from([0x2f, 0xff])), ['/\xff'])
  assert.deepEqual(parsePathList(Buffer.alloc(0)), [])
})
