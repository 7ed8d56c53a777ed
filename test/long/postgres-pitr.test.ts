/** Recovery to every kind of target with every version of PostgreSQL that we promise. */
import { test } from 'node:test'
import { newTeller } from '../harness/long-run.ts'
import { postgresFolder } from '../harness/postgres.ts'
import { fetchPackage } from '../harness/postgres-packages.ts'
import { provePitr } from '../harness/postgres-story.ts'

for (const version of [13, 14, 15, 16, 17, 18]) {
  const reason = postgresFolder(version) === undefined ? fetchPackage(version) : undefined
  test(
    `PostgreSQL ${version} recovers to every target`,
    { skip: reason ?? false, timeout: 300_000 },
    async (t) => {
      const say = newTeller()
      const began = performance.now()
      const count = await provePitr(version, { onlySample: false }, (done) =>
        say(`PostgreSQL ${version}: ${done}`),
      )
      t.diagnostic(`${count} targets took ${((performance.now() - began) / 1000).toFixed(1)} s`)
    },
  )
}
