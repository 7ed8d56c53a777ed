import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, rename, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { isFailure } from '../base/failure.ts'
import { assertFails, assertSameBytes, namesOf, patternOf } from '../../test/contract/store-asserts.ts'
import { testStore } from '../../test/contract/store-contract.ts'
import { errnoError, filesBelow, hookedCalls } from '../../test/harness/local-place.ts'
import { type LocalCalls, poolCalls } from './local-calls.ts'
import { type LocalStoreOptions, localStore } from './local.ts'
import type { BlobStore, Stray } from './store.ts'

/** A folder that is gone after the test, and an opened store in it. */
async function openPlace(
  context: TestContext,
  options: LocalStoreOptions = {},
): Promise<{ path: string; store: BlobStore }> {
  const path = await mkdtemp(join(tmpdir(), 'backstock-local-'))
  context.after(() => rm(path, { recursive: true, force: true }))
  return { path, store: await localStore(path, options) }
}

function testContract(name: string, options: LocalStoreOptions): void {
  testStore(name, async () => {
    const path = await mkdtemp(join(tmpdir(), 'backstock-local-'))
    return {
      store: await localStore(path, options),
      reopen: () => localStore(path, options),
      remove: () => rm(path, { recursive: true, force: true }),
    }
  })
}

const withoutLinks: LocalCalls = { ...poolCalls, link: () => Promise.reject(errnoError('EPERM')) }

testContract('local', {})
testContract('local, blocking', { blocking: true })
testContract('local without hard links', { calls: withoutLinks })

describe('`localStore()` opening', () => {
  it('refuses a folder that is not there, and does not make it', async (context) => {
    const { path } = await openPlace(context)
    await assertFails('storage.offline', localStore(join(path, 'disk/shop')))
    assert.deepEqual(await filesBelow(path), [])
  })

  it('makes the folder and its parents when told, and opens it again', async (context) => {
    const { path } = await openPlace(context)
    const store = await localStore(join(path, 'a/b/c'), { create: true })
    await store.put('x', patternOf(5))
    assertSameBytes(await (await localStore(join(path, 'a/b/c'), { create: true })).get('x'), patternOf(5))
    assert.equal((await stat(join(path, 'a/b/c'))).mode & 0o777, 0o700)
  })

  it('refuses a file', async (context) => {
    const { path } = await openPlace(context)
    await writeFile(join(path, 'file'), '')
    await assertFails('storage.denied', localStore(join(path, 'file')))
    await assertFails('storage.denied', localStore(join(path, 'file'), { create: true }))
    await assertFails('storage.offline', localStore(join(path, 'file/below')))
  })

  it('refuses a relative path', async () => {
    await assert.rejects(localStore('backups'), /^Error: Bug: relative store folder "backups"$/)
  })

  it('says honestly whether names are created atomically', async (context) => {
    assert.equal((await openPlace(context)).store.capabilities.createOnly, 'atomic')
    const { store, path } = await openPlace(context, { calls: withoutLinks })
    assert.equal(store.capabilities.createOnly, 'check-then-put')
    assert.deepEqual(await filesBelow(path), [])
  })

  it('gives a URL that holds every letter of its path', async (context) => {
    const { path } = await openPlace(context)
    const odd = join(path, 'a b%2F#?ü')
    const store = await localStore(odd, { create: true })
    assert.equal(store.location, pathToFileURL(odd).href)
    assert.equal(store.workerUrl, store.location)
  })
})

