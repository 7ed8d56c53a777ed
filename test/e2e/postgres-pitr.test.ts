/** Recovery by the program's own commands to a sample of all targets; test/long has all, with all versions. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { postgresFolder, query, stopPostgres } from '../harness/postgres.ts'
import { canSetClock, makeClock } from '../harness/postgres-clock.ts'
import {
  backUpWorld,
  dropWorld,
  makeWorld,
  quietMoment,
  restoreWorld,
  startPrinted,
} from '../harness/postgres-pitr.ts'
import { provePitr } from '../harness/postgres-story.ts'

for (const version of [15, 18]) {
  const skip = postgresFolder(version) === undefined ? `PostgreSQL ${version} is not installed` : false
  test(`PostgreSQL ${version} recovers to targets of each kind`, { skip, timeout: 120_000 }, async (t) => {
    const count = await provePitr(version, { onlySample: true }, (done) => t.diagnostic(done))
    t.diagnostic(`${count} targets`)
  })
}

const hasServer = postgresFolder(15) !== undefined
const skipClock = canSetClock && hasServer ? false : 'libfaketime or PostgreSQL 15 is not installed'
const withClock = { skip: skipClock, timeout: 120_000 }
test(
  'a clock that goes back: the server stops at the first later commit, and it is said',
  withClock,
  async () => {
    const clock = makeClock()
    const world = await makeWorld({ version: 15, env: clock.env }, 'create table steps (step int)')
    const { first } = world
    const step = async (number: number): Promise<void> => {
      await query(first, `insert into steps values (${number})`)
    }
    try {
      await backUpWorld(world)
      await step(1)
      clock.set(600)
      await step(2)
      const late = await quietMoment(first)
      clock.set(0)
      await step(3)
      const early = await quietMoment(first)
      assert.ok(Date.parse(late) - Date.parse(early) > 500_000)
      await step(4)
      clock.set(1200)
      await step(5)
      await world.ship.caughtUp(first)
      await world.ship.stop()
      await stopPostgres(first)
      for (const [moment, steps] of [
        [early, ['1']],
        [late, ['1', '2', '3', '4']],
      ] as const) {
        const restored = await restoreWorld(world, ['--at', moment])
        assert.match(restored.said, /clock went back by 5\d{5} ms/)
        const back = await startPrinted(world, restored)
        try {
          assert.deepEqual(await query(back, 'select step from steps order by 1'), steps)
        } finally {
          await back.stop()
        }
      }
    } finally {
      await dropWorld(world)
      clock.drop()
    }
  },
)
