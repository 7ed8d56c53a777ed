/** What a restore takes, where it goes, and what it leaves alone. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  existsSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFailure } from '../../src/base/failure.ts'
import { pathBytes } from '../../src/base/file-entry.ts'
import { folderSource, noise } from '../harness/engine.ts'
import {
  backUpSettled,
  differences,
  dropWorld,
  makeWorld,
  restoreTo,
  type RestoreWorld,
} from '../harness/restores.ts'

const MIB = 1024 * 1024

let world: RestoreWorld
let from = ''
let snapshot = ''
let targets = 0

before(async () => {
  world = await makeWorld()
  from = join(world.dir, 'from')
  makeTree()
  snapshot = await backUpSettled(world, shopSource(), { kind: 'full' })
})
after(() => dropWorld(world))

function shopSource(): ReturnType<typeof folderSource> {
  return folderSource(from, { pageBytesOf: (path) => (path.endsWith('.db') ? 8192 : 0) })
}

function makeTree(): void {
  put('images/a.jpg', noise(1, 300_000))
  put('images/b.jpg', noise(2, 20_000))
  put('images/.hidden/c.jpg', noise(3, 100))
  put('exports/day.csv', 'id,total\n1,2\n')
  put('exports/day.tmp', 'temporary')
  put('names/*', 'star')
  put('names/x', 'not a star')
  put('names/[abc]', 'bracket')
  put('names/a', 'not a bracket')
  put('names/\xff raw', 'raw')
  put('names/ends in a space ', 'space')
  put('orders.db', noise(4, 4 * MIB))
  put('large.bin', noise(5, 5 * MIB))
  put('empty', '')
  mkdirSync(join(from, 'nothing here'))
  symlinkSync('images/a.jpg', join(from, 'link'))
  put('twins/one', noise(6, 5000))
  linkSync(join(from, 'twins/one'), join(from, 'twins/two'))
  writeHoles(join(from, 'holes'), 3 * MIB, [MIB, 2 * MIB + 5000])
  chmodSync(join(from, 'images'), 0o2710)
  utimesSync(join(from, 'images'), 1e9, 1e9)
  chmodSync(join(from, 'exports'), 0o555)
}

/** A raw path below `from`, or below another folder. */
function put(path: string, content: string | Buffer, base = from): void {
  mkdirSync(pathBytes(dirname(`${base}/${path}`)), { recursive: true })
  writeFileSync(pathBytes(`${base}/${path}`), content)
}

function writeHoles(path: string, bytes: number, dataAt: readonly number[]): void {
  const fd = openSync(path, 'w')
  for (const at of dataAt) writeSync(fd, noise(at, 4096), 0, 4096, at)
  ftruncateSync(fd, bytes)
  closeSync(fd)
}

function newTarget(): string {
  targets++
  return join(world.dir, `to-${targets}`)
}

/** Names below the source, as restored. */
function namesIn(to: string): string[] {
  const names = readdirSync(`${to}${from}`, { recursive: true, encoding: 'latin1' })
  return names.sort()
}

async function refused(promise: Promise<unknown>, words: RegExp): Promise<void> {
  await assert.rejects(promise, (error) => isFailure(error, 'restore.refused') && words.test(error.message))
}

test('`--path` takes what matches, with the metadata of the folders above', async () => {
  const cases: [string[], string[]][] = [
    [[`${from}/images/a.jpg`], ['images', 'images/a.jpg']],
    [['images/*.jpg'], ['images', 'images/a.jpg', 'images/b.jpg']],
    [['c.jpg'], ['images', 'images/.hidden', 'images/.hidden/c.jpg']],
    [
      [`${from}/images/*`],
      ['images', 'images/.hidden', 'images/.hidden/c.jpg', 'images/a.jpg', 'images/b.jpg'],
    ],
    [
      [`${from}/images/`, 'empty'],
      ['empty', 'images', 'images/.hidden', 'images/.hidden/c.jpg', 'images/a.jpg', 'images/b.jpg'],
    ],
    [[`${from}/**/day.*`], ['exports', 'exports/day.csv', 'exports/day.tmp']],
    [['/**/nothing here'], ['nothing here']],
    [[`${from}/link`], ['link']],
    [['twins/two'], ['twins', 'twins/two']],
  ]
  for (const [paths, names] of cases) {
    const to = newTarget()
    const done = await restoreTo(world, snapshot, to, { paths })
    assert.deepEqual([done.problems, done.damaged, done.failed], [[], [], []])
    assert.deepEqual(namesIn(to), names, paths.join(' '))
    if (names.includes('images')) {
      const stats = statSync(`${to}${from}/images`)
      assert.deepEqual([stats.mode & 0o7777, stats.mtimeMs], [0o2710, 1e12])
    }
    for (const name of names) {
      const restored = lstatSync(`${to}${from}/${name}`)
      if (restored.isFile())
        assert.deepEqual(readFileSync(`${to}${from}/${name}`), readFileSync(join(from, name)))
    }
  }
})

