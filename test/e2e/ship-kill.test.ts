/** kill -9 of the shipper and the server under load: the full count is test/long/ship-kill.test.ts. */
import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { testSeed } from '../harness/engine.ts'
import { postgresFolder } from '../harness/postgres.ts'
import { runShipKillRounds } from '../harness/ship-kill-rounds.ts'

const ROUNDS = 3
const seed = testSeed()
const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false

test(`ship and server may be killed at any moment (SEED=${seed})`, { skip, timeout: 120_000 }, async (t) => {
  const counts = await runShipKillRounds(ROUNDS, seed)
  t.diagnostic(JSON.stringify(counts))
  assert.ok(counts.commits > 100, `only ${counts.commits} commits`)
})
