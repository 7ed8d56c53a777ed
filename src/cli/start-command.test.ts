import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { findUser } from '../recovery/boot-programs.ts'
import { startCommand } from './start-command.ts'

/** No package brings it, so that the shell looks for its program in PATH. */
const MAJOR = 999
const UNKNOWN = { uid: 54_321, gid: 54_322 }

test('startCommand() names no other user to one who is not root: the copy is his', () => {
  const owner = { uid: 1, gid: 1 }
  assert.equal(startCommand({ major: MAJOR, owner }, '/srv/a', 1000), 'pg_ctl start -D /srv/a')
  assert.equal(startCommand({ major: MAJOR, owner }, "/srv/a's", 1), "pg_ctl start -D '/srv/a'\\''s'")
})

const isRoot = process.geteuid?.() === 0
const skip = isRoot && existsSync('/usr/bin/setpriv') ? false : 'needs root and setpriv'
test('a shell of root runs startCommand() as the owner, whether he has a name here or not', { skip }, (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'backstock-start-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  chmodSync(dir, 0o755)
  const fake = '#!/bin/sh\necho "$(id -u) $(id -g)"\nprintf "%s\\n" "$@"\n'
  writeFileSync(join(dir, 'pg_ctl'), fake, { mode: 0o755 })
  const known = findUser()
  assert.ok(known !== undefined)
  for (const owner of [known, UNKNOWN]) {
    const command = startCommand({ major: MAJOR, owner }, "/srv/# a's")
    const env = { PATH: `${dir}:${process.env['PATH']}` }
    const said = execFileSync('/bin/sh', ['-c', command], { env, encoding: 'utf8' })
    const id = `${owner.uid} ${owner.gid}`
    assert.deepEqual(said.trimEnd().split('\n'), [id, 'start', '-D', "/srv/# a's"], command)
  }
})
