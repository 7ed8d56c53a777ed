/** Clusters whose shape takes its time: ten thousand relations, segments of log of 64 MiB. */
import { test } from 'node:test'
import { longCount } from '../harness/long-run.ts'
import { postgresFolder } from '../harness/postgres.ts'
import { proveShape, segmentShape } from '../harness/postgres-shapes.ts'

const COUNT = longCount(10_000)
const skip = postgresFolder(15) === undefined ? 'PostgreSQL 15 is not installed' : false
const create = (from: number, to: number): string =>
  `do $$ begin for n in ${from} .. ${to} loop
    execute format('create table t%s as select %s id, md5(%L) note', n, n, n);
  end loop; end $$`

test(`a cluster of ${COUNT} relations comes back equal`, { skip, timeout: 600_000 }, async (t) => {
  const began = performance.now()
  await proveShape({
    options: { settings: ['max_locks_per_transaction = 2000'] },
    tablespaces: [],
    before: [create(1, COUNT - 100)],
    behind: [create(COUNT - 99, COUNT), 'drop table t7'],
    answers: { "select count(*) from pg_class where relname ~ '^t[0-9]+$'": String(COUNT - 1) },
  })
  t.diagnostic(`${COUNT} relations took ${((performance.now() - began) / 1000).toFixed(1)} s`)
})

test('segments of log of 64 MiB', { skip, timeout: 120_000 }, async () => {
  await proveShape(segmentShape(64))
})
