/** kill -9 all along the length of real runs: 200 rounds, each with one or two kills. */
import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { testSeed } from '../harness/engine.ts'
import { runKillRounds } from '../harness/kill-rounds.ts'
import { longCount, newTeller } from '../harness/long-run.ts'

const ROUNDS = longCount(200)
const seed = testSeed()

test(`a backup may be killed at any moment: ${ROUNDS} rounds (SEED=${seed})`, async (t) => {
  const counts = await runKillRounds(ROUNDS, seed, newTeller())
  t.diagnostic(`${ROUNDS} rounds: ${JSON.stringify(counts).replaceAll(/["{}]/g, '')}`)
  assert.ok(counts.kills >= ROUNDS / 2, `only ${counts.kills} kills`)
  assert.ok(
    counts.adoptions >= Math.floor(ROUNDS / 5),
    `only ${counts.adoptions} runs took over what a killed one left`,
  )
})
