/** What the bench asks of a program that backs up clusters: the commands that an operator would type. */
import type { Command } from '../measure.ts'
import type { Cluster } from '../data/cluster.ts'
import type { ClusterPeerName } from '../postgres-record.ts'

export interface ClusterPeer {
  name: ClusterPeerName
  version: string
  /** Lines of postgresql.conf that it needs; `folder` as in prepare(). */
  settings(folder: string): string[]
  /** Prepares a repository in `folder`, which is there and empty; its `init` is the first command to run. */
  prepare(cluster: Cluster, folder: string): ClusterRepository
}

export interface ClusterRepository {
  /** All that lies here counts as the repository's size. */
  storePath: string
  init: Command
  full: Command
  /** Restores the latest backup; `target` is not there yet. */
  restore(target: string): Command
}
