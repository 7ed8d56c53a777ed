/** What a dead run left and what was damaged since: the next run takes over what is whole, and nothing else. */
import { strict as assert } from 'node:assert'
import { after, before, test } from 'node:test'
import type { BackupSummary } from '../../src/backup/backup.ts'
import { systemClock } from '../../src/base/clock.ts'
import { isFailure } from '../../src/base/failure.ts'
import { rotateEpoch } from '../../src/repo/key-changes.ts'
import { openRepository, writingDomain } from '../../src/repo/keys.ts'
import { memoryStore } from '../../src/storage/memory.ts'
import { dropCrashScene, makeCrashScene, type CrashScene } from '../harness/crash-backup.ts'
import {
  aheadClock,
  backUp,
  dropFork,
  folderSource,
  fork,
  readBack,
  snapshotOf,
  through,
  type TestRepository,
} from '../harness/engine.ts'
import { hostileStore } from '../harness/hostile-store.ts'
import { change, flip, objectsOf } from '../harness/tampering.ts'
import { verifyRepository } from '../harness/verify.ts'

let scene: CrashScene
let forks = 0

before(async () => {
  scene = await makeCrashScene('full')
})
after(() => dropCrashScene(scene))

/**
 * A run that dies at the first put of `name`, what `damage` does to the store, and the next run, which must
 * succeed.
 */
async function takeOver(
  name: RegExp,
  damage: (repository: TestRepository) => void | Promise<unknown>,
): Promise<{ left: number; next: BackupSummary }> {
  const forked = fork(scene.repository, `adopt-${forks++}`)
  const options = { kind: scene.kind, clock: aheadClock(10_000) }
  try {
    const rules = [{ on: 'put', name, trick: { kind: 'fail', code: 'storage.full' } } as const]
    const store = hostileStore(memoryStore({ disk: forked.disk }), { rules })
    await assert.rejects(backUp(through(forked, store), folderSource(scene.path), options), (error) =>
      isFailure(error, 'storage.full'),
    )
    const left = packsOf(forked).length
    await damage(forked)
    const opened = { ...forked, access: await openRepository(forked.access.store, forked.kit) }
    const next = await backUp(opened, folderSource(scene.path), options)
    assert.deepEqual(await verifyRepository(opened.access), [])
    assert.deepEqual(await readBack(opened, await snapshotOf(opened, next.snapshot), scene.path), scene.now)
    return { left, next }
  } finally {
    dropFork(forked)
  }
}

function packsOf(repository: TestRepository): string[] {
  return [...objectsOf(repository, '/packs/'), ...objectsOf(repository, '/meta/')]
}

/** In the first frame, which lies at the beginning: tail and length stay right. */
function damagePack(repository: TestRepository): void {
  change(repository, packsOf(repository)[1] ?? '', (bytes) => flip(bytes, 10))
}

test('packs that no run lists are taken over, but not one that was damaged since', async () => {
  const whole = await takeOver(/\/index\//, () => undefined)
  assert.ok(whole.left > 3, `${whole.left} packs`)
  assert.equal(whole.next.adoptedPacks, whole.left)
  const { left, next } = await takeOver(/\/index\//, damagePack)
  assert.equal(next.adoptedPacks, left - 1)
})

test('a run whose pack is gone or cut is not taken over; its other packs are', async () => {
  const whole = await takeOver(/\/snapshots\//, () => undefined)
  assert.equal(whole.next.adoptedPacks, whole.left)
  const gone = await takeOver(/\/snapshots\//, (repository) => {
    repository.disk.delete(packsOf(repository)[1] ?? '')
  })
  assert.equal(gone.next.adoptedPacks, gone.left - 1)
  const cut = await takeOver(/\/snapshots\//, (repository) =>
    change(repository, packsOf(repository)[1] ?? '', (bytes) => bytes.subarray(0, -1)),
  )
  assert.equal(cut.next.adoptedPacks, cut.left - 1)
})

test('packs of an ended epoch are not taken over: who was removed could open them', async () => {
  const { left, next } = await takeOver(/\/snapshots\//, ({ access, kit }) =>
    rotateEpoch({ store: access.store, kit, clock: systemClock }, writingDomain(access).id),
  )
  assert.ok(left > 3, `${left} packs`)
  assert.equal(next.adoptedPacks, 0)
})
