import { strict as assert } from 'node:assert'
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import {
  lockSource,
  openHostFolder,
  readHostState,
  sweepTreeCaches,
  treeCachePath,
  unlockSource,
  updateHostState,
} from './host-folder.ts'

const folder = mkdtempSync(join(tmpdir(), 'backstock-host-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const id = (n: number): string => `20261122t14332${n}z-4f8a2c1d`

test('the state of a host is written whole, and a damaged one counts as empty', () => {
  const host = openHostFolder(folder, 'aa'.repeat(16))
  assert.deepEqual(readHostState(host), { heads: {}, checked: {} })
  updateHostState(host, (state) => ({ ...state, heads: { 'd/shop': { counter: 3, sha256: 'ff' } } }))
  updateHostState(host, (state) => ({ ...state, checked: { pack: 7 } }))
  assert.deepEqual(readHostState(host), {
    heads: { 'd/shop': { counter: 3, sha256: 'ff' } },
    checked: { pack: 7 },
  })
  assert.deepEqual(
    readdirSync(host.path).filter((name) => name.includes('tmp')),
    [],
  )
  writeFileSync(join(host.path, 'state.json'), '{"heads":')
  assert.deepEqual(readHostState(host), { heads: {}, checked: {} })
  assert.equal(statSync(host.path).mode & 0o777, 0o700)
})

test('a source is locked once, and again when the lock was given back', () => {
  const host = openHostFolder(folder, 'bb'.repeat(16))
  const lock = lockSource(host, 'shop')
  assert.throws(
    () => lockSource(host, 'shop'),
    (error) => isFailure(error, 'repo.busy'),
  )
  unlockSource(lockSource(host, 'other'))
  unlockSource(lock)
  unlockSource(lockSource(host, 'shop'))
})

test('a cache folder that cannot be made is said', () => {
  writeFileSync(join(folder, 'file'), '')
  assert.throws(
    () => openHostFolder(join(folder, 'file'), 'cc'.repeat(16)),
    (error) => isFailure(error, 'host.file'),
  )
})

test('sweepTreeCaches() takes the outdated caches of this source and domain only', () => {
  const host = openHostFolder(folder, 'dd'.repeat(16))
  const paths = {
    head: treeCachePath(host, 'd1', 'shop', id(1)),
    full: treeCachePath(host, 'd1', 'shop', id(2)),
    old: treeCachePath(host, 'd1', 'shop', id(3)),
    otherSource: treeCachePath(host, 'd1', 'shop.two', id(3)),
    otherDomain: treeCachePath(host, 'd2', 'shop', id(3)),
    unfinished: join(host.path, 'trees', 'shop.0123456789abcdef.tmp'),
    othersUnfinished: join(host.path, 'trees', 'shop.two.0123456789abcdef.tmp'),
  }
  for (const path of Object.values(paths)) writeFileSync(path, '')
  sweepTreeCaches(host, { domain: 'd1', source: 'shop' }, [id(1), id(2)])
  const left = Object.entries(paths).flatMap(([key, path]) =>
    statSync(path, { throwIfNoEntry: false }) ? [key] : [],
  )
  assert.deepEqual(left, ['head', 'full', 'otherSource', 'otherDomain', 'othersUnfinished'])
})
