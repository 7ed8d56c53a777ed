import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeFolders } from './folders.ts'

test('`makeFolders()` makes what is missing, says whether it was, and never spins', () => {
  const dir = mkdtempSync(join(tmpdir(), 'folders-'))
  try {
    assert.equal(makeFolders(join(dir, 'a/b/c')), true)
    assert.equal(makeFolders(`${join(dir, 'a/b/c')}/`), false)
    assert.equal(statSync(join(dir, 'a/b')).mode & 0o777, 0o700)
    writeFileSync(join(dir, 'file'), '')
    assert.throws(() => makeFolders(join(dir, 'file')), { code: 'ENOTDIR' })
    assert.throws(() => makeFolders(join(dir, 'file/below')), { code: 'ENOTDIR' })
    assert.throws(() => makeFolders('/proc/no-such-folder'), { code: 'ENOENT' })
  } finally {
    rmSync(dir, { recursive: true })
  }
})
