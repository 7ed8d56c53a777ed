/** All of /usr/share, backed up and restored: rsync finds nothing to do. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  foldersSource,
  backUpSettled,
  differences,
  dropWorld,
  makeWorld,
  restoreTo,
} from '../harness/restores.ts'

test('/etc and /usr/share come back equal after a full and after an incremental', async (t) => {
  const world = await makeWorld()
  t.after(() => dropWorld(world))
  const paths = ['/etc', '/usr/share']
  for (const kind of ['full', 'incremental'] as const) {
    const snapshot = await backUpSettled(world, foldersSource(paths), { kind, workers: 2 })
    const to = join(world.dir, kind)
    const done = await restoreTo(world, snapshot, to, { workers: 2 })
    assert.deepEqual([done.problems, done.damaged, done.failed], [[], [], []])
    for (const path of paths) assert.equal(differences(path, `${to}${path}`), '', `${path}, ${kind}`)
    t.diagnostic(`${kind}: ${done.files} files, ${done.bytes} bytes in ${done.seconds.toFixed(1)} s`)
  }
})
