/** Recovery by the program's own commands to a sample of all targets; test/long has all, with all versions. */
import { test } from 'node:test'
import { postgresFolder } from '../harness/postgres.ts'
import { provePitr } from '../harness/postgres-story.ts'

for (const version of [15, 18]) {
  const skip = postgresFolder(version) === undefined ? `PostgreSQL ${version} is not installed` : false
  test(`PostgreSQL ${version} recovers to targets of each kind`, { skip, timeout: 120_000 }, async (t) => {
    const count = await provePitr(version, { onlySample: true }, (done) => t.diagnostic(done))
    t.diagnostic(`${count} targets`)
  })
}
