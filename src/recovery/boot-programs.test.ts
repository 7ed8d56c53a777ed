import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { findServerFolder } from './boot-programs.ts'

const dir = mkdtempSync(join(tmpdir(), 'backstock-programs-'))
after(() => rmSync(dir, { recursive: true, force: true }))

/** A folder with a program that says it is of that version. */
function fakeServer(name: string, says: string): string {
  const folder = join(dir, name)
  mkdirSync(folder)
  writeFileSync(join(folder, 'postgres'), `#!/bin/sh\n${says}\n`)
  chmodSync(join(folder, 'postgres'), 0o755)
  return folder
}

test('findServerFolder() takes the one of that version, and says what there is instead', () => {
  const old = fakeServer('old', 'echo "postgres (PostgreSQL) 91.4 (Debian 91.4-1)"')
  const right = fakeServer('right', 'echo "postgres (PostgreSQL) 92beta1"')
  const broken = fakeServer('broken', 'exit 1')
  const path = ['relative', join(dir, 'nowhere'), broken, old, right].join(':')
  assert.equal(findServerFolder(92, { named: undefined, path }), right)
  assert.equal(findServerFolder(91, { named: old, path: right }), old)
  const fails = (major: number, named: string | undefined, is: RegExp): void =>
    assert.throws(
      () => findServerFolder(major, { named, path }),
      (error) => isFailure(error, 'host.unsupported') && is.test(error.message),
    )
  fails(93, undefined, /broken has one that does not run, .*old has version 91, .*right has version 92\)$/)
  fails(92, old, /\(.*old has version 91\)$/)
  fails(92, join(dir, 'nowhere'), /there is none in .*nowhere/)
})
