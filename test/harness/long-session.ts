/** A backup of more chunks than one session table takes, with an index run at every look at the clock. */
import { strict as assert } from 'node:assert'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../../src/base/clock.ts'
import type { ConfigChunking } from '../../src/format/config.ts'
import {
  backUp,
  folderSource,
  folderState,
  noise,
  readBack,
  SMALL_CHUNKING,
  snapshotOf,
  type TestRepository,
} from './engine.ts'
import { storedTwice } from './verify.ts'

/** Chunks of about 120 bytes. */
export const TINY_CHUNKING: ConfigChunking = {
  ...SMALL_CHUNKING,
  inlineBytesMax: 0,
  packBytesMax: 4 * 1024 * 1024,
  cdc: { ...SMALL_CHUNKING.cdc, minBytes: 64, maskBits: 6, maxBytes: 256 },
}

/** Small, so that a batch has few chunks and the engine is tended often. */
const FILE_BYTES = 20_000
const FILE_CHUNKS_MIN = 150

/** Fills the folder, backs it up in full, and asserts what must hold of the snapshot and of the host's folder. */
export async function runLongSession(
  scene: { readonly repository: TestRepository; readonly path: string },
  options: { readonly chunksMin: number; readonly workers: number },
): Promise<void> {
  const { repository, path } = scene
  const files = Math.ceil(options.chunksMin / FILE_CHUNKS_MIN)
  for (let i = 0; i < files; i++) writeFileSync(join(path, `${i}`), noise(i + 1, FILE_BYTES))
  // All of it is known by then, in a table that was turned over.
  writeFileSync(join(path, 'z'), noise(1, FILE_BYTES))
  let elapsed = 0
  const clock: Clock = { now: () => Date.now() + 10_000, elapsed: () => (elapsed += 61_000) }
  const done = await backUp(repository, folderSource(path), { kind: 'full', workers: options.workers, clock })
  const snapshot = await snapshotOf(repository, done.snapshot)
  const runs = snapshot.lineage.flatMap((set) => set.runs)
  const entries = runs.reduce((sum, run) => sum + run.entries, 0)
  assert.ok(entries > options.chunksMin, `${entries} chunks`)
  assert.ok(runs.length > 2, `${runs.length} index runs`)
  assert.deepEqual(await readBack(repository, snapshot, path), folderState(path))
  if (options.workers === 0) assert.deepEqual(await storedTwice(repository.access), [])
  const left = readdirSync(repository.host.path).filter((name) => name.startsWith('session'))
  for (const folder of left) assert.deepEqual(readdirSync(join(repository.host.path, folder)), [])
}
