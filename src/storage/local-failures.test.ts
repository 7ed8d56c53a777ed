import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, chown, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { assertFails, assertSameBytes, namesOf, patternOf } from '../../test/contract/store-asserts.ts'
import { asPlainUser, errnoError, filesBelow, hookedCalls } from '../../test/harness/local-place.ts'
import { mountDisk } from '../../test/harness/small-disk.ts'
import type { FailureCode } from '../base/failure.ts'
import { type LocalCalls, poolCalls } from './local-calls.ts'
import { localFailure } from './local-failures.ts'
import { localStore } from './local.ts'

const run = promisify(execFile)

async function newFolder(context: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'backstock-local-'))
  context.after(() => rm(path, { recursive: true, force: true }))
  return path
}

/** errno -> the code that its put ends with. */
const ERRNO_CODES: readonly (readonly [errno: string, code: FailureCode])[] = [
  ['ENOSPC', 'storage.full'],
  ['EDQUOT', 'storage.full'],
  ['EFBIG', 'storage.full'],
  ['EROFS', 'storage.readonly'],
  ['EACCES', 'storage.denied'],
  ['EPERM', 'storage.denied'],
  ['EIO', 'storage.offline'],
  ['ESTALE', 'storage.offline'],
  ['ENOTCONN', 'storage.offline'],
  ['ETIMEDOUT', 'storage.offline'],
  ['EMFILE', 'storage.offline'],
  ['EWHATEVER', 'storage.offline'],
]

describe('`localStore()` put', () => {
  for (const [errno, code] of ERRNO_CODES) {
    it(`fails with ${code} at ${errno} of any call, and leaves no temporary file`, async (context) => {
      for (const failing of ['mkdir', 'open', 'write', 'fsync', 'close', 'link'] as const) {
        const path = await newFolder(context)
        let isFailing = false
        const calls = hookedCalls((call) => {
          if (isFailing && call === failing) throw errnoError(errno)
        })
        const store = await localStore(path, { calls })
        isFailing = true
        await assertFails(code, store.put('a/b', patternOf(100)))
        isFailing = false
        assert.deepEqual(
          (await filesBelow(path)).filter((name) => name.includes('.tmp')),
          [],
          failing,
        )
        assert.equal(await store.put('a/b', patternOf(100)), 'created', failing)
      }
    })
  }

  it('fails when the fsync of the file fails, and nothing is to be seen of it', async (context) => {
    const path = await newFolder(context)
    let fsyncs = 0
    const calls = hookedCalls((call) => {
      // The first is that of the store's folder, which has got the folder a.
      if (call === 'fsync' && ++fsyncs === 2) throw errnoError('EIO')
    })
    const store = await localStore(path, { calls })
    await assertFails('storage.offline', store.put('a/b', patternOf(100)))
    assert.deepEqual(await filesBelow(path), ['a/'])
  })

  it('fails when the fsync of the folder fails: the name may not last', async (context) => {
    const path = await newFolder(context)
    let fsyncs = 0
    const calls = hookedCalls((call) => {
      if (call === 'fsync' && ++fsyncs === 3) throw errnoError('EIO')
    })
    const store = await localStore(path, { calls })
    await assertFails('storage.offline', store.put('a/b', patternOf(100)))
    assertSameBytes(await store.get('a/b'), patternOf(100))
    assert.equal(await store.put('a/b', patternOf(100)), 'identical')
  })

  it('does without the fsync of folders where the filesystem has none', async (context) => {
    const path = await newFolder(context)
    let opened = ''
    const calls: LocalCalls = {
      ...hookedCalls((call, [at]) => {
        if (call === 'open') opened = String(at)
        if (call === 'fsync' && !opened.includes('.tmp-')) throw errnoError('EINVAL')
      }),
    }
    assert.equal(await (await localStore(path, { calls })).put('a/b', patternOf(100)), 'created')
  })

  it('fails when the system takes no bytes and says nothing', async (context) => {
    const store = await localStore(await newFolder(context), { calls: { ...poolCalls, write: () => 0 } })
    await assertFails('storage.offline', store.put('a/b', patternOf(100)))
  })

  it('stops between two writes when its signal is raised, and leaves nothing', async (context) => {
    const path = await newFolder(context)
    const abort = new AbortController()
    const write: LocalCalls['write'] = (file, bytes, position) => {
      abort.abort()
      return poolCalls.write(file, bytes.subarray(0, 10), position)
    }
    const store = await localStore(path, { calls: { ...poolCalls, write } })
    await assertFails('cancelled', store.put('a', patternOf(100), { signal: abort.signal }))
    assert.deepEqual(await filesBelow(path), [])
  })

  it('keeps its own failure when the temporary file cannot be removed', async (context) => {
    const path = await newFolder(context)
    let isFull = false
    const calls = hookedCalls((call) => {
      if (isFull && call === 'write') throw errnoError('ENOSPC')
      if (isFull && call === 'unlink') throw errnoError('EIO')
    })
    const store = await localStore(path, { calls })
    isFull = true
    await assertFails('storage.full', store.put('a', patternOf(100)))
    isFull = false
    assert.equal((await filesBelow(path)).length, 1)
    assert.equal(await store.sweep(0), 1)
  })
})

it('`localStore()` get says whether the disk fails or the file is short', async (context) => {
  const path = await newFolder(context)
  await (await localStore(path)).put('a', patternOf(100))
  const broken = await localStore(path, {
    calls: { ...poolCalls, read: () => Promise.reject(errnoError('EIO')) },
  })
  await assertFails('storage.offline', broken.get('a'))
  const cut = await localStore(path, { calls: { ...poolCalls, read: () => 0 } })
  await assertFails('storage.short', cut.get('a'))
})

