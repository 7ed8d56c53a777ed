/** Sessions that turn their table over many times, in this thread and with workers. */
import { strict as assert } from 'node:assert'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { dropRepository, makeRepository } from '../harness/engine.ts'
import { runLongSession, TINY_CHUNKING } from '../harness/long-session.ts'
import { verifyRepository } from '../harness/verify.ts'

for (const workers of [0, 2]) {
  test(`a session of 800 000 chunks with ${workers} workers`, async () => {
    const repository = await makeRepository({ chunking: TINY_CHUNKING })
    const path = join(repository.folder, 'data')
    mkdirSync(path)
    try {
      await runLongSession({ repository, path }, { chunksMin: 800_000, workers })
      assert.deepEqual(await verifyRepository(repository.access), [])
    } finally {
      dropRepository(repository)
    }
  })
}
