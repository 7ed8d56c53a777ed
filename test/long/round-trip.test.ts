/** All of /etc and /usr/share, backed up and restored: rsync finds nothing to do. */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { longStride, newTeller } from '../harness/long-run.ts'
import {
  foldersSource,
  backUpSettled,
  differences,
  dropWorld,
  makeWorld,
  restoreTo,
} from '../harness/restores.ts'

const PATHS = longStride() === 1 ? ['/etc', '/usr/share'] : ['/etc']

test(`${PATHS.join(' and ')} come back equal after a full and after an incremental`, async (t) => {
  const world = await makeWorld()
  t.after(() => dropWorld(world))
  const say = newTeller()
  for (const kind of ['full', 'incremental'] as const) {
    const snapshot = await backUpSettled(world, foldersSource(PATHS), { kind, workers: 2 })
    const to = join(world.dir, kind)
    const done = await restoreTo(world, snapshot, to, { workers: 2 })
    assert.deepEqual([done.problems, done.damaged, done.failed], [[], [], []])
    for (const path of PATHS) assert.equal(differences(path, `${to}${path}`), '', `${path}, ${kind}`)
    t.diagnostic(
      `${kind}: ${done.files} files, ${done.bytes} bytes, restored in ${done.seconds.toFixed(1)} s`,
    )
    say(`${kind} is compared`)
    rmSync(to, { recursive: true })
  }
})
