/** What a restore refuses, what it counts, and how it ends when a store cannot hand out what it holds. */
import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Failure, isFailure } from '../../src/base/failure.ts'
import type { BlobStore } from '../../src/storage/store.ts'
import { openStore } from '../../src/storage/open.ts'
import { dropRepository, folderSource, makeRepository, noise, through } from '../harness/engine.ts'
import {
  backUpSettled,
  differences,
  dropWorld,
  makeWorld,
  restoreTo,
  type RestoreWorld,
} from '../harness/restores.ts'
import { dropHost, eventOf, eventsOf, here, makeHost, packNames, putFile } from '../harness/shop-host.ts'

let world: RestoreWorld
let from = ''
let snapshot = ''

before(async () => {
  world = await makeWorld()
  from = join(world.dir, 'from')
  mkdirSync(join(from, 'sub'), { recursive: true })
  writeFileSync(join(from, 'large'), noise(1, 300_000))
  writeFileSync(join(from, 'sub/twin'), noise(2, 50_000))
  linkSync(join(from, 'sub/twin'), join(from, 'twin'))
  writeFileSync(join(from, 'tiny'), 'tiny')
  symlinkSync('tiny', join(from, 'link'))
  snapshot = await backUpSettled(world, folderSource(from))
})
after(() => dropWorld(world))

async function refused(promise: Promise<unknown>, words: RegExp): Promise<void> {
  await assert.rejects(promise, (error) => isFailure(error, 'restore.refused') && words.test(error.message))
}

test('what could not be restored is not counted as restored', async () => {
  const to = join(world.dir, 'counts')
  const all = await restoreTo(world, snapshot, join(world.dir, 'all'))
  assert.deepEqual([all.files, all.others, all.bytes], [4, 1, 300_000 + 2 * 50_000 + 4])
  // Folders that hold something never give way.
  for (const name of ['large', 'sub/twin', 'link']) {
    mkdirSync(`${to}${from}/${name}`, { recursive: true })
    writeFileSync(`${to}${from}/${name}/mine`, 'mine')
  }
  const done = await restoreTo(world, snapshot, to, { overwrite: true })
  const failed = ['large', 'link', 'sub/twin', 'twin'].map((name) => `${from}/${name}`)
  assert.deepEqual(done.failed.map(({ path }) => path).sort(), failed)
  assert.equal(done.counts.failed, 4)
  assert.deepEqual([done.files, done.others, done.bytes], [1, 0, 4])
  assert.equal(done.directories, all.directories)
  assert.ok(existsSync(join(to, '.backstock-restore')))
})

test('a restore with more folders than wait in memory finishes them on the way', async () => {
  const own = join(world.dir, 'many')
  for (let nth = 0; nth < 10_100; nth++)
    mkdirSync(join(own, String(nth).padStart(5, '0')), { recursive: true })
  for (const name of ['00000', '05000', '10099', '10099/deep']) {
    mkdirSync(join(own, name), { recursive: true })
    writeFileSync(join(own, name, 'file'), name)
    linkSync(join(own, name, 'file'), join(own, name, 'other name'))
  }
  linkSync(join(own, '00000/file'), join(own, '10099/far'))
  chmodSync(join(own, '00000'), 0o300)
  for (const name of ['00000', '00001', '10099/deep', '10099', ''])
    utimesSync(join(own, name), 1_000_000, 1_000_000)
  const source = folderSource(own, { name: 'many' })
  const to = join(world.dir, 'many-restored')
  const done = await restoreTo(world, await backUpSettled(world, source), to, { workers: 2 })
  assert.deepEqual([done.problems, done.failed, done.files], [[], [], 9])
  assert.equal(differences(own, `${to}${own}`), '')
})

