import { strict as assert } from 'node:assert'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { bundleName, DEFAULT_CHUNKING, recipientId } from '../format/config.ts'
import { snapshotId, snapshotName } from '../format/snapshot.ts'
import { openWithKey, sealToKey } from '../format/seal.ts'
import { memoryStore } from '../storage/memory.ts'
import type { MemoryDisk } from '../storage/memory.ts'
import type { BlobStore } from '../storage/store.ts'
import { crashingStore, endsBeforeCrash } from '../../test/harness/crashing-store.ts'
import { addRecipient, addWriter, revokeWriter, rotateEpoch } from './key-changes.ts'
import { readConfig } from './configs.ts'
import {
  createKeys,
  currentEpoch,
  domainKeys,
  epochPrivateKey,
  openDetails,
  openKeys,
  openRepository,
  requireIdKey,
  sealDetails,
  writingDomain,
} from './keys.ts'
import { newIdentity, newKit } from './kit.ts'
import type { Kit, Writer } from './kit.ts'

const clock = { now: () => Date.UTC(2026, 10, 22), elapsed: () => 0 }
const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)

async function created(): Promise<{ disk: MemoryDisk; store: BlobStore; kit: Kit; domain: string }> {
  const disk: MemoryDisk = new Map()
  const store = memoryStore({ disk })
  const kit = newKit()
  const { config } = await createKeys({ store, kit, shop: 'acme', writer: 'shop-1', clock })
  return { disk, store, kit, domain: config.domains[0]?.id ?? '' }
}

async function withWriter() {
  const repo = await created()
  const owner = { store: repo.store, kit: repo.kit, clock }
  const { writer } = await addWriter(owner, 'web-2', () => Promise.resolve())
  return { ...repo, owner, writer }
}

/** Puts other bytes under a name, as bit rot or an intruder would. */
async function replace(store: BlobStore, name: string, bytes: Uint8Array): Promise<void> {
  await store.delete(name)
  await store.put(name, bytes)
}

test('createKeys() makes a repository that its kit opens as owner, and may write to', async () => {
  const { store, kit, domain } = await created()
  const access = await openRepository(store, kit)
  assert.equal(access.role, 'owner')
  assert.equal(access.config.created, '2026-11-22T00:00:00.000Z')
  assert.equal(writingDomain(access).id, domain)
  const keys = await domainKeys(access, domain)
  assert.equal(keys.idKey?.length, 32)
  assert.equal(keys.signingSeed?.length, 32)
  const { epoch, metaPublic, dataPublic } = currentEpoch(keys)
  for (const [half, publicKey] of [
    ['meta', metaPublic],
    ['data', dataPublic],
  ] as const) {
    const sealed = sealToKey(publicKey, Buffer.from(half), Buffer.alloc(0))
    assert.equal(
      openWithKey(epochPrivateKey(keys, epoch, half), sealed, Buffer.alloc(0), half).toString(),
      half,
    )
  }
})

test("domainKeys() says what a frame of file content may open to, by the config's chunking", async () => {
  const chunking = { ...DEFAULT_CHUNKING, cdc: { minBytes: 2048, maskBits: 11, maxBytes: 400_000 } }
  const store = memoryStore({ disk: new Map() })
  const kit = newKit()
  const { config } = await createKeys({ store, kit, shop: 'acme', writer: 'shop-1', clock, chunking })
  const { writer } = await addWriter({ store, kit, clock }, 'web-2', () => Promise.resolve())
  for (const [credential, domain] of [
    [kit, config.domains[0]?.id ?? ''],
    [writer, writer.domain],
  ] as const)
    assert.equal((await domainKeys(await openRepository(store, credential), domain)).frameBytesMax, 400_000)
})

test('createKeys() refuses a place with a repository or data, and names no config may hold', async () => {
  const { store } = await created()
  const options = { kit: newKit(), shop: 'acme', writer: 'shop-1', clock }
  await assert.rejects(createKeys({ ...options, store }), fails('repo.exists'))
  const orphaned = memoryStore()
  await orphaned.put('d/0123456789abcdef/packs/aa/x', Buffer.alloc(1))
  await assert.rejects(createKeys({ ...options, store: orphaned }), fails('repo.exists'))
  await assert.rejects(createKeys({ ...options, store: memoryStore(), shop: '' }), fails('usage.invalid'))
  await assert.rejects(
    createKeys({ ...options, store: memoryStore(), writer: 'a\nb' }),
    fails('usage.invalid'),
  )
  const identity = newIdentity(options.kit.repository, options.kit.authority)
  await assert.rejects(createKeys({ ...options, store: memoryStore(), kit: identity }), fails('key.missing'))
})

