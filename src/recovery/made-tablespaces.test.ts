import assert from 'node:assert/strict'
import { appendFileSync, chownSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { dropPostgres, makePostgres, postgresFolder, sql, stopPostgres } from '../../test/harness/postgres.ts'
import { parseControlFile } from '../sources/postgres/control-file.ts'
import { tablespacesMade } from './made-tablespaces.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false

test('tablespacesMade() names places that the log would empty', { skip, timeout: 60_000 }, async () => {
  const server = await makePostgres({ settings: ["wal_keep_size = '1GB'"] })
  try {
    const { uid, gid } = statSync(server.data)
    const places = ['before', 'behind'].map((name) => join(server.dir, name))
    for (const place of places) {
      mkdirSync(place)
      chownSync(place, uid, gid)
    }
    const [before = '', behind = ''] = places
    const [start = ''] = sql(server, 'select pg_current_wal_insert_lsn()')
    sql(server, `create tablespace before location '${before}'`)
    const [middle = ''] = sql(server, 'select pg_current_wal_insert_lsn()')
    // The next one lies in another segment.
    sql(server, 'select pg_switch_wal()')
    sql(server, 'set allow_in_place_tablespaces = on', "create tablespace inside location ''")
    sql(server, `create tablespace behind location '${behind}'`, 'drop tablespace behind')
    await stopPostgres(server)
    const { segmentBytes } = parseControlFile(readFileSync(join(server.data, 'global/pg_control')))
    const label = join(server.data, 'backup_label')
    const of = { major: server.major, segmentBytes, signal: undefined }
    const placesMade = async (): Promise<string[]> =>
      (await tablespacesMade(server.data, of)).map(({ place }) => place)
    writeFileSync(label, `START WAL LOCATION: ${start} (file 000000010000000000000001)\n`)
    appendFileSync(label, 'CHECKPOINT LOCATION: 0/1\n')
    assert.deepEqual(await placesMade(), places)
    writeFileSync(label, `START WAL LOCATION: ${middle} (file 000000010000000000000001)\n`)
    assert.deepEqual(await placesMade(), [behind])
  } finally {
    await dropPostgres(server)
  }
})
