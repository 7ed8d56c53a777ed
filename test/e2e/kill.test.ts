/** kill -9 all along the length of real runs: the full count is test/long/kill.test.ts. */
import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { testSeed } from '../harness/engine.ts'
import { runKillRounds } from '../harness/kill-rounds.ts'

const ROUNDS = 20
const seed = testSeed()

test(`a backup may be killed at any moment (SEED=${seed})`, { timeout: 400_000 }, async (t) => {
  const counts = await runKillRounds(ROUNDS, seed)
  t.diagnostic(JSON.stringify(counts))
  assert.ok(counts.kills >= ROUNDS / 2, `only ${counts.kills} kills`)
  assert.ok(counts.adoptions >= ROUNDS / 10, `only ${counts.adoptions} runs took over what a killed one left`)
})
