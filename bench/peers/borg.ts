/** borg as Debian ships it, keyed BLAKE2 and zstd level 1, with its default chunker and files cache. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { preparePlace, type Peer, type Place, type Repository } from './peer.ts'

/** Finds borg, or fails saying how to get it. */
export function openBorg(): Peer {
  const version = /^borg (\S+)/.exec(spawnSync('borg', ['--version'], { encoding: 'utf8' }).stdout ?? '')?.[1]
  if (version === undefined) throw new Error('Cannot find borg (install it: apt-get install borgbackup)')
  return { name: 'borg', version, prepare }
}

function prepare(place: Place): Repository {
  const storePath = join(place.folder, 'repository')
  const env = {
    ...preparePlace(place),
    BORG_REPO: storePath,
    BORG_BASE_DIR: join(place.folder, 'home'),
    BORG_CACHE_DIR: join(place.folder, 'cache'),
    BORG_PASSPHRASE: randomBytes(24).toString('base64'),
  }
  const command = (...words: string[]) => ({ argv: ['borg', ...words], env, folder: place.folder })
  let archiveCount = 0
  return {
    storePath,
    init: command('init', '--encryption', 'repokey-blake2'),
    backup: () => command('create', '--compression', 'zstd,1', `::backup-${++archiveCount}`, place.source),
    restore: (target) => ({ ...command('extract', `::backup-${archiveCount}`), folder: target }),
    checkAllData: command('check', '--verify-data'),
    confirm: () => undefined,
  }
}
