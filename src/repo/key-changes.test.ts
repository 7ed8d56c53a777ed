import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { bundleName, recipientId } from '../format/config.ts'
import { memoryStore } from '../storage/memory.ts'
import type { MemoryDisk } from '../storage/memory.ts'
import type { BlobStore } from '../storage/store.ts'
import { crashingStore, endsBeforeCrash } from '../../test/harness/crashing-store.ts'
import { hostileStore } from '../../test/harness/hostile-store.ts'
import { readConfig } from './configs.ts'
import {
  addOwnWriter,
  addRecipient,
  addWriter,
  listKeys,
  removeRecipient,
  revokeWriter,
  rotateEpoch,
} from './key-changes.ts'
import type { Owner } from './key-changes.ts'
import { createKeys, currentEpoch, domainKeys, openRepository, writingDomain } from './keys.ts'
import { newIdentity, newKit } from './kit.ts'
import type { Credential, Kit, Writer } from './kit.ts'

const clock = { now: () => Date.UTC(2026, 10, 22, 12), elapsed: () => 0 }
const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)
const notSaved = () => Promise.resolve()

interface Shop {
  readonly disk: MemoryDisk
  readonly store: BlobStore
  readonly owner: Owner
  readonly kit: Kit
  /** The kit's own domain. */
  readonly domain: string
  readonly writer: Writer
  readonly restorer: Kit
  readonly janitor: Kit
}

/** A repository with one credential of each kind. */
async function shop(): Promise<Shop> {
  const disk: MemoryDisk = new Map()
  const store = memoryStore({ disk })
  const kit = newKit()
  const owner = { store, kit, clock }
  const { config } = await createKeys({ store, kit, shop: 'acme', writer: 'shop-1', clock })
  const restorer = newIdentity(kit.repository, kit.authority)
  const janitor = newIdentity(kit.repository, kit.authority)
  const { writer } = await addWriter(owner, 'web-2', notSaved)
  await addRecipient(owner, { age: restorer.recipient, name: 'standby', role: 'restorer' })
  await addRecipient(owner, { age: janitor.recipient, name: 'broom', role: 'janitor' })
  return { disk, store, owner, kit, domain: config.domains[0]?.id ?? '', writer, restorer, janitor }
}

/** Opens the repository and every domain with a credential; how many epochs it could open. */
async function openAll(store: BlobStore, credential: Credential): Promise<number> {
  const access = await openRepository(store, credential)
  let epochs = 0
  for (const { id } of access.config.domains) {
    if (credential.type === 'writer' && id !== credential.domain) continue
    epochs += (await domainKeys(access, id)).epochs.length
  }
  return epochs
}

test('listKeys() names all that may read or write', async () => {
  const { store, owner, writer } = await shop()
  await rotateEpoch(owner, writer.domain)
  const { config } = await readConfig(store)
  const list = listKeys(config)
  assert.equal(list.config, 5)
  assert.deepEqual(
    list.recipients.map(({ name, role }) => [name, role]),
    [
      ['recovery kit', 'restorer'],
      ['standby', 'restorer'],
      ['broom', 'janitor'],
    ],
  )
  assert.deepEqual(
    list.writers.map(({ name, epoch, epochs, revoked }) => [name, epoch, epochs, revoked]),
    [
      ['shop-1', 1, 1, null],
      ['web-2', 2, 2, null],
    ],
  )
})

test('addRecipient() gives the past and the future: all domains and epochs, old and new', async () => {
  const { store, owner, kit, domain, writer } = await shop()
  await rotateEpoch(owner, domain)
  const late = newIdentity(kit.repository, kit.authority)
  await addRecipient(owner, { age: late.recipient, name: 'late', role: 'restorer' })
  assert.equal(await openAll(store, late), 3)
  await rotateEpoch(owner, writer.domain)
  await addWriter(owner, 'web-3', notSaved)
  assert.equal(await openAll(store, late), 5)
})

test('addRecipient() again changes nothing; another role, a bad key or a bad name is refused', async () => {
  const { store, owner, restorer } = await shop()
  const before = await readConfig(store)
  const again = await addRecipient(owner, { age: restorer.recipient, name: 'standby', role: 'restorer' })
  assert.equal(again.sha256, before.sha256)
  const asJanitor = { age: restorer.recipient, name: 'standby', role: 'janitor' } as const
  await assert.rejects(addRecipient(owner, asJanitor), fails('usage.invalid'))
  await assert.rejects(addRecipient(owner, { ...asJanitor, age: 'age1x' }), fails('key.invalid'))
  const nameless = { age: newKit().recipient, name: '', role: 'janitor' } as const
  await assert.rejects(addRecipient(owner, nameless), fails('usage.invalid'))
})

