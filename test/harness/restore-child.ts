/** A restore in a process of its own, for tests that kill it: `node restore-child.ts '{…RestoreChildJob}'`. */
import { readFileSync } from 'node:fs'
import { systemClock } from '../../src/base/clock.ts'
import { restore } from '../../src/recovery/restore.ts'
import { openHostFolder } from '../../src/repo/host-folder.ts'
import { openRepository } from '../../src/repo/keys.ts'
import { parseKit } from '../../src/repo/kit.ts'
import { listSnapshots } from '../../src/repo/snapshots.ts'
import { openStore } from '../../src/storage/open.ts'

export interface RestoreChildJob {
  readonly storeUrl: string
  readonly kitFile: string
  readonly cache: string
  readonly snapshot: string
  readonly to: string
  readonly workers: number
  readonly noOwner?: boolean
}

const job = JSON.parse(process.argv[2] ?? '') as RestoreChildJob
const access = await openRepository(
  await openStore(job.storeUrl),
  parseKit(readFileSync(job.kitFile), job.kitFile),
)
const host = openHostFolder(job.cache, access.config.repository)
const { snapshots } = await listSnapshots(access.store, access.config)
const snapshot = snapshots.find(({ id }) => id === job.snapshot)
if (snapshot === undefined) throw new Error(`there is no snapshot ${job.snapshot}`)
process.stdout.write('begun\n')
const { damaged, failed, problems, resumed, files } = await restore(access, host, snapshot, {
  to: job.to,
  paths: [],
  exclude: [],
  delta: false,
  overwrite: false,
  dryRun: false,
  noOwner: job.noOwner === true,
  workers: job.workers,
  clock: systemClock,
})
process.stdout.write(`${JSON.stringify({ damaged, failed, problems, resumed, files })}\n`)
