import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { closeSnapshot, openSnapshot, type SnapshotReader } from '../repo/tree-reader.ts'
import {
  backUp,
  dropRepository,
  folderSource,
  makeRepository,
  snapshotOf,
  type TestRepository,
} from '../../test/harness/engine.ts'
import { diffSnapshots } from './diff.ts'

let repository: TestRepository
let dir = ''

before(async () => {
  repository = await makeRepository()
  dir = join(repository.folder, 'shop')
  mkdirSync(dir)
})
after(() => dropRepository(repository))

async function snap(kind: 'auto' | 'full' | 'differential' = 'auto'): Promise<string> {
  const { snapshot } = await backUp(repository, folderSource(dir), { kind })
  return snapshot ?? ''
}

async function open(id: string): Promise<SnapshotReader> {
  return await openSnapshot(repository.access, repository.host, await snapshotOf(repository, id))
}

/** `+a`, `-b`, `Mc`, `md`, `Re<f` (e was f): relative to the folder; the folders above it are left out. */
async function diff(from: string, to: string): Promise<string[]> {
  const [before, after] = [await open(from), await open(to)]
  const marks = { added: '+', removed: '-', changed: 'M', metadata: 'm', moved: 'R' }
  const found: string[] = []
  try {
    for await (const { kind, path, from: was } of diffSnapshots(before, after)) {
      const moved = was === undefined ? '' : `<${was.slice(dir.length + 1)}`
      if (path.startsWith(`${dir}/`)) found.push(marks[kind] + path.slice(dir.length + 1) + moved)
    }
    return found
  } finally {
    closeSnapshot(before)
    closeSnapshot(after)
  }
}

function put(name: string, bytes: string | Uint8Array): void {
  mkdirSync(join(dir, name, '..'), { recursive: true })
  writeFileSync(join(dir, name), bytes)
}

/** Sets times back, so that a later write changes them for sure. */
function old(name: string): void {
  utimesSync(join(dir, name), 1_000_000, 1_000_000)
}

test('diffSnapshots() tells added, removed, changed and metadata', async () => {
  for (const name of ['a', 'b', 'c/1', 'c/2', 'd/e/f']) put(name, name)
  for (const name of ['a', 'b', 'c/1', 'c/2', 'c', 'd/e/f', 'd/e', 'd']) old(name)
  const first = await snap()
  put('a', 'x')
  chmodSync(join(dir, 'b'), 0o600)
  rmSync(join(dir, 'c/1'))
  put('c/3/new', 'n')
  old('c')
  const second = await snap()
  assert.deepEqual(await diff(first, second), ['Ma', 'mb', '-c/1', '+c/3', '+c/3/new'])
  assert.deepEqual(await diff(second, first), ['Ma', 'mb', '+c/1', '-c/3', '-c/3/new'])
  assert.deepEqual(await diff(second, second), [])
})

test('diffSnapshots() finds a thing that became another', async () => {
  put('kind', 'file')
  put('gone/deep', '1')
  symlinkSync('a', join(dir, 'link'))
  const first = await snap()
  rmSync(join(dir, 'kind'))
  put('kind/inside', '2')
  rmSync(join(dir, 'gone'), { recursive: true })
  put('gone', 'file')
  rmSync(join(dir, 'link'))
  symlinkSync('b', join(dir, 'link'))
  assert.deepEqual(await diff(first, await snap()), ['Mgone', '-gone/deep', 'Mkind', '+kind/inside', 'Mlink'])
})

test('diffSnapshots() sees one byte in a big file, and none in one that was only touched', async () => {
  const bytes = Buffer.alloc(400_000, 'some text ')
  for (let at = 0; at < bytes.length; at += 97) bytes[at] = at % 251
  put('big', bytes)
  put('touched', bytes)
  const first = await snap()
  bytes[399_999] = 1
  put('big', bytes)
  old('touched')
  assert.deepEqual(await diff(first, await snap()), ['Mbig', 'mtouched'])
})

test('diffSnapshots() compares bytes where pages were stored in two ways', async () => {
  const page = (nth: number): Buffer => {
    const bytes = Buffer.alloc(8192, nth)
    bytes.writeUInt16LE(24, 12)
    bytes.writeUInt16LE(8000, 14)
    bytes.writeUInt16LE(8192, 16)
    bytes.writeUInt16LE(8192 | 4, 18)
    return bytes
  }
  const pages = Array.from({ length: 40 }, (_, nth) => page(nth))
  put('table', Buffer.concat(pages))
  await snap()
  pages[7] = page(99)
  put('table', Buffer.concat(pages))
  const patched = await snap()
  const whole = await snap('full')
  assert.deepEqual(await diff(patched, whole), [])
  pages[8] = page(98)
  put('table', Buffer.concat(pages))
  assert.deepEqual(await diff(patched, await snap()), ['Mtable'])
})

test('diffSnapshots() reads little of a huge folder in which one file changed', async () => {
  mkdirSync(join(dir, 'huge'))
  for (let nth = 0; nth < 1200; nth++) put(`huge/${String(nth).padStart(5, '0')}`, '')
  const first = await snap()
  put('huge/00500', 'x')
  renameSync(join(dir, 'huge/00900'), join(dir, 'huge/00900-renamed'))
  old('huge')
  const second = await snap()
  const changes = await diff(first, second)
  assert.deepEqual(changes, ['mhuge', 'Mhuge/00500', '-huge/00900', '+huge/00900-renamed'])
})

test('diffSnapshots() tells files that moved, and only those', async () => {
  const large = Buffer.from(Array.from({ length: 200_000 }, (_, at) => (at * at) % 251))
  put('from/large', large)
  put('from/small', 'only here')
  put('from/one', 'the same')
  put('from/two', 'the same')
  put('from/empty', '')
  put('stays', 'copied')
  const first = await snap()
  mkdirSync(join(dir, 'away'))
  renameSync(join(dir, 'from/large'), join(dir, 'away/large'))
  renameSync(join(dir, 'from/small'), join(dir, 'zoo'))
  for (const [from, to] of ['one-eins', 'two-zwei', 'empty-leer'].map((names) => names.split('-')))
    renameSync(join(dir, `from/${from}`), join(dir, `away/${to}`))
  put('away/copy', 'copied')
  old('from')
  const second = await snap()
  assert.deepEqual(await diff(first, second), [
    '+away',
    '+away/copy',
    'Raway/eins<from/one',
    'Raway/large<from/large',
    '+away/leer',
    'Raway/zwei<from/two',
    'mfrom',
    '-from/empty',
    'Rzoo<from/small',
  ])
  const back = await diff(second, first)
  assert.deepEqual(
    back.filter((change) => change.startsWith('R')),
    ['Rfrom/large<away/large', 'Rfrom/one<away/eins', 'Rfrom/small<zoo', 'Rfrom/two<away/zwei'],
  )
  const [before, after] = [await open(first), await open(second)]
  for await (const { kind, path, from, before: was, after: is } of diffSnapshots(before, after))
    if (kind === 'moved')
      assert.deepEqual([was?.name, was?.size], [from?.slice(from.lastIndexOf('/') + 1), is?.size], path)
  closeSnapshot(before)
  closeSnapshot(after)
})

test('diffSnapshots() compares a differential with the full it builds on', async () => {
  const full = await snap('full')
  put('after-full', '1')
  assert.deepEqual(await diff(full, await snap('differential')), ['+after-full'])
})