test('a restore into the repository, or over it, is refused', async () => {
  const { store, dir } = world
  const inside = join(store, 'd')
  const alias = join(dir, 'alias')
  symlinkSync(store, alias)
  for (const to of [store, inside, join(store, 'new/folder'), alias])
    for (const options of [{}, { overwrite: true }, { delta: true }, { dryRun: true }])
      await refused(restoreTo(world, snapshot, to, options), /it lies in the repository/)
  assert.ok(!existsSync(join(store, 'new')))
  // As with `--to /`: what comes from `sub` goes to where a repository lies.
  const root = join(dir, 'root')
  const place = `${root}${from}/sub`
  mkdirSync(place, { recursive: true })
  const repository = await makeRepository({ store: await openStore(`file://${place}`) })
  const own = await backUpSettled({ ...world, repository }, folderSource(from))
  const objects = namesBelow(place)
  const restoreOwn = (options: Parameters<typeof restoreTo>[3]): ReturnType<typeof restoreTo> =>
    restoreTo({ repository }, own, root, { delta: true, ...options })
  for (const options of [{}, { delta: false, overwrite: true }, { paths: [`${from}/sub/twin`] }])
    await refused(restoreOwn(options), /the repository .* lies in it, where the snapshot has/)
  assert.deepEqual(namesBelow(place), objects)
  for (const options of [{ exclude: [`${from}/sub`] }, { paths: [`${from}/tiny`] }])
    assert.equal((await restoreOwn(options)).counts.failed, 0)
  assert.deepEqual(namesBelow(place), objects)
  assert.equal(readFileSync(`${root}${from}/tiny`, 'latin1'), 'tiny')
  // Folders that cannot be read are not written, so they refuse nothing.
  const failing = through(repository, failingStore(repository.access.store, /\/meta\//))
  const done = await restoreTo({ repository: failing }, own, root, { delta: true })
  assert.equal(done.counts.unreadable, 1)
  assert.deepEqual(namesBelow(place), objects)
  dropRepository(repository)
})

function namesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()
}

/** A store that cannot read the objects that `name` fits. */
function failingStore(inner: BlobStore, name: RegExp): BlobStore {
  return {
    ...inner,
    workerUrl: undefined,
    get: (object, options) =>
      name.test(object)
        ? Promise.reject(
            new Failure('storage.offline', `Cannot read "${object}": its disk fails`, {
              facts: { errno: 'EIO' },
            }),
          )
        : inner.get(object, options),
  }
}

test('what the store cannot read now is told from damage, and resumed', async () => {
  const { repository } = world
  const { store } = repository.access
  for (const [name, paths] of [
    [/\/packs\//, ['large', 'sub/twin', 'twin']],
    [/\/(packs|meta)\//, ['']],
  ] as const) {
    const to = join(world.dir, `unreadable-${paths.length}`)
    const failing = { repository: through(repository, failingStore(store, name)) }
    const done = await restoreTo(failing, snapshot, to)
    assert.deepEqual([done.damaged, done.failed, done.counts.unreadable], [[], [], paths.length])
    if (paths[0] !== '')
      assert.deepEqual(
        done.unreadable.map(({ path }) => path.slice(from.length + 1)).sort(),
        paths.toSorted(),
      )
    assert.match(done.unreadable[0]?.what ?? '', /cannot be restored now, since the store cannot read it/)
    await restoreTo(world, snapshot, to)
    assert.equal(differences(from, `${to}${from}`), '')
  }
})

test('22: the store holds what it cannot hand out', async () => {
  const host = makeHost()
  try {
    putFile(host, 'media/large', noise(3, 200_000))
    putFile(host, 'media/tiny', 'tiny')
    assert.equal((await here(host, ['init'])).exit, 0)
    assert.equal((await here(host, ['backup'])).exit, 0)
    const repo = join(host.dir, 'repo')
    const [pack = ''] = packNames(host)
    renameSync(join(repo, pack), join(host.dir, 'moved'))
    symlinkSync(join(host.dir, 'moved'), join(repo, pack))
    const outcome = await here(host, ['restore', 'media', '--to', 'out', '--json'])
    assert.equal(outcome.exit, 22, outcome.stderr)
    const [error] = eventsOf(outcome).filter(({ type }) => type === 'error')
    assert.equal(error?.['code'], 'storage.offline')
    const { unreadable, damaged, files } = eventOf(outcome, 'summary')
    assert.deepEqual([unreadable, damaged, files], [1, 0, 1])
    rmSync(join(repo, pack))
    renameSync(join(host.dir, 'moved'), join(repo, pack))
    assert.equal((await here(host, ['restore', 'media', '--to', 'out'])).exit, 0)
    assert.deepEqual(readFileSync(join(host.dir, 'out', host.media, 'large')), noise(3, 200_000))
  } finally {
    dropHost(host)
  }
})
