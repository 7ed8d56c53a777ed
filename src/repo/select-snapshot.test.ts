import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { newestSnapshot, selectSnapshot, selectSnapshotAt, sourceLabel } from './select-snapshot.ts'
import type { StoredSnapshot } from './snapshots.ts'

function snapshot(id: string, source: string, counter: number, completed: string): StoredSnapshot {
  return { id, source, counter, completed, domain: 'aa' } as unknown as StoredSnapshot
}

const a1 = snapshot('20261101t000000z-aaaa0001', 'media', 1, '2026-11-01T00:10:00.000Z')
const a2 = snapshot('20261102t000000z-aaaa0002', 'media', 2, '2026-11-02T00:10:00.000Z')
const b1 = snapshot('20261102t120000z-bbbb0001', 'dumps', 1, '2026-11-02T12:10:00.000Z')
const all = [a1, a2, b1]

test('selectSnapshot() takes an id, its beginning, its end, latest and SOURCE:latest', () => {
  assert.equal(selectSnapshot(all, a1.id), a1)
  assert.equal(selectSnapshot(all, '20261101'), a1)
  assert.equal(selectSnapshot(all, 'bbbb0001'), b1)
  assert.equal(selectSnapshot(all, 'latest'), b1)
  assert.equal(selectSnapshot(all, 'media:latest'), a2)
  assert.equal(selectSnapshot(all, 'media:20261102'), a2)
})

test('selectSnapshot() prefers a whole id to ids that begin with it', () => {
  const longer = snapshot(`${a1.id}0`, 'media', 3, '2026-11-03T00:00:00.000Z')
  assert.equal(selectSnapshot([...all, longer], a1.id), a1)
})

test('selectSnapshot() lists the candidates when several match', () => {
  assert.throws(
    () => selectSnapshot(all, '20261102'),
    (error) =>
      isFailure(error, 'usage.invalid') &&
      error.message.includes(`media:${a2.id}, dumps:${b1.id}`) &&
      error.facts['matches'] === 2,
  )
})

test('selectSnapshot() says what is missing', () => {
  for (const [selector, says] of [
    ['zzz', 'no id begins or ends like this'],
    ['shop:latest', 'no snapshot of a source "shop" (there are: media, '],
  ] as const) {
    assert.throws(
      () => selectSnapshot(all, selector),
      (error) => isFailure(error, 'repo.nosnapshot') && error.message.includes(says),
    )
  }
  for (const selector of ['', 'media:']) {
    assert.throws(
      () => selectSnapshot(all, selector),
      (error) => isFailure(error, 'usage.invalid') && error.message.includes('no snapshot is named'),
    )
  }
  assert.throws(
    () => selectSnapshot([], 'latest'),
    (error) => isFailure(error, 'repo.nosnapshot'),
  )
})

test('selectSnapshotAt() takes the newest that was complete then', () => {
  const at = (text: string): StoredSnapshot => selectSnapshotAt(all, 'media', Date.parse(text))
  assert.equal(at('2026-11-02T00:10:00Z'), a2)
  assert.equal(at('2026-11-02T00:09:59Z'), a1)
  assert.throws(
    () => at('2026-11-01T00:00:00Z'),
    (error) =>
      isFailure(error, 'repo.nosnapshot') && error.message.includes('its oldest is of 2026-11-01T00:10'),
  )
  assert.throws(
    () => selectSnapshotAt(all, 'shop', 0),
    (error) => isFailure(error, 'repo.nosnapshot') && error.message.includes('it has none'),
  )
})

test('newestSnapshot() goes by the counter within a stream, whatever the clock said', () => {
  const early = snapshot('20201101t000000z-aaaa0003', 'media', 3, '2020-11-01T00:00:00.000Z')
  assert.equal(newestSnapshot([a1, a2, early]), early)
  assert.equal(newestSnapshot([early, a2, a1]), early)
  assert.equal(newestSnapshot([]), undefined)
})

test('selectSnapshot() takes the latest of the writer that asks, whatever another claims', () => {
  const forged = {
    ...snapshot('20361101t000000z-cccc0001', 'media', 9, '2036-11-01T00:10:00.000Z'),
    domain: 'bb',
  }
  const mixed = [...all, forged]
  const names = new Map([
    ['aa', 'host'],
    ['bb', 'web1'],
  ])
  const mine = { names, own: 'aa' }
  assert.equal(selectSnapshot(mixed, 'media:latest', mine), a2)
  assert.equal(selectSnapshot(mixed, 'latest', mine), b1)
  assert.equal(selectSnapshot(mixed, 'web1:media:latest', mine), forged)
  assert.equal(selectSnapshot(mixed, 'bb:media:latest', mine), forged)
  assert.equal(selectSnapshot(mixed, forged.id, mine), forged)
  const later = Date.parse('2040-01-01T00:00:00Z')
  assert.equal(selectSnapshotAt(mixed, 'media', later, mine), a2)
  assert.equal(selectSnapshotAt(mixed, 'web1:media', later, mine), forged)
  for (const own of [undefined, 'cc'])
    assert.throws(
      () => selectSnapshot(mixed, 'media:latest', { names, own }),
      (error) => isFailure(error, 'usage.invalid') && /host:media, web1:media/.test(error.message),
    )
})

test('sourceLabel() names the domain where two writers share a name', () => {
  const names = new Map([
    ['aa', 'web1'],
    ['bb', 'web1'],
  ])
  assert.equal(sourceLabel(a1, { names, own: undefined }), 'aa:media')
  assert.equal(sourceLabel(a1, { names: new Map([['aa', 'web1']]), own: undefined }), 'web1:media')
})

test('selectSnapshot() refuses a selector that names nothing', () => {
  for (const selector of ['', 'media:', 'host:media:'])
    assert.throws(
      () => selectSnapshot([a1, a2], selector),
      (error) => isFailure(error, 'usage.invalid') && /no snapshot is named/.test(error.message),
    )
})