test('of many concurrent createKeys() one wins, the rest are refused, and its kit opens it', async () => {
  const store = memoryStore()
  const kits = Array.from({ length: 5 }, newKit)
  const done = await Promise.allSettled(
    kits.map((kit) => createKeys({ store, kit, shop: 'acme', writer: 'shop-1', clock })),
  )
  const winners = kits.filter((_, at) => done[at]?.status === 'fulfilled')
  assert.equal(winners.length, 1)
  for (const one of done) if (one.status === 'rejected') assert.ok(isFailure(one.reason, 'repo.exists'))
  const [winner] = winners
  assert.ok(winner)
  const access = await openRepository(store, winner)
  await domainKeys(access, writingDomain(access).id)
})

test('createKeys() cut at any write leaves no repository or a whole one, and may run again', async () => {
  for (let at = 0; ; at++) {
    const disk: MemoryDisk = new Map()
    const kit = newKit()
    const options = { kit, shop: 'acme', writer: 'shop-1', clock }
    const store = crashingStore(memoryStore({ disk }), { at })
    const done = await endsBeforeCrash(async () => void (await createKeys({ ...options, store })))
    const fresh = memoryStore({ disk })
    if (!done) {
      await assert.rejects(openRepository(fresh, kit), fails('repo.missing'))
      await createKeys({ ...options, store: fresh })
    }
    const access = await openRepository(fresh, kit)
    await domainKeys(access, writingDomain(access).id)
    if (done) {
      assert.equal(at, 2)
      break
    }
  }
})

test('the kit of another repository is repo.foreign, an unknown identity key.wrong', async () => {
  const { store, kit } = await created()
  await assert.rejects(openRepository(store, newKit()), fails('repo.foreign'))
  const stranger = newIdentity(kit.repository, kit.authority)
  await assert.rejects(openRepository(store, stranger), fails('key.wrong'))
  const open = await readConfig(store)
  assert.throws(() => openKeys(store, open, { ...kit, authority: newKit().authority }), fails('key.wrong'))
  assert.throws(() => openKeys(store, open, newKit()), fails('repo.foreign'))
})

test('a restorer opens data and signs nothing; a janitor opens meta and no data', async () => {
  const { store, kit, domain } = await created()
  const owner = { store, kit, clock }
  const restorer = newIdentity(kit.repository, kit.authority)
  const janitor = newIdentity(kit.repository, kit.authority)
  await addRecipient(owner, { age: restorer.recipient, name: 'standby', role: 'restorer' })
  await addRecipient(owner, { age: janitor.recipient, name: 'broom', role: 'janitor' })

  const asRestorer = await openRepository(store, restorer)
  const restorerKeys = await domainKeys(asRestorer, domain)
  assert.equal(asRestorer.role, 'restorer')
  assert.equal(restorerKeys.signingSeed, undefined)
  assert.equal(epochPrivateKey(restorerKeys, 1, 'data').length, 32)
  assert.throws(() => writingDomain(asRestorer), fails('key.missing'))

  const asJanitor = await openRepository(store, janitor)
  const janitorKeys = await domainKeys(asJanitor, domain)
  assert.equal(asJanitor.role, 'janitor')
  assert.equal(epochPrivateKey(janitorKeys, 1, 'meta').length, 32)
  assert.deepEqual(janitorKeys.indexKey, restorerKeys.indexKey)
  assert.throws(() => epochPrivateKey(janitorKeys, 1, 'data'), fails('key.role'))
  assert.throws(() => requireIdKey(janitorKeys), fails('key.role'))
  assert.throws(() => epochPrivateKey(janitorKeys, 9, 'meta'), fails('repo.corrupt'))
})

test('a writer writes to its own domain and opens nothing', async () => {
  const { store, writer, domain } = await withWriter()
  const access = await openRepository(store, writer)
  assert.equal(access.role, 'writer')
  assert.equal(writingDomain(access).id, writer.domain)
  const keys = await domainKeys(access, writer.domain)
  assert.deepEqual(keys.signingSeed, writer.signingSeed)
  assert.deepEqual(requireIdKey(keys), writer.idKey)
  assert.throws(() => epochPrivateKey(keys, 1, 'data'), fails('key.role'))
  assert.throws(() => epochPrivateKey(keys, 1, 'meta'), fails('key.role'))
  await assert.rejects(domainKeys(access, domain), fails('key.role'))
  await assert.rejects(domainKeys(access, 'ffffffffffffffff'), fails('repo.corrupt'))
})

test('a writer seals to the newest epoch of the config, whatever its credential says', async () => {
  const { store, owner, writer } = await withWriter()
  await rotateEpoch(owner, writer.domain)
  const keys = await domainKeys(await openRepository(store, writer), writer.domain)
  assert.equal(currentEpoch(keys).epoch, 2)
})

