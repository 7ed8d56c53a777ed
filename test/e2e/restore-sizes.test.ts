/** Restores of what is large, of what has holes, and by users who may not set everything. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  closeSync,
  cpSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { makeDevice } from '../../src/base/posix.ts'
import { formatKit } from '../../src/repo/kit.ts'
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
const GIB = 1024 * MIB
const NOBODY = 65_534
const isRoot = process.getuid?.() === 0

let world: RestoreWorld

before(async () => {
  world = await makeWorld()
})
after(() => dropWorld(world))

/** A file of `bytes` with 20 000 bytes of data at each place. */
function writeHoles(path: string, bytes: number, places: readonly number[]): void {
  const fd = openSync(path, 'w')
  ftruncateSync(fd, bytes)
  for (const place of places) writeSync(fd, noise(place % 2 ** 31, 20_000), 0, 20_000, place)
  closeSync(fd)
}

function assertSameData(from: string, restored: string, places: readonly number[]): void {
  for (const file of [from, restored]) {
    const fd = openSync(file, 'r')
    const bytes = Buffer.alloc(20_000)
    for (const place of places) {
      readSync(fd, bytes, 0, bytes.length, place)
      assert.ok(bytes.equals(noise(place % 2 ** 31, 20_000)), `${file} at ${place}`)
    }
    closeSync(fd)
  }
  assert.equal(statSync(restored).size, statSync(from).size)
  assert.equal(statSync(restored).mtimeMs, statSync(from).mtimeMs)
}

test('files of several parts come back, by chunks and by pages, fresh and with delta', async () => {
  const from = join(world.dir, 'parts')
  mkdirSync(from)
  const places = [0, 64 * MIB - 10_000, 150 * MIB]
  for (const name of ['video', 'orders.db']) writeHoles(join(from, name), 200 * MIB, places)
  const source = folderSource(from, { pageBytesOf: (path) => (path.endsWith('.db') ? 4096 : 0) })
  const snapshot = await backUpSettled(world, source, { kind: 'full', workers: 2 })
  for (const workers of [0, 2]) {
    const to = join(world.dir, `parts-${workers}`)
    const done = await restoreTo(world, snapshot, to, { workers })
    assert.deepEqual([done.damaged, done.failed, done.problems], [[], [], []])
    assert.equal(differences(from, `${to}${from}`), '')
    for (const name of ['video', 'orders.db'])
      assert.ok(statSync(`${to}${from}/${name}`).blocks * 512 < 20 * MIB)
    const fd = openSync(`${to}${from}/orders.db`, 'r+')
    writeSync(fd, 'in a hole of the second part', 100 * MIB)
    writeSync(fd, 'x', 150 * MIB + 77)
    ftruncateSync(fd, 180 * MIB)
    closeSync(fd)
    const again = await restoreTo(world, snapshot, to, { workers, delta: true })
    assert.equal(differences(from, `${to}${from}`), '')
    assert.ok(again.bytesWritten > 0 && again.bytesWritten <= 256 * 1024, `${again.bytesWritten} written`)
  }
})

test('a sparse file of 100 GB comes back in a moment and stays sparse', { timeout: 60_000 }, async () => {
  const from = join(world.dir, 'sparse')
  mkdirSync(from)
  const places = [5 * GIB + 12_345, 99 * GIB]
  writeHoles(join(from, 'disk'), 100 * GIB, places)
  const snapshot = await backUpSettled(world, folderSource(from, { name: 'sparse' }), { kind: 'full' })
  const to = join(world.dir, 'sparse-to')
  const done = await restoreTo(world, snapshot, to, { workers: 2 })
  assert.deepEqual([done.damaged, done.failed, done.problems], [[], [], []])
  assertSameData(join(from, 'disk'), `${to}${from}/disk`, places)
  assert.ok(statSync(`${to}${from}/disk`).blocks * 512 < 20 * MIB)
  assert.ok(done.seconds < 20, `${done.seconds} s`)
})

