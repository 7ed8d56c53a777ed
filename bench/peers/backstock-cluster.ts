/** Backstock for clusters, through its command line: a source of kind postgres, over TCP. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Cluster } from '../data/cluster.ts'
import type { Command } from '../measure.ts'
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
    prepare: (cluster, folder) => prepare(words, cluster, { folder, logs: 'none' }),
  }
}

/** With the log of the cluster too. */
export interface LoggedRepository extends ClusterRepository {
  /** Runs until SIGTERM; prints an event as JSON a line. */
  ship: Command
  /** The latest backup without what was shipped since. */
  restoreAlone(target: string): Command
}

/** As openBackstockForClusters(), for one repository in a new folder. */
export function openLoggedRepository(
  path: string | undefined,
  cluster: Cluster,
  folder: string,
): LoggedRepository {
  const repository = prepare(backstockCommand(path).words, cluster, { folder, logs: 'stream' })
  const { argv, ...rest } = repository.restore('')
  const words = argv.slice(0, argv.indexOf('restore'))
  return {
    ...repository,
    ship: { ...rest, argv: [...words, 'ship', sourceName] },
    restoreAlone: (target) => ({
      ...rest,
      argv: [...words, 'restore', sourceName, '--immediate', '--to', target],
    }),
  }
}

function prepare(
  words: string[],
  cluster: Cluster,
  { folder, logs }: { folder: string; logs: 'none' | 'stream' },
): ClusterRepository {
  const storePath = join(folder, 'repository')
  const configPath = join(folder, 'backstock.yaml')
  const env = {
    ...preparePlace({ source: cluster.data, folder }),
    BACKSTOCK_CACHE_DIR: join(folder, 'cache'),
    BACKSTOCK_WORKERS: '2',
  }
  writeFileSync(configPath, configText(cluster, folder, logs))
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

function configText(cluster: Cluster, folder: string, logs: 'none' | 'stream'): string {
  const url = `postgres://postgres@127.0.0.1:${cluster.port}/postgres`
  return [
    'shop: bench',
    'repository:',
    `  store: 'file://${folder}/repository'`,
    `  identity: '${folder}/identity.age'`,
    `  spool: '${folder}/spool'`,
    'sources:',
    `  ${sourceName}: { kind: postgres, url: '${url}', checkpoint: fast, logs: ${logs} }`,
    '',
  ].join('\n')
}