test('addWriter() saves the credential before it registers the writer, or not at all', async () => {
  const { store, owner } = await shop()
  const { config } = await readConfig(store)
  let saved: Writer | undefined
  const { writer, open } = await addWriter(owner, 'web-3', async (credential) => {
    saved = credential
    assert.equal((await readConfig(store)).config.n, config.n)
  })
  assert.deepEqual(saved, writer)
  assert.equal(open.config.n, config.n + 1)
  await openAll(store, writer)
  const unsaved = () => Promise.reject(new Error('the disk is full'))
  await assert.rejects(addWriter(owner, 'web-4', unsaved), /disk is full/)
  const never = () => Promise.reject(new Error('must not be called'))
  await assert.rejects(addWriter(owner, 'web-3', never), fails('usage.invalid'))
  assert.equal((await readConfig(store)).config.n, config.n + 1)
})

test('revokeWriter() ends writing and keeps reading; its name is free again', async () => {
  const { store, owner, writer, restorer } = await shop()
  const { config } = await revokeWriter(owner, writer.domain)
  assert.equal(config.domains[1]?.writer.revoked, '2026-11-22T12:00:00.000Z')
  await assert.rejects(openRepository(store, writer), fails('key.revoked'))
  assert.equal(await openAll(store, restorer), 2)
  assert.equal((await revokeWriter(owner, writer.domain)).config.n, config.n)
  await assert.rejects(rotateEpoch(owner, writer.domain), fails('usage.invalid'))
  await assert.rejects(revokeWriter(owner, 'ffffffffffffffff'), fails('usage.invalid'))
  const { writer: heir } = await addWriter(owner, 'web-2', notSaved)
  await openAll(store, heir)
})

test('the kit whose own domain was revoked is key.revoked until addOwnWriter()', async () => {
  const { store, owner, kit, domain } = await shop()
  await assert.rejects(addOwnWriter(owner, 'shop-1b'), fails('usage.invalid'))
  await revokeWriter(owner, domain)
  const access = await openRepository(store, kit)
  assert.throws(() => writingDomain(access), fails('key.revoked'))
  assert.equal((await domainKeys(access, domain)).signingSeed, undefined)
  await addOwnWriter(owner, 'shop-1')
  const renewed = await openRepository(store, kit)
  assert.notEqual(writingDomain(renewed).id, domain)
  assert.equal((await domainKeys(renewed, writingDomain(renewed).id)).signingSeed?.length, 32)
})

test('rotateEpoch() makes new epoch keys and keeps the id and index keys', async () => {
  const { store, owner, kit, domain } = await shop()
  const before = await domainKeys(await openRepository(store, kit), domain)
  await rotateEpoch(owner, domain)
  const after = await domainKeys(await openRepository(store, kit), domain)
  assert.deepEqual(
    after.epochs.map(({ epoch }) => epoch),
    [1, 2],
  )
  assert.deepEqual(after.epochs[0], before.epochs[0])
  assert.notDeepEqual(currentEpoch(after).dataPublic, currentEpoch(before).dataPublic)
  assert.deepEqual([after.idKey, after.indexKey], [before.idKey, before.indexKey])
  await assert.rejects(rotateEpoch(owner, 'ffffffffffffffff'), fails('usage.invalid'))
})

test('removeRecipient() gives active domains an epoch without it, and says what it still opens', async () => {
  const { store, owner, kit, domain, writer, restorer } = await shop()
  await revokeWriter(owner, writer.domain)
  const gone = recipientId(restorer.recipient)
  const removed = await removeRecipient(owner, gone)
  assert.deepEqual(removed.stillOpens, [
    { domain, epochs: [1] },
    { domain: writer.domain, epochs: [1] },
  ])
  await assert.rejects(openRepository(store, restorer), fails('key.wrong'))
  assert.equal(await store.stat(bundleName(domain, 2, gone)), undefined)
  assert.equal(await openAll(store, kit), 3)
  await assert.rejects(removeRecipient(owner, gone), fails('usage.invalid'))
  await assert.rejects(removeRecipient(owner, recipientId(kit.recipient)), fails('usage.invalid'))
  await addRecipient(owner, { age: restorer.recipient, name: 'standby', role: 'restorer' })
  assert.equal(await openAll(store, restorer), 3)
})

test('only the recovery kit changes keys', async () => {
  const { store, owner, restorer, domain } = await shop()
  await assert.rejects(rotateEpoch({ ...owner, kit: restorer }, domain), fails('key.missing'))
  await assert.rejects(addOwnWriter({ ...owner, kit: restorer }, 'x'), fails('key.missing'))
  const known = { n: 99, sha256: '0'.repeat(64) }
  await assert.rejects(rotateEpoch({ store, kit: owner.kit, clock, known }, domain), fails('repo.rolledback'))
})

