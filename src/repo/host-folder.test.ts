import { strict as assert } from 'node:assert'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { lockFile } from '../base/posix.ts'
import { SOURCE_NAME } from '../format/snapshot.ts'
import {
  lockSource,
  openHostFolder,
  readHostState,
  sweepTreeCaches,
  treeCachePath,
  unlockSource,
  updateHostState,
  type HostState,
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

test('updateHostState() gives up on a lock that another run does not let go', () => {
  const host = openHostFolder(folder, 'ee'.repeat(16))
  updateHostState(host, (state) => state)
  const held = readdirSync(host.path).find((name) => name.endsWith('.lock'))!
  const fd = openSync(join(host.path, held), 'r+')
  assert.ok(lockFile(fd))
  assert.throws(
    () => {
      updateHostState(host, (state) => state, 30)
    },
    (error) => isFailure(error, 'repo.busy') && error.message.includes('0.03 s'),
  )
  closeSync(fd)
  updateHostState(host, (state) => state, 30)
})

test('a backup of a source may change the state, whatever the source is called', () => {
  const host = openHostFolder(folder, 'ab'.repeat(16))
  updateHostState(host, (state) => state)
  for (const file of readdirSync(host.path).filter((name) => name.endsWith('.lock'))) {
    const source = file.slice(0, -'.lock'.length)
    assert.ok(!SOURCE_NAME.test(source), `"${source}" could be a source`)
  }
})

test('a state that cannot be written is said, and leaves no file open and none behind', () => {
  const host = openHostFolder(folder, 'ff'.repeat(16))
  mkdirSync(join(host.path, 'state.json', 'x'), { recursive: true })
  const isHostFile = (error: unknown): boolean => isFailure(error, 'host.file')
  assert.throws(() => readHostState(host), isHostFile)
  rmSync(join(host.path, 'state.json'), { recursive: true })
  const openBefore = readdirSync('/proc/self/fd').length
  const makeFolder = (state: HostState): HostState => {
    mkdirSync(join(host.path, 'state.json', 'x'), { recursive: true }) // rename() over it fails
    return state
  }
  assert.throws(() => {
    updateHostState(host, makeFolder)
  }, isHostFile)
  assert.equal(readdirSync('/proc/self/fd').length, openBefore)
  assert.deepEqual(
    readdirSync(host.path).filter((name) => name.endsWith('.tmp')),
    [],
  )
})

test('a lock that cannot be opened is said', () => {
  const host = openHostFolder(folder, 'ac'.repeat(16))
  mkdirSync(join(host.path, 'shop.lock'))
  assert.throws(
    () => lockSource(host, 'shop'),
    (error) => isFailure(error, 'host.file') && error.message.includes('shop.lock'),
  )
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
