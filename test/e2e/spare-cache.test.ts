/** A host whose cache folder is full or cannot be written still backs up, checks and restores. */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { noise } from '../harness/engine.ts'
import { dropHost, here, makeHost, packNames, putFile, type ShopHost } from '../harness/shop-host.ts'
import { fillDisk, mountDisk, unmountDisk } from '../harness/small-disk.ts'
import { flip } from '../harness/tampering.ts'

function spareFolders(): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith('backstock-cache-'))
}

/** Damages the contents of all files. */
function hurtPacks(host: ShopHost): void {
  for (const name of packNames(host)) {
    const path = join(host.dir, 'repo', name)
    const bytes = flip(readFileSync(path), 100)
    // Objects are read-only files.
    rmSync(path)
    writeFileSync(path, bytes)
  }
}

async function useWithout(host: ShopHost): Promise<void> {
  const before = spareFolders()
  const warned = /the cache folder cannot be used .*works in a temporary folder/
  const backup = await here(host, ['backup'])
  assert.equal(backup.exit, 0, backup.stderr)
  assert.match(backup.stderr, warned)
  const restore = await here(host, ['restore', 'media', '--to', 'out'])
  assert.equal(restore.exit, 0, restore.stderr)
  assert.match(restore.stderr, warned)
  assert.ok(readFileSync(join(host.dir, 'out', host.media, 'large')).equals(noise(1, 200_000)))
  hurtPacks(host)
  const check = await here(host, ['check', '--read-data'])
  assert.equal(check.exit, 1)
  assert.match(check.stdout, /media\/large/)
  assert.match(check.stderr, warned)
  assert.deepEqual(spareFolders(), before)
}

test('a cache folder that cannot be made stops no command', async () => {
  const host = makeHost()
  try {
    putFile(host, 'media/large', noise(1, 200_000))
    writeFileSync(join(host.dir, 'cache'), 'this is no folder')
    const init = await here(host, ['init'])
    assert.equal(init.exit, 0, init.stderr)
    assert.match(init.stdout, /AGE-SECRET-KEY-1/)
    await useWithout(host)
  } finally {
    dropHost(host)
  }
})

test('a cache folder that is full stops no command, and what it remembers still guards', async (context) => {
  const host = makeHost()
  const cache = join(host.dir, 'cache')
  mkdirSync(cache)
  if (!mountDisk(cache, '20m')) {
    dropHost(host)
    return context.skip('cannot mount a tmpfs here')
  }
  try {
    putFile(host, 'media/large', noise(1, 200_000))
    assert.equal((await here(host, ['init'])).exit, 0)
    assert.equal((await here(host, ['backup'])).exit, 0)
    fillDisk(cache)
    await useWithout(host)
    const repo = join(host.dir, 'repo')
    renameSync(join(repo, 'config'), join(repo, 'aside'))
    const lost = await here(host, ['snapshots'])
    assert.equal(lost.exit, 23)
    assert.match(lost.stderr, /this host has seen config\/1/)
  } finally {
    unmountDisk(cache)
    dropHost(host)
  }
})

test('a check that cannot remember what it found says all of it, and ends as its findings say', async () => {
  const host = makeHost()
  try {
    putFile(host, 'media/large', noise(1, 200_000))
    assert.equal((await here(host, ['init'])).exit, 0)
    assert.equal((await here(host, ['backup'])).exit, 0)
    const [repository = ''] = readdirSync(join(host.dir, 'cache'))
    const lock = join(host.dir, 'cache', repository, '.state.lock')
    rmSync(lock)
    mkdirSync(lock)
    const warned = /what this check found is not remembered: Cannot open the lock/
    const sound = await here(host, ['check', '--read-data'])
    assert.equal(sound.exit, 0, sound.stderr)
    assert.match(sound.stderr, warned)
    hurtPacks(host)
    const hurt = await here(host, ['check', '--read-data'])
    assert.equal(hurt.exit, 1)
    assert.match(hurt.stdout, /media\/large/)
    assert.match(hurt.stderr, warned)
  } finally {
    dropHost(host)
  }
})