describe('`localStore()` files', () => {
  it('are read-only files of this user only, in folders of this user only', async (context) => {
    const { path, store } = await openPlace(context)
    await store.put('a/b', patternOf(5))
    assert.equal((await stat(join(path, 'a/b'))).mode & 0o777, 0o400)
    assert.equal((await stat(join(path, 'a'))).mode & 0o777, 0o700)
    assert.deepEqual(await filesBelow(path), ['a/', 'a/b'])
  })

  it('are durable before they are visible, and their folders before `put()` resolves', async (context) => {
    const log: string[] = []
    const { path, store } = await openPlace(context, { calls: hookedCalls((call) => void log.push(call)) })
    log.length = 0
    await store.put('a/b', patternOf(5))
    const folderSynced = ['open', 'fsync', 'close']
    const written = ['open', 'write', 'fsync', 'close', 'link', 'unlink']
    assert.deepEqual(log, ['stat', 'mkdir', ...folderSynced, ...written, ...folderSynced])
    log.length = 0
    await store.put('a/c', patternOf(5))
    assert.deepEqual(log, [...written, ...folderSynced], 'a known folder costs nothing more')
    log.length = 0
    await store.delete('a/c')
    assert.deepEqual(log, ['unlink', ...folderSynced])
    assert.deepEqual(await filesBelow(path), ['a/', 'a/b'])
  })

  it('are written whole when the system takes only some bytes at a time', async (context) => {
    const calls: LocalCalls = {
      ...poolCalls,
      write: (file, bytes, position) => poolCalls.write(file, bytes.subarray(0, 1000), position),
      read: (file, into, position) => poolCalls.read(file, into.subarray(0, 777), position),
    }
    const { store } = await openPlace(context, { calls })
    assert.equal(await store.put('a', patternOf(12_345)), 'created')
    assert.equal(await store.put('a', patternOf(12_345)), 'identical')
    assertSameBytes(await store.get('a'), patternOf(12_345))
  })

  it('of others are not listed: other names, hidden files, links, pipes', async (context) => {
    const { path, store } = await openPlace(context)
    await store.put('a/b', patternOf(5))
    for (const name of ['README.TXT', '.hidden', 'a/.tmp-0123', 'a/with space', 'lost+found']) {
      await writeFile(join(path, name), 'foreign')
    }
    await mkdir(join(path, '.snapshots/a'), { recursive: true })
    await symlink('b', join(path, 'a/link'))
    await symlink('.', join(path, 'loop'))
    assert.deepEqual(await namesOf(store, ''), ['a/b'])
    assert.equal(await store.stat('a/link'), undefined)
  })

  it('that are links are neither read nor written through', async (context) => {
    const { path, store } = await openPlace(context)
    await writeFile(join(path, '.outside'), 'secret')
    await symlink('.outside', join(path, 'link'))
    await symlink('/tmp', join(path, 'folder'))
    await assertFails('storage.denied', store.get('link'))
    await assertFails('storage.exists', store.put('link', patternOf(3)))
    await assertFails('storage.exists', store.put('folder/x', patternOf(3)))
  })

  it('that are pipes, sockets or folders are no blobs, and stop nobody', async (context) => {
    const { path } = await openPlace(context)
    const socket = createServer().listen(join(path, 'socket'))
    await once(socket, 'listening')
    context.after(() => socket.close())
    await promisify(execFile)('mkfifo', [join(path, 'pipe')])
    await mkdir(join(path, 'folder'))
    for (const blocking of [false, true]) {
      const store = await localStore(path, { blocking })
      for (const is of ['pipe', 'socket', 'folder']) {
        for (const range of [{}, { offset: 0, length: 5 }, { offset: 100, length: 1 }]) {
          const says = (error: unknown): boolean =>
            isFailure(error, 'storage.missing') && error.message.includes(`a ${is} lies in its place`)
          await assert.rejects(store.get(is, range), says, is)
        }
        await assertFails('storage.exists', store.put(is, patternOf(3)))
        assert.equal(await store.stat(is), undefined)
      }
      assert.deepEqual(await namesOf(store, ''), [])
    }
  })

  it('that are none are told to whom lists them', async (context) => {
    const { path, store } = await openPlace(context)
    await store.put('a/b', patternOf(3))
    await promisify(execFile)('mkfifo', [join(path, 'a/pipe')])
    await symlink('b', join(path, 'a/link'))
    await mkdir(join(path, 'a/folder/.hidden'), { recursive: true })
    const strays: Stray[] = []
    for await (const { name } of store.list('a/', { onStray: (stray) => strays.push(stray) }))
      assert.equal(name, 'a/b')
    const told = strays.map(({ name, is }) => `${name} ${is}`).toSorted()
    assert.deepEqual(told, ['a/folder folder', 'a/link link', 'a/pipe pipe'])
  })

  it('larger than any blob are read in ranges only', async (context) => {
    const { path, store } = await openPlace(context)
    await writeFile(join(path, 'huge'), '')
    await truncate(join(path, 'huge'), 1024 ** 3 + 1)
    await assertFails('repo.foreign', store.get('huge'))
    assertSameBytes(await store.get('huge', { offset: 1024 ** 3 - 4, length: 5 }), new Uint8Array(5))
  })

  it('and folders do not share a name', async (context) => {
    const { store } = await openPlace(context)
    await store.put('a/b', patternOf(5))
    await assertFails('storage.exists', store.put('a', patternOf(5)))
    await assertFails('storage.exists', store.put('a/b/c', patternOf(5)))
    await assertFails('storage.exists', store.put('a/b/c/d', patternOf(5)))
    assert.deepEqual(await namesOf(store, ''), ['a/b'])
  })
})

