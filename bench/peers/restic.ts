/**
 * restic as Debian ships it, with its own defaults: compression auto, two connections for a local
 * repository.
 */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { preparePlace, type Peer, type Place, type Repository } from './peer.ts'

/** Finds restic, or fails saying how to get it. */
export function openRestic(): Peer {
  const version = /^restic (\S+)/.exec(
    spawnSync('restic', ['version'], { encoding: 'utf8' }).stdout ?? '',
  )?.[1]
  if (version === undefined) throw new Error('Cannot find restic (install it: apt-get install restic)')
  return { name: 'restic', version, prepare }
}

function prepare(place: Place): Repository {
  const storePath = join(place.folder, 'repository')
  const passwordFile = join(place.folder, 'password')
  const env = {
    ...preparePlace(place),
    RESTIC_REPOSITORY: storePath,
    RESTIC_PASSWORD_FILE: passwordFile,
  }
  writeFileSync(passwordFile, randomBytes(24).toString('base64'), { mode: 0o600 })
  const command = (...words: string[]) => ({
    argv: ['restic', '--quiet', ...words],
    env,
    folder: place.folder,
  })
  return {
    storePath,
    init: command('init'),
    backup: () => command('backup', place.source),
    restore: (target) => command('restore', 'latest', '--target', target),
    checkAllData: command('check', '--read-data'),
    confirm: () => undefined,
  }
}
