/**
 * Clusters: full backup and restore by us and by pgBackRest, in turns, of one cluster that nobody writes to.
 * Everything lies on one disk, and both make durable what they write before they end. Repositories are new in
 * each round. Before each turn all that it reads is read once, and as much memory as it may take is used
 * once: else who comes first pays for whoever follows. The first turn of each is not measured.
 */
import { chownSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  addSettings,
  endedCpuSeconds,
  fillCluster,
  findPostgres,
  makeCluster,
  runProgram,
  runSql,
  startCluster,
  stopCluster,
  type Cluster,
} from '../data/cluster.ts'
import { describeMachine } from '../machine.ts'
import { measure, type Command } from '../measure.ts'
import { openBackstockForClusters, openLoggedRepository } from '../peers/backstock-cluster.ts'
import type { ClusterPeer, ClusterRepository } from '../peers/cluster-peer.ts'
import { folderBytes } from '../peers/peer.ts'
import { openPgbackrest } from '../peers/pgbackrest.ts'
import type { ClusterStep, PostgresRecord } from '../postgres-record.ts'
import { openDiskScratch, removeFolder, warmCaches, warmMemory } from '../scratch.ts'
import { settleMs } from './rounds.ts'
import { beginShipped, measureShipping } from './shipping.ts'
import { measureReplay } from './replay.ts'
import { measureWalParsing } from './wal-parsing.ts'

export interface PostgresMeasure {
  record: PostgresRecord
  backstockPath: string | undefined
  note: (text: string) => void
}

interface Turn {
  peer: ClusterPeer
  repository: ClusterRepository
}

interface Rounds extends PostgresMeasure {
  cluster: Cluster
  peers: ClusterPeer[]
}

/** The cluster and its log, two repositories, one restored folder, room for all of it. */
const clusterBytesFull = 2_200_000_000
const scratchShare = 5

/** A record without samples. */
export function emptyPostgresRecord(given: { rounds: number; scale: number }): PostgresRecord {
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' ') + ' UTC',
    command: ['npm run bench --', ...process.argv.slice(2)].join(' '),
    machine: describeMachine(),
    versions: { node: process.versions.node },
    rounds: given.rounds,
    scale: given.scale,
    clusterBytes: 0,
    samples: [],
    wal: [],
    log: [],
    missing: '',
  }
}

/** Where a program is missing, the record says so. Fails if a command fails or a restored cluster differs. */
export async function measurePostgres(given: PostgresMeasure): Promise<void> {
  const { record, note } = given
  let pgbackrest: ClusterPeer
  try {
    findPostgres()
    pgbackrest = openPgbackrest()
  } catch (error) {
    record.missing = error instanceof Error ? error.message : String(error)
    note(`PostgreSQL is not measured: ${record.missing}`)
    return
  }
  const peers = [openBackstockForClusters(given.backstockPath), pgbackrest]
  for (const peer of peers) record.versions[peer.name] = peer.version
  const scratch = openDiskScratch(scratchShare * clusterBytesFull * record.scale)
  const cluster = await makeCluster(scratch, join(scratch.root, 'cluster'))
  try {
    await measureCluster({ ...given, cluster, peers })
  } finally {
    await stopCluster(cluster)
    removeFolder(scratch.root)
  }
}

async function measureCluster(rounds: Rounds): Promise<void> {
  const { record, cluster, peers, note } = rounds
  await startCluster(cluster)
  record.versions['postgresql'] = runSql(cluster, ['show server_version'])[0] ?? ''
  note('filling the cluster')
  fillCluster(cluster, record.scale)
  await measureWalParsing({ cluster, scale: record.scale, rounds: record.rounds, samples: record.wal, note })
  const sizes = runSql(cluster, ['select sum(pg_database_size(oid)) from pg_database'])
  record.clusterBytes = Number(sizes[0])
  await stopCluster(cluster)
  for (const peer of peers) addSettings(cluster, peer.settings(turnFolder(cluster, peer)))
  await startCluster(cluster)
  await measureRounds(rounds)
  await stopCluster(cluster)
  await measureShipped(rounds)
}

