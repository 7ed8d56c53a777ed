import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { makeBeyondPathMax, makeHardCases, removeHardCases } from '../../../test/fixtures/hard-cases.ts'
import { pathBytes } from '../../base/file-entry.ts'
import { isFailure } from '../../base/failure.ts'
import { openSourceFile } from './read.ts'
import { readEntry, readXattrs } from './stat.ts'
import { walkFiles } from './walk.ts'
import type { WalkEvent, WalkOptions } from './walk.ts'

let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'backstock-walk-'))
})

afterEach(() => removeHardCases(dir))

/** Makes files (and folders, which end in `/`) below the test's folder. */
function make(...paths: string[]): void {
  for (const path of paths) {
    const place = `${dir}/${path}`
    mkdirSync(pathBytes(path.endsWith('/') ? place : dirname(place)), { recursive: true })
    if (!path.endsWith('/')) writeFileSync(pathBytes(place), 'content')
  }
}

function walk(options: Partial<WalkOptions> = {}): WalkEvent[] {
  return [...walkFiles({ paths: [dir], ...options })]
}

/** The walk as text below the test's folder: `+name/` enter, `-` leave, `name` entry, `!name CODE` problem. */
function shown(options: Partial<WalkOptions> = {}): string {
  const words: string[] = []
  for (const event of walk(options)) {
    if (!event.path.startsWith(`${dir}/`)) continue
    const name = event.path.slice(event.path.lastIndexOf('/') + 1)
    if (event.kind === 'enter') words.push(`+${name}/`)
    else if (event.kind === 'leave') words.push('-')
    else words.push(event.kind === 'entry' ? name : `!${name} ${event.code}`)
  }
  return words.join(' ')
}

test('`walkFiles()` yields folders and files of a folder together, in ascending order of bytes', () => {
  make('b', 'a/x', 'a.txt', 'a-', 'a0', 'B', '\xff', '\xc3\xa9')
  assert.equal(shown(), 'B +a/ x - a- a.txt a0 b \xc3\xa9 \xff')
})

test('`walkFiles()` begins at / and gives the folders above a path their own metadata', () => {
  make('x')
  const events = walk()
  const above = [
    '/',
    ...dir
      .split('/')
      .slice(1)
      .map((_, nth, names) => `/${names.slice(0, nth + 1).join('/')}`),
  ]
  assert.deepEqual(
    events.slice(0, above.length).map((event) => [event.kind, event.path]),
    above.map((path) => ['enter', path]),
  )
  for (const event of events.slice(0, above.length)) {
    assert(event.kind === 'enter')
    const {
      ctime: _ctime,
      mtime: _mtime,
      ...stat
    } = readEntry(event.path, event.path.slice(event.path.lastIndexOf('/') + 1)) ?? {}
    assert.partialDeepStrictEqual(event.entry, stat)
  }
  assert.deepEqual(
    events.slice(-above.length),
    above.toReversed().map((path) => ({ kind: 'leave', path })),
  )
  assert.equal(events.length, 2 * above.length + 1)
})

test('`walkFiles()` walks a path inside another one once, and several paths in order', () => {
  make('a/b/c', 'd/e', 'f')
  const paths = [`${dir}/d`, `${dir}/a/b`, `${dir}//a/../a/`, `${dir}/a`]
  assert.equal(shown({ paths }), '+a/ +b/ c - - +d/ e -')
})

test('`walkFiles()` takes a single file, a symlink and a missing path', () => {
  make('a/file', 'b/other')
  symlinkSync('nowhere', `${dir}/a/link`)
  const paths = [`${dir}/a/file`, `${dir}/a/link`, `${dir}/a/none`, `${dir}/gone/away`]
  assert.equal(shown({ paths }), '+a/ file link !none ENOENT - !gone ENOENT')
})

