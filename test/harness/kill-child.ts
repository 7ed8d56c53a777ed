/** A backup in a process of its own, for tests that kill it: `node kill-child.ts '{…KillJob}'`. */
import { readFileSync } from 'node:fs'
import { backup } from '../../src/backup/backup.ts'
import type { SnapshotKind } from '../../src/format/snapshot.ts'
import { openHostFolder } from '../../src/repo/host-folder.ts'
import { openRepository } from '../../src/repo/keys.ts'
import { parseKit } from '../../src/repo/kit.ts'
import { openStore } from '../../src/storage/open.ts'
import { aheadClock, folderSource } from './engine.ts'

export interface KillJob {
  readonly storeUrl: string
  readonly kitFile: string
  readonly cache: string
  readonly path: string
  readonly kind: SnapshotKind
  readonly workers: number
}

const job = JSON.parse(process.argv[2] ?? '') as KillJob
const kit = parseKit(readFileSync(job.kitFile), job.kitFile)
const store = await openStore(job.storeUrl)
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
const done = await backup(access, host, folderSource(job.path), options)
process.stdout.write(`done ${done.snapshot} ${done.adoptedPacks}\n`)
