/**
 * How long a cluster takes from its backup to the end of its log: with the log as Backstock hands it to the
 * server, against `cp` from a folder. Both times are of the restore and of the server's start until it takes
 * connections; the base is small beside the log, so that replay is nearly all of it.
 */
import { appendFileSync, chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  freePort,
  placeOf,
  runProgram,
  runSql,
  startCluster,
  stopCluster,
  type Cluster,
} from '../data/cluster.ts'
import { measure, type Command } from '../measure.ts'
import { removeFolder } from '../scratch.ts'
import { archiveOf, startShipper, stopShipper, type ShippedMeasure } from './shipping.ts'

const clientCount = 4
const transactionsFull = 400_000
/** Of both, as the source's own settings may not suit a copy. */
const copySettings = ['archive_mode = off', 'shared_buffers = 256MB']

/** Fails if what comes back is not what was there. */
export async function measureReplay(given: ShippedMeasure): Promise<void> {
  const { repository, rounds, samples, note } = given
  const bytes = await makeLog(given)
  const wanted = historyCount(given.cluster)
  note(`replaying ${(bytes / 1e6).toFixed(0)} MB of log`)
  for (let round = 0; round <= rounds; round++) {
    const ours = await recover(given, (to) => repository.restore(to), [], wanted)
    const copied = [`restore_command = 'cp ${archiveOf(given.folder)}/%f %p'`, "recovery_target_lsn = ''"]
    const theirs = await recover(given, (to) => repository.restoreAlone(to), copied, wanted)
    if (round > 0) samples.push({ row: 'replayRatio', round, value: ours / theirs })
    const which = round === 0 ? 'warm-up' : `round ${round}/${rounds}`
    note(`${which} replay: ${ours.toFixed(2)} s, with cp ${theirs.toFixed(2)} s`)
  }
}

/** A long log behind the backup, shipped and archived; its bytes. */
async function makeLog(given: ShippedMeasure): Promise<number> {
  const { cluster, scale } = given
  const shipper = await startShipper(given)
  const end = () => BigInt(runSql(cluster, ["select pg_current_wal_lsn() - '0/0'"])[0] ?? 0)
  const begun = end()
  runSql(cluster, ['alter role postgres set synchronous_commit = off'])
  const count = Math.max(1, Math.round((transactionsFull * scale) / clientCount))
  const load = ['--no-vacuum', `--client=${clientCount}`, `--transactions=${count}`, 'postgres']
  runProgram(cluster, 'pgbench', [...placeOf(cluster), ...load])
  runSql(cluster, ['alter role postgres reset synchronous_commit'])
  const last = end()
  const [file] = runSql(cluster, ['select pg_walfile_name(pg_switch_wal())'])
  await shipper.reached(last)
  await stopShipper(shipper)
  const archived = `select last_archived_wal >= '${file}' from pg_stat_archiver`
  while (runSql(cluster, [archived])[0] !== 't') runSql(cluster, ['select pg_sleep(0.1)'])
  await stopCluster(cluster)
  await startCluster(cluster)
  return Number(last - begun)
}

function historyCount(cluster: Cluster): string {
  return runSql(cluster, ['select count(*) from pgbench_history'])[0] ?? ''
}

/** Seconds from the command to a server that takes connections. */
async function recover(
  { cluster, folder }: ShippedMeasure,
  restore: (target: string) => Command,
  settings: string[],
  wanted: string,
): Promise<number> {
  const data = join(folder, 'recovered')
  mkdirSync(data, { mode: 0o700 })
  chownSync(data, cluster.user.uid, cluster.user.gid)
  const { usage } = await measure(cluster.scratch, restore(data))
  const port = await freePort()
  const lines = [...copySettings, ...settings, `port = ${port}`]
  appendFileSync(join(data, 'postgresql.auto.conf'), `${lines.join('\n')}\n`)
  if (settings.length > 0) writeFileSync(join(data, 'recovery.signal'), '')
  const copy: Cluster = { ...cluster, data, port, process: undefined }
  const begun = performance.now()
  await startCluster(copy)
  const seconds = (performance.now() - begun) / 1000
  const found = historyCount(copy)
  await stopCluster(copy)
  removeFolder(data)
  if (found !== wanted) throw new Error(`${found} rows came back (must be ${wanted})`)
  return usage.wallSeconds + seconds
}