/** In a cluster of its own: commits, and what they take to be replayed. */
async function measureShipped({ record, backstockPath, cluster, note }: Rounds): Promise<void> {
  const { scratch } = cluster
  const folder = join(scratch.root, 'shipped')
  const shop = await makeCluster(scratch, join(scratch.root, 'shop'))
  mkdirSync(folder)
  const shipped = {
    cluster: shop,
    folder,
    repository: openLoggedRepository(backstockPath, shop, folder),
    scale: record.scale,
    rounds: record.rounds,
    samples: record.log,
    note,
  }
  try {
    await beginShipped(shipped)
    await measureShipping(shipped)
    await measureReplay(shipped)
  } finally {
    await stopCluster(shop)
  }
}

/** Round 0 is not kept. */
async function measureRounds(rounds: Rounds): Promise<void> {
  for (let round = 0; round <= rounds.record.rounds; round++) {
    await sleep(settleMs)
    const turns: Turn[] = []
    for (const peer of rounds.peers) turns.push(await openTurn(rounds, peer))
    for (const turn of turns)
      await measureTurn(rounds, { turn, round, step: 'full', command: turn.repository.full })
    for (const turn of turns) await measureRestore(rounds, turn, round)
  }
}

/** One folder a peer for all rounds, since the server's settings name it. */
function turnFolder(cluster: Cluster, peer: ClusterPeer): string {
  return join(cluster.scratch.root, peer.name)
}

/** A new repository in place of the last. */
async function openTurn({ cluster }: Rounds, peer: ClusterPeer): Promise<Turn> {
  const folder = turnFolder(cluster, peer)
  removeFolder(folder)
  mkdirSync(folder)
  const repository = peer.prepare(cluster, folder)
  await measure(cluster.scratch, repository.init)
  return { peer, repository }
}

async function measureRestore(rounds: Rounds, turn: Turn, round: number): Promise<void> {
  const { cluster } = rounds
  const target = join(cluster.scratch.root, 'restored')
  mkdirSync(target, { mode: 0o700 })
  chownSync(target, cluster.user.uid, cluster.user.gid)
  await measureTurn(rounds, { turn, round, step: 'restore', command: turn.repository.restore(target) })
  if (turn.peer.name === 'backstock') runProgram(cluster, 'pg_verifybackup', ['--quiet', target])
  removeFolder(target)
}

interface TurnRun {
  turn: Turn
  round: number
  step: ClusterStep
  command: Command
}

async function measureTurn(rounds: Rounds, { turn, round, step, command }: TurnRun): Promise<void> {
  const { record, cluster, note } = rounds
  warmCaches(step === 'full' ? cluster.data : turn.repository.storePath)
  warmMemory(cluster.scratch, record.clusterBytes)
  const serverBefore = endedCpuSeconds(cluster)
  const { usage } = await measure(cluster.scratch, command)
  const serverCpuSeconds = endedCpuSeconds(cluster) - serverBefore
  const repositoryBytes = folderBytes(turn.repository.storePath)
  const peer = turn.peer.name
  if (round > 0) record.samples.push({ step, peer, round, ...usage, serverCpuSeconds, repositoryBytes })
  const which = round === 0 ? 'warm-up' : `round ${round}/${record.rounds}`
  const cpu = `${usage.cpuSeconds.toFixed(2)} s, of the server ${serverCpuSeconds.toFixed(2)} s`
  const bytes = `${(usage.rssBytes / 1e6).toFixed(0)} MB, stored ${(repositoryBytes / 1e6).toFixed(1)} MB`
  note(`${which} ${step} ${peer}: ${usage.wallSeconds.toFixed(2)} s, processor ${cpu}, ${bytes}`)
}
