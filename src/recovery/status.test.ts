/** What a check found stays in the status until a check that looks as deeply finds it right. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { readHostState, updateHostState, type LastCheck } from '../repo/host-folder.ts'
import { check } from './check.ts'
import { repositoryStatus } from './status.ts'
import { dropRepository, type TestRepository } from '../../test/harness/engine.ts'
import { backUpShop, makeShop, type TestShop } from '../../test/harness/lost-files.ts'
import { change, flip, freshCopy, objectsOf } from '../../test/harness/tampering.ts'

let shop: TestShop

before(async () => {
  shop = await makeShop()
  await backUpShop(shop, ['full'])
})
after(() => {
  dropRepository(shop.repository)
})

/** Checks as the command does; returns the codes of errors. */
async function run({ access, host }: TestRepository, readData: number): Promise<string[]> {
  const report = await check(access, host, { workers: 0, clock: shop.clock, readData })
  remember(host, { errors: report.errors })
  return report.findings.filter(({ severity }) => severity === 'error').map(({ code }) => code)
}

function remember(host: TestRepository['host'], found: Partial<LastCheck>): void {
  const last = { at: shop.clock.now(), errors: 0, warnings: 0, unreadable: 0, whole: true, ...found }
  const whole = last.whole ? { lastWholeCheck: last } : {}
  updateHostState(host, (state) => ({ ...state, lastCheck: last, ...whole }))
}

/** Codes of errors about checks. */
async function errorsOf({ access, host }: TestRepository): Promise<string[]> {
  const wanted = { configured: [], named: [], now: shop.clock.now() }
  const { warnings } = await repositoryStatus(access, host, wanted)
  return warnings
    .filter(({ code, severity }) => severity === 'error' && code.startsWith('check.'))
    .map(({ code }) => code)
}

test('`repositoryStatus()` knows a damaged pack until its data is read again and right', async () => {
  const repository = freshCopy(shop.repository, 'damaged')
  const [pack = ''] = objectsOf(repository, '/packs/')
  const whole = repository.disk.get(pack)
  assert(whole)
  assert.deepEqual(await run(repository, 100), [])
  assert.notEqual(readHostState(repository.host).checked[pack.slice(-64)], undefined)
  change(repository, pack, (bytes) => flip(bytes, 10))
  assert.deepEqual(await run(repository, 100), ['pack.corrupt'])
  assert.equal(readHostState(repository.host).checked[pack.slice(-64)], undefined)
  assert.deepEqual(await errorsOf(repository), ['check.errors', 'check.damaged'])
  assert.deepEqual(await run(repository, 0), ['pack.corrupt'], 'it does not look so deeply, and says so')
  assert.deepEqual(await errorsOf(repository), ['check.errors', 'check.damaged'])
  repository.disk.set(pack, whole)
  await run(repository, 0)
  assert.deepEqual(await errorsOf(repository), ['check.errors', 'check.damaged'], 'nobody has looked')
  assert.deepEqual(await run(repository, 100), [])
  assert.deepEqual(await errorsOf(repository), [])
})

test('`repositoryStatus()` forgets a missing pack as soon as it is there again', async () => {
  const repository = freshCopy(shop.repository, 'missing')
  const [pack = ''] = objectsOf(repository, '/packs/')
  const whole = repository.disk.get(pack)
  assert(whole)
  repository.disk.delete(pack)
  await run(repository, 0)
  assert.deepEqual(await errorsOf(repository), ['check.errors', 'check.damaged'])
  repository.disk.set(pack, whole)
  assert.deepEqual(await run(repository, 0), [])
  assert.deepEqual(await errorsOf(repository), [])
})

test('`repositoryStatus()` tells what was not read, and what only a whole check finds', async () => {
  const { host } = shop.repository
  remember(host, { unreadable: 2 })
  assert.deepEqual(await errorsOf(shop.repository), ['check.unreadable'])
  remember(host, { errors: 1 })
  remember(host, { whole: false })
  assert.deepEqual(await errorsOf(shop.repository), ['check.errors'])
  remember(host, {})
  assert.deepEqual(await errorsOf(shop.repository), [])
})

test('check() takes a proof back of the only pack that it reads and finds damaged', async () => {
  const repository = freshCopy(shop.repository, 'proof')
  await run(repository, 100)
  const [pack = ''] = objectsOf(repository, '/packs/')
  const id = pack.slice(-64)
  updateHostState(repository.host, (state) => ({ ...state, checked: { ...state.checked, [id]: 1 } }))
  change(repository, pack, (bytes) => flip(bytes, 10))
  assert.deepEqual(await run(repository, 0.001), ['pack.corrupt'])
  assert.equal(readHostState(repository.host).checked[id], undefined)
})
