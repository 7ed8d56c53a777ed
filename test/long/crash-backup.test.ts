/** Every pair of writes at which a backup and the run after it can die. */
import { test } from 'node:test'
import {
  assertEarlierReadBack,
  dropCrashScene,
  makeCrashScene,
  tryCrashes,
  type CrashScene,
} from '../harness/crash-backup.ts'
import { longStride, newTeller } from '../harness/long-run.ts'

const POINTS_MAX = 500
/** Writes of the run that takes over, which are fewer. */
const SECOND_POINTS = 20

for (const kind of ['full', 'incremental', 'differential'] as const) {
  test(`a ${kind} backup may die at any write, and the next run at any of its own`, async (t) => {
    const scene = await makeCrashScene(kind)
    const say = newTeller()
    try {
      let points = 0
      for (const torn of [false, true]) {
        for (let at = 0; at < POINTS_MAX; at += longStride()) {
          if (await tryCrashes(scene, [{ at, torn }])) break
          points += 1 + (await trySeconds(scene, { at, torn }))
          say(`${kind}: ${points} points, ${torn ? 'torn' : 'cut'} at write ${at}`)
        }
      }
      await assertEarlierReadBack(scene)
      t.diagnostic(`${kind}: ${points} crash points and pairs of them`)
    } finally {
      dropCrashScene(scene)
    }
  })
}

async function trySeconds(scene: CrashScene, first: { at: number; torn: boolean }): Promise<number> {
  let points = 0
  for (const torn of [false, true])
    for (let at = 0; at < SECOND_POINTS; at += longStride(), points++)
      await tryCrashes(scene, [first, { at, torn }])
  return points
}
