/**
 * pgBackRest as Debian ships it: two processes, zstd level 1, a fast checkpoint, a repository in a folder.
 * Page checks are on by default where the cluster has checksums. The log goes into the same repository by
 * `archive_command`, as its documentation asks; a full backup waits for its part of it.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Cluster } from '../data/cluster.ts'
import type { ClusterPeer, ClusterRepository } from './cluster-peer.ts'

const stanza = 'orders'

/** Finds it, or fails saying how to get it. */
export function openPgbackrest(): ClusterPeer {
  const said = spawnSync('pgbackrest', ['version'], { encoding: 'utf8' }).stdout ?? ''
  const version = /^pgBackRest (\S+)/.exec(said)?.[1]
  if (version === undefined) throw new Error('pgBackRest is missing (install it: apt-get install pgbackrest)')
  return {
    name: 'pgbackrest',
    version,
    settings: (folder) => [
      'archive_mode = on',
      `archive_command = 'pgbackrest --config=${configPath(folder)} --stanza=${stanza} archive-push %p'`,
    ],
    prepare,
  }
}

function prepare(cluster: Cluster, folder: string): ClusterRepository {
  const { user } = cluster
  const storePath = join(folder, 'repository')
  for (const path of [storePath, join(folder, 'log'), join(folder, 'lock'), join(folder, 'spool')]) {
    mkdirSync(path)
    chownSync(path, user.uid, user.gid)
  }
  chownSync(folder, user.uid, user.gid)
  writeFileSync(configPath(folder), configText(cluster, folder))
  chmodSync(configPath(folder), 0o644)
  const command = (...words: string[]) => ({
    argv: [...user.prefix, 'pgbackrest', `--config=${configPath(folder)}`, `--stanza=${stanza}`, ...words],
    env: { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', HOME: folder },
    folder,
  })
  return {
    storePath,
    init: command('stanza-create'),
    full: command('--type=full', 'backup'),
    restore: (target) => command(`--pg1-path=${target}`, '--type=none', 'restore'),
  }
}

function configPath(folder: string): string {
  return join(folder, 'pgbackrest.conf')
}

function configText(cluster: Cluster, folder: string): string {
  return [
    '[global]',
    `repo1-path=${join(folder, 'repository')}`,
    'repo1-retention-full=100',
    `log-path=${join(folder, 'log')}`,
    `lock-path=${join(folder, 'lock')}`,
    `spool-path=${join(folder, 'spool')}`,
    'log-level-file=off',
    'log-level-console=warn',
    'process-max=2',
    'compress-type=zst',
    'compress-level=1',
    'start-fast=y',
    `[${stanza}]`,
    `pg1-path=${cluster.data}`,
    `pg1-port=${cluster.port}`,
    `pg1-socket-path=${cluster.folder}`,
    'pg1-user=postgres',
    '',
  ].join('\n')
}