test('`walkFiles()` stores a symlink above a path and walks the real place', () => {
  make('real/media/x')
  symlinkSync('real', `${dir}/srv`)
  assert.equal(shown({ paths: [`${dir}/srv/media`] }), '+real/ +media/ x - - srv')
  symlinkSync('loop-b', `${dir}/loop-a`)
  symlinkSync('loop-a', `${dir}/loop-b`)
  assert.match(shown({ paths: [`${dir}/loop-a/x`] }), /!x ELOOP/)
})

test('`walkFiles()` refuses relative paths', () => {
  for (const path of ['srv/media', '', './x', '/a\0b']) {
    assert.throws(
      () => walk({ paths: [path] }),
      (error) => isFailure(error, 'usage.invalid'),
    )
  }
})

test('`walkFiles()` leaves out what patterns exclude', () => {
  make(
    'a.tmp',
    'a.txt',
    'cache/x',
    'sub/cache/y',
    'sub/a.tmp',
    'sub/keep.tmp',
    'thumbs/s/1',
    'other/thumbs/s/2',
  )
  assert.equal(
    shown({ exclude: ['*.tmp', '!keep.tmp', '/cache', 'thumbs/s', `${dir}/sub/cache`] }),
    'a.txt +cache/ x - +other/ +thumbs/ +s/ 2 - - - +sub/ keep.tmp - +thumbs/ -',
  )
  writeFileSync(`${dir}.list`, '# comment\n*.txt\ncache/\n')
  try {
    assert.equal(
      shown({ exclude: ['*.tmp', 's'], excludeFrom: [`${dir}.list`] }),
      '+other/ +thumbs/ - - +sub/ - +thumbs/ -',
    )
    assert.throws(
      () => walk({ excludeFrom: [`${dir}.none`] }),
      (error) => isFailure(error, 'host.file'),
    )
  } finally {
    unlinkSync(`${dir}.list`)
  }
})

test('`walkFiles()` never excludes a named path, even inside an excluded folder', () => {
  make('tmp/a', 'tmp/shop/b', 'c')
  assert.equal(shown({ paths: [dir, `${dir}/tmp/shop`], exclude: ['tmp'] }), 'c +tmp/ +shop/ b - -')
  assert.equal(shown({ paths: [`${dir}/tmp`], exclude: ['tmp'] }), '+tmp/ a +shop/ b - -')
})

test('`walkFiles()` reads ignore files for the folder that they are in', () => {
  make('x.log', 'a/x.log', 'a/b/x.log', 'a/b/y', 'a/only', 'only', 'a/b/only')
  writeFileSync(`${dir}/a/.backstockignore`, '*.log\n/only\n')
  writeFileSync(`${dir}/a/b/.backstockignore`, '!x.log\n')
  const excludeFiles = ['.backstockignore']
  const walked = '+a/ .backstockignore +b/ .backstockignore only x.log y - - only x.log'
  assert.equal(shown({ excludeFiles }), walked)
  // The configuration has the first word.
  assert.equal(
    shown({ excludeFiles, exclude: ['!only', 'y'] }),
    walked.replace(' y', '').replace('- - only', '- only - only'),
  )
})

test('`walkFiles()` keeps the tag of a cache folder and leaves out the rest', () => {
  make('cache/data/x', 'cache/CACHEDIR.TAG', 'fake/CACHEDIR.TAG', 'fake/x', 'no/.nobackup', 'no/x')
  writeFileSync(`${dir}/cache/CACHEDIR.TAG`, 'Signature: 8a477f597d28d172789f06886806bc55\n# cache\n')
  assert.equal(
    shown({ cachedirTag: true, excludeIfPresent: ['.nobackup'] }),
    '+cache/ CACHEDIR.TAG - +fake/ CACHEDIR.TAG x - +no/ .nobackup -',
  )
  assert.equal(shown(), '+cache/ CACHEDIR.TAG +data/ x - - +fake/ CACHEDIR.TAG x - +no/ .nobackup x -')
})

