import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import type { SourceBefore, SourceEvent, SourceView } from '../source.ts'
import { type FilesOptions, type FilesSettings, filesSource } from './files.ts'

const folder = mkdtempSync(join(tmpdir(), 'backstock-files-'))
after(() => rmSync(folder, { recursive: true }))
let nth = 0

/** A fresh folder with these files; a name that ends in / is a folder. */
function place(files: Readonly<Record<string, string>>): string {
  const dir = join(folder, String(nth++))
  mkdirSync(dir)
  for (const [name, content] of Object.entries(files)) {
    if (name.endsWith('/')) mkdirSync(join(dir, name), { recursive: true })
    else {
      mkdirSync(join(dir, name, '..'), { recursive: true })
      writeFileSync(join(dir, name), content)
    }
  }
  return dir
}

const defaults: FilesSettings = {
  paths: [],
  exclude: [],
  excludeFiles: [],
  excludeFrom: [],
  excludeIfPresent: [],
  oneFileSystem: false,
  cachedirTag: false,
  mountpoint: false,
  inode: 'use',
  pages: [],
}

const warnings: string[] = []

async function begin(
  settings: Partial<FilesSettings>,
  options: Partial<FilesOptions> = {},
  before?: SourceBefore,
): Promise<SourceView> {
  warnings.length = 0
  const warn = (text: string): void => void warnings.push(text)
  const source = filesSource(
    'media',
    { ...defaults, ...settings },
    { never: [], allowEmpty: false, warn, ...options },
  )
  return source.begin(before)
}

function walk(view: SourceView): SourceEvent[] {
  const entries = view.entries()
  assert.ok(!('deliver' in entries))
  return [...entries]
}

/** Paths of what is no folder, relative to `dir`. */
function files(view: SourceView, dir: string): string[] {
  return walk(view).flatMap((event) => (event.kind === 'entry' ? [event.path.slice(dir.length + 1)] : []))
}

test('filesSource() walks as its settings say', async () => {
  const dir = place({
    'a.txt': '1',
    'b.tmp': '1',
    big: '12345678',
    'c/keep': '1',
    'c/no': '1',
    'd/.skip': '',
    'd/x': '1',
  })
  writeFileSync(join(dir, 'c/.ignore'), 'no\n')
  const patterns = place({ list: 'never-there\nc/.ignore\n' })
  const view = await begin({
    paths: [dir],
    exclude: ['*.tmp'],
    excludeFrom: [join(patterns, 'list')],
    excludeFiles: ['.ignore'],
    excludeIfPresent: ['.skip'],
    excludeLargerThan: 7,
  })
  assert.deepEqual(files(view, dir), ['a.txt', 'c/keep', 'd/.skip'])
  assert.deepEqual(view.roots, [dir])
  assert.deepEqual(view.excludes, ['*.tmp'])
})

test('filesSource() takes names that are not ASCII, as raw paths', async () => {
  const dir = place({ 'häuser/ö': '1' })
  const view = await begin({ paths: [join(dir, 'häuser')] })
  const raw = Buffer.from(join(dir, 'häuser')).toString('latin1')
  assert.deepEqual(files(view, raw), [Buffer.from('ö').toString('latin1')])
  assert.deepEqual(view.roots, [raw])
})

test('filesSource() never walks into our own folders', async () => {
  const dir = place({ a: '1', 'repo/config/1': 'x' })
  const view = await begin({ paths: [dir] }, { never: [join(dir, 'repo')] })
  assert.deepEqual(files(view, dir), ['a'])
})

test('filesSource() backs up single entries of a list instead of its paths', async () => {
  const dir = place({ a: '1', b: '1', 'c/d': '1' })
  const view = await begin(
    { paths: ['/nonexistent'] },
    { singles: [`${dir}/b`, `${dir}/c`] },
    { files: 9, bytes: 9, roots: {} },
  )
  assert.deepEqual(files(view, dir), ['b'])
  assert.deepEqual(view.roots, [`${dir}/b`, `${dir}/c`])
})

