/** Backstock for clusters, through its command line: a source of kind postgres, over TCP. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Cluster } from '../data/cluster.ts'
import { backstockCommand } from './backstock.ts'
import type { ClusterPeer, ClusterRepository } from './cluster-peer.ts'
import { preparePlace } from './peer.ts'

const sourceName = 'orders'

/** Builds this checkout, or takes another backstock that is named by its path. */
export function openBackstockForClusters(path: string | undefined): ClusterPeer {
  const { words, version } = backstockCommand(path)
  return {
    name: 'backstock',
    version,
    settings: () => [],
    prepare: (cluster, folder) => prepare(words, cluster, folder),
  }
}

function prepare(words: string[], cluster: Cluster, folder: string): ClusterRepository {
  const storePath = join(folder, 'repository')
  const configPath = join(folder, 'backstock.yaml')
  const env = {
    ...preparePlace({ source: cluster.data, folder }),
    BACKSTOCK_CACHE_DIR: join(folder, 'cache'),
    BACKSTOCK_WORKERS: '2',
  }
  writeFileSync(configPath, configText(cluster, folder))
  const command = (...rest: string[]) => ({
    argv: [...words, '--config', configPath, '--json', ...rest],
    env,
    folder,
  })
  return {
    storePath,
    init: command('init'),
    full: command('backup', '--kind', 'full'),
    restore: (target) => command('restore', sourceName, '--to', target),
  }
}

function configText(cluster: Cluster, folder: string): string {
  const url = `postgres://postgres@127.0.0.1:${cluster.port}/postgres`
  return [
    'shop: bench',
    `repository: { store: 'file://${folder}/repository', identity: '${folder}/identity.age' }`,
    `sources: { ${sourceName}: { kind: postgres, url: '${url}', checkpoint: fast } }`,
    '',
  ].join('\n')
}
