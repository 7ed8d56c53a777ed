/** Real trees and a tree of hard cases, backed up and restored: rsync finds nothing to do. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeBeyondPathMax, makeHardCases, mutateHardCases } from '../fixtures/hard-cases.ts'
import { folderSource, folderState } from '../harness/engine.ts'
import {
  backUpSettled,
  differences,
  dropWorld,
  foldersSource,
  makeWorld,
  restoreTo,
} from '../harness/restores.ts'

/** Real trees of moderate size with links, odd modes and many small files. */
const REAL = ['/etc', '/usr/share/zoneinfo', '/usr/share/perl', '/usr/share/icons'].filter(existsSync)

test(`${REAL.join(', ')} come back equal, with two threads and with none`, async (t) => {
  const world = await makeWorld()
  t.after(() => dropWorld(world))
  const snapshot = await backUpSettled(world, foldersSource(REAL), { kind: 'full', workers: 2 })
  for (const workers of [2, 0]) {
    const to = join(world.dir, `to-${workers}`)
    const done = await restoreTo(world, snapshot, to, { workers })
    assert.deepEqual([done.problems, done.damaged, done.failed], [[], [], []])
    for (const path of REAL)
      assert.equal(differences(path, `${to}${path}`), '', `${path}, ${workers} workers`)
  }
})

test('hard cases come back equal after a full, an incremental and a differential', async (t) => {
  const world = await makeWorld()
  const from = join(world.dir, 'from')
  t.after(() => dropWorld(world))
  mkdirSync(from)
  const leftOut = makeHardCases(from)
  if (leftOut.length > 0) t.diagnostic(`left out: ${leftOut.join(', ')}`)
  for (const [nth, kind] of (['full', 'incremental', 'differential'] as const).entries()) {
    if (kind === 'incremental') mutateHardCases(from)
    const workers = nth === 1 ? 0 : 2
    const snapshot = await backUpSettled(world, folderSource(from), { kind, workers })
    const to = join(world.dir, `to-${kind}`)
    const done = await restoreTo(world, snapshot, to, { workers })
    assert.deepEqual([done.problems, done.damaged, done.failed], [[], [], []])
    assert.equal(differences(from, `${to}${from}`), '', kind)
    // Restoring once more over it finds everything right.
    const again = await restoreTo(world, snapshot, to, { workers, delta: true })
    assert.equal(differences(from, `${to}${from}`), '', `${kind}, again with delta`)
    assert.ok(again.bytesKept > 4_000_000)
    assert.ok(
      again.bytesWritten < 1000,
      `${again.bytesWritten} bytes written (only files with several names)`,
    )
  }
})

test('paths beyond PATH_MAX come back', async (t) => {
  const world = await makeWorld()
  t.after(() => dropWorld(world))
  const from = join(world.dir, 'from')
  mkdirSync(from)
  makeBeyondPathMax(from)
  const snapshot = await backUpSettled(world, folderSource(from))
  const to = join(world.dir, 'to')
  const done = await restoreTo(world, snapshot, to)
  assert.deepEqual([done.problems, done.damaged, done.failed], [[], [], []])
  assert.deepEqual([done.files, done.others, done.directories > 26], [1, 1, true])
  const again = await restoreTo(world, snapshot, to, { delta: true })
  assert.deepEqual([again.bytesWritten, again.bytesKept], [0, 7])
})

test('an empty folder as the source comes back', async (t) => {
  const world = await makeWorld()
  t.after(() => dropWorld(world))
  const from = join(world.dir, 'from')
  mkdirSync(from, { mode: 0o751 })
  const snapshot = await backUpSettled(world, folderSource(from))
  const to = join(world.dir, 'to')
  const done = await restoreTo(world, snapshot, to)
  assert.equal(done.files, 0)
  const stateOf = (path: string) => ({ ...folderState(path).get(''), inode: 0n })
  assert.deepEqual(stateOf(`${to}${from}`), stateOf(from))
})
