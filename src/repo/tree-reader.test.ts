/** Reading snapshots back, and what a damaged repository says: packs, runs, snapshots, single names, ranges. */
import { strict as assert } from 'node:assert'
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import {
  aheadClock,
  backUp,
  dropRepository,
  folderSource,
  forgetCache,
  makeRepository,
  noise,
  readBack,
  snapshotOf,
  snapshotsOf,
  testSeed,
  type TestRepository,
} from '../../test/harness/engine.ts'
import { isFailure } from '../base/failure.ts'
import { listSnapshots } from './snapshots.ts'
import {
  closeSnapshot,
  findEntry,
  openSnapshot,
  copiesOfChunk,
  readFile,
  rootNode,
  walkTree,
} from './tree-reader.ts'

const seed = testSeed()
let repository: TestRepository
let path: string
let id: string

before(async () => {
  repository = await makeRepository()
  path = join(repository.folder, 'data')
  mkdirSync(join(path, 'many'), { recursive: true })
  for (let i = 0; i < 1500; i++) writeFileSync(join(path, 'many', `f${i}`), `${i}`)
  writeFileSync(join(path, 'large'), noise(1, 300_000))
  writeFileSync(join(path, 'holes'), noise(2, 5000))
  truncateSync(join(path, 'holes'), 200_000)
  id = (await backUp(repository, folderSource(path), { kind: 'full', clock: aheadClock(10_000) })).snapshot!
})

after(() => dropRepository(repository))

test('findEntry() finds a name among many, and none that is not there', async () => {
  const reader = await openSnapshot(repository.access, repository.host, await snapshotOf(repository, id))
  for (const name of ['f0', 'f1499', 'f777'])
    assert.equal((await findEntry(reader, `${path}/many/${name}`))?.name, name)
  for (const name of ['a', 'f', 'f1500x', 'zz', 'f1/x'])
    assert.equal(await findEntry(reader, `${path}/many/${name}`), undefined, name)
  assert.equal(await findEntry(reader, '/'), undefined)
  closeSnapshot(reader)
})

test(`readFile() gives any range of a file (SEED=${seed})`, async () => {
  const reader = await openSnapshot(repository.access, repository.host, await snapshotOf(repository, id))
  for (const name of ['large', 'holes', 'many/f12']) {
    const bytes = readFileSync(join(path, name))
    const entry = (await findEntry(reader, `${path}/${name}`))!
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: 310_000 }), fc.nat({ max: 40_000 }), async (offset, length) => {
        const pieces: Uint8Array[] = []
        for await (const piece of readFile(reader, entry, { offset, length })) pieces.push(piece)
        assert.ok(
          Buffer.concat(pieces).equals(bytes.subarray(offset, offset + length)),
          `${name} ${offset} ${length}`,
        )
      }),
      { seed, numRuns: 60 },
    )
  }
  closeSnapshot(reader)
})

test('walkTree() leaves out the directories it is told to', async () => {
  const reader = await openSnapshot(repository.access, repository.host, await snapshotOf(repository, id))
  const seen: string[] = []
  for await (const event of walkTree(reader, { into: (each) => !each.endsWith('/many') }))
    seen.push(event.path)
  assert.ok(seen.includes(`${path}/large`))
  assert.ok(!seen.some((each) => each.includes('/many')))
  closeSnapshot(reader)
})

test('a chunk that no run lists is named', async () => {
  const reader = await openSnapshot(repository.access, repository.host, await snapshotOf(repository, id))
  assert.throws(
    () => copiesOfChunk(reader, Buffer.alloc(32, 1)),
    (error) => isFailure(error, 'repo.corrupt'),
  )
  assert.deepEqual(
    copiesOfChunk(reader, rootNode(reader)).map(({ place }) => place.kind),
    ['tree'],
  )
  closeSnapshot(reader)
})

/** Whether reading all back fails, and how. The disk is put right again. */
async function readDamaged(name: string, change: (bytes: Buffer) => Buffer | undefined): Promise<unknown> {
  const blob = repository.disk.get(name)!
  const damaged = change(Buffer.from(blob.bytes))
  if (damaged === undefined) repository.disk.delete(name)
  else repository.disk.set(name, { ...blob, bytes: damaged })
  forgetCache(repository)
  try {
    await readBack(repository, await snapshotOf(repository, id), path)
    return undefined
  } catch (error) {
    return error
  } finally {
    repository.disk.set(name, blob)
  }
}

test('any damage to a pack that a snapshot needs is noticed on reading all of it', async () => {
  const names = [...repository.disk.keys()].filter((name) => /\/(packs|meta)\//.test(name))
  let [noticed, tried] = [0, 0]
  for (const name of names) {
    const isNeeded = isFailure(await readDamaged(name, () => undefined), 'storage.missing')
    const bytes = repository.disk.get(name)!.bytes.length
    for (const at of [0, 1, bytes >> 2, bytes >> 1, bytes - 300, bytes - 250, bytes - 5, bytes - 1].filter(
      (each) => each >= 0,
    )) {
      const error = await readDamaged(name, (copy) => {
        copy[at]! ^= 4
        return copy
      })
      if (error !== undefined)
        assert.ok(isFailure(error), `${name} at ${at}: ${error instanceof Error ? error.stack : ''}`)
      tried += isNeeded ? 1 : 0
      noticed += isNeeded && error !== undefined ? 1 : 0
    }
    const cut = await readDamaged(name, (copy) => copy.subarray(0, copy.length - 1))
    if (isNeeded) assert.ok(isFailure(cut), `${name} cut`)
  }
  assert.ok(tried > 20, `${tried}`)
  assert.equal(noticed, tried)
})

test('a bad snapshot object does not hide the good ones', async () => {
  const good = await snapshotOf(repository, id)
  const blob = repository.disk.get(good.name)!
  const other = good.name.replace(/[0-9a-f]{8}$/, 'deadbeef')
  for (const bytes of [blob.bytes, blob.bytes.subarray(0, 100), Buffer.alloc(0), Buffer.from('nonsense')]) {
    repository.disk.set(other, { ...blob, bytes })
    const { snapshots, bad } = await listSnapshots(repository.access.store, repository.access.config)
    assert.deepEqual(
      snapshots.map((each) => each.id),
      [id],
    )
    assert.deepEqual(
      bad.map((each) => each.name),
      [other],
    )
    repository.disk.delete(other)
  }
  assert.equal((await snapshotsOf(repository)).length, 1)
})
