/** Only what two restores into one folder say to each other; what a marker is for: test/e2e/restore-resume. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { beginMarker, leaveMarker, previewMarker } from './restore-marker.ts'

const scratch = mkdtempSync(join(tmpdir(), 'backstock-marker-'))
after(() => rmSync(scratch, { recursive: true }))

const options = { paths: [], exclude: [], noOwner: false, delta: false, overwrite: false }

test('`beginMarker()` and `previewMarker()` refuse a folder that a restore works in', () => {
  const root = join(scratch, 'held')
  const snapshot = { id: '20261122t140000-aaaa', domain: 'd' } as StoredSnapshot
  const held = beginMarker(root, snapshot, options)
  for (const look of [beginMarker, previewMarker])
    for (const more of [{}, { noOwner: true }, { overwrite: true }])
      assert.throws(
        () => look(root, snapshot, { ...options, ...more }),
        (error) =>
          isFailure(error, 'restore.refused') &&
          error.message.endsWith('another restore into it is running') &&
          error.facts['hint'] === 'Wait for it to end, or choose another folder.',
      )
  leaveMarker(held)
  assert.equal(previewMarker(root, snapshot, options), true)
  assert.deepEqual(readdirSync(root), ['.backstock-restore'])
})
