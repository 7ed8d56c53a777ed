/** Against the pages that a real server wrote. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  sql,
  stopPostgres,
} from '../../../test/harness/postgres.ts'
import { PAGE_BYTES, pageChecksum } from './page-checksum.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false

test('pageChecksum() is what the server wrote on each of its pages', { skip, timeout: 60_000 }, async () => {
  const server = await makePostgres()
  try {
    sql(server, 'create table many as select i, repeat(i::text, 10) note from generate_series(1, 20000) i')
    await stopPostgres(server)
    let pages = 0
    for (const file of relationFiles(join(server.data, 'base'))) {
      const bytes = readFileSync(file)
      const words = new Int32Array(Uint8Array.from(bytes).buffer)
      for (let block = 0; block < bytes.length / PAGE_BYTES; block++) {
        const at = (block * PAGE_BYTES) / 4
        const stored = words[at + 2]! & 0xffff
        // A page that was never used is empty.
        if (bytes.subarray(block * PAGE_BYTES, (block + 1) * PAGE_BYTES).every((byte) => byte === 0)) continue
        assert.equal(pageChecksum(words, at, block), stored, `${file}, block ${block}`)
        assert.notEqual(pageChecksum(words, at, block + 1), stored)
        words[at + 1000]! ^= 1 << (block % 32)
        assert.notEqual(pageChecksum(words, at, block), stored)
        pages++
      }
    }
    assert.ok(pages > 1000)
  } finally {
    await dropPostgres(server)
  }
})

/** Files whose names are those of relations and their forks. */
function relationFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => /^\d+\/\d+(_(fsm|vm|init))?(\.\d+)?$/.test(name))
    .map((name) => join(folder, name))
}