describe('`localStore()` and a folder that changes under it', () => {
  it('says offline, not missing or empty, when its disk is away or replaced', async (context) => {
    const { path, store } = await openPlace(context)
    await store.put('d/x', patternOf(5))
    await rename(path, `${path}-away`)
    context.after(() => rm(`${path}-away`, { recursive: true, force: true }))
    const assertOffline = async (): Promise<void> => {
      await assertFails('storage.offline', store.get('d/x'))
      await assertFails('storage.offline', store.stat('d/x'))
      await assertFails('storage.offline', store.delete('d/x'))
      await assertFails('storage.offline', store.put('d/y', patternOf(5)))
      await assertFails('storage.offline', store.put('new/y', patternOf(5)))
      await assertFails('storage.offline', store.put('y', patternOf(5)))
      await assertFails('storage.offline', namesOf(store, ''))
      await assertFails('storage.offline', namesOf(store, 'd/'))
      await assertFails('storage.offline', store.sweep(0))
    }
    await assertOffline()
    await mkdir(path)
    await assertOffline()
    assert.deepEqual(await filesBelow(path), [])
    await rm(path, { recursive: true })
    await rename(`${path}-away`, path)
    assertSameBytes(await store.get('d/x'), patternOf(5))
  })

  it('makes a folder again that someone has removed', async (context) => {
    const { path, store } = await openPlace(context)
    await store.put('a/b/c', patternOf(5))
    await rm(join(path, 'a'), { recursive: true })
    assert.equal(await store.put('a/b/d', patternOf(5)), 'created')
    assert.deepEqual(await namesOf(store, ''), ['a/b/d'])
  })

  it('writes again what was swept before it had its name, but not for ever', async (context) => {
    let sweepsLeft = 2
    const { path, store } = await openPlace(context, {
      calls: hookedCalls(async (call) => {
        if (call !== 'link' || sweepsLeft-- <= 0) return
        assert.equal(await (await localStore(path)).sweep(0), 1)
      }),
    })
    sweepsLeft = 2
    assert.equal(await store.put('a/x', patternOf(5)), 'created')
    sweepsLeft = Number.POSITIVE_INFINITY
    await assertFails('storage.missing', store.put('a/y', patternOf(5)))
    assert.deepEqual(await filesBelow(path), ['a/', 'a/x'])
  })

  it('lists past folders that vanish meanwhile', async (context) => {
    const { path, store } = await openPlace(context)
    for (const name of ['a/1', 'b/1', 'c/1']) await store.put(name, patternOf(1))
    const seen: string[] = []
    for await (const { name } of store.list('')) {
      seen.push(name)
      await rm(join(path, 'b'), { recursive: true, force: true })
    }
    assert.deepEqual(seen, ['a/1', 'c/1'])
  })
})

describe('`localStore()` sweep', () => {
  it('removes temporary files of that age by the clock of the store, in all folders', async (context) => {
    const { path, store } = await openPlace(context)
    await store.put('a/b/c', patternOf(1))
    await writeFile(join(path, '.tmp-1'), '')
    await writeFile(join(path, 'a/b/.tmp-2'), 'half')
    assert.equal(await store.sweep(3_600_000), 0)
    assert.equal((await readdir(join(path, 'a/b'))).length, 2)
    assert.equal(await store.sweep(0), 2)
    assert.equal(await store.sweep(0), 0)
    assert.deepEqual(await filesBelow(path), ['a/', 'a/b/', 'a/b/c'])
  })
})
