import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { displayWidth, fitWidth, formatTable } from './table.ts'

test('displayWidth() counts terminal columns', () => {
  assert.equal(displayWidth('plain'), 5)
  assert.equal(displayWidth('Grüße'), 5)
  assert.equal(displayWidth('e\u0301'), 1)
  assert.equal(displayWidth('日本語'), 6)
  assert.equal(displayWidth('📦'), 2)
  assert.equal(displayWidth('👩‍👩‍👧'), 2)
  assert.equal(displayWidth(''), 0)
})

test('fitWidth() cuts at either end and never exceeds the width', () => {
  assert.equal(fitWidth('/srv/media/logo.png', 10, 'start'), '…/logo.png')
  assert.equal(fitWidth('日本語日本語', 5), '日本…')
  assert.equal(fitWidth('short', 5), 'short')
  const text = fc.string({ unit: 'grapheme', maxLength: 30 })
  fc.assert(
    fc.property(text, fc.nat(40), fc.constantFrom('start' as const, 'end' as const), (one, width, cut) => {
      assert.ok(displayWidth(fitWidth(one, width, cut)) <= width)
    }),
  )
})

test('formatTable() aligns by display width, numbers to the right', () => {
  const columns = [{ title: 'name' }, { title: 'size', align: 'right' as const }, { title: 'x' }]
  assert.deepEqual(
    formatTable(columns, [
      ['日本', '5', 'a'],
      ['media', '12345', ''],
    ]),
    ['name    size  x', '日本       5  a', 'media  12345'],
  )
})

test('formatTable() cuts its flexible column to the width', () => {
  const columns = [{ title: 'id' }, { title: 'path', flexible: true }]
  const lines = formatTable(columns, [['a1', '/srv/media/2026/11/logo.png']], 20)
  assert.ok(lines.every((line) => displayWidth(line) <= 20))
  assert.match(lines[1] ?? '', /logo\.png$/)
})

test('formatTable() stands a hundred thousand rows', () => {
  const rows = Array.from({ length: 200_000 }, (_, at) => [String(at)])
  assert.equal(formatTable([{ title: 'n' }], rows).length, 200_001)
})
