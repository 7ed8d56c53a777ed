import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { configName } from '../format/config.ts'
import type { Config } from '../format/config.ts'
import { encodeSigned } from '../format/signed.ts'
import { memoryStore } from '../storage/memory.ts'
import type { BlobStore } from '../storage/store.ts'
import { putConfig, readConfig } from './configs.ts'
import type { OpenConfig } from './configs.ts'
import { createKeys } from './keys.ts'
import { newKit } from './kit.ts'
import type { Kit } from './kit.ts'

const clock = { now: () => Date.UTC(2026, 10, 22), elapsed: () => 0 }
const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)

interface Made {
  store: BlobStore
  kit: Kit
  seed: Buffer
  first: OpenConfig
  pinned: { repository: string; authority: string }
}

async function made(kit: Kit = newKit()): Promise<Made> {
  const store = memoryStore()
  const first = await createKeys({ store, kit, shop: 'acme', writer: 'shop-1', clock })
  assert.ok(kit.authoritySeed)
  return { store, kit, seed: kit.authoritySeed, first, pinned: kit }
}

/** Puts config/<n+1> that differs from its predecessor in the name of the shop. */
async function next({ store, seed }: Made, before: OpenConfig, shop: string): Promise<OpenConfig> {
  const config = { ...before.config, shop, n: before.config.n + 1, previous: before.sha256 }
  const put = await putConfig(store, config, seed)
  assert.ok(put)
  return put
}

async function replace(store: BlobStore, name: string, bytes: Uint8Array): Promise<void> {
  await store.delete(name)
  await store.put(name, bytes)
}

const knownFrom = (open: OpenConfig) => ({ n: open.config.n, sha256: open.sha256 })

test('readConfig() takes the highest number, not the last name, and ignores what is no config', async () => {
  const repo = await made()
  let last = repo.first
  for (let n = 2; n <= 11; n++) last = await next(repo, last, `acme ${n}`)
  await repo.store.put('config/notes', Buffer.from('x'))
  const open = await readConfig(repo.store, repo.pinned)
  assert.equal(open.config.shop, 'acme 11')
  assert.equal(open.sha256, last.sha256)
  assert.deepEqual((await readConfig(repo.store)).config, open.config)
})

test('readConfig() of objects without a config is damage, and no empty place', async () => {
  const { pinned } = await made()
  const store = memoryStore()
  await store.put('d/0011223344556677/packs/aa/one', Buffer.from('pack'))
  await assert.rejects(readConfig(store, pinned), fails('repo.corrupt'))
})

test('readConfig() of an empty place is repo.missing, or repo.rolledback where one is known', async () => {
  const { pinned, first } = await made()
  await assert.rejects(readConfig(memoryStore(), pinned), fails('repo.missing'))
  await assert.rejects(
    readConfig(memoryStore(), { ...pinned, known: knownFrom(first) }),
    fails('repo.rolledback'),
  )
})

test('readConfig() with the id of another repository is repo.foreign', async () => {
  const { store } = await made()
  await assert.rejects(readConfig(store, newKit()), fails('repo.foreign'))
})

test('readConfig() refuses a config of another authority, also one that vouches for itself', async () => {
  const repo = await made()
  const intruder = newKit()
  assert.ok(intruder.authoritySeed)
  const forged: Config = {
    ...repo.first.config,
    n: 2,
    previous: repo.first.sha256,
    authority: intruder.authority,
  }
  await putConfig(repo.store, forged, intruder.authoritySeed)
  await assert.rejects(readConfig(repo.store, repo.pinned), fails('repo.forged'))
})

test('readConfig() refuses a payload that belongs to another number or names another signer', async () => {
  const repo = await made()
  const { repository } = repo.kit
  for (const [at, payload] of [
    { ...repo.first.config, shop: 'two' },
    { ...repo.first.config, n: 2, previous: repo.first.sha256, authority: newKit().authority },
    { ...repo.first.config, n: 2, previous: repo.first.sha256, repository: newKit().repository },
  ].entries()) {
    const name = configName(2)
    await replace(repo.store, name, encodeSigned({ kind: 'config', repository, name, payload }, repo.seed))
    await assert.rejects(readConfig(repo.store, repo.pinned), fails('repo.forged'), `payload ${at}`)
  }
})

test('readConfig() of a damaged or cut config is repo.corrupt, of a newer one repo.newer', async () => {
  const repo = await made()
  const bytes = Buffer.from(await repo.store.get('config/1'))
  await replace(repo.store, 'config/1', bytes.subarray(0, 200))
  await assert.rejects(readConfig(repo.store, repo.pinned), fails('repo.corrupt'))
  const { repository } = repo.kit
  const payload = { ...repo.first.config, features: { required: ['sharding'], optional: [] } }
  const newer = encodeSigned({ kind: 'config', repository, name: 'config/1', payload }, repo.seed)
  await replace(repo.store, 'config/1', newer)
  await assert.rejects(readConfig(repo.store, repo.pinned), fails('repo.newer'))
})

