import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import {
  makeBeyondPathMax,
  makeHardCases,
  mutateHardCases,
  removeHardCases,
} from '../../../test/fixtures/hard-cases.ts'
import type { FileEntry } from '../../base/file-entry.ts'
import { isFailure } from '../../base/failure.ts'
import { listXattrs, setXattr } from '../../base/posix.ts'
import type { FileProblem } from './problem.ts'
import { dataRanges, openSourceFile } from './read.ts'
import { readEntry, readXattrs } from './stat.ts'
import { closeRestoreTarget, openRestoreTarget } from './target.ts'
import type { RestoreTarget } from './target.ts'
import { walkFiles } from './walk.ts'
import {
  clearTarget,
  finishFile,
  finishFolder,
  linkEntry,
  makeEntry,
  openTarget,
  removeTarget,
  writeTarget,
} from './write.ts'

let dir: string
let from: string
let to: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'backstock-write-'))
  from = join(dir, 'from')
  to = join(dir, 'to')
  mkdirSync(from)
})

afterEach(() => removeHardCases(dir))

/** Restores what a walk of `from` yields to `to`, as the engine does; `update` rewrites what is there. */
function copyTree(options: { update: boolean }): FileProblem[] {
  const target = openRestoreTarget(to, { replace: options.update })
  const first = new Map<string, string>()
  const folders: [string, FileEntry][] = []
  const problems: FileProblem[] = []
  for (const event of walkFiles({ paths: [from] })) {
    if (!event.path.startsWith(from)) continue
    const path = event.path.slice(from.length + 1)
    if (event.kind === 'problem') {
      problems.push(event)
    } else if (event.kind === 'leave') {
      const folder = folders.pop()
      assert(folder !== undefined)
      problems.push(...finishFolder(target, ...folder))
    } else {
      const entry = { ...event.entry, xattrs: readXattrs(event.path) }
      if (event.kind === 'enter') folders.push([path, entry])
      problems.push(...copyEntry({ target, path, entry, first, update: options.update }, event.path))
    }
  }
  assert.deepEqual(folders, [])
  closeRestoreTarget(target)
  return problems
}

function copyEntry(
  to: { target: RestoreTarget; path: string; entry: FileEntry; first: Map<string, string>; update: boolean },
  source: string,
): FileProblem[] {
  const { target, path, entry, first } = to
  const key = `${entry.dev}:${entry.inode}`
  const existing = entry.links > 1 && entry.type !== 'directory' ? first.get(key) : undefined
  if (existing !== undefined) return linkEntry(target, path, existing)
  first.set(key, path)
  if (entry.type !== 'file') return makeEntry(target, path, entry)
  const opened = openTarget(target, path, { update: to.update })
  if (!('fd' in opened)) return [opened]
  const file = { fd: opened.fd, path }
  const read = openSourceFile(source)
  if (!('fd' in read)) return [read]
  let at = 0
  for (const range of [...dataRanges(read.fd, entry.size), { offset: entry.size, length: 0 }]) {
    if (!opened.fresh && range.offset > at) clearTarget(file, at, range.offset - at)
    const bytes = Buffer.alloc(range.length)
    assert.equal(readSync(read.fd, bytes, 0, range.length, range.offset), range.length)
    writeTarget(file, bytes, range.offset)
    at = range.offset + range.length
  }
  closeSync(read.fd)
  return finishFile(file, entry)
}

/** What rsync would change to make `to` equal to `from`; empty if they are. */
function differences(more = ['--delete']): string {
  const args = ['-aHAXn', '--checksum', '--itemize-changes', ...more, `${from}/`, `${to}/`]
  return execFileSync('rsync', args, { encoding: 'latin1', env: { LC_ALL: 'C', PATH: process.env.PATH } })
}

function entryOf(given: Partial<FileEntry> & { type: FileEntry['type'] }): FileEntry {
  const stat = readEntry(from, 'x')
  assert(stat !== undefined)
  return { ...stat, mode: 0o644, links: 1, size: 0, mtime: 5n, ...given }
}

