/** A host whose cache folder is full or cannot be written still backs up, checks and restores. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { noise } from '../harness/engine.ts'
import { dropHost, here, makeHost, putFile, type ShopHost } from '../harness/shop-host.ts'

function spareFolders(): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith('backstock-cache-'))
}

/** Damages the pack of contents, and gives back how to mend it. */
function hurtPack(host: ShopHost): void {
  const repo = join(host.dir, 'repo')
  const packs = readdirSync(repo, { recursive: true, encoding: 'utf8' }).filter((name) =>
    /\/packs\/..\/./.test(name),
  )
  for (const name of packs) {
    const bytes = readFileSync(join(repo, name))
    bytes[100]! ^= 255
    rmSync(join(repo, name))
    writeFileSync(join(repo, name), bytes)
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
  hurtPack(host)
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
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=20m', 'tmpfs', cache]).status !== 0) {
    dropHost(host)
    return context.skip('cannot mount a tmpfs here')
  }
  try {
    putFile(host, 'media/large', noise(1, 200_000))
    assert.equal((await here(host, ['init'])).exit, 0)
    assert.equal((await here(host, ['backup'])).exit, 0)
    const free = Number(
      spawnSync('df', ['-k', '--output=avail', cache], { encoding: 'utf8' }).stdout.split('\n')[1],
    )
    spawnSync('dd', ['if=/dev/zero', `of=${cache}/fill`, 'bs=1k', `count=${free}`])
    await useWithout(host)
    const repo = join(host.dir, 'repo')
    renameSync(join(repo, 'config'), join(repo, 'aside'))
    const lost = await here(host, ['snapshots'])
    assert.equal(lost.exit, 23)
    assert.match(lost.stderr, /this host has seen config\/1/)
  } finally {
    spawnSync('umount', [cache])
    dropHost(host)
  }
})
