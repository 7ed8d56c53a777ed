/** kill -9 at moments by chance: BACKSTOCK_KILL_ROUNDS rounds, each with one to three kills. */
import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { testSeed } from '../harness/engine.ts'
import { runKillRounds } from '../harness/kill-rounds.ts'

const ROUNDS = Number(process.env['BACKSTOCK_KILL_ROUNDS'] ?? 200)
const seed = testSeed()

test(`a backup may be killed at any moment: ${ROUNDS} rounds (SEED=${seed})`, async (t) => {
  const counts = await runKillRounds(ROUNDS, seed)
  t.diagnostic(JSON.stringify(counts))
  assert.ok(counts.kills > ROUNDS / 2, `only ${counts.kills} kills`)
  assert.ok(counts.adoptions > ROUNDS / 10, `only ${counts.adoptions} adoptions`)
})
