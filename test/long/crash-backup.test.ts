/** Every pair of writes at which a backup and the run after it can die. */
import { test } from 'node:test'
import { assertEarlierReadBack, dropCrashScene, makeCrashScene, tryCrashes } from '../harness/crash-backup.ts'

const POINTS_MAX = 500

for (const kind of ['full', 'incremental', 'differential'] as const) {
  test(`a ${kind} backup may die at any write, and the next run at any of its own`, async (t) => {
    const scene = await makeCrashScene(kind)
    try {
      let points = 0
      for (const torn of [false, true]) {
        for (let at = 0; at < POINTS_MAX; at++) {
          if (await tryCrashes(scene, [{ at, torn }])) break
          for (const second of [false, true]) {
            for (let next = 0; next < 20; next++, points++)
              await tryCrashes(scene, [
                { at, torn },
                { at: next, torn: second },
              ])
          }
        }
      }
      await assertEarlierReadBack(scene)
      t.diagnostic(`${points} pairs of crash points`)
    } finally {
      dropCrashScene(scene)
    }
  })
}
