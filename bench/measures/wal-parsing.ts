/** The speed of our parser of write-ahead log: pgbench makes some, a process of its own reads it. */
import { copyFileSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { placeOf, runProgram, runSql, type Cluster } from '../data/cluster.ts'
import { measure } from '../measure.ts'
import type { WalSample } from '../postgres-record.ts'
import { removeFolder } from '../scratch.ts'

/** What the child process prints. */
export interface WalParsing {
  bytes: number
  records: number
  seconds: number
}

export interface WalMeasure {
  cluster: Cluster
  scale: number
  rounds: number
  samples: WalSample[]
  note: (text: string) => void
}

const clientCount = 4
/** About 8 KB of log each: after a checkpoint most change a page for the first time. */
const transactionsFull = 40_000
const segmentName = /^[0-9A-F]{24}$/

/** Fails, saying why, if it cannot be measured. */
export async function measureWalParsing(wal: WalMeasure): Promise<void> {
  const { cluster, rounds, samples, note } = wal
  const folder = join(cluster.scratch.root, 'wal')
  mkdirSync(folder)
  note('writing log by pgbench')
  keepLog(wal, folder)
  const program = join(import.meta.dirname, '../wal-parsing.ts')
  for (let round = 1; round <= rounds; round++) {
    for (const checksCrc of [true, false]) {
      const argv = [process.execPath, program, folder, checksCrc ? 'crc' : 'plain']
      const { stdout } = await measure(cluster.scratch, { argv, env: {}, folder })
      const found: unknown = JSON.parse(stdout)
      if (!isWalParsing(found)) throw new Error(`bench/wal-parsing.ts printed something else: ${stdout}`)
      samples.push({ checksCrc, round, ...found })
      const speed = (found.bytes / found.seconds / 1e6).toFixed(0)
      const what = `${(found.bytes / 1e6).toFixed(0)} MB of log ${checksCrc ? 'with' : 'without'} checksums`
      note(`round ${round}/${rounds} ${what}: ${speed} MB/s`)
    }
  }
  removeFolder(folder)
}

/** Copies the segments that a load fills to `folder`. */
function keepLog({ cluster, scale }: WalMeasure, folder: string): void {
  runSql(cluster, ['alter role postgres set synchronous_commit = off', 'checkpoint'])
  const switched = 'select pg_walfile_name(pg_switch_wal()), pg_walfile_name(pg_current_wal_insert_lsn())'
  const before = runSql(cluster, [switched])[0]?.split('|')[0] ?? ''
  const count = Math.max(1, Math.round((transactionsFull * scale) / clientCount))
  const load = ['--no-vacuum', `--client=${clientCount}`, `--transactions=${count}`, 'postgres']
  runProgram(cluster, 'pgbench', [...placeOf(cluster), ...load])
  const last = runSql(cluster, [switched])[0]?.split('|')[0] ?? ''
  // Before the next checkpoint, which hands the files out anew.
  const from = join(cluster.data, 'pg_wal')
  for (const name of readdirSync(from)) {
    if (segmentName.test(name) && name > before && name <= last)
      copyFileSync(join(from, name), join(folder, name))
  }
  runSql(cluster, ['alter role postgres reset synchronous_commit', 'checkpoint'])
}

function isWalParsing(value: unknown): value is WalParsing {
  if (typeof value !== 'object' || value === null) return false
  return ['bytes', 'records', 'seconds'].every((name) => typeof Reflect.get(value, name) === 'number')
}