test('a read-only folder full of files comes back, and again into what is there', async () => {
  const from = join(world.dir, 'locked')
  mkdirSync(join(from, 'deep/er'), { recursive: true })
  writeFileSync(join(from, 'deep/er/file'), 'here')
  for (const path of ['deep/er', 'deep']) chmodSync(join(from, path), 0o555)
  const snapshot = await backUpSettled(world, folderSource(from, { name: 'locked' }))
  const to = join(world.dir, 'locked-to')
  for (const delta of [false, true]) {
    const done = await restoreTo(world, snapshot, to, { delta })
    assert.deepEqual([done.damaged, done.failed, done.problems], [[], [], []])
    assert.equal(differences(from, `${to}${from}`), '')
  }
})

interface ChildOutcome {
  readonly damaged: readonly unknown[]
  readonly failed: readonly { path: string }[]
  readonly problems: readonly { path: string; what: string }[]
}

test(
  'a user without rights gets the contents, and is told which owners and devices are not',
  { skip: !isRoot },
  async () => {
    const from = join(world.dir, 'owned')
    mkdirSync(join(from, 'folder'), { recursive: true })
    writeFileSync(join(from, 'folder/of root'), 'root', { mode: 0o644 })
    writeFileSync(join(from, 'folder/set-id'), 'root', { mode: 0o755 })
    chmodSync(join(from, 'folder/set-id'), 0o4755)
    writeFileSync(join(from, 'own'), 'mine')
    chownSync(join(from, 'own'), NOBODY, NOBODY)
    symlinkSync('own', join(from, 'link'))
    makeDevice(join(from, 'null'), { type: 'char', mode: 0o666, major: 1, minor: 3 })
    const snapshot = await backUpSettled(world, folderSource(from, { name: 'owned' }))
    // All that this user may use: copies of the store, the cache and the kit.
    const home = join(world.dir, 'nobody')
    mkdirSync(home)
    cpSync(world.store, join(home, 'store'), { recursive: true })
    writeFileSync(join(home, 'kit'), formatKit(world.repository.kit))
    chmodSync(world.dir, 0o755)
    execFileSync('chown', ['-R', `${NOBODY}:${NOBODY}`, home])
    const run = (noOwner: boolean): { outcome: ChildOutcome; to: string } => {
      const to = join(home, `to-${noOwner}`)
      const files = {
        kitFile: join(home, 'kit'),
        cache: join(home, 'cache'),
        storeUrl: `file://${home}/store`,
      }
      const job = JSON.stringify({ ...files, to, snapshot, workers: 1, noOwner })
      const program = fileURLToPath(new URL('../harness/restore-child.ts', import.meta.url))
      const child = spawnSync(process.execPath, [program, job], {
        uid: NOBODY,
        gid: NOBODY,
        encoding: 'utf8',
      })
      assert.equal(child.status, 0, child.stderr)
      return { outcome: JSON.parse(child.stdout.split('\n')[1] ?? '') as ChildOutcome, to: `${to}${from}` }
    }
    const { outcome, to } = run(false)
    assert.deepEqual([outcome.damaged, outcome.failed], [[], []], 'nothing is missing that has content')
    const about = (path: string): string[] =>
      outcome.problems.filter((problem) => problem.path === `${from}/${path}`).map(({ what }) => what)
    assert.match(about('folder/of root').join(), /^cannot set the owner 0:0: operation not permitted$/)
    assert.match(about('null').join(), /^cannot create the char: operation not permitted$/)
    assert.deepEqual(about('own'), [])
    for (const name of ['folder/of root', 'folder/set-id', 'own'])
      assert.deepEqual(readFileSync(join(to, name)), readFileSync(join(from, name)))
    assert.equal(
      statSync(join(to, 'folder/set-id')).mode & 0o7777,
      0o755,
      'lends nobody the rights of nobody',
    )
    const own = run(true)
    assert.deepEqual(
      own.outcome.problems.map(({ path }) => path),
      [`${from}/null`],
    )
  },
)
