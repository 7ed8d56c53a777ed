import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import type { SnapshotKind } from '../format/snapshot.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { planBackup, planFull } from './parent.ts'

/** A stream: each snapshot builds on the one before, a differential on its full. `bytes`: of its own pack set. */
function streamOf(given: readonly (readonly [kind: SnapshotKind, bytes: number])[]): StoredSnapshot[] {
  const stream: StoredSnapshot[] = []
  given.forEach(([kind, bytes], i) => {
    const packSet = `set${i}`
    const full = kind === 'full' ? undefined : stream.findLast((each) => each.kind === 'full')
    const parent = kind === 'full' ? undefined : kind === 'differential' ? full : stream.at(-1)
    const lineage = [...(parent?.lineage ?? []), { packSet, runs: [], packs: 1, bytes }]
    stream.push({
      type: 'snapshot',
      version: 1,
      id: `s${i}`,
      source: 'shop',
      sourceKind: 'files',
      kind,
      packSet,
      lineage,
      generation: full?.packSet ?? packSet,
      full: full?.id ?? `s${i}`,
      parent: parent?.id ?? null,
      counter: i + 1,
      previous: stream.at(-1)?.sha256 ?? null,
      begun: '',
      completed: '',
      partial: false,
      root: '',
      refs: [],
      epoch: 1,
      tags: [],
      totals: { files: 0, directories: 0, others: 0 },
      sealed: '',
      domain: 'd',
      name: `n${i}`,
      sha256: `h${i}`,
    })
  })
  return stream
}

const chain = streamOf([
  ['full', 100],
  ['incremental', 10],
  ['differential', 20],
  ['incremental', 5],
])

test('planBackup(): what each kind builds on', () => {
  const shuffled = [chain[2]!, chain[0]!, chain[3]!, chain[1]!]
  const full = planBackup('full', shuffled)
  assert.deepEqual([full.kind, full.parent, full.lineage, full.head?.id], ['full', undefined, [], 's3'])
  const differential = planBackup('differential', shuffled)
  assert.deepEqual(
    [differential.kind, differential.parent?.id, differential.lineage.map((set) => set.packSet)],
    ['differential', 's0', ['set0']],
  )
  const incremental = planBackup('incremental', shuffled)
  assert.deepEqual(
    [incremental.kind, incremental.parent?.id, incremental.full?.id],
    ['incremental', 's3', 's0'],
  )
  assert.deepEqual(
    incremental.lineage.map((set) => set.packSet),
    ['set0', 'set2', 'set3'],
  )
  assert.equal(planBackup('auto', shuffled).kind, 'incremental')
})

test('planBackup() makes a full where it has nothing to build on, and says why', () => {
  assert.deepEqual(planBackup('auto', []).because, undefined)
  assert.equal(planBackup('auto', []).kind, 'full')
  assert.match(planBackup('incremental', []).because!, /no snapshot/)
  const orphans = planBackup('differential', chain.slice(1))
  assert.equal(orphans.kind, 'full')
  assert.match(orphans.because!, /full of the latest snapshot is gone/)
  assert.equal(orphans.head?.id, 's3', 'the counter goes on')
})

test('planBackup(): auto begins a new generation when the old one has grown as large again, or long', () => {
  assert.equal(
    planBackup(
      'auto',
      streamOf([
        ['full', 100],
        ['incremental', 60],
        ['incremental', 41],
      ]),
    ).kind,
    'full',
  )
  assert.equal(
    planBackup(
      'auto',
      streamOf([
        ['full', 100],
        ['incremental', 60],
        ['incremental', 40],
      ]),
    ).kind,
    'incremental',
  )
  const long = (count: number): StoredSnapshot[] =>
    streamOf([['full', 1e6], ...Array.from({ length: count }, () => ['incremental', 1] as const)])
  assert.equal(planBackup('auto', long(99)).kind, 'incremental')
  assert.equal(planBackup('auto', long(100)).kind, 'full')
})

test('planFull() never builds on an earlier backup, and says so where one was asked for', () => {
  const history = streamOf([
    ['full', 10],
    ['incremental', 1],
  ])
  assert.equal(planFull('auto', history).because, undefined)
  for (const wanted of ['incremental', 'differential'] as const) {
    const plan = planFull(wanted, history)
    assert.deepEqual([plan.kind, plan.parent, plan.lineage.length], ['full', undefined, 0])
    assert.match(plan.because ?? '', /only full backups/)
    assert.equal(plan.head?.id, 's1')
  }
})
