import assert from 'node:assert/strict'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import {
  closeRestoreTarget,
  enterFolder,
  forgetFolder,
  openRestoreTarget,
  placeOf,
  restoreProblem,
  syncTarget,
} from './target.ts'

let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'backstock-target-'))
})

afterEach(() => rmSync(dir, { recursive: true }))

const openCount = (): number => readdirSync('/proc/self/fd').length

test('`placeOf()` leads to the entry and makes missing parents', () => {
  const target = openRestoreTarget(join(dir, 'to'))
  writeFileSync(placeOf(target, 'a/b/c/file'), 'content')
  writeFileSync(placeOf(target, 'top'), 'content')
  closeRestoreTarget(target)
  assert.equal(readFileSync(join(dir, 'to/a/b/c/file'), 'utf8'), 'content')
  assert.equal(readFileSync(join(dir, 'to/top'), 'utf8'), 'content')
})

test('`placeOf()` keeps a bounded number of folders open and closes every one in the end', () => {
  const before = openCount()
  const target = openRestoreTarget(join(dir, 'to'))
  for (let round = 0; round < 2; round++) {
    for (let nth = 0; nth < 300; nth++) writeFileSync(placeOf(target, `a/${nth}/b/file`), `${nth}`)
    assert(openCount() - before <= 130, `${openCount() - before} open`)
  }
  assert.equal(readFileSync(join(dir, 'to/a/299/b/file'), 'utf8'), '299')
  forgetFolder(target, 'a/299/b')
  forgetFolder(target, 'not/open')
  syncTarget(target)
  closeRestoreTarget(target)
  assert.equal(openCount(), before)
})

test('`syncTarget()` calls the system for each file system it holds, and says when that fails', () => {
  const target = openRestoreTarget(join(dir, 'to'))
  writeFileSync(placeOf(target, 'a/b/file'), 'content')
  const [fd, ...others] = target.disks.values()
  assert.deepEqual(others, [], 'all of it is on one')
  syncTarget(target)
  closeSync(fd ?? -1)
  assert.throws(
    () => syncTarget(target),
    (error) => isFailure(error, 'restore.failed') && /EBADF/.test(error.message),
  )
  target.disks.clear()
  target.disks.set(1n, undefined)
  syncTarget(target) // where no folder may be read: all file systems
  closeRestoreTarget({ ...target, disks: new Map() })
})

test('a guard sees each folder before anything is written into it', () => {
  mkdirSync(join(dir, 'to/a/b/c'), { recursive: true })
  const seen: string[] = []
  const guard = (path: string, { ino }: { ino: bigint }): void => {
    assert.equal(ino, statSync(join(dir, 'to', path), { bigint: true }).ino)
    seen.push(path)
    if (path.endsWith('c')) throw new Error('not here')
  }
  const before = openCount()
  const target = openRestoreTarget(join(dir, 'to'), { guard })
  placeOf(target, 'a/b/file')
  placeOf(target, 'new/file')
  assert.throws(() => enterFolder(target, 'a/b/c'), /not here/)
  assert.throws(() => placeOf(target, 'a/b/c/file'), /not here/)
  assert.deepEqual(seen, ['', 'a', 'a/b', 'new', 'a/b/c', 'a/b/c'])
  closeRestoreTarget(target)
  const refusing = (): void => {
    throw new Error('not at all')
  }
  assert.throws(() => openRestoreTarget(join(dir, 'to'), { guard: refusing }), /not at all/)
  assert.equal(openCount(), before)
})

test('`placeOf()` still leads to the folder that was checked when a symlink takes its name', () => {
  const target = openRestoreTarget(join(dir, 'to'))
  mkdirSync(join(dir, 'outside'))
  placeOf(target, 'srv/media/x')
  renameSync(join(dir, 'to/srv'), join(dir, 'to/moved'))
  symlinkSync(join(dir, 'outside'), join(dir, 'to/srv'))
  writeFileSync(placeOf(target, 'srv/media/x'), 'content')
  closeRestoreTarget(target)
  assert.deepEqual(readdirSync(join(dir, 'outside')), [])
  assert.equal(readFileSync(join(dir, 'to/moved/media/x'), 'utf8'), 'content')
})

test('`placeOf()` leaves no folder open when it fails half-way', () => {
  const target = openRestoreTarget(join(dir, 'to'))
  mkdirSync(join(dir, 'to/a/b'), { recursive: true })
  symlinkSync('/', join(dir, 'to/a/b/c'))
  const before = openCount()
  for (let nth = 0; nth < 50; nth++) assert.throws(() => placeOf(target, 'a/b/c/d/file'), /ENOTDIR|ELOOP/)
  assert.equal(openCount(), before)
  closeRestoreTarget(target)
})

test('`openRestoreTarget()` fails with restore.failed where no folder can be', () => {
  writeFileSync(join(dir, 'file'), '')
  for (const root of [join(dir, 'file'), join(dir, 'file/below')]) {
    assert.throws(
      () => openRestoreTarget(root),
      (error) => isFailure(error, 'restore.failed'),
    )
  }
})

test('`restoreProblem()` ends the restore at a full disk and passes bugs on', () => {
  const withCode = (code: string): Error => Object.assign(new Error(code), { code })
  assert.deepEqual(restoreProblem('x', 'cannot create the file', withCode('EACCES')), {
    path: 'x',
    code: 'EACCES',
    what: 'cannot create the file: EACCES',
  })
  for (const code of ['ENOSPC', 'EIO', 'EROFS', 'EDQUOT']) {
    const ends = (error: unknown): boolean =>
      isFailure(error, 'restore.failed') && error.message === `Cannot create the file "x": ${code}`
    assert.throws(() => restoreProblem('x', 'cannot create the file', withCode(code)), ends)
  }
  assert.throws(() => restoreProblem('x', 'cannot create the file', new TypeError('bug')), TypeError)
})