test('a revoked writer is key.revoked, a credential with other keys key.wrong', async () => {
  const { store, owner, writer } = await withWriter()
  const changes: Partial<Writer>[] = [
    { domain: 'ffffffffffffffff' },
    { epoch: 2 },
    { signingSeed: randomBytes(32) },
    { idKey: randomBytes(32) },
    { indexKey: randomBytes(32) },
    { data: randomBytes(32).toString('hex') },
  ]
  for (const change of changes) {
    await assert.rejects(
      openRepository(store, { ...writer, ...change }),
      fails('key.wrong'),
      Object.keys(change)[0],
    )
  }
  await revokeWriter(owner, writer.domain)
  await assert.rejects(openRepository(store, writer), fails('key.revoked'))
})

test('domainKeys() opens the bundles of the asked domain only, and once', async () => {
  const { store, kit, domain } = await withWriter()
  const read: string[] = []
  const watched: BlobStore = { ...store, get: (name, options) => (read.push(name), store.get(name, options)) }
  const access = await openRepository(watched, kit)
  assert.deepEqual(read, ['config/2'])
  await Promise.all([domainKeys(access, domain), domainKeys(access, domain)])
  assert.deepEqual(read, ['config/2', bundleName(domain, 1, recipientId(kit.recipient))])
})

test('a bundle that is missing, cut or flipped is repo.corrupt, and the next call tries again', async () => {
  const { store, kit, domain } = await created()
  const name = bundleName(domain, 1, recipientId(kit.recipient))
  const whole = Buffer.from(await store.get(name))
  const access = await openRepository(store, kit)
  await store.delete(name)
  await assert.rejects(domainKeys(access, domain), fails('repo.corrupt'))
  for (let length = 0; length < whole.length; length += 5) {
    await replace(store, name, whole.subarray(0, length))
    await assert.rejects(domainKeys(access, domain), fails('repo.corrupt'), `cut to ${length}`)
  }
  for (let at = 0; at < whole.length; at += 3) {
    const flipped = Buffer.from(whole)
    flipped[at] = (flipped[at] ?? 0) ^ 1
    await replace(store, name, flipped)
    const isSeen = (error: unknown) => isFailure(error, 'repo.corrupt') || isFailure(error, 'repo.forged')
    await assert.rejects(domainKeys(access, domain), isSeen, `flipped at ${at}`)
  }
  await replace(store, name, Buffer.alloc(2 * 1024 * 1024))
  await assert.rejects(domainKeys(access, domain), fails('repo.corrupt'))
  await replace(store, name, whole)
  assert.equal((await domainKeys(access, domain)).domain, domain)
})

test('bundles swapped between domains, epochs, recipients or repositories are repo.forged', async () => {
  const { store, kit, owner, domain, writer } = await withWriter()
  const other = newIdentity(kit.repository, kit.authority)
  await addRecipient(owner, { age: other.recipient, name: 'standby', role: 'restorer' })
  await rotateEpoch(owner, domain)
  const foreign = await created()
  const own = recipientId(kit.recipient)
  const name = bundleName(domain, 1, own)
  const sound = await store.get(name)
  const swaps = [
    await store.get(bundleName(writer.domain, 1, own)),
    await store.get(bundleName(domain, 2, own)),
    await store.get(bundleName(domain, 1, recipientId(other.recipient))),
    await foreign.store.get(bundleName(foreign.domain, 1, recipientId(foreign.kit.recipient))),
  ]
  for (const [at, bytes] of swaps.entries()) {
    await replace(store, name, bytes)
    await assert.rejects(
      domainKeys(await openRepository(store, kit), domain),
      fails('repo.forged'),
      `swap ${at}`,
    )
  }
  await replace(store, name, sound)
  await domainKeys(await openRepository(store, kit), domain)
})

test('openDetails() gives back what sealDetails() sealed, at its own name only', async () => {
  const { store, kit, domain } = await created()
  const keys = await domainKeys(await openRepository(store, kit), domain)
  const details = {
    host: 'shop-1',
    paths: ['/srv'],
    users: { 0: 'root' },
    groups: {},
    excludes: [],
    errors: [],
  }
  const place = {
    repository: kit.repository,
    name: snapshotName(domain, 'media', snapshotId(clock.now(), randomBytes(4))),
  }
  const snapshot = sealDetails(keys, place, details)
  assert.equal(snapshot.epoch, 1)
  assert.deepEqual(openDetails(keys, place, snapshot), details)
  const elsewhere = { ...place, name: snapshotName(domain, 'media', snapshotId(clock.now(), randomBytes(4))) }
  assert.throws(() => openDetails(keys, elsewhere, snapshot), fails('repo.corrupt'))
  assert.throws(() => openDetails(keys, place, { epoch: 1, sealed: '' }), fails('repo.corrupt'))
})
