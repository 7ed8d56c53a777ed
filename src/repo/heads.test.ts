import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hiddenHeads, keepHead } from './heads.ts'
import type { HostState } from './host-folder.ts'
import type { StoredSnapshot } from './snapshots.ts'

function made(counter: number, sha256: string): StoredSnapshot {
  return { domain: 'd', source: 's', counter, sha256 } as unknown as StoredSnapshot
}

const counters = (heads: HostState['heads'], shown: StoredSnapshot[]): number[] =>
  hiddenHeads(heads, shown).map(({ counter }) => counter)

test('keepHead() raises the head of a store that shows all', () => {
  let heads: HostState['heads'] = {}
  heads = keepHead(heads, made(1, 'a'), [])
  heads = keepHead(heads, made(2, 'b'), [made(1, 'a')])
  assert.deepEqual(heads, { 'd/s': { counter: 2, sha256: 'b' } })
  // Expired: newer ones are there.
  assert.deepEqual(keepHead(heads, made(4, 'd'), [made(3, 'c')]), { 'd/s': { counter: 4, sha256: 'd' } })
})

test('keepHead() never lowers a head, and keeps one that was hidden until it is shown again', () => {
  let heads: HostState['heads'] = { 'd/s': { counter: 5, sha256: 'five' } }
  const shown = [made(3, 'c')]
  for (const next of [made(4, 'x4'), made(5, 'x5'), made(6, 'x6'), made(7, 'x7')]) {
    heads = keepHead(heads, next, shown)
    shown.push(next)
    assert.deepEqual(counters(heads, shown), [5], `after ${next.counter}`)
  }
  assert.deepEqual(heads['d/s'], { counter: 7, sha256: 'x7', missing: [{ counter: 5, sha256: 'five' }] })
  assert.deepEqual(counters(heads, shown.slice(0, 2)), [5, 7])
  const back = [...shown, made(5, 'five')]
  assert.deepEqual(counters(heads, back), [])
  assert.deepEqual(keepHead(heads, made(8, 'x8'), back), { 'd/s': { counter: 8, sha256: 'x8' } })
})
