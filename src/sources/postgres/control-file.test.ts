import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import { dropPostgres, makePostgres, postgresFolder } from '../../../test/harness/postgres.ts'
import { parseControlFile } from './control-file.ts'

for (const version of [15, 18]) {
  const skip = postgresFolder(version) === undefined ? `PostgreSQL ${version} is not here` : false
  test(`parseControlFile() reads that of version ${version}`, { skip, timeout: 60_000 }, async () => {
    const settings = [
      'max_connections = 31',
      'max_worker_processes = 12',
      'max_wal_senders = 13',
      'max_prepared_transactions = 44',
      'max_locks_per_transaction = 155',
    ]
    const initdb = ['--wal-segsize=1']
    const server = await makePostgres({ version, settings, initdb, checksums: version === 18 })
    try {
      const bytes = readFileSync(join(server.data, 'global/pg_control'))
      assert.deepEqual(parseControlFile(bytes), {
        limits: {
          max_connections: 31,
          max_worker_processes: 12,
          max_wal_senders: 13,
          max_prepared_transactions: 44,
          max_locks_per_transaction: 155,
        },
        pageBytes: 8192,
        fileBlocks: 131_072,
        segmentBytes: 1024 * 1024,
        hasChecksums: version === 18,
      })
      const broken = (error: unknown): boolean => isFailure(error, 'repo.corrupt')
      assert.throws(() => parseControlFile(bytes.subarray(0, 200)), broken)
      assert.throws(() => parseControlFile(Buffer.alloc(8192)), broken)
    } finally {
      await dropPostgres(server)
    }
  })
}