test('`--path` takes names with glob characters as they are, and bytes as `ls` shows them', async () => {
  const cases: [string, string[]][] = [
    [`${from}/names/[abc]`, ['[abc]', 'a']],
    [`${from}/names/\\[abc]`, ['[abc]']],
    [`${from}/names/\\*`, ['*']],
    [`${from}/names/\\xff raw`, ['\xff raw']],
    [`${from}/names/? raw`, ['\xff raw']],
    [`${from}/names/ends in a space `, ['ends in a space ']],
  ]
  for (const [path, names] of cases) {
    const to = newTarget()
    await restoreTo(world, snapshot, to, { paths: [path] })
    assert.deepEqual(readdirSync(`${to}${from}/names`, { encoding: 'latin1' }).sort(), names, path)
  }
})

test('`--exclude` leaves out what matches and all below it', async () => {
  const to = newTarget()
  const exclude = ['*.tmp', 'names', `${from}/images/.hidden`, 'twins/one']
  const done = await restoreTo(world, snapshot, to, { exclude })
  const names = namesIn(to)
  assert.deepEqual(
    names.filter((name) => /tmp|names|hidden|twins/.test(name)),
    ['twins', 'twins/two'],
  )
  assert.deepEqual(done.failed, [])
  assert.deepEqual(readFileSync(`${to}${from}/twins/two`), readFileSync(join(from, 'twins/one')))
})

test('a selection that takes nothing is refused and leaves nothing behind', async () => {
  const to = newTarget()
  await refused(restoreTo(world, snapshot, to, { paths: ['/no/such', 'nor-this'] }), /\/no\/such, nor-this/)
  assert.equal(existsSync(to), false)
  await refused(restoreTo(world, snapshot, to, { paths: ['empty'], exclude: ['empty'] }), /empty/)
  await refused(restoreTo(world, snapshot, to, { paths: ['/no/such'], dryRun: true }), /\/no\/such/)
  mkdirSync(to)
  await refused(restoreTo(world, snapshot, to, { paths: ['/no/such'] }), /\/no\/such/)
  assert.deepEqual(readdirSync(to), [])
  // Nothing stands in the way of the right path.
  await restoreTo(world, snapshot, to, { paths: ['empty'] })
})

test('a glob that matches nothing beside one that does is named', async () => {
  const done = await restoreTo(world, snapshot, newTarget(), { paths: ['empty', '/tpyo', from] })
  assert.deepEqual(
    done.failed.map(({ path }) => path),
    ['/tpyo'],
  )
  assert.ok(done.files > 10)
})

test('a dry run counts and writes nothing', async () => {
  const to = newTarget()
  const would = await restoreTo(world, snapshot, to, { dryRun: true })
  assert.equal(existsSync(to), false)
  const done = await restoreTo(world, snapshot, to)
  assert.deepEqual(
    [would.files, would.directories, would.others, would.bytes],
    [done.files, done.directories, done.others, done.bytes],
  )
  assert.deepEqual([would.bytesWritten, done.bytesWritten > 9 * MIB], [0, true])
  await refused(restoreTo(world, snapshot, to, { dryRun: true }), /not empty/)
})

test('progress counts up to the totals', async () => {
  const seen: { files: number; bytes: number; filesTotal: number; bytesTotal: number }[] = []
  const done = await restoreTo(world, snapshot, newTarget(), {
    onProgress: (at) => seen.push(at),
    workers: 2,
  })
  const last = seen.at(-1)
  assert.ok(last !== undefined && last.files <= done.files && last.files >= done.files - 2)
  assert.equal(last.bytes, done.bytesWritten)
  assert.deepEqual([last.filesTotal, last.bytesTotal >= done.bytes], [done.files, true])
})

test('an empty folder takes a restore and keeps its mode; a full one does not', async () => {
  const to = newTarget()
  mkdirSync(to, { mode: 0o750 })
  await restoreTo(world, snapshot, to)
  assert.equal(differences(from, `${to}${from}`), '')
  assert.equal(statSync(to).mode & 0o777, 0o750)
  assert.equal(existsSync(join(to, '.backstock-restore')), false)
  const full = newTarget()
  put('precious', 'mine', full)
  const before = statSync(full, { bigint: true })
  await refused(restoreTo(world, snapshot, full), /it is not empty/)
  assert.deepEqual(readdirSync(full), ['precious'])
  assert.equal(statSync(full, { bigint: true }).mtimeNs, before.mtimeNs)
})

