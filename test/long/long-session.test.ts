/** Sessions that turn their table over many times, in this thread and with workers. */
import { strict as assert } from 'node:assert'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { dropRepository, makeRepository } from '../harness/engine.ts'
import { longCount } from '../harness/long-run.ts'
import { runLongSession, TINY_CHUNKING } from '../harness/long-session.ts'
import { verifyRepository } from '../harness/verify.ts'

/** Fewer would not turn a session's table over often enough. */
const CHUNKS_MIN = 200_000
const CHUNKS = Math.max(CHUNKS_MIN, longCount(800_000))

for (const workers of [0, 2]) {
  test(`a session of ${CHUNKS} chunks with ${workers} workers`, async (t) => {
    const repository = await makeRepository({ chunking: TINY_CHUNKING })
    const path = join(repository.folder, 'data')
    mkdirSync(path)
    try {
      await runLongSession({ repository, path }, { chunksMin: CHUNKS, workers })
      assert.deepEqual(await verifyRepository(repository.access), [])
      t.diagnostic(`${CHUNKS} chunks, ${workers} workers`)
    } finally {
      dropRepository(repository)
    }
  })
}