test('`finishFolder()` and the rest give the tree of hard cases back as rsync sees it', () => {
  const leftOut = makeHardCases(from)
  assert.deepEqual(copyTree({ update: false }), [])
  assert.equal(differences(), '')
  // rsync compares whole seconds in some builds, and no holes: look at these ourselves.
  let count = 0
  for (const event of walkFiles({ paths: [from] })) {
    if ((event.kind !== 'entry' && event.kind !== 'enter') || !event.path.startsWith(`${from}/`)) continue
    const restored = readEntry(to + event.path.slice(from.length), event.entry.name)
    assert(restored !== undefined, event.path)
    const { mtime, mode, uid, gid, links, target, size, major, minor } = event.entry
    const {
      ctime: _ctime,
      dev: _dev,
      inode: _inode,
      name: _name,
      type: _type,
      xattrs: _xattrs,
      ...rest
    } = restored
    assert.deepEqual(rest, { mtime, mode, uid, gid, links, target, size, major, minor }, event.path)
    count++
  }
  assert(count > 400, `only ${count} entries; left out: ${leftOut.join(', ')}`)
  assert(statSync(`${to}/contents/sparse-big`).blocks < 100)
  assert.equal(statSync(`${to}/contents/sparse-all`).blocks, 0)
})

test('`openTarget()` rewrites a tree in place to what its source has become', () => {
  makeHardCases(from)
  copyTree({ update: false })
  mutateHardCases(from)
  const problems = copyTree({ update: true })
  // What holds something gives way to nothing: the folder that became a file.
  assert.deepEqual(
    problems.map(({ path, code }) => ({ path, code })),
    [{ path: 'names/in one folder', code: 'ENOTEMPTY' }],
  )
  rmSync(`${to}/names/in one folder`, { recursive: true })
  assert.deepEqual(copyTree({ update: true }), [])
  // Names that are gone from the source stay: removing is the caller's decision.
  assert.equal(differences([]), '')
  assert.notEqual(differences(['--delete']), '')
})

test('`makeEntry()` and `openTarget()` restore paths longer than PATH_MAX', () => {
  makeBeyondPathMax(from)
  assert.deepEqual(copyTree({ update: false }), [])
  const script =
    'cd "$1" && while cd ddd* 2>/dev/null; do :; done; cat bottom; readlink link; stat -c %.Y bottom'
  const bottomOf = (top: string): string =>
    execFileSync('bash', ['-c', script, 'bash', top], { encoding: 'utf8' })
  assert.equal(bottomOf(`${to}/beyond`), 'bottom\nbottom\n1000000000.500000000\n')
})

test('`openTarget()` never writes through a symlink that stands where a folder should', () => {
  const outside = join(dir, 'outside')
  mkdirSync(outside)
  mkdirSync(to)
  symlinkSync(outside, join(to, 'srv'))
  symlinkSync(join(outside, 'file'), join(to, 'file'))
  for (const replace of [false, true]) {
    const target = openRestoreTarget(to, { replace })
    const problem = openTarget(target, 'srv/media/file')
    assert('code' in problem && (problem.code === 'ENOTDIR' || problem.code === 'ELOOP'))
    assert.equal(makeEntry(target, 'srv/folder', entryOf({ type: 'directory' }))[0]?.code, problem.code)
    const direct = openTarget(target, 'file', { update: true })
    if (replace) {
      assert('fd' in direct)
      finishFile({ fd: direct.fd, path: 'file' }, entryOf({ type: 'file' }))
    } else assert('code' in direct && direct.code === 'EEXIST')
    closeRestoreTarget(target)
  }
  assert.deepEqual(readdirSync(outside), [])
})

test('`openTarget()` makes a file with several names anew, so that no name outside changes', () => {
  mkdirSync(to)
  writeFileSync(join(dir, 'outside'), 'precious')
  linkSync(join(dir, 'outside'), join(to, 'file'))
  const target = openRestoreTarget(to, { replace: true })
  const opened = openTarget(target, 'file', { update: true })
  assert('fd' in opened)
  assert.equal(opened.fresh, true)
  writeTarget({ fd: opened.fd, path: 'file' }, Buffer.from('new'), 0)
  assert.deepEqual(finishFile({ fd: opened.fd, path: 'file' }, entryOf({ type: 'file', size: 3 })), [])
  closeRestoreTarget(target)
  assert.equal(readFileSync(join(dir, 'outside'), 'utf8'), 'precious')
  assert.equal(readFileSync(join(to, 'file'), 'utf8'), 'new')
})

test('`placeOf()` refuses names that would leave the restore folder', () => {
  const target = openRestoreTarget(to)
  for (const path of ['../x', 'a/../../x', '/etc/x', 'a//x', '.', 'a/.', 'x\0y']) {
    assert.throws(
      () => makeEntry(target, path, entryOf({ type: 'fifo' })),
      (error) => isFailure(error, 'repo.corrupt'),
    )
  }
  closeRestoreTarget(target)
})

