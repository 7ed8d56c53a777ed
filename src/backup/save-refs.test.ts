/** Refs records as deltas: how long a chain of them grows. */
import { strict as assert } from 'node:assert'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  aheadClock,
  backUp,
  dropRepository,
  folderSource,
  makeRepository,
  noise,
  type TestRepository,
} from '../../test/harness/engine.ts'
import { verifyRepository } from '../../test/harness/verify.ts'
import { treeCachePath } from '../repo/host-folder.ts'
import { domainKeys, requireIdKey, writingDomain } from '../repo/keys.ts'
import { closeTreeCache, openTreeCache } from '../repo/tree-cache.ts'

const DEPTH_MAX = 16
/** Enough packs for a delta to be less than half of the whole record. */
const FILES = 200

/** How many records the one of this snapshot builds on. */
async function refsDepthOf({ access, host }: TestRepository, snapshot: string): Promise<number> {
  const { id } = writingDomain(access)
  const keys = await domainKeys(access, id)
  const cache = openTreeCache(treeCachePath(host, id, 'shop', snapshot), requireIdKey(keys))
  assert.ok(cache, 'the tree cache is kept')
  closeTreeCache(cache)
  return cache.trailer.refsDepth
}

test(`a chain of refs records that build on each other ends after ${DEPTH_MAX}`, async () => {
  const repository = await makeRepository()
  try {
    const path = join(repository.folder, 'data')
    mkdirSync(path)
    for (let i = 0; i < FILES; i++) writeFileSync(join(path, `${i}`), noise(i, 15_000))
    const depths: number[] = []
    for (let day = 0; day < DEPTH_MAX + 3; day++) {
      writeFileSync(join(path, '0'), noise(1000 + day, 15_000))
      const kind = day === 0 ? 'full' : 'incremental'
      const { snapshot } = await backUp(repository, folderSource(path), { kind, clock: aheadClock(10_000) })
      depths.push(await refsDepthOf(repository, snapshot ?? ''))
    }
    assert.deepEqual(depths, [...Array.from({ length: DEPTH_MAX + 1 }, (_, depth) => depth), 0, 1])
    assert.deepEqual(await verifyRepository(repository.access), [])
  } finally {
    dropRepository(repository)
  }
})
