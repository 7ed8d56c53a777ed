/** A backup in a process of its own, for tests that kill it: `node kill-child.ts '{…KillJob}'`. */
import { readFileSync } from 'node:fs'
import { backup } from '../../src/backup/backup.ts'
import { assert } from '../../src/base/failure.ts'
import type { SnapshotKind } from '../../src/format/snapshot.ts'
import { openHostFolder } from '../../src/repo/host-folder.ts'
import { openRepository } from '../../src/repo/keys.ts'
import { parseKit } from '../../src/repo/kit.ts'
import { localStore } from '../../src/storage/local.ts'
import { aheadClock, folderSource } from './engine.ts'
import { hookedCalls } from './local-place.ts'

export interface KillJob {
  /** The store's folder. */
  readonly store: string
  readonly kitFile: string
  readonly cache: string
  readonly path: string
  readonly kind: SnapshotKind
  readonly workers: number
  /**
   * Kills itself before this system call of the main thread on the store, from 1; 0 never. Threads open the
   * store by themselves: theirs are not counted.
   */
  readonly killAtCall: number
}

/** What the child says at the end, as JSON. */
export interface KillChildDone {
  readonly snapshot: string
  readonly adoptedPacks: number
  readonly bytesStored: number
  readonly calls: number
  readonly milliseconds: number
}

const job = JSON.parse(process.argv[2] ?? '') as KillJob
let calls = 0
const store = await localStore(job.store, {
  calls: hookedCalls(() => {
    calls++
    if (calls === job.killAtCall) process.kill(process.pid, 'SIGKILL')
  }),
})
const kit = parseKit(readFileSync(job.kitFile), job.kitFile)
const access = await openRepository(store, kit)
const host = openHostFolder(job.cache, access.config.repository)
const options = {
  kind: job.kind,
  tags: [],
  hostName: 'host',
  workers: job.workers,
  dryRun: false,
  clock: aheadClock(10_000),
}
process.stdout.write('begun\n')
calls = 0
const begun = performance.now()
const summary = await backup(access, host, folderSource(job.path), options)
const { snapshot, adoptedPacks, bytesStored } = summary
assert(snapshot !== undefined, 'a backup without a snapshot')
const milliseconds = performance.now() - begun
process.stdout.write(
  JSON.stringify({ snapshot, adoptedPacks, bytesStored, calls, milliseconds } satisfies KillChildDone),
)
