/**
 * Backups into stores that fail, lie, lose answers, hang or fill up: a clear failure, nothing broken, a next
 * run.
 */
import { strict as assert } from 'node:assert'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { describeError, isFailure, type FailureCode } from '../../src/base/failure.ts'
import { memoryStore } from '../../src/storage/memory.ts'
import {
  backUp,
  dropFork,
  dropRepository,
  folderSource,
  folderState,
  fork,
  makeRepository,
  noise,
  readBack,
  snapshotOf,
  snapshotsOf,
  through,
  type TestRepository,
} from '../harness/engine.ts'
import { hostileStore, type HostilePlan } from '../harness/hostile-store.ts'
import { storedTwice, verifyRepository } from '../harness/verify.ts'

let repository: TestRepository
let path: string
let forks = 0

before(async () => {
  repository = await makeRepository()
  path = join(repository.folder, 'data')
  mkdirSync(path)
  for (let i = 0; i < 300; i++) writeFileSync(join(path, `${i}`), noise(i, 600 + (i % 4) * 1000))
  await backUp(repository, folderSource(path), { kind: 'full' })
  for (let i = 0; i < 300; i++) writeFileSync(join(path, `new-${i}`), noise(i + 500, 1500))
})

after(() => dropRepository(repository))

interface Outcome {
  readonly error: unknown
  /** Snapshots committed by the hostile run. */
  readonly committed: number
}

/** A run in a hostile store, what must hold after it, and a run in the same store grown honest. */
async function hostileRun(plan: HostilePlan, workers = 0, signal?: AbortSignal): Promise<Outcome> {
  const forked = fork(repository, `hostile-${forks++}`)
  try {
    const store = hostileStore(memoryStore({ disk: forked.disk }), plan)
    const options = { kind: 'incremental' as const, workers, ...(signal === undefined ? {} : { signal }) }
    const error = await failureOf(backUp(through(forked, store), folderSource(path), options))
    assert.deepEqual(await verifyRepository(forked.access), [])
    const committed = (await snapshotsOf(forked)).length - 1
    const next = await backUp(forked, folderSource(path), { kind: 'incremental' })
    assert.deepEqual(await verifyRepository(forked.access), [])
    if (workers === 0) assert.deepEqual(await storedTwice(forked.access), [])
    const snapshot = await snapshotOf(forked, next.snapshot)
    assert.deepEqual(await readBack(forked, snapshot, path), folderState(path))
    return { error, committed }
  } finally {
    dropFork(forked)
  }
}

async function failureOf(run: Promise<unknown>): Promise<unknown> {
  try {
    await run
    return undefined
  } catch (error) {
    return error
  }
}

const CODES: readonly FailureCode[] = [
  'storage.full',
  'storage.offline',
  'storage.denied',
  'storage.readonly',
  'storage.timeout',
]

test('a store that fails at any put fails the backup with its code; the next run takes over', async () => {
  let runs = 0
  for (let put = 0; put < 100; put++, runs++) {
    const code = CODES[put % CODES.length]!
    const { error, committed } = await hostileRun({
      rules: [{ on: 'put', after: put, times: 1, trick: { kind: 'fail', code } }],
    })
    if (error === undefined) break
    assert.ok(isFailure(error, code), `put ${put}: ${describeError(error)}`)
    assert.equal(committed, 0)
  }
  assert.ok(runs > 6, `${runs} runs`)
})

test('a store that fills up in the middle says so with workers as well', async () => {
  for (const workers of [0, 2]) {
    const { error, committed } = await hostileRun(
      { rules: [{ on: 'put', name: /\/packs\//, after: 2, trick: { kind: 'fail', code: 'storage.full' } }] },
      workers,
    )
    assert.ok(isFailure(error, 'storage.full'), describeError(error))
    assert.equal(committed, 0)
  }
})

test('a lost answer fails the backup, and what was stored is not lost', async () => {
  for (const name of [/^sessions\//, /\/packs\//, /\/meta\//, /\/index\//, /\/snapshots\//]) {
    const { error, committed } = await hostileRun({
      rules: [{ on: 'put', name, times: 1, trick: { kind: 'lose-answer' } }],
    })
    const isSnapshot = name.test('d/x/snapshots/')
    // Whoever hears nothing of its snapshot looks: it is there and whole, so the backup has not failed.
    if (isSnapshot) assert.equal(error, undefined)
    else assert.ok(isFailure(error, 'storage.offline'), `${name}: ${describeError(error)}`)
    assert.equal(committed, isSnapshot ? 1 : 0)
  }
})

test('a torn put and a failing read end the run with a failure', async () => {
  for (const name of [/\/packs\//, /\/index\//, /\/snapshots\//]) {
    const { error } = await hostileRun({ rules: [{ on: 'put', name, times: 1, trick: { kind: 'tear' } }] })
    assert.ok(isFailure(error, 'storage.offline'), describeError(error))
  }
  for (const on of ['get', 'list'] as const) {
    for (let call = 0; call < 3; call++) {
      const rules = [{ on, after: call, times: 1, trick: { kind: 'fail', code: 'storage.offline' } as const }]
      const { error, committed } = await hostileRun({ rules })
      if (error === undefined) continue
      assert.ok(isFailure(error, 'storage.offline'), `${on} ${call}: ${describeError(error)}`)
      assert.equal(committed, 0)
    }
  }
})

test('a store that says created and keeps nothing is found out by whoever looks', async () => {
  for (const name of [/\/packs\//, /\/meta\//, /\/index\//]) {
    const forked = fork(repository, `hostile-${forks++}`)
    const rules = [{ on: 'put' as const, name, times: 1, trick: { kind: 'lie' as const } }]
    const store = hostileStore(memoryStore({ disk: forked.disk }), { rules })
    await backUp(through(forked, store), folderSource(path), { kind: 'incremental' })
    assert.notDeepEqual(await verifyRepository(forked.access), [], `${name}`)
    const full = await backUp(forked, folderSource(path), { kind: 'full' })
    const snapshot = await snapshotOf(forked, full.snapshot)
    assert.deepEqual(await readBack(forked, snapshot, path), folderState(path), 'a full depends on nothing')
    dropFork(forked)
  }
})

test('a store that hangs is left when the backup is cancelled', { timeout: 20_000 }, async () => {
  for (const workers of [0, 2]) {
    for (const name of [/^sessions\//, /\/packs\//, /\/meta\//, /\/index\//, /\/snapshots\//]) {
      const forked = fork(repository, `hostile-${forks++}`)
      const store = hostileStore(memoryStore({ disk: forked.disk }), {
        rules: [{ on: 'put', name, trick: { kind: 'hang' } }],
      })
      const cancel = new AbortController()
      const options = { kind: 'incremental' as const, workers, signal: cancel.signal }
      const run = failureOf(backUp(through(forked, store), folderSource(path), options))
      await store.untilHanging()
      cancel.abort()
      const error = await run
      assert.ok(isFailure(error, 'cancelled'), `${name} with ${workers} workers: ${describeError(error)}`)
      assert.deepEqual(await verifyRepository(forked.access), [])
      assert.equal((await snapshotsOf(forked)).length, 1)
      await backUp(forked, folderSource(path), { kind: 'incremental' })
      assert.deepEqual(await verifyRepository(forked.access), [])
      dropFork(forked)
    }
  }
})

test('a run that was cancelled before it began stores no snapshot', async () => {
  const { error, committed } = await hostileRun({ rules: [] }, 0, AbortSignal.abort())
  assert.ok(isFailure(error, 'cancelled'), describeError(error))
  assert.equal(committed, 0)
})
