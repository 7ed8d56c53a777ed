/** Every finding that needs no more than names, configs and key bundles. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { addRecipient } from '../repo/key-changes.ts'
import { openRepository } from '../repo/keys.ts'
import { newIdentity } from '../repo/kit.ts'
import { check, type CheckReport } from './check.ts'
import { dropRepository, type TestRepository } from '../../test/harness/engine.ts'
import { backUpShop, makeShop, type TestShop } from '../../test/harness/lost-files.ts'
import { change, flip, freshCopy, objectsOf, put } from '../../test/harness/tampering.ts'

let shop: TestShop
let copies = 0

before(async () => {
  shop = await makeShop()
  await backUpShop(shop, ['full'])
  const { access, kit } = shop.repository
  const other = newIdentity(kit.repository, kit.authority)
  const owner = { store: access.store, kit, clock: shop.clock }
  await addRecipient(owner, { age: other.recipient, name: 'ann', role: 'restorer' })
})

after(() => {
  dropRepository(shop.repository)
})

/** A copy, opened by its present config. */
async function copyOf(): Promise<TestRepository> {
  const copy = freshCopy(shop.repository, `copy-${copies++}`)
  return { ...copy, access: await openRepository(copy.access.store, copy.kit) }
}

async function run(repository: TestRepository): Promise<CheckReport> {
  return await check(repository.access, repository.host, { workers: 0, clock: shop.clock })
}

function found(report: CheckReport): string[] {
  return report.findings.map(({ severity, code, object }) => `${severity} ${code} ${object ?? ''}`.trim())
}

describe('checkConfigs()', () => {
  test('finds nothing wrong with a chain of two', async () => {
    assert.deepEqual((await run(await copyOf())).findings, [])
  })

  test('sees configs that are missing, damaged, or old ones under a new number', async () => {
    const missing = await copyOf()
    missing.disk.delete('config/1')
    assert.deepEqual(found(await run(missing)), ['error config.missing config/1'])
    const damaged = await copyOf()
    change(damaged, 'config/1', (bytes) => flip(bytes, 300))
    assert.deepEqual(found(await run(damaged)), ['error config.corrupt config/1'])
    const replayed = await copyOf()
    put(replayed, 'config/3', replayed.disk.get('config/1')?.bytes ?? Buffer.alloc(0))
    assert.deepEqual(found(await run(replayed)), ['error config.corrupt config/3'])
    const rolledBack = await copyOf()
    rolledBack.disk.delete('config/2')
    assert.deepEqual(found(await run(rolledBack)), ['error config.missing config/2'])
  })
})

describe('checkBundles()', () => {
  test('sees whose keys are missing', async () => {
    const repository = await copyOf()
    const [own, other] = repository.access.config.recipients
    const names = objectsOf(repository, 'keys/')
    const othersName = names.find((name) => name.includes(other?.id ?? '-')) ?? ''
    repository.disk.delete(othersName)
    assert.deepEqual(found(await run(repository)), [`error bundle.missing ${othersName}`])
    const damaged = await copyOf()
    const ownName = names.find((name) => name.includes(own?.id ?? '-')) ?? ''
    change(damaged, ownName, (bytes) => flip(bytes, bytes.length - 20))
    assert.deepEqual(found(await run(damaged)), [`error bundle.corrupt ${ownName}`])
  })
})

describe('checkNames()', () => {
  test('tells open sessions and objects that belong to nothing', async () => {
    const repository = await copyOf()
    const domain = repository.access.config.domains[0]?.id ?? ''
    const session = `sessions/${domain}/shop/20260301t000000z-00000000`
    put(repository, session, Buffer.from('a session'))
    put(repository, 'readme.txt', Buffer.from('hello'))
    put(repository, `d/0011223344556677/packs/aa/${'aa'.repeat(32)}`, Buffer.from('a domain nobody knows'))
    put(repository, `d/${domain}/packs/ab/${'aa'.repeat(32)}`, Buffer.from('in the wrong folder'))
    put(repository, 'tombs/later', Buffer.from('of a newer version'))
    const report = await run(repository)
    assert.deepEqual(found(report), ['warning object.unknown', `info session.open ${session}`])
    for (const name of ['readme.txt', 'd/0011223344556677/', '/packs/ab/'])
      assert(report.findings[0]?.message.includes(name), name)
    assert(!report.findings[0]?.message.includes('tombs'))
  })
})
