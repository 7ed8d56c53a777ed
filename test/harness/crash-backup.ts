/**
 * One backup that dies at a chosen write, perhaps again while the next run takes over, and then the run that
 * must succeed. What must hold at each moment is asserted here; test/crash chooses the moments.
 */
import { strict as assert } from 'node:assert'
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../../src/base/clock.ts'
import type { SnapshotKind } from '../../src/format/snapshot.ts'
import { memoryStore } from '../../src/storage/memory.ts'
import { crashingStore, endsBeforeCrash, type CrashPlan } from './crashing-store.ts'
import {
  backUp,
  countingStore,
  dropFork,
  dropRepository,
  folderSource,
  folderState,
  fork,
  makeRepository,
  noise,
  readBack,
  sha256Hex,
  snapshotOf,
  snapshotsOf,
  through,
  type EntryState,
  type TestRepository,
} from './engine.ts'
import { storedTwice, verifyRepository, type KnownPacks } from './verify.ts'

const DAY_MS = 86_400_000

export interface CrashScene {
  readonly repository: TestRepository
  readonly path: string
  readonly kind: SnapshotKind
  /** What each snapshot that was there before must give back. */
  readonly before: Map<string, Map<string, EntryState>>
  readonly now: Map<string, EntryState>
  readonly known: KnownPacks
  points: number
}

/** A repository in which the next backup is one of `kind`, with several packs and index runs to write. */
export async function makeCrashScene(kind: SnapshotKind): Promise<CrashScene> {
  const repository = await makeRepository()
  const path = join(repository.folder, 'data')
  mkdirSync(join(path, 'images'), { recursive: true })
  for (let i = 0; i < 150; i++) writeFileSync(join(path, 'images', `${i}.jpg`), noise(i, 300 + (i % 5) * 900))
  writeFileSync(join(path, 'video'), noise(1000, 150_000))
  const before = new Map<string, Map<string, EntryState>>()
  const known: KnownPacks = new Map()
  const scene: CrashScene = {
    repository,
    path,
    kind,
    before,
    now: folderState(path),
    known,
    points: 0,
  }
  if (kind === 'full') return scene
  for (const each of ['full', 'incremental'] as const) {
    const done = await backUp(repository, folderSource(path), { kind: each, clock: crashClock(0) })
    before.set(done.snapshot!, folderState(path))
    for (let i = 0; i < 150; i++)
      writeFileSync(join(path, 'images', `${each}-${i}.jpg`), noise(i * 7 + each.length, 1500))
    writeFileSync(join(path, 'video'), noise(each.length, 150_000))
    rmSync(join(path, 'images', `${each.length}.jpg`))
    renameSync(join(path, 'images', '140.jpg'), join(path, 'images', `moved`))
    renameSync(join(path, 'images', 'moved'), join(path, 'images', '140.jpg'))
  }
  return { ...scene, now: folderState(path) }
}

export function dropCrashScene(scene: CrashScene): void {
  dropRepository(scene.repository)
}

/**
 * Tries one list of crashes, each in a run of its own, a day apart, and then a run to the end.
 * Returns whether the first run ended before its crash: then no later point is left.
 */
export async function tryCrashes(scene: CrashScene, plans: readonly CrashPlan[]): Promise<boolean> {
  scene.points++
  const name = `fork-${scene.points}`
  const forked = fork(scene.repository, name)
  try {
    let ended = false
    for (const [day, plan] of plans.entries()) {
      const clock = crashClock(day)
      const store = crashingStore(memoryStore({ disk: forked.disk, clock }), plan)
      const options = { kind: scene.kind, clock }
      const done = await endsBeforeCrash(() =>
        backUp(through(forked, store), folderSource(scene.path), options),
      )
      await assertWhole(scene, forked, `after a crash at ${JSON.stringify(plans.slice(0, day + 1))}`)
      if (day === 0) ended = done
    }
    await finishRun(scene, forked, plans)
    return ended
  } finally {
    dropFork(forked)
  }
}

async function finishRun(
  scene: CrashScene,
  forked: TestRepository,
  plans: readonly CrashPlan[],
): Promise<void> {
  const what = `of the run after ${JSON.stringify(plans)}`
  const clock = crashClock(plans.length)
  const counting = countingStore(memoryStore({ disk: forked.disk, clock }))
  const options = { kind: scene.kind, clock }
  const isUncommitted = (await snapshotsOf(forked)).length === scene.before.size
  const left = wholePacksLeft(scene, forked)
  const done = await backUp(through(forked, counting.store), folderSource(scene.path), options)
  assert.equal(done.kind, scene.kind)
  if (isUncommitted) assert.equal(done.adoptedPacks, left, `packs taken over ${what}`)
  assert.equal(done.bytesStored, counting.packBytes(), `bytesStored ${what}`)
  await assertWhole(scene, forked, `at the end ${what}`)
  assert.deepEqual(await storedTwice(forked.access), [], `chunks stored again ${what}`)
  const snapshot = await snapshotOf(forked, done.snapshot)
  assert.deepEqual(await readBack(forked, snapshot, scene.path), scene.now, `contents ${what}`)
}

/** How many packs the dead runs left; torn ones do not count. */
function wholePacksLeft(scene: CrashScene, forked: TestRepository): number {
  const names = [...forked.disk.keys()].filter((name) => /\/(packs|meta)\//.test(name))
  const left = names.filter((name) => !scene.repository.disk.has(name))
  return left.filter((name) => sha256Hex(forked.disk.get(name)!.bytes) === name.slice(-64)).length
}

async function assertWhole(scene: CrashScene, forked: TestRepository, when: string): Promise<void> {
  assert.deepEqual(await verifyRepository(forked.access, scene.known), [], when)
  const there = new Set((await snapshotsOf(forked)).map(({ id }) => id))
  for (const id of scene.before.keys()) assert.ok(there.has(id), `snapshot ${id} is gone ${when}`)
}

/** Reads the earlier snapshots back, as they were. */
export async function assertEarlierReadBack(scene: CrashScene): Promise<void> {
  for (const [id, state] of scene.before) {
    const snapshot = await snapshotOf(scene.repository, id)
    assert.deepEqual(await readBack(scene.repository, snapshot, scene.path), state)
  }
}

/** Runs `day` days ahead, so that all files count as settled; a minute passes with every look at it. */
function crashClock(day: number): Clock {
  let elapsed = 0
  const start = Date.now() + (day + 1) * DAY_MS
  return { now: () => start + elapsed, elapsed: () => (elapsed += 61_000) }
}
