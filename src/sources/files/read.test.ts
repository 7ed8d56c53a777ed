import assert from 'node:assert/strict'
import {
  closeSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { makeFifo, setTimes } from '../../base/posix.ts'
import { dataRanges, openSourceFile, RANGE_COUNT_MAX } from './read.ts'
import type { DataRange } from './read.ts'
import { isTrusted, readEntry, sameStat } from './stat.ts'

let dir: string

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'backstock-read-'))
})

after(() => rmSync(dir, { recursive: true }))

function rangesOf(name: string, size: number, dataAt: number[]): DataRange[] {
  const fd = openSync(join(dir, name), 'w+')
  ftruncateSync(fd, size)
  for (const offset of dataAt) writeSync(fd, Buffer.alloc(4096, 1), 0, 4096, offset)
  const ranges = dataRanges(fd, size)
  closeSync(fd)
  return ranges
}

test('`openSourceFile()` opens a file and says what it opened', () => {
  writeFileSync(join(dir, 'file'), 'content')
  const opened = openSourceFile(join(dir, 'file'))
  assert('fd' in opened)
  assert.deepEqual(opened.entry, readEntry(join(dir, 'file'), 'file'))
  closeSync(opened.fd)
})

test('`openSourceFile()` leaves the access time alone', () => {
  const path = join(dir, 'atime')
  writeFileSync(path, 'content')
  setTimes(path, { atime: 1n, mtime: 2n })
  const opened = openSourceFile(path)
  assert('fd' in opened)
  dataRanges(opened.fd, 7)
  closeSync(opened.fd)
  assert.equal(lstatSync(path, { bigint: true }).atimeNs, 1n)
})

test('`openSourceFile()` neither hangs on nor reads what took the place of a file', async () => {
  makeFifo(join(dir, 'fifo'), 0o600)
  mkdirSync(join(dir, 'folder'))
  symlinkSync('file', join(dir, 'link'))
  const server = createServer().listen(join(dir, 'socket'))
  await new Promise((resolve) => server.once('listening', resolve))
  for (const name of ['fifo', 'folder', 'link', 'socket']) {
    const opened = openSourceFile(join(dir, name))
    assert('code' in opened && opened.code === 'EREPLACED', name)
  }
  server.close()
  assert.deepEqual(openSourceFile(join(dir, 'none')), {
    path: join(dir, 'none'),
    code: 'ENOENT',
    what: 'cannot open the file: no such file or directory',
  })
})

test('`dataRanges()` finds data at the start, in the middle and at the end', () => {
  const MIB = 1 << 20
  assert.deepEqual(rangesOf('none', 0, []), [])
  assert.deepEqual(rangesOf('all-hole', 8 * MIB, []), [])
  assert.deepEqual(rangesOf('start', 8 * MIB, [0]), [{ offset: 0, length: 4096 }])
  assert.deepEqual(rangesOf('end', 8 * MIB, [8 * MIB - 4096]), [{ offset: 8 * MIB - 4096, length: 4096 }])
  assert.deepEqual(rangesOf('dense', 8192, [0, 4096]), [{ offset: 0, length: 8192 }])
  assert.deepEqual(rangesOf('two', 8 * MIB, [MIB, 4 * MIB]), [
    { offset: MIB, length: 4096 },
    { offset: 4 * MIB, length: 4096 },
  ])
})

test('`dataRanges()` does not read a huge hole', () => {
  const begin = performance.now()
  assert.deepEqual(rangesOf('huge', 2 ** 43, [2 ** 42]), [{ offset: 2 ** 42, length: 4096 }])
  assert(performance.now() - begin < 1000)
})

test('`dataRanges()` ends at the size it was told, when the file has grown since', () => {
  writeFileSync(join(dir, 'grown'), Buffer.alloc(100_000, 1))
  const fd = openSync(join(dir, 'grown'), 'r')
  assert.deepEqual(dataRanges(fd, 5000), [{ offset: 0, length: 5000 }])
  closeSync(fd)
})

test('`dataRanges()` counts the rest as data beyond its bound', () => {
  const dataAt = Array.from({ length: RANGE_COUNT_MAX + 10 }, (_, nth) => nth * 8192)
  const size = dataAt.length * 8192
  const ranges = rangesOf('comb', size, dataAt)
  assert.equal(ranges.length, RANGE_COUNT_MAX)
  const last = ranges.at(-1)
  assert.equal((last?.offset ?? 0) + (last?.length ?? 0), size)
})

test('`dataRanges()` takes a file as data where holes cannot be told', () => {
  const fd = openSync('/proc/self/status', 'r')
  assert.deepEqual(dataRanges(fd, 100), [{ offset: 0, length: 100 }])
  closeSync(fd)
})

test('`sameStat()` sees each change that a stat can show', () => {
  writeFileSync(join(dir, 'same'), 'content')
  const entry = readEntry(join(dir, 'same'), 'same')
  assert(entry !== undefined)
  assert.equal(sameStat(entry, { ...entry, mode: 0o600, uid: 7 }), true)
  const changes = [
    { size: 8 },
    { mtime: 1n },
    { ctime: 1n },
    { inode: 1n },
    { dev: 1 },
    { type: 'fifo' as const },
  ]
  for (const change of changes) assert.equal(sameStat(entry, { ...entry, ...change }), false)
})

test('`isTrusted()` wants stamps two seconds older than the read', () => {
  const entry = { mtime: 0n, ctime: 0n } as Parameters<typeof isTrusted>[0]
  const second = 1_000_000_000n
  assert.equal(isTrusted({ ...entry, mtime: 8n * second, ctime: 8n * second }, 10n * second), true)
  assert.equal(isTrusted({ ...entry, mtime: 8n * second + 1n }, 10n * second), false)
  assert.equal(isTrusted({ ...entry, ctime: 8n * second + 1n }, 10n * second), false)
  assert.equal(isTrusted({ ...entry, mtime: 2n ** 33n * second }, 10n * second), false)
})
