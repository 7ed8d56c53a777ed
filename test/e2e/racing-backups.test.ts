/** Two backups of one source at once, from two cache folders: no lock keeps them apart. */
import { strict as assert } from 'node:assert'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { systemClock } from '../../src/base/clock.ts'
import { isFailure } from '../../src/base/failure.ts'
import { check } from '../../src/recovery/check.ts'
import { openHostFolder } from '../../src/repo/host-folder.ts'
import { newestSnapshot } from '../../src/repo/select-snapshot.ts'
import type { BlobStore } from '../../src/storage/store.ts'
import {
  backUp,
  dropRepository,
  folderSource,
  makeRepository,
  noise,
  snapshotsOf,
  through,
  type TestRepository,
} from '../harness/engine.ts'
import { hostileStore } from '../harness/hostile-store.ts'
import { verifyRepository } from '../harness/verify.ts'

async function makeScene(t: TestContext): Promise<{ repository: TestRepository; path: string }> {
  const repository = await makeRepository()
  t.after(() => dropRepository(repository))
  const path = join(repository.folder, 'data')
  mkdirSync(path)
  for (let i = 0; i < 20; i++) writeFileSync(join(path, `${i}`), noise(i, 9000))
  return { repository, path }
}

/** The same repository from another cache folder, where no lock of the first one is seen. */
function fromOtherCache(repository: TestRepository): TestRepository {
  const host = openHostFolder(join(repository.folder, 'other-cache'), repository.kit.repository)
  return { ...repository, host }
}

async function findingsOf({ access, host }: TestRepository): Promise<string[]> {
  const { findings } = await check(access, host, { workers: 0, clock: systemClock })
  return findings.map(({ code, severity }) => `${severity} ${code}`)
}

test('a snapshot that another run commits at the last moment is followed, not forked', async (t) => {
  const { repository, path } = await makeScene(t)
  await backUp(repository, folderSource(path))
  const { store } = repository.access
  let isMeanwhile = false
  const late: BlobStore = {
    ...store,
    async *list(prefix) {
      if (prefix === 'config/' && !isMeanwhile) {
        isMeanwhile = true
        await backUp(fromOtherCache(repository), folderSource(path))
      }
      yield* store.list(prefix)
    },
  }
  const { warnings } = await backUp(through(repository, late), folderSource(path), { kind: 'incremental' })
  assert.ok(isMeanwhile)
  assert.deepEqual(warnings, [])
  assert.deepEqual(
    (await snapshotsOf(repository)).map(({ counter }) => counter),
    [1, 2, 3],
  )
  assert.deepEqual(await findingsOf(repository), [])
  assert.deepEqual(await verifyRepository(repository.access), [])
})

test('two runs that look at the stream at the same moment: a warning, and a note of the check', async (t) => {
  const { repository, path } = await makeScene(t)
  await backUp(repository, folderSource(path))
  const { store } = repository.access
  const rules = [{ on: 'put', name: /\/snapshots\//, trick: { kind: 'hang' } }] as const
  const slow = hostileStore(store, { rules })
  const first = backUp(through(repository, slow), folderSource(path))
  await slow.untilHanging()
  const second = await backUp(fromOtherCache(repository), folderSource(path))
  slow.release()
  const { snapshot, warnings } = await first
  assert.deepEqual(second.warnings, [])
  assert.equal(warnings.length, 1)
  assert.match(
    warnings[0] ?? '',
    new RegExp(`${second.snapshot} and ${snapshot} both are number 2 of "shop"`),
  )
  assert.deepEqual(await findingsOf(repository), ['info stream.race'])
  await backUp(repository, folderSource(path))
  await backUp(fromOtherCache(repository), folderSource(path))
  const stream = await snapshotsOf(repository)
  const [, , later, next] = stream
  assert.deepEqual(
    stream.map(({ counter }) => counter),
    [1, 2, 2, 3, 4],
  )
  assert.equal(next?.parent, later?.id)
  assert.equal(next?.previous, later?.sha256)
  assert.equal(newestSnapshot(stream.slice(0, 3)), later)
  assert.deepEqual(await findingsOf(repository), ['info stream.race'])
})

test('of two runs that work on one pack set the slower one is told so, and its packs stay', async (t) => {
  const { repository, path } = await makeScene(t)
  const { store } = repository.access
  const rules = [{ on: 'put', name: /\/index\//, trick: { kind: 'hang' } }] as const
  const slow = hostileStore(store, { rules })
  const first = backUp(through(repository, slow), folderSource(path))
  await slow.untilHanging()
  const second = await backUp(fromOtherCache(repository), folderSource(path))
  assert.ok(second.adoptedPacks > 0)
  slow.release()
  await assert.rejects(
    first,
    (error) => isFailure(error, 'repo.busy') && /another backup/.test(error.message),
  )
  assert.equal((await backUp(repository, folderSource(path))).kind, 'incremental')
  assert.deepEqual(await verifyRepository(repository.access), [])
})
