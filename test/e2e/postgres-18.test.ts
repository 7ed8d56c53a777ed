/** The whole way with the servers that are always at hand: Debian's, and the newest one from npm. */
import { test } from 'node:test'
import { postgresFolder } from '../harness/postgres.ts'
import { proveVersion } from '../harness/postgres-matrix.ts'

for (const version of [15, 18]) {
  const skip = postgresFolder(version) === undefined ? `PostgreSQL ${version} is not installed` : false
  test(
    `a cluster of PostgreSQL ${version} comes back, and to each target`,
    { skip, timeout: 120_000 },
    async (t) => {
      await proveVersion(version, (done) => t.diagnostic(done))
    },
  )
}