test('`openTarget()` leaves an existing file alone unless it may replace or update', () => {
  mkdirSync(to)
  writeFileSync(join(to, 'file'), 'there')
  const target = openRestoreTarget(to)
  assert.deepEqual(openTarget(target, 'file'), {
    path: 'file',
    code: 'EEXIST',
    what: 'cannot create the file: file already exists',
    missing: true,
  })
  assert.equal(makeEntry(target, 'file', entryOf({ type: 'symlink', target: 'x' }))[0]?.code, 'EEXIST')
  closeRestoreTarget(target)
  assert.equal(readFileSync(join(to, 'file'), 'utf8'), 'there')
})

test('`makeEntry()` reports a socket as not restored', () => {
  const target = openRestoreTarget(to)
  assert.equal(makeEntry(target, 'socket', entryOf({ type: 'socket' }))[0]?.code, 'ESOCKET')
  closeRestoreTarget(target)
  assert.deepEqual(readdirSync(to), [])
})

test('`finishFile()` removes attributes that the entry does not have', () => {
  const target = openRestoreTarget(to)
  const opened = openTarget(target, 'file')
  assert('fd' in opened)
  setXattr(opened.fd, 'user.stray', Buffer.from('x'))
  const xattrs = [{ name: 'user.kept', value: Buffer.alloc(0) }]
  assert.deepEqual(finishFile({ fd: opened.fd, path: 'file' }, entryOf({ type: 'file', xattrs })), [])
  closeRestoreTarget(target)
  assert.deepEqual(listXattrs(join(to, 'file')), ['user.kept'])
})

test('`finishFile()` reports an attribute that the file system cannot hold and sets the rest', () => {
  const target = openRestoreTarget(to)
  const opened = openTarget(target, 'file')
  assert('fd' in opened)
  const xattrs = [{ name: 'nonsense.name', value: Buffer.from('x') }]
  const problems = finishFile({ fd: opened.fd, path: 'file' }, entryOf({ type: 'file', xattrs, mtime: 7n }))
  closeRestoreTarget(target)
  assert.deepEqual(
    problems.map((problem) => problem.code),
    ['ENOTSUP'],
  )
  assert.equal(readEntry(join(to, 'file'), 'file')?.mtime, 7n)
})

test('`clearTarget()` frees the space of a range', () => {
  const target = openRestoreTarget(to, { replace: true })
  writeFileSync(join(to, 'file'), Buffer.alloc(1 << 20, 1))
  const opened = openTarget(target, 'file', { update: true })
  assert('fd' in opened && !opened.fresh)
  clearTarget({ fd: opened.fd, path: 'file' }, 4096, 1 << 21)
  finishFile({ fd: opened.fd, path: 'file' }, entryOf({ type: 'file', size: 1 << 20 }))
  closeRestoreTarget(target)
  const bytes = readFileSync(join(to, 'file'))
  assert.equal(bytes.length, 1 << 20)
  assert(bytes.subarray(4096).every((byte) => byte === 0) && bytes[4095] === 1)
  assert(statSync(join(to, 'file')).blocks <= 16)
})

test('`removeTarget()` removes a file and nothing else', () => {
  mkdirSync(join(to, 'folder'), { recursive: true })
  writeFileSync(join(dir, 'outside'), 'precious')
  symlinkSync(join(dir, 'outside'), join(to, 'link'))
  const target = openRestoreTarget(to)
  assert.deepEqual(removeTarget(target, 'link'), [])
  assert.deepEqual(removeTarget(target, 'link'), [])
  assert.equal(removeTarget(target, 'folder')[0]?.code, 'EISDIR')
  closeRestoreTarget(target)
  assert.deepEqual(readdirSync(to), ['folder'])
  assert.equal(readFileSync(join(dir, 'outside'), 'utf8'), 'precious')
})

test('`writeTarget()` fails with restore.failed when the disk is full', () => {
  const full = openSync('/dev/full', 'w')
  assert.throws(
    () => writeTarget({ fd: full, path: 'srv/x' }, Buffer.from('x'), 0),
    (error) =>
      isFailure(error, 'restore.failed') && error.message.startsWith('Cannot write to "srv/x": ENOSPC'),
  )
  closeSync(full)
})
