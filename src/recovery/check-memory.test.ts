/** What a check found is said whatever becomes of the host's cache folder meanwhile. */
import assert from 'node:assert/strict'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { openHostFolder, readHostState } from '../repo/host-folder.ts'
import { check, type CheckOptions, type CheckReport } from './check.ts'
import { dropRepository, type TestRepository } from '../../test/harness/engine.ts'
import { backUpShop, makeShop, type TestShop } from '../../test/harness/lost-files.ts'
import { fillDisk, growDisk, mountDisk, unmountDisk } from '../../test/harness/small-disk.ts'
import { change, flip, freshCopy, objectsOf } from '../../test/harness/tampering.ts'

let shop: TestShop
let copies = 0

before(async () => {
  shop = await makeShop()
  await backUpShop(shop, ['full', 'incremental'])
})

after(() => {
  dropRepository(shop.repository)
})

/** A copy with a flipped bit in a pack of contents, and that pack. */
function hurtCopy(): { repository: TestRepository; pack: string } {
  const repository = freshCopy(shop.repository, `copy-${copies++}`)
  const [pack = ''] = objectsOf(repository, '/packs/')
  change(repository, pack, (bytes) => flip(bytes, 10))
  return { repository, pack }
}

async function run(repository: TestRepository, options: Partial<CheckOptions> = {}): Promise<CheckReport> {
  const all = { workers: 0, clock: shop.clock, readData: 100, ...options }
  return await check(repository.access, repository.host, all)
}

function errorsOf({ findings }: CheckReport): string[] {
  return findings
    .filter(({ severity }) => severity === 'error')
    .map(({ code, object }) => `${code} ${object ?? ''}`.trim())
}

test('check() remembers all it found, or says that it could not', async () => {
  const { repository, pack } = hurtCopy()
  const lock = join(repository.host.path, '.state.lock')
  rmSync(lock, { force: true })
  mkdirSync(lock)
  const before = readHostState(repository.host)
  const report = await run(repository)
  assert.deepEqual(errorsOf(report), [`pack.corrupt ${pack}`])
  assert.equal(report.unremembered?.code, 'host.file')
  assert.deepEqual(readHostState(repository.host), before)
  rmSync(lock, { recursive: true })
  const again = await run(repository)
  assert.deepEqual(errorsOf(again), errorsOf(report))
  assert.equal(again.unremembered, undefined)
  const state = readHostState(repository.host)
  assert.deepEqual(Object.keys(state.badPacks ?? {}), [pack])
  assert.equal(state.lastCheck?.errors, 1)
  assert.deepEqual(state.lastWholeCheck, state.lastCheck)
  assert.equal(Object.keys(state.checked).length, again.coverage.packs - 1)
  assert.ok(Object.keys(state.heads).length > 0)
})

test('check() keeps what it found when it has no room for the index', async () => {
  const { repository, pack } = hurtCopy()
  const index = join(repository.host.path, 'index')
  rmSync(index, { recursive: true, force: true })
  writeFileSync(index, 'this is no folder')
  const report = await run(repository)
  assert.deepEqual(errorsOf(report), [`pack.corrupt ${pack}`, 'not-checked'])
  assert.equal(report.unremembered, undefined)
  repository.disk.delete(objectsOf(repository, '/index/')[0] ?? '')
  const [lost] = (await run(repository)).findings
  assert.equal(lost?.code, 'run.missing')
  assert.match(lost.message, /its index could not be made again: Cannot make the cache folder/)
})

test('a cache disk that fills up during a check costs no finding', async (context) => {
  const { repository, pack } = hurtCopy()
  const path = `${repository.host.path}-disk`
  mkdirSync(path)
  if (!mountDisk(path, '8m')) return context.skip('cannot mount a tmpfs here')
  try {
    const small = { ...repository, host: openHostFolder(path, repository.kit.repository) }
    let isFull = false
    const onProgress: CheckOptions['onProgress'] = ({ phase }) => {
      if (phase === 'packs' && !isFull) fillDisk(path)
      isFull ||= phase === 'packs'
    }
    const report = await run(small, { onProgress })
    assert.ok(isFull)
    assert.deepEqual(errorsOf(report), [`pack.corrupt ${pack}`, 'not-checked'])
    assert.equal(report.unremembered?.code, 'host.file')
    growDisk(path, '16m')
    assert.deepEqual(errorsOf(await run(small)), [`pack.corrupt ${pack}`])
  } finally {
    unmountDisk(path)
  }
})