test('`walkFiles()` walks just the entries of a list, with what is above them', () => {
  make('a/x', 'a/y', 'b/z', 'new\nline')
  writeFileSync(`${dir}/list`, `${dir}/a\n${dir}/b/z\n\n${dir}/gone\n`)
  assert.equal(shown({ paths: [], filesFrom: [`${dir}/list`] }), '+a/ - +b/ z - !gone ENOENT')
  writeFileSync(`${dir}/list`, `${dir}/new\nline\0${dir}/a/x\0`)
  assert.equal(shown({ paths: [`${dir}/b`], filesFrom: [`${dir}/list`] }), '+a/ x - +b/ z - new\nline')
})

test('`walkFiles()` follows the paths of a list as the system does', () => {
  make('far/deep/x', 'far/x', 'x', 'file')
  symlinkSync('far/deep', `${dir}/link`)
  symlinkSync('link', `${dir}/again`)
  symlinkSync('../link/../x', `${dir}/far/up`)
  symlinkSync('gone', `${dir}/broken`)
  const single = (...paths: string[]): string =>
    shown({ paths: [], singles: paths.map((path) => `${dir}/${path}`) })
  assert.equal(single('link'), 'link')
  for (const path of ['link/', 'link/.', 'link//', 'link/./'])
    assert.equal(single(path), '+far/ +deep/ - - link')
  assert.equal(single('again/'), 'again +far/ +deep/ - - link')
  assert.equal(single('link/../x', 'link//x'), '+far/ +deep/ x - x - link')
  assert.equal(single('link/../../x', 'far/./deep/../../file'), 'file link x')
  assert.equal(single('far/up/.'), '!x ENOTDIR +far/ up - link')
  for (const path of ['gone/../x', 'gone/', 'gone/.']) assert.equal(single(path), '!gone ENOENT')
  for (const path of ['file/../x', 'file/', 'file/.']) assert.equal(single(path), '!file ENOTDIR')
  assert.equal(single('broken/../x'), '!gone ENOENT broken')
  assert.equal(single('far/', 'far/../far'), '+far/ -')
})

test('`walkFiles()` leaves out large files and what lies in folders never to walk', () => {
  make('small', 'large', 'store/packs/x', 'link-to/')
  truncateSync(`${dir}/large`, 1001)
  truncateSync(`${dir}/small`, 1000)
  symlinkSync('store', `${dir}/link`)
  const never = [`${dir}/link`, `${dir}/not-made-yet`]
  assert.equal(shown({ excludeLargerThan: 1000, never }), 'link +link-to/ - small +store/ -')
})

test('`walkFiles()` reports each named path that it leaves out with a folder never to walk', () => {
  make('store/x/y', 'store/z', 'a')
  symlinkSync('store', `${dir}/link`)
  const options = {
    paths: [],
    singles: [`${dir}/link/x/y`, `${dir}/store/z`, `${dir}/a`],
    never: [`${dir}/store`],
  }
  assert.equal(shown(options), 'a link +store/ !y ENEVER !z ENEVER -')
})

test('`walkFiles()` stays on one file system but enters a mount point that is named', () => {
  // /proc is another file system on every Linux, and its folder `driver` is small.
  const seen = (paths: string[]): string[] =>
    [...walkFiles({ paths, oneFileSystem: true, exclude: ['/[!p]*', '/proc/[!d]*'] })].map(
      (event) => `${event.kind} ${event.path}`,
    )
  const without = seen(['/'])
  assert(without.includes('enter /proc') && without[without.indexOf('enter /proc') + 1] === 'leave /proc')
  const named = seen(['/', '/proc/driver'])
  assert(named.includes('enter /proc/driver'))
})

test('`walkFiles()` reports a folder that cannot be read and goes on', () => {
  if (process.getuid?.() === 0) {
    // Root reads everything: become somebody else, in a process of its own.
    const script = `
      import { walkFiles } from ${JSON.stringify(import.meta.resolve('./walk.ts'))}
      process.setgroups([]); process.setgid(65534); process.setuid(65534)
      for (const event of walkFiles({ paths: [${JSON.stringify(dir)}] })) {
        if (!event.path.startsWith(${JSON.stringify(dir)} + '/')) continue
        console.log(event.kind, event.path.slice(${dir.length + 1}), event.code ?? '')
      }`
    make('a/x', 'b')
    chmodSync(dir, 0o755)
    chmodSync(`${dir}/a`, 0o700)
    const said = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
    assert.equal(said, 'enter a \nproblem a EACCES\nleave a \nentry b \n')
    return
  }
  make('a/x', 'b')
  chmodSync(`${dir}/a`, 0)
  assert.equal(shown(), '+a/ !a EACCES - b')
})

