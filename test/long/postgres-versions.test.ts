/** The whole way with every version of PostgreSQL that we promise. */
import { test } from 'node:test'
import { newTeller } from '../harness/long-run.ts'
import { postgresFolder } from '../harness/postgres.ts'
import { proveVersion } from '../harness/postgres-matrix.ts'
import { fetchPackage } from '../harness/postgres-packages.ts'

for (const version of [13, 14, 15, 16, 17, 18]) {
  const reason = postgresFolder(version) === undefined ? fetchPackage(version) : undefined
  test(
    `a cluster of PostgreSQL ${version} comes back, and to each target`,
    { skip: reason ?? false, timeout: 300_000 },
    async (t) => {
      const say = newTeller()
      const began = performance.now()
      await proveVersion(version, (done) => say(`PostgreSQL ${version}: ${done}`))
      t.diagnostic(`equal after ${((performance.now() - began) / 1000).toFixed(1)} s`)
    },
  )
}
