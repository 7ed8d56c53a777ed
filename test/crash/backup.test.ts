/** Every write at which a backup can die: clean and torn; and a sample of dying twice (all pairs: test/long). */
import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { seeded, testSeed } from '../harness/engine.ts'
import { assertEarlierReadBack, dropCrashScene, makeCrashScene, tryCrashes } from '../harness/crash-backup.ts'

const POINTS_MAX = 500
const seed = testSeed()

for (const kind of ['full', 'incremental', 'differential'] as const) {
  test(`a ${kind} backup may die at any write, and the next run takes over (SEED=${seed})`, async (t) => {
    const scene = await makeCrashScene(kind)
    try {
      const random = seeded(seed)
      let [writes, points] = [0, 0]
      for (const torn of [false, true]) {
        for (let at = 0; at < POINTS_MAX; at++) {
          const ended = await tryCrashes(scene, [{ at, torn }])
          points++
          if (ended) break
          writes = Math.max(writes, at)
        }
      }
      assert.ok(writes > 8, `${writes} writes`)
      // The run that takes over dies at its first write: packs that no run lists must be found once more.
      for (let at = 1; at < writes; at += 2, points++)
        await tryCrashes(scene, [
          { at, torn: false },
          { at: 1, torn: at % 4 === 1 },
        ])
      for (let pair = 0; pair < 10; pair++) {
        const plan = (): { at: number; torn: boolean } => ({
          at: Math.floor(random() * writes),
          torn: random() < 0.5,
        })
        await tryCrashes(scene, [plan(), plan(), ...(pair % 3 === 0 ? [plan()] : [])])
        points++
      }
      await assertEarlierReadBack(scene)
      t.diagnostic(`${points} crash points, ${writes} writes`)
    } finally {
      dropCrashScene(scene)
    }
  })
}
