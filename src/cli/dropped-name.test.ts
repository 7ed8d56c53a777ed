import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { droppedName } from './dropped-name.ts'

test('`droppedName()` takes the name out of a statement as it stands there', () => {
  const cases = [
    ['DROP orders', 'orders'],
    [' truncate  table public.orders ', 'public.orders'],
    ['Drop Database shop', 'shop'],
    ["DROP o'r der", "o'r der"],
    [`DROP TABLE public."o'r der"`, `public."o'r der"`],
    ['DROP "table "', '"table "'],
    ['DROP "two\nlines"', '"two\nlines"'],
    ['DROP two\nlines', 'two\nlines'],
  ] as const
  for (const [text, name] of cases) assert.equal(droppedName(text), name)
})

test('`droppedName()` refuses what names nothing, on one line', () => {
  for (const text of ['', 'orders', 'DROP', 'drop ', 'dropped orders', 'DELETE\norders'])
    assert.throws(
      () => droppedName(text),
      (error) => isFailure(error, 'usage.invalid') && /^Cannot use --before ".*DROP NAME/.test(error.message),
    )
})
