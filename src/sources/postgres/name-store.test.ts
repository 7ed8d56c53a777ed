import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadNames, saveNames } from './name-store.ts'

const NOTE = {
  lsn: 2n ** 60n,
  files: { tablespace: 1663, database: 5, relation: 16_384 },
  schema: 'public',
  name: 'or"ders\u00fc',
}

test('names come back; a file that is missing or damaged has none', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-names-'))
  t.after(() => rmSync(folder, { recursive: true }))
  assert.deepEqual(loadNames(folder), [])
  saveNames(folder, [NOTE, { ...NOTE, lsn: 0n }])
  assert.deepEqual(loadNames(folder), [NOTE, { ...NOTE, lsn: 0n }])
  for (const text of ['[{', '[{"lsn":"x"}]', '{}']) {
    writeFileSync(join(folder, 'names.json'), text)
    assert.deepEqual(loadNames(folder), [])
  }
  saveNames(join(folder, 'gone'), [NOTE])
})
