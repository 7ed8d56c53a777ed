import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import { findDumpPrograms } from './logical-programs.ts'

const dir = mkdtempSync(join(tmpdir(), 'backstock-programs-'))
after(() => rmSync(dir, { recursive: true }))

/** A folder with programs that only say their version. */
function programs(
  name: string,
  version: string,
  names: readonly string[] = ['pg_dump', 'pg_dumpall'],
): string {
  const folder = join(dir, name)
  mkdirSync(folder)
  for (const each of names) {
    const path = join(folder, each)
    writeFileSync(path, `#!/bin/sh\necho "pg_dump (PostgreSQL) ${version}"\n`)
    chmodSync(path, 0o755)
  }
  return folder
}

test('findDumpPrograms() takes the newest that runs, with its pg_dumpall', async () => {
  const [old, newest, newer] = [programs('a', '98.12'), programs('b', '99.10'), programs('c', '99.9')]
  const broken = programs('d', '')
  writeFileSync(join(broken, 'pg_dump'), '#!/bin/sh\nexit 127\n')
  const path = ['relative', broken, old, newest, newer, join(dir, 'none')].join(':')
  const found = await findDumpPrograms({ named: undefined, path, major: 15 })
  const dumpAll = join(newest, 'pg_dumpall')
  assert.deepEqual(found, { dump: join(newest, 'pg_dump'), dumpAll, version: '99.10' })
  const named = await findDumpPrograms({ named: join(old, 'pg_dump'), path, major: 98 })
  assert.equal(named.version, '98.12')
})

test('findDumpPrograms() says what is there, what must be and what to install', async () => {
  const path = programs('alone', '99.11', ['pg_dump'])
  const lacks = (pattern: RegExp) => (error: unknown) =>
    isFailure(error, 'host.unsupported') && pattern.test(error.message)
  await assert.rejects(
    findDumpPrograms({ named: undefined, path, major: 100 }),
    lacks(/alone\/pg_dump is of version 99\.11.* must be 100 or newer/),
  )
  await assert.rejects(
    findDumpPrograms({ named: undefined, path, major: 15 }),
    lacks(/alone\/pg_dumpall" is not beside it/),
  )
})
