/** kill -9 of the shipper, of the server or of both, in 30 rounds under load. */
import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { testSeed } from '../harness/engine.ts'
import { longCount, newTeller } from '../harness/long-run.ts'
import { postgresFolder } from '../harness/postgres.ts'
import { runShipKillRounds } from '../harness/ship-kill-rounds.ts'

const ROUNDS = longCount(30)
const seed = testSeed()
const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false

test(`ship and server may be killed at any moment: ${ROUNDS} rounds (SEED=${seed})`, { skip }, async (t) => {
  const counts = await runShipKillRounds(ROUNDS, seed, newTeller())
  t.diagnostic(`${ROUNDS} rounds: ${JSON.stringify(counts).replaceAll(/["{}]/g, '')}`)
  assert.ok(counts.commits > ROUNDS * 30, `only ${counts.commits} commits`)
})
