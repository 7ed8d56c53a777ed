import { strict as assert } from 'node:assert'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import * as peer from 'age-encryption'
import { isFailure } from '../base/failure.ts'
import { encryptToRecipient } from '../format/age.ts'
import { bundleName, recipientId } from '../format/config.ts'
import { hkdf, newKeyPair } from '../format/seal.ts'
import { memoryStore } from '../storage/memory.ts'
import { idKeyHash, indexKeyHash, openBundle, putBundle } from './bundles.ts'
import { configEpoch, newBundle, newConfigDomain } from './keys.ts'
import { newKit } from './kit.ts'

const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)

const kit = newKit()
const { repository, recipient: age } = kit
const owner = { repository, authoritySeed: kit.authoritySeed ?? Buffer.alloc(0) }
const bundle = newBundle('0123456789abcdef')
const domain = newConfigDomain(bundle, 'shop-1', newKeyPair().publicKey)
const epoch = configEpoch(bundle)
const name = bundleName(bundle.domain, 1, recipientId(age))

test('putBundle() writes what age-encryption opens, with the fields that docs/format.md lists', async () => {
  const store = memoryStore()
  await putBundle(store, owner, bundle, { age, role: 'restorer' })
  const decrypter = new peer.Decrypter()
  decrypter.addIdentity(kit.identity)
  const json: unknown = JSON.parse(await decrypter.decrypt(await store.get(name), 'text'))
  assert.deepEqual(json, {
    type: 'bundle',
    version: 1,
    repository,
    domain: bundle.domain,
    epoch: 1,
    role: 'restorer',
    indexKey: bundle.indexKey.toString('hex'),
    metaPrivate: bundle.metaPrivate.toString('hex'),
    idKey: bundle.idKey.toString('hex'),
    dataPrivate: bundle.dataPrivate.toString('hex'),
  })
  assert.deepEqual(await openBundle(store, kit, 'restorer', domain, epoch), bundle)
})

test('putBundle() again writes the same bytes; other keys under the name are storage.exists', async () => {
  const store = memoryStore()
  await putBundle(store, owner, bundle, { age, role: 'janitor' })
  await putBundle(store, owner, bundle, { age, role: 'janitor' })
  await assert.rejects(putBundle(store, owner, bundle, { age, role: 'restorer' }), fails('storage.exists'))
  const others = { ...newBundle(bundle.domain) }
  await assert.rejects(putBundle(store, owner, others, { age, role: 'janitor' }), fails('storage.exists'))
})

test("a janitor's bundle holds no id key and no data key, and is not enough for a restorer", async () => {
  const store = memoryStore()
  await putBundle(store, owner, bundle, { age, role: 'janitor' })
  const opened = await openBundle(store, kit, 'janitor', domain, epoch)
  assert.deepEqual(opened, { ...bundle, idKey: undefined, dataPrivate: undefined })
  await assert.rejects(openBundle(store, kit, 'restorer', domain, epoch), fails('repo.forged'))
})

test('a bundle with other keys than the signed config vouches for is repo.forged', async () => {
  const store = memoryStore()
  await putBundle(store, owner, bundle, { age, role: 'restorer' })
  const strange = newBundle(bundle.domain)
  const lists = [
    [{ ...domain, idKeyHash: idKeyHash(strange.idKey) }, epoch],
    [{ ...domain, indexKeyHash: indexKeyHash(strange.indexKey) }, epoch],
    [domain, { ...epoch, meta: configEpoch(strange).meta }],
    [domain, { ...epoch, data: configEpoch(strange).data }],
  ] as const
  for (const [listedDomain, listedEpoch] of lists) {
    await assert.rejects(openBundle(store, kit, 'restorer', listedDomain, listedEpoch), fails('repo.forged'))
  }
})

test('a bundle that is no JSON, or of a newer version, says so without its text', async () => {
  const says: [string, 'repo.corrupt' | 'repo.newer'][] = [
    ['secret text', 'repo.corrupt'],
    ['{"type":"bundle","version":1,"idKey":"secret text"}', 'repo.corrupt'],
    ['{"type":"bundle","version":2}', 'repo.newer'],
  ]
  for (const [text, code] of says) {
    const store = memoryStore()
    const random = hkdf(owner.authoritySeed, text, 'test', 64)
    await store.put(name, encryptToRecipient(age, Buffer.from(text), random))
    await assert.rejects(openBundle(store, kit, 'restorer', domain, epoch), (error) => {
      return isFailure(error, code) && !error.message.includes('secret')
    })
  }
})

test('idKeyHash() and indexKeyHash() are SHA-256 of a label and the key', () => {
  const expected = (label: string) => createHash('sha256').update(label).update(bundle.idKey).digest('hex')
  assert.equal(idKeyHash(bundle.idKey), expected('backstock/1 id key'))
  assert.equal(indexKeyHash(bundle.idKey), expected('backstock/1 index key'))
})