test('`--overwrite` replaces what differs in kind or content and keeps what the snapshot lacks', async () => {
  const to = newTarget()
  const there = `${to}${from}`
  put('images', 'a file where a folder must be', there)
  put('large.bin/inside', 'a folder where a file must be', there)
  put('empty', 'not empty', there)
  put('mine', 'of nobody else', there)
  put('elsewhere', 'outside', world.dir)
  symlinkSync(join(world.dir, 'elsewhere'), `${there}/orders.db`)
  symlinkSync(world.dir, `${there}/names`)
  symlinkSync('wrong', `${there}/link`)
  mkdirSync(`${there}/nothing here`, { mode: 0o700 })
  const done = await restoreTo(world, snapshot, to, { overwrite: true, workers: 2 })
  // A folder that holds something never gives way.
  assert.deepEqual(
    done.failed.map(({ path }) => path),
    [`${from}/large.bin`],
  )
  assert.equal(readFileSync(join(world.dir, 'elsewhere'), 'latin1'), 'outside')
  assert.equal(existsSync(join(world.dir, '*')), false)
  assert.equal(readFileSync(`${there}/mine`, 'latin1'), 'of nobody else')
  rmSync(`${there}/mine`)
  rmSync(`${there}/large.bin`, { recursive: true })
  const rest = differences(from, there)
  assert.match(rest, /^(?:.d\.\.t\S* \.\/\n)?>f\+\S+ large\.bin\n$/)
})

test('`--delta` writes only what differs', async () => {
  const to = newTarget()
  await restoreTo(world, snapshot, to)
  const there = `${to}${from}`
  const outside = join(world.dir, 'outside-name')
  linkSync(`${there}/images/b.jpg`, outside)
  overwrite(`${there}/images/b.jpg`, 'changed through both names', 0)
  const kept = readFileSync(outside)
  overwrite(`${there}/large.bin`, 'x', 4 * MIB)
  overwrite(`${there}/orders.db`, 'xyz', 2 * MIB)
  truncateSync(`${there}/images/a.jpg`, 100)
  writeFileSync(`${there}/empty`, 'grown')
  overwrite(`${there}/holes`, 'in the hole', 100)
  chmodSync(`${there}/exports/day.csv`, 0o777)
  rmSync(`${there}/nothing here`, { recursive: true })
  put('foreign', 'stays', there)
  const done = await restoreTo(world, snapshot, to, { delta: true })
  assert.deepEqual([done.problems, done.failed, done.damaged], [[], [], []])
  assert.equal(differences(from, there, ['--exclude=/foreign']), '')
  assert.equal(readFileSync(`${there}/foreign`, 'latin1'), 'stays')
  assert.deepEqual(readFileSync(outside), kept, 'a name outside is not written through')
  const { bytesWritten, bytesKept, bytes } = done
  // The chunks of a.jpg and of two changed places, the files with several names.
  assert.ok(bytesWritten < 4 * MIB, `${bytesWritten} written`)
  assert.ok(bytesWritten + bytesKept <= bytes && bytesKept > 6 * MIB, `${bytesKept} kept`)
  const again = await restoreTo(world, snapshot, to, { delta: true })
  assert.ok(again.bytesWritten <= 10_000, `${again.bytesWritten} written again`)
})

test('`--delta` takes a restored folder to another snapshot by its changed pages', async () => {
  const own = join(world.dir, 'database')
  put('orders.db', noise(7, 4 * MIB), own)
  const source = folderSource(own, { name: 'database', pageBytesOf: () => 8192 })
  const to = newTarget()
  await restoreTo(world, await backUpSettled(world, source, { kind: 'full' }), to)
  overwrite(join(own, 'orders.db'), noise(99, 8192), 8192 * 7)
  overwrite(join(own, 'orders.db'), noise(98, 8192), 8192 * 300)
  const next = await backUpSettled(world, source, { kind: 'incremental' })
  const done = await restoreTo(world, next, to, { delta: true, workers: 2 })
  assert.equal(differences(own, `${to}${own}`), '')
  assert.deepEqual([done.bytesWritten, done.bytesKept], [2 * 8192, 4 * MIB - 2 * 8192])
})

test('`noOwner` leaves files to the restoring user', { skip: process.getuid?.() !== 0 }, async () => {
  const own = join(world.dir, 'owned')
  put('file', 'of 1234', own)
  execFileSync('chown', ['-R', '1234:2345', own])
  const owned = await backUpSettled(world, folderSource(own, { name: 'owned' }))
  for (const [noOwner, uid, gid] of [
    [false, 1234, 2345],
    [true, 0, 0],
  ] as const) {
    const to = newTarget()
    const done = await restoreTo(world, owned, to, { noOwner })
    assert.deepEqual(done.problems, [])
    const stats = statSync(`${to}${own}/file`)
    assert.deepEqual([stats.uid, stats.gid], [uid, gid])
  }
})

test('two restores into one folder at once: one of them is refused', async () => {
  const to = newTarget()
  const both = [restoreTo(world, snapshot, to, { workers: 2 }), restoreTo(world, snapshot, to)]
  const ends = await Promise.allSettled(both)
  const lost = ends.findIndex(({ status }) => status === 'rejected')
  assert.deepEqual(ends.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  await refused(both[lost]!, /is running|not empty/)
  assert.equal(differences(from, `${to}${from}`), '')
})

function overwrite(path: string, content: string | Buffer, at: number): void {
  const fd = openSync(path, 'r+')
  writeSync(fd, Buffer.from(content), 0, content.length, at)
  closeSync(fd)
}