test('`walkFiles()` takes a file that vanishes under way as not there', () => {
  make('a', 'b', 'c/x', 'd')
  const words: string[] = []
  for (const event of walkFiles({ paths: [dir] })) {
    if (!event.path.startsWith(`${dir}/`)) continue
    words.push(`${event.kind} ${event.path.slice(dir.length + 1)}`)
    if (event.path === `${dir}/a`) unlinkSync(`${dir}/b`)
  }
  assert.deepEqual(words, ['entry a', 'enter c', 'entry c/x', 'leave c', 'entry d'])
})

test('`walkFiles()` orders a folder of more names than one run as it orders a small one', () => {
  make('names/')
  const fill = 'cd "$1" && seq -f "image-%06g.jpg" 1 34000 | xargs touch'
  execFileSync('sh', ['-c', fill, 'sh', `${dir}/names`])
  const names = walk().flatMap((event) => (event.kind === 'entry' ? [event.entry.name] : []))
  assert.equal(names.length, 34000)
  assert.deepEqual(names, names.toSorted())
})

test('`walkFiles()` sees every hard case as find sees it', () => {
  makeHardCases(dir)
  const found = execFileSync('find', [dir, '-mindepth', '1', '-printf', '%P\\0%y %m %U %G %n %s %i\\0'], {
    encoding: 'latin1',
    maxBuffer: 1 << 24,
  })
  const expected = new Map<string, string>()
  const fields = found.split('\0')
  for (let nth = 0; nth + 1 < fields.length; nth += 2) expected.set(fields[nth] ?? '', fields[nth + 1] ?? '')
  const letters = { file: 'f', directory: 'd', symlink: 'l', fifo: 'p', char: 'c', block: 'b', socket: 's' }
  for (const event of walk()) {
    assert.notEqual(event.kind, 'problem')
    if ((event.kind !== 'entry' && event.kind !== 'enter') || !event.path.startsWith(`${dir}/`)) continue
    const { type, mode, uid, gid, links, size, inode } = event.entry
    const path = event.path.slice(dir.length + 1)
    const [, , , , , findSize] = (expected.get(path) ?? '').split(' ')
    const shownSize = type === 'file' ? size : findSize
    assert.equal(
      `${letters[type]} ${mode.toString(8)} ${uid} ${gid} ${links} ${shownSize} ${inode}`,
      expected.get(path),
      path,
    )
    expected.delete(path)
  }
  assert.deepEqual([...expected.keys()], [])
})

test('`walkFiles()`, `openSourceFile()` and `readXattrs()` follow beyond PATH_MAX', () => {
  makeBeyondPathMax(dir)
  const deep = walk().filter((event) => event.kind === 'entry')
  assert.deepEqual(
    deep.map((event) => event.entry.name),
    ['bottom', 'link'],
  )
  const path = deep[0]?.path ?? ''
  assert(path.length > 5000)
  assert.deepEqual(readXattrs(path), [])
  const opened = openSourceFile(path)
  assert('fd' in opened && opened.entry.size === 7)
  assert.equal(deep[1]?.entry.target, 'bottom')
})

test('`walkFiles()` gives hard links one inode', () => {
  make('a')
  linkSync(`${dir}/a`, `${dir}/b`)
  const entries = walk().flatMap((event) => (event.kind === 'entry' ? [event.entry] : []))
  assert.deepEqual(
    entries.map(({ inode, links }) => [inode, links]),
    [
      [entries[0]?.inode, 2],
      [entries[0]?.inode, 2],
    ],
  )
  rmSync(`${dir}/a`)
})