test('concurrent changes all happen, one after the other', async () => {
  const { store, owner, kit, domain, writer, janitor } = await shop()
  const late = newIdentity(kit.repository, kit.authority)
  const { config } = await readConfig(store)
  await Promise.all([
    addRecipient(owner, { age: late.recipient, name: 'late', role: 'restorer' }),
    rotateEpoch(owner, domain),
    rotateEpoch(owner, domain),
    revokeWriter(owner, writer.domain),
    addWriter(owner, 'web-3', notSaved),
    removeRecipient(owner, recipientId(janitor.recipient)),
  ])
  const after = (await readConfig(store)).config
  assert.equal(after.n, config.n + 6)
  assert.equal(after.domains.length, 3)
  assert.equal(await openAll(store, late), await openAll(store, kit))
})

test('what lies in the place of the next config is named, and the keys stay as they are', async () => {
  const { store, owner, writer } = await shop()
  const { config, sha256 } = await readConfig(store)
  const name = `config/${config.n + 1}`
  await store.put(name, Buffer.from('junk'))
  const known = { n: config.n, sha256 }
  await assert.rejects(
    revokeWriter({ ...owner, known }, writer.domain),
    (error) => isFailure(error, 'repo.forged') && error.message.includes(name),
  )
  assert.equal((await readConfig(store, { known })).sha256, sha256)
})

test('a change that always loses the race gives up as repo.busy', async () => {
  const { store, owner, domain } = await shop()
  let rivals = 0
  const racing: BlobStore = {
    ...store,
    async put(name, bytes, options) {
      if (name.startsWith('config/')) await addWriter(owner, `rival-${rivals++}`, notSaved)
      return store.put(name, bytes, options)
    },
  }
  await assert.rejects(rotateEpoch({ ...owner, store: racing }, domain), fails('repo.busy'))
  assert.equal(rivals, 8)
})

test("an intruder who takes epoch numbers or a bundle's name stops the change and nothing else", async () => {
  const { store, owner, kit, domain } = await shop()
  const late = newIdentity(kit.repository, kit.authority)
  const junk = Buffer.from('junk')
  await store.put(bundleName(domain, 1, recipientId(late.recipient)), junk)
  const added = addRecipient(owner, { age: late.recipient, name: 'late', role: 'restorer' })
  await assert.rejects(added, fails('storage.exists'))
  for (let epoch = 2; epoch <= 65; epoch++) {
    await store.put(bundleName(domain, epoch, recipientId(kit.recipient)), junk)
  }
  await assert.rejects(rotateEpoch(owner, domain), fails('storage.exists'))
  assert.equal(await openAll(store, kit), 2)
})

const CHANGES: Record<string, (shop: Shop, owner: Owner, extra: Kit) => Promise<unknown>> = {
  addRecipient: (_, owner, extra) =>
    addRecipient(owner, { age: extra.recipient, name: 'extra', role: 'restorer' }),
  addWriter: (_, owner) => addWriter(owner, 'web-3', notSaved),
  revokeWriter: ({ writer }, owner) => revokeWriter(owner, writer.domain),
  rotateEpoch: ({ domain }, owner) => rotateEpoch(owner, domain),
  removeRecipient: ({ janitor }, owner) => removeRecipient(owner, recipientId(janitor.recipient)),
}

for (const [name, change] of Object.entries(CHANGES)) {
  test(`${name}() cut at any write leaves the old state or the new one, and may run again`, async () => {
    for (let at = 0; ; at++) {
      const old = await shop()
      const extra = newIdentity(old.kit.repository, old.kit.authority)
      const before = (await readConfig(old.store)).config.n
      const cut = { ...old.owner, store: crashingStore(memoryStore({ disk: old.disk }), { at }) }
      const done = await endsBeforeCrash(async () => void (await change(old, cut, extra)))
      const store = memoryStore({ disk: old.disk })
      const { config } = await readConfig(store, old.kit)
      assert.equal(config.n, done ? before + 1 : before)
      await openAll(store, old.kit)
      await openAll(store, old.restorer)
      if (done) break
      await openAll(store, old.writer)
      await openAll(store, old.janitor)
      await change(old, { ...old.owner, store }, extra)
      assert.equal((await readConfig(store, old.kit)).config.n, before + 1)
      await openAll(store, old.kit)
    }
  })

  test(`${name}() whose last answer is lost has happened, and the repository opens`, async () => {
    const old = await shop()
    const extra = newIdentity(old.kit.repository, old.kit.authority)
    const rule = { on: 'put', name: /^config\//, trick: { kind: 'lose-answer' } } as const
    const store = hostileStore(memoryStore({ disk: old.disk }), { rules: [rule] })
    const before = (await readConfig(old.store)).config.n
    await assert.rejects(change(old, { ...old.owner, store }, extra), fails('storage.offline'))
    assert.equal((await readConfig(old.store)).config.n, before + 1)
    await openAll(old.store, old.kit)
    await openAll(old.store, old.restorer)
  })
}
