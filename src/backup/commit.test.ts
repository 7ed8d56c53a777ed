import { strict as assert } from 'node:assert'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { systemClock } from '../base/clock.ts'
import { isFailure } from '../base/failure.ts'
import { decodeFooter } from '../format/pack.ts'
import { addRecipient, addWriter, revokeWriter } from '../repo/key-changes.ts'
import { openRepository } from '../repo/keys.ts'
import { newIdentity, type Credential } from '../repo/kit.ts'
import {
  backUp,
  dropRepository,
  folderSource,
  makeRepository,
  noise,
  snapshotsOf,
  through,
  type TestRepository,
} from '../../test/harness/engine.ts'
import { hostileStore } from '../../test/harness/hostile-store.ts'
import { verifyRepository } from '../../test/harness/verify.ts'

async function makeScene(t: TestContext): Promise<{ repository: TestRepository; path: string }> {
  const repository = await makeRepository()
  t.after(() => dropRepository(repository))
  const path = join(repository.folder, 'data')
  mkdirSync(path)
  for (let i = 0; i < 20; i++) writeFileSync(join(path, `${i}`), noise(i, 9000))
  return { repository, path }
}

/** Backs up as `credential`, and does `meanwhile` after the last file was read. */
async function backUpWhile(
  scene: { repository: TestRepository; path: string },
  credential: Credential,
  meanwhile: (domain: string) => Promise<unknown>,
): Promise<void> {
  const { repository, path } = scene
  const access = await openRepository(repository.access.store, credential)
  const domain = credential.type === 'writer' ? credential.domain : (access.config.domains[0]?.id ?? '')
  const end = async (): Promise<readonly []> => {
    await meanwhile(domain)
    return []
  }
  await backUp({ ...repository, access }, folderSource(path, { end }), { kind: 'full' })
}

test('a writer that is revoked while it runs commits nothing, and what it stored stays', async (t) => {
  const scene = await makeScene(t)
  const { store } = scene.repository.access
  const owner = { store, kit: scene.repository.kit, clock: systemClock }
  const { writer } = await addWriter(owner, 'web-2', () => Promise.resolve())
  for (const credential of [writer, owner.kit]) {
    await assert.rejects(
      backUpWhile(scene, credential, (domain) => revokeWriter(owner, domain)),
      (error) => isFailure(error, 'key.revoked') && error.message.includes('while it ran'),
    )
  }
  const names = [...scene.repository.disk.keys()]
  assert.deepEqual(
    names.filter((name) => name.includes('/snapshots/')),
    [],
  )
  assert.equal(names.filter((name) => name.startsWith('sessions/')).length, 2)
  assert.ok(names.filter((name) => name.includes('/packs/')).length >= 2)
})

test('a config that changed otherwise while a backup ran does not stop it', async (t) => {
  const scene = await makeScene(t)
  const { kit, access } = scene.repository
  const owner = { store: access.store, kit, clock: systemClock }
  const other = newIdentity(kit.repository, kit.authority)
  await backUpWhile(scene, kit, () =>
    addRecipient(owner, { age: other.recipient, name: 'auditor', role: 'janitor' }),
  )
  assert.equal((await snapshotsOf(scene.repository)).length, 1)
})

test('a store that hides the config while a backup runs gets no snapshot', async (t) => {
  const scene = await makeScene(t)
  const { disk, kit } = scene.repository
  await assert.rejects(
    backUpWhile(scene, kit, () => Promise.resolve(disk.delete('config/1'))),
    (error) => isFailure(error, 'repo.rolledback'),
  )
  assert.equal([...disk.keys()].filter((name) => name.includes('/snapshots/')).length, 0)
})

test('a lineage counts exactly the packs that lie in the store, whatever kind wrote them', async (t) => {
  const scene = await makeScene(t)
  const { repository, path } = scene
  for (const kind of ['full', 'incremental', 'differential', 'incremental'] as const) {
    await backUp(repository, folderSource(path), { kind })
    writeFileSync(join(path, 'more'), noise(kind.length, 300_000))
  }
  assert.deepEqual(await verifyRepository(repository.access), [])
  const [last] = (await snapshotsOf(repository)).slice(-1)
  const stored = [...repository.disk].filter(([name]) => /\/(packs|meta)\//.test(name))
  for (const { packSet, packs, bytes } of last?.lineage ?? []) {
    const blobs = stored.flatMap(([name, blob]) =>
      decodeFooter(blob.bytes, name).packSet.toString('hex') === packSet ? [blob.bytes.length] : [],
    )
    assert.equal(packs, blobs.length)
    assert.equal(
      bytes,
      blobs.reduce((sum, each) => sum + each, 0),
    )
  }
  assert.equal(last?.lineage.length, 3, "the full's, the differential's and its own")
})

test('a pack that two adopted runs list, since it was not to be seen for a while, counts once', async (t) => {
  const { repository, path } = await makeScene(t)
  const full = [{ on: 'put', name: /\/snapshots\//, trick: { kind: 'fail', code: 'storage.full' } }] as const
  const dying = through(repository, hostileStore(repository.access.store, { rules: full }))
  const isFull = (error: unknown): boolean => isFailure(error, 'storage.full')
  await assert.rejects(backUp(dying, folderSource(path), { kind: 'full' }), isFull)
  const [hidden] = [...repository.disk].filter(([name]) => name.includes('/packs/'))
  assert.ok(hidden)
  repository.disk.delete(hidden[0])
  await assert.rejects(backUp(dying, folderSource(path), { kind: 'full' }), isFull)
  repository.disk.set(...hidden)
  const done = await backUp(repository, folderSource(path), { kind: 'full' })
  assert.ok(done.adoptedPacks > 0)
  const [snapshot] = await snapshotsOf(repository)
  assert.ok((snapshot?.lineage[0]?.runs.length ?? 0) > 2, 'runs of both that died')
  assert.deepEqual(await verifyRepository(repository.access), [])
})

test('a backup of another cluster under the same name is sound, and warns', async (t) => {
  const { repository, path } = await makeScene(t)
  const of = (branch: string) =>
    folderSource(path, { logRange: () => ({ branch, from: 1n, to: 2n, held: 2n }) })
  const first = await backUp(repository, of('71-00000001'))
  assert.deepEqual((await backUp(repository, folderSource(path))).warnings, [])
  assert.deepEqual((await backUp(repository, of('71-00000002'))).warnings, [], 'a timeline is no cluster')
  const other = await backUp(repository, of('72-00000001'))
  assert.equal(other.warnings.length, 1)
  assert.match(other.warnings[0]!, /is of another cluster .*: of system 72, not 71\b/)
  assert.deepEqual((await backUp(repository, of('72-00000001'))).warnings, [])
  assert.deepEqual(first.warnings, [])
})
