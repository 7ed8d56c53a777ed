import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { errnoOf } from './failure.ts'
import { pathBytes } from './file-entry.ts'
import * as posix from './posix.ts'

let dir: string

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'backstock-posix-'))
})

after(() => rmSync(dir, { recursive: true }))

/** A new file with a name that is not UTF-8. */
function newFile(name: string): string {
  const path = `${dir}/${name}\xff`
  writeFileSync(pathBytes(path), 'content')
  return path
}

const hasCode = (code: string) => (error: unknown) => errnoOf(error) === code

test('`setXattr()` sets what `getXattr()` and `listXattrs()` read, by path and by descriptor', () => {
  const path = newFile('xattrs')
  const fd = openSync(pathBytes(path), 'r+')
  const big = Buffer.alloc(3000, 7)
  posix.setXattr(path, 'user.empty', Buffer.alloc(0))
  posix.setXattr(fd, 'user.big', big)
  for (const target of [path, fd]) {
    assert.deepEqual(posix.listXattrs(target).sort(), ['user.big', 'user.empty'])
    assert.deepEqual(posix.getXattr(target, 'user.big'), big)
    assert.deepEqual(posix.getXattr(target, 'user.empty'), Buffer.alloc(0))
    assert.equal(posix.getXattr(target, 'user.none'), undefined)
  }
  posix.removeXattr(path, 'user.big')
  posix.removeXattr(fd, 'user.empty')
  posix.removeXattr(fd, 'user.empty')
  assert.deepEqual(posix.listXattrs(path), [])
  closeSync(fd)
})

test('`setXattr()` throws the errno of the system, as node:fs does', () => {
  assert.throws(() => posix.setXattr(`${dir}/none`, 'user.a', Buffer.from('x')), {
    code: 'ENOENT',
    errno: -2,
    syscall: 'setxattr',
    message: `ENOENT: no such file or directory, setxattr '${dir}/none'`,
  })
  assert.throws(() => posix.getXattr(`${dir}/none`, 'user.a'), hasCode('ENOENT'))
  assert.throws(() => posix.listXattrs(1_000_000), hasCode('EBADF'))
})

test('`listXattrs()` looks at a symlink and not through it', () => {
  const path = newFile('target')
  posix.setXattr(path, 'user.a', Buffer.from('x'))
  symlinkSync(pathBytes(path), join(dir, 'link'))
  assert.deepEqual(posix.listXattrs(join(dir, 'link')), [])
})

test('`listXattrs()` gives nothing where there is no such thing', () => {
  assert.deepEqual(posix.listXattrs('/proc/self/status'), [])
})

test('`seekData()` and `seekHole()` find the data of a sparse file', () => {
  const fd = openSync(join(dir, 'sparse'), 'w+')
  ftruncateSync(fd, 2 ** 40)
  writeSync(fd, Buffer.alloc(4096, 1), 0, 4096, 2 ** 39)
  assert.equal(posix.seekData(fd, 0), 2 ** 39)
  assert.equal(posix.seekHole(fd, 2 ** 39), 2 ** 39 + 4096)
  assert.equal(posix.seekHole(fd, 0), 0)
  assert.equal(posix.seekData(fd, 2 ** 39 + 4096), undefined)
  closeSync(fd)
})

test('`setTimes()` sets any nanosecond, before 1970 too, and not through symlinks', () => {
  const path = newFile('times')
  const link = join(dir, 'times-link')
  symlinkSync(pathBytes(path), link)
  for (const mtime of [0n, 1n, -1n, -1_000_000_001n, 2n ** 33n * 1_000_000_000n + 123_456_789n]) {
    posix.setTimes(path, { atime: 5n, mtime })
    posix.setTimes(link, { mtime: mtime + 1n })
    const stats = lstatSync(pathBytes(path), { bigint: true })
    assert.deepEqual([stats.atimeNs, stats.mtimeNs], [5n, mtime])
    assert.equal(lstatSync(link, { bigint: true }).mtimeNs, mtime + 1n)
  }
  const fd = openSync(pathBytes(path), 'r')
  posix.setTimes(fd, { mtime: 42n })
  const stats = fstatSync(fd, { bigint: true })
  assert.deepEqual([stats.atimeNs, stats.mtimeNs], [5n, 42n])
  closeSync(fd)
})

test('`makeFifo()` makes a named pipe', () => {
  posix.makeFifo(`${dir}/fifo\xfe`, 0o600)
  const stats = lstatSync(pathBytes(`${dir}/fifo\xfe`))
  assert(stats.isFIFO())
  assert.equal(stats.mode & 0o777, 0o600)
  assert.throws(() => posix.makeFifo(`${dir}/fifo\xfe`, 0o600), hasCode('EEXIST'))
})

test('`makeDevice()` makes the node that the system then shows, or throws EPERM', () => {
  const device = { type: 'char' as const, mode: 0o600, major: 300, minor: 70000 }
  if (process.getuid?.() !== 0) {
    assert.throws(() => posix.makeDevice(`${dir}/device`, device), hasCode('EPERM'))
    return
  }
  posix.makeDevice(`${dir}/device`, device)
  const stats = lstatSync(`${dir}/device`, { bigint: true })
  assert(stats.isCharacterDevice())
  assert.equal(stats.rdev, posix.deviceNumber(300, 70000))
})