it('`localFailure()` says what was tried, what is and what to do, and keeps the cause', () => {
  const cause = errnoError('ENOSPC')
  const failure = localFailure(cause, { action: 'write', name: 'd/x', location: 'file:///backups' })
  assert.ok(failure instanceof Error)
  assert.equal(
    failure.message,
    'Cannot write "d/x" in file:///backups: ' +
      'no space is left on its disk (free some, or expire old snapshots)',
  )
  assert.equal(failure.cause, cause)
})

it('`localFailure()` leaves bugs as they are', () => {
  const bug = new TypeError('x is not a function')
  assert.equal(localFailure(bug, { action: 'write', name: 'd/x', location: 'file:///backups' }), bug)
  const argument = Object.assign(new TypeError('bad argument'), { code: 'ERR_INVALID_ARG_TYPE' })
  assert.equal(
    localFailure(argument, { action: 'write', name: 'd/x', location: 'file:///backups' }),
    argument,
  )
})

/**
 * A disk of 1 MiB that can be made read-only: a real one where mounting is allowed, else the same answers
 * made up.
 */
interface SmallDisk {
  readonly path: string
  readonly calls: LocalCalls
  readonly makeReadOnly: () => Promise<void>
}

const SMALL_DISK_BYTES = 1024 * 1024

type OpenDisk = (context: TestContext) => Promise<SmallDisk>

async function mountedDisk(context: TestContext): Promise<SmallDisk> {
  const path = await mkdtemp(join(tmpdir(), 'backstock-local-'))
  const isMounted = mountDisk(path, '1m')
  context.after(async () => {
    if (isMounted) await run('umount', ['-l', path])
    await rm(path, { recursive: true, force: true })
  })
  if (!isMounted) return pretendedDiskAt(path)
  const makeReadOnly = async (): Promise<void> => void (await run('mount', ['-o', 'remount,ro', path]))
  return { path, calls: poolCalls, makeReadOnly }
}

async function pretendedDisk(context: TestContext): Promise<SmallDisk> {
  return pretendedDiskAt(await newFolder(context))
}

const DISKS: readonly (readonly [kind: string, openDisk: OpenDisk])[] = [
  ['mounted where this user may mount', mountedDisk],
  ['pretended', pretendedDisk],
]

function pretendedDiskAt(path: string): SmallDisk {
  let used = 0
  let isReadOnly = false
  const calls = hookedCalls((call) => {
    if (isReadOnly && ['link', 'unlink', 'mkdir', 'write'].includes(call)) throw errnoError('EROFS')
  })
  const write: LocalCalls['write'] = async (file, bytes, position) => {
    const taken = Math.min(bytes.length, SMALL_DISK_BYTES - used)
    if (taken === 0) throw errnoError('ENOSPC')
    used += taken
    return calls.write(file, bytes.subarray(0, taken), position)
  }
  return {
    path,
    calls: { ...calls, write },
    makeReadOnly: () => {
      isReadOnly = true
      return Promise.resolve()
    },
  }
}

for (const [kind, openDisk] of DISKS) {
  it(`\`localStore()\` on a full disk keeps what was stored, nothing more (${kind})`, async (context) => {
    const { path, calls } = await openDisk(context)
    const store = await localStore(path, { calls })
    assert.equal(await store.put('a/fits', patternOf(600_000)), 'created')
    await assertFails('storage.full', store.put('a/large', patternOf(600_000)))
    await assertFails('storage.full', store.put('b/larger', patternOf(2_000_000)))
    assert.deepEqual(await filesBelow(path), ['a/', 'a/fits', 'b/'])
    assertSameBytes(await store.get('a/fits'), patternOf(600_000))
  })

  it(`\`localStore()\` on a disk that became read-only still reads (${kind})`, async (context) => {
    const { path, calls, makeReadOnly } = await openDisk(context)
    const before = await localStore(path, { calls })
    await before.put('a/b', patternOf(1000))
    await makeReadOnly()
    for (const store of [before, await localStore(path, { calls })]) {
      assertSameBytes(await store.get('a/b'), patternOf(1000))
      assert.deepEqual(await namesOf(store, ''), ['a/b'])
      await assertFails('storage.readonly', store.put('a/c', patternOf(1000)))
      await assertFails('storage.readonly', store.put('c/c', patternOf(1000)))
      await assertFails('storage.readonly', store.delete('a/b'))
    }
  })
}

it('`localStore()` takes no folder for empty that it may not read', async (context) => {
  const path = await newFolder(context)
  if (process.getuid?.() === 0) await chown(path, 65_534, 65_534)
  await asPlainUser(async () => {
    const store = await localStore(path)
    await store.put('open/a', patternOf(10))
    await store.put('shut/a', patternOf(10))
    await mkdir(join(path, 'locked'))
    await chmod(join(path, 'shut'), 0)
    await chmod(join(path, 'locked'), 0o500)
    await assertFails('storage.denied', namesOf(store, ''))
    await assertFails('storage.denied', namesOf(store, 'shut/'))
    await assertFails('storage.denied', store.get('shut/a'))
    await assertFails('storage.denied', store.stat('shut/a'))
    await assertFails('storage.denied', store.delete('shut/a'))
    await assertFails('storage.denied', store.put('shut/b', patternOf(10)))
    await assertFails('storage.denied', store.put('locked/b', patternOf(10)))
    assertSameBytes(await store.get('open/a'), patternOf(10))
    await chmod(join(path, 'shut'), 0o700)
    assert.deepEqual(await namesOf(store, ''), ['open/a', 'shut/a'])
    await chmod(path, 0)
    await assertFails('storage.denied', localStore(join(path, 'open')))
    await chmod(path, 0o700)
  })
})
