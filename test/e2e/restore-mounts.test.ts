/** Restores into folders with mounts below them: of the repository itself, and of other disks. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, fstatSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFailure } from '../../src/base/failure.ts'
import type { Outcome } from '../harness/cli-world.ts'
import { folderSource } from '../harness/engine.ts'
import { errnoError } from '../harness/local-place.ts'
import {
  backUpSettled,
  differences,
  dropWorld,
  makeWorld,
  restoreTo,
  type RestoreWorld,
} from '../harness/restores.ts'
import {
  dropHost,
  eventOf,
  here,
  makeHost,
  packNames,
  program,
  putFile,
  type ShopHost,
} from '../harness/shop-host.ts'
import { mountDisk, unmountDisk } from '../harness/small-disk.ts'

let world: RestoreWorld
let from = ''
let snapshot = ''

before(async () => {
  world = await makeWorld()
  from = join(world.dir, 'from')
  mkdirSync(join(from, 'sub/deep'), { recursive: true })
  writeFileSync(join(from, 'large'), Buffer.alloc(300_000, 'large'))
  writeFileSync(join(from, 'sub/deep/small'), 'small')
  snapshot = await backUpSettled(world, folderSource(from))
})
after(() => dropWorld(world))

function treeOf(folder: string): string[] {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()
  return names.map((name) => {
    const { mode, mtimeNs, ctimeNs, size } = statSync(join(folder, name), { bigint: true })
    return `${name} ${mode} ${mtimeNs} ${ctimeNs} ${size}`
  })
}

test('a restore ends before it writes into the repository where that is mounted below', async (t) => {
  const host = makeHost()
  t.after(() => dropHost(host))
  putFile(host, 'media/large', Buffer.alloc(5000, 'large'))
  putFile(host, 'media/mnt/file', 'file')
  putFile(host, 'media/mnt/d/deep/file', 'file')
  for (const argv of [['init'], ['backup']]) assert.equal((await here(host, argv)).exit, 0)
  const repository = join(host.dir, 'repo')
  const objects = treeOf(repository)
  const packs = join(repository, packNames(host)[0] ?? '', '../..')
  const mounted = `${host.dir}/to${host.media}/mnt`
  mkdirSync(join(mounted, 'd/deep'), { recursive: true })
  putFile(host, 'other/deep/there', '')
  if (!canMount(host, mounted)) return t.skip('cannot mount a folder here')
  for (const [source, place] of [
    [repository, mounted],
    [packs, mounted],
    [packs, join(mounted, 'd')],
    [repository, join(mounted, 'd/deep')],
  ] as const) {
    const outcome = restoreOver(host, source, place)
    assert.equal(outcome.exit, 1, outcome.stderr)
    const { code, message } = eventOf(outcome, 'error')
    assert.equal(code, 'restore.failed')
    assert.match(String(message), /\/mnt.*it is a folder of the repository .*, mounted there/)
    assert.deepEqual(treeOf(repository), objects, `${source} at ${place}`)
  }
  const outcome = restoreOver(host, join(host.dir, 'other'), join(mounted, 'd'))
  assert.equal(outcome.exit, 0, outcome.stdout)
  assert.equal(readFileSync(join(host.dir, 'other/deep/file'), 'utf8'), 'file')
  // The target itself lies there: refused before anything is written.
  const into = restoreOver(host, packs, join(host.dir, 'to'))
  assert.equal(eventOf(into, 'error')['code'], 'restore.refused')
  assert.deepEqual(treeOf(repository), objects)
})

function canMount(host: ShopHost, place: string): boolean {
  return spawnSync('unshare', ['-m', 'mount', '--bind', join(host.dir, 'other'), place]).status === 0
}

/** Restores with `source` mounted at `place`, in a namespace of its own: the mount ends with the process. */
function restoreOver(host: ShopHost, source: string, place: string): Outcome {
  const script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
  const restore = [process.execPath, program, 'restore', 'media', '--to', 'to', '--delta', '--json']
  const child = spawnSync('unshare', ['-m', 'sh', '-c', script, 'sh', source, place, ...restore], {
    cwd: host.dir,
    env: host.env,
    encoding: 'utf8',
    timeout: 60_000,
  })
  return { exit: child.status ?? -1, stdout: child.stdout, stderr: child.stderr }
}

test('a restore is on the disk before it says so', async () => {
  const to = join(world.dir, 'durable')
  const seen: string[] = []
  const sync = (fd: number | undefined): void => {
    assert.equal(fstatSync(fd ?? -1).dev, statSync(to).dev)
    seen.push(differences(from, `${to}${from}`), String(existsSync(join(to, '.backstock-restore'))))
  }
  for (const workers of [0, 2]) {
    await restoreTo(world, snapshot, to, { sync, workers, delta: true })
    assert.deepEqual(seen.splice(0), ['', 'true'], 'all was there, with metadata, and still marked')
    assert.ok(!existsSync(join(to, '.backstock-restore')))
  }
  const failing = (): never => {
    throw errnoError('EIO')
  }
  const failed = restoreTo(world, snapshot, to, { sync: failing, delta: true })
  await assert.rejects(
    failed,
    (error) => isFailure(error, 'restore.failed') && /make durable/.test(error.message),
  )
  assert.ok(existsSync(join(to, '.backstock-restore')))
})

test('a restore makes each file system durable that it has entered', async (t) => {
  const to = join(world.dir, 'disks')
  const disk = `${to}${from}/sub/deep`
  mkdirSync(disk, { recursive: true })
  if (!mountDisk(disk, '1m')) return t.skip('cannot mount a tmpfs here')
  t.after(() => unmountDisk(disk))
  for (const workers of [0, 2]) {
    const synced: number[] = []
    await restoreTo(world, snapshot, to, {
      sync: (fd) => synced.push(fstatSync(fd ?? -1).dev),
      workers,
      delta: true,
    })
    assert.deepEqual(new Set(synced), new Set([statSync(to).dev, statSync(disk).dev]))
    assert.equal(synced.length, 2, 'each once')
    assert.equal(readFileSync(join(disk, 'small'), 'utf8'), 'small')
  }
})