test('`splitDevice()` takes apart what `deviceNumber()` packs', () => {
  for (const [major, minor] of [
    [0, 0],
    [1, 3],
    [259, 70000],
    [4095, 255],
    [2 ** 31, 2 ** 31 + 5],
  ] as const) {
    assert.deepEqual(posix.splitDevice(posix.deviceNumber(major, minor)), { major, minor })
  }
  assert.deepEqual(posix.splitDevice(lstatSync('/dev/null', { bigint: true }).rdev), { major: 1, minor: 3 })
})

test('`lockFile()` refuses a second holder until the first closes', () => {
  const path = newFile('lock')
  const first = openSync(pathBytes(path), 'r')
  const second = openSync(pathBytes(path), 'r')
  assert.equal(posix.lockFile(first), true)
  assert.equal(posix.lockFile(second), false)
  posix.unlockFile(first)
  assert.equal(posix.lockFile(second), true)
  closeSync(second)
  assert.equal(posix.lockFile(first), true)
  closeSync(first)
})

test('`lockFile()` ends with the process that held it, killed or not', async () => {
  const path = join(dir, 'lock-killed')
  writeFileSync(path, '')
  const script = `
    import { openSync, writeSync } from 'node:fs'
    import { lockFile } from ${JSON.stringify(import.meta.resolve('./posix.ts'))}
    writeSync(1, String(lockFile(openSync(${JSON.stringify(path)}, 'r'))))
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const said = await new Promise<string>((resolve) =>
    child.stdout.once('data', (data: Buffer) => resolve(String(data))),
  )
  assert.equal(said, 'true')
  const fd = openSync(path, 'r')
  assert.equal(posix.lockFile(fd), false)
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await ended
  assert.equal(posix.lockFile(fd), true)
  closeSync(fd)
})

test('`endWithParent()` ends a child with the process that started it, however that ends', async () => {
  const child = `
    import { endWithParent } from ${JSON.stringify(import.meta.resolve('./posix.ts'))}
    setInterval(() => {}, 1000)
    const answers = [process.ppid, 1 << 29].map((parent) => endWithParent(parent, 'SIGTERM'))
    process.stdout.write(JSON.stringify(answers))`
  const parent = `
    import { spawn } from 'node:child_process'
    spawn(process.execPath, ['--input-type=module', '-e', ${JSON.stringify(child)}], { stdio: 'inherit' })`
  const started = spawn(process.execPath, ['--input-type=module', '-e', parent], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [said] = (await once(started.stdout, 'data')) as [Buffer]
  assert.equal(String(said), '[true,false]')
  started.kill('SIGKILL')
  // The pipe is the child's too.
  await once(started, 'close')
})

test('`punchHole()` gives the space back and leaves the size', () => {
  const path = join(dir, 'punched')
  writeFileSync(path, Buffer.alloc(1 << 20, 1))
  const fd = openSync(path, 'r+')
  assert.equal(posix.punchHole(fd, 0, 1 << 19), true)
  posix.syncFileSystem(fd)
  posix.adviseFile(fd, 'sequential')
  posix.adviseFile(fd, 'done')
  closeSync(fd)
  const bytes = readFileSync(path)
  assert.equal(bytes.length, 1 << 20)
  assert.equal(bytes.indexOf(1), 1 << 19)
  assert(statSync(path).blocks <= 1 << 10)
})

test('`readNames()` gives every name as it is', () => {
  const folder = join(dir, 'names')
  mkdirSync(folder)
  const names: string[] = []
  // Each byte that a name may hold, in a name of its own, and enough of them for several reads.
  for (let byte = 1; byte < 256; byte++) if (byte !== 0x2f) names.push(`x${String.fromCharCode(byte)}`)
  for (let nth = 0; nth < 3000; nth++) names.push(`${nth}`.padStart(200, 'n'))
  for (const name of names) writeFileSync(pathBytes(`${folder}/${name}`), '')
  const fd = openSync(folder, 'r')
  const found: string[] = []
  posix.readNames(fd, (name) => found.push(name))
  closeSync(fd)
  assert.deepEqual(found.sort(), names.sort())
})

test('`listXattrs()` works in worker threads, several at a time', async () => {
  const path = newFile('worker')
  posix.setXattr(path, 'user.a', Buffer.from('x'))
  const script = `
    import { parentPort, workerData } from 'node:worker_threads'
    import { errnoOf } from ${JSON.stringify(import.meta.resolve('./failure.ts'))}
    import { getXattr, listXattrs } from ${JSON.stringify(import.meta.resolve('./posix.ts'))}
    let wrong = 0
    for (let nth = 0; nth < 2000; nth++) {
      if (listXattrs(workerData)[0] !== 'user.a') wrong++
      try {
        getXattr(workerData + 'none', 'user.a')
        wrong++
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') wrong++
      }
    }
    parentPort.postMessage(wrong)`
  const run = (): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const url = new URL(`data:text/javascript,${encodeURIComponent(script)}`)
      new Worker(url, { workerData: path }).once('message', resolve).once('error', reject)
    })
  assert.deepEqual(await Promise.all([run(), run(), run()]), [0, 0, 0])
})
