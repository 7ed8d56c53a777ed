import assert from 'node:assert/strict'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { makeBootFolder, removeBootFolder, takeBack } from './boot-folder.ts'

const skip = process.geteuid?.() === 0 ? false : 'only root gives folders away'
const OTHER = { uid: 65_534, gid: 65_534 }

test('makeBootFolder() as root takes no folder whose entries others may rename', { skip }, (t) => {
  const scratch = mkdtempSync(join(tmpdir(), 'backstock-scratch-'))
  t.after(() => rmSync(scratch, { recursive: true, force: true }))
  const isRefused = (mode: number, uid = 0): boolean => {
    chmodSync(scratch, mode)
    chownSync(scratch, uid, OTHER.gid)
    try {
      removeBootFolder(makeBootFolder(scratch, OTHER), OTHER)
      return false
    } catch (error) {
      assert.ok(isFailure(error, 'host.unsupported'))
      return true
    }
  }
  assert.deepEqual(
    [0o755, 0o1777].map((mode) => isRefused(mode)),
    [false, false],
  )
  assert.deepEqual(
    [0o777, 0o775].map((mode) => isRefused(mode)),
    [true, true],
  )
  assert.ok(isRefused(0o1755, OTHER.uid))
  chownSync(scratch, 0, 0)
})

test('takeBack() leaves nobody a folder to change, and nothing behind a link changes', { skip }, (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'backstock-folder-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  const [away, folder] = [join(dir, 'away'), join(dir, 'folder')]
  const inner = join(folder, 'data/base')
  mkdirSync(away)
  mkdirSync(inner, { recursive: true })
  symlinkSync(away, join(inner, 'link'))
  for (const path of [away, folder, join(folder, 'data'), inner]) {
    chmodSync(path, 0o777)
    chownSync(path, OTHER.uid, OTHER.gid)
  }
  takeBack(folder)
  const stateOf = (path: string): number[] => [statSync(path).uid, statSync(path).mode & 0o777]
  for (const path of [folder, join(folder, 'data'), inner]) assert.deepEqual(stateOf(path), [0, 0o700])
  assert.deepEqual(stateOf(away), [OTHER.uid, 0o777])
  removeBootFolder(folder, OTHER)
  assert.deepEqual([existsSync(folder), existsSync(away)], [false, true])
})