test('filesSource() refuses a path that is not there, not mounted, or without its sentinel', async () => {
  const dir = place({ a: '1' })
  const isMissing = (error: unknown): boolean => isFailure(error, 'source.missing')
  await assert.rejects(begin({ paths: [join(dir, 'gone')] }), isMissing)
  await assert.rejects(begin({ paths: [dir], mountpoint: true }), isMissing)
  await assert.rejects(begin({ paths: [dir], sentinel: '.backstock-sentinel' }), isMissing)
  await assert.rejects(begin({ paths: [join(dir, 'a', 'below-a-file')] }), isMissing)
  writeFileSync(join(dir, '.backstock-sentinel'), '')
  assert.equal((await begin({ paths: [dir], sentinel: '.backstock-sentinel' })).roots.length, 1)
})

test('filesSource() refuses a source that has become empty, at the end of the walk', async () => {
  const dir = place({ 'sub/': '' })
  const before = { files: 3, bytes: 100, roots: {} }
  const view = await begin({ paths: [dir] }, {}, before)
  assert.throws(
    () => walk(view),
    (error) => isFailure(error, 'source.emptied'),
  )
  const allowed = await begin({ paths: [dir] }, { allowEmpty: true }, before)
  assert.deepEqual(files(allowed, dir), [])
  assert.match(warnings[0] ?? '', /"media" has shrunk: 3 files/)
  assert.deepEqual(files(await begin({ paths: [dir] }), dir), [])
})

test('filesSource() judges each path: nested ones count for both, a lost one is refused', async () => {
  const dir = place({ 'all/a': '1', 'all/in/b': '22', 'disk/': '' })
  const paths = ['all', 'all/in', 'disk'].map((name) => join(dir, name))
  const view = await begin({ paths })
  files(view, dir)
  const [all, inner, disk] = paths.map((path) => view.rootCounts()[path])
  assert.deepEqual(
    [all, inner, disk],
    [
      { files: 2, bytes: 3 },
      { files: 1, bytes: 2 },
      { files: 0, bytes: 0 },
    ],
  )
  const before = { files: 3, bytes: 4, roots: { [String(paths[2])]: { files: 1, bytes: 1 } } }
  const emptied = await begin({ paths }, {}, before)
  assert.throws(
    () => files(emptied, dir),
    (error) => isFailure(error, 'source.emptied') && error.message.includes(String(paths[2])),
  )
  files(await begin({ paths }, { allowEmpty: true }, before), dir)
  assert.equal(warnings.length, 1)
})

test('filesSource() warns of a source that shrank by more than half', async () => {
  const dir = place({ a: '1' })
  assert.deepEqual(files(await begin({ paths: [dir] }, {}, { files: 1000, bytes: 5000, roots: {} }), dir), [
    'a',
  ])
  assert.match(warnings[0] ?? '', /has shrunk/)
})

test('filesSource() refuses a path that is a symbolic link to a folder', async () => {
  const dir = place({ 'real/a': '1' })
  symlinkSync('real', join(dir, 'link'))
  await assert.rejects(
    async () => await begin({ paths: [join(dir, 'link')] }),
    (error) => isFailure(error, 'source.missing') && /symbolic link to the folder "real"/.test(error.message),
  )
})

test('filesSource() knows page sizes by globs below its paths, and else looks at the content', async () => {
  const dir = place({})
  const pages = [
    { glob: '**/*.ibd', pageSize: 16384 },
    { glob: 'base/*', pageSize: 8192 },
    { glob: '*.db', pageSize: 4096 },
  ]
  const view = await begin({ paths: [dir], pages })
  assert.equal(view.pageBytesOf(`${dir}/x/y.ibd`), 16384)
  assert.equal(view.pageBytesOf(`${dir}/base/5`), 8192)
  assert.equal(view.pageBytesOf(`${dir}/other/base/5`), -1)
  assert.equal(view.pageBytesOf(`${dir}/deep/er/shop.db`), 4096)
  assert.equal(view.pageBytesOf(`${dir}/photo.jpg`), -1)
})

test('filesSource() names the owners that it met, and no others', async () => {
  const dir = place({ a: '1' })
  const view = await begin({ paths: [dir], inode: 'ignore' })
  files(view, dir)
  const { users } = view.owners()
  if (process.getuid?.() === 0) assert.deepEqual(users, { 0: 'root' })
  assert.ok(Object.keys(users).length <= 2)
  assert.equal(view.ignoreInode, true)
  assert.deepEqual(await view.end(), [])
})