test('readConfig() does not load a config of absurd size', async () => {
  const { store, pinned } = await made()
  const lying: BlobStore = {
    ...store,
    async *list(prefix) {
      for await (const stat of store.list(prefix)) yield { ...stat, bytes: 1e12 }
    },
    get: () => Promise.reject(new Error('it was loaded')),
  }
  await assert.rejects(readConfig(lying, pinned), fails('repo.corrupt'))
})

test('readConfig() accepts what follows from the remembered config, however far', async () => {
  const repo = await made()
  const second = await next(repo, repo.first, 'two')
  const third = await next(repo, second, 'three')
  for (const known of [repo.first, second, third]) {
    const open = await readConfig(repo.store, { ...repo.pinned, known: knownFrom(known) })
    assert.equal(open.config.n, 3)
  }
})

test('readConfig() sees a store that went back, or that tells another story', async () => {
  const repo = await made()
  const second = await next(repo, repo.first, 'two')
  await repo.store.delete('config/2')
  const known = knownFrom(second)
  await assert.rejects(readConfig(repo.store, { ...repo.pinned, known }), fails('repo.rolledback'))
  const other = await next(repo, repo.first, 'another two')
  await assert.rejects(readConfig(repo.store, { ...repo.pinned, known }), fails('repo.rolledback'))
  await next(repo, other, 'three')
  await assert.rejects(readConfig(repo.store, { ...repo.pinned, known }), fails('repo.rolledback'))
})

/** What whoever has no keys can put under a higher number. */
async function junkFor(repo: Made, name: string): Promise<Uint8Array[]> {
  const genuine = Buffer.from(await repo.store.get('config/1'))
  const other = newKit()
  assert.ok(other.authoritySeed)
  const { repository } = repo.kit
  const place = { kind: 'config', repository, name } as const
  const payload = { ...repo.first.config, n: 9, previous: repo.first.sha256 }
  return [
    Buffer.from('junk'),
    genuine.subarray(0, 300),
    genuine,
    encodeSigned({ ...place, payload }, other.authoritySeed),
    encodeSigned({ ...place, repository: other.repository, payload }, other.authoritySeed),
  ]
}

test('readConfig() passes over what the authority did not sign, down to the remembered config', async () => {
  const repo = await made()
  const second = await next(repo, repo.first, 'two')
  for (const [at, junk] of (await junkFor(repo, 'config/9')).entries()) {
    await repo.store.put('config/9', junk)
    for (const known of [repo.first, second]) {
      const said: string[] = []
      const warn = (text: string): void => void said.push(text)
      const open = await readConfig(repo.store, { ...repo.pinned, known: knownFrom(known), warn })
      assert.equal(open.config.n, 2, `junk ${at}`)
      assert.equal(said.length, 1)
      assert.match(said[0] ?? '', /config\/9.* passed over/)
    }
    const alone = await readConfig(repo.store, repo.pinned).catch((error: unknown) => error)
    assert.ok(isFailure(alone) && alone.code !== 'repo.newer', 'without memory it may be a revocation')
    await repo.store.delete('config/9')
  }
})

test('readConfig() passes over nothing at or below the remembered config, nor what is newer', async () => {
  const repo = await made()
  const second = await next(repo, repo.first, 'two')
  const options = { ...repo.pinned, known: knownFrom(second) }
  await repo.store.put('config/9', Buffer.from('junk'))
  await repo.store.put('config/8', Buffer.from('backstock 2 config of another format'))
  await assert.rejects(readConfig(repo.store, options), fails('repo.newer'))
  await repo.store.delete('config/8')
  await replace(repo.store, 'config/2', Buffer.from('junk'))
  await assert.rejects(readConfig(repo.store, options), fails('repo.corrupt'))
  await repo.store.delete('config/2')
  await assert.rejects(readConfig(repo.store, options), fails('repo.rolledback'))
  await repo.store.delete('config/1')
  await assert.rejects(readConfig(repo.store, options), fails('repo.rolledback'))
})

test('readConfig() sees a predecessor that is swapped or lost on the way to the known one', async () => {
  const repo = await made()
  const second = await next(repo, repo.first, 'two')
  await next(repo, second, 'three')
  const options = { ...repo.pinned, known: knownFrom(repo.first) }
  await repo.store.delete('config/2')
  await assert.rejects(readConfig(repo.store, options), fails('repo.corrupt'))
  await next(repo, repo.first, 'another two')
  await assert.rejects(readConfig(repo.store, options), fails('repo.rolledback'))
  assert.equal((await readConfig(repo.store, repo.pinned)).config.shop, 'three')
})

test('putConfig() gives way to what is there, and writes nothing that could not be read', async () => {
  const repo = await made()
  const second = await next(repo, repo.first, 'two')
  assert.equal(await putConfig(repo.store, { ...second.config, shop: 'late' }, repo.seed), false)
  await assert.rejects(
    putConfig(repo.store, { ...second.config, n: 3, shop: '' }, repo.seed),
    fails('repo.corrupt'),
  )
  const offline: BlobStore = { ...repo.store, put: () => Promise.reject(new Error('no line')) }
  await assert.rejects(putConfig(offline, { ...second.config, n: 3 }, repo.seed), /no line/)
})
