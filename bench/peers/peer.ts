/**
 * What the bench asks of a backup tool: for a source and a place, the commands that an operator would type.
 * Commands are values; they are run and measured elsewhere. One more peer is one more file of this shape.
 */
import { mkdirSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from '../measure.ts'

export type PeerName = 'backstock' | 'restic' | 'borg'

export interface Peer {
  name: PeerName
  version: string
  /** Prepares a repository that does not exist yet; its `init` is the first command to run. */
  prepare(place: Place): Repository
}

/**
 * A source folder, and a folder that the peer has for itself: repository, cache, home and temporary files.
 */
export interface Place {
  source: string
  folder: string
}

export interface Repository {
  /** Where the stored bytes lie: all of it counts as the repository's size. */
  storePath: string
  init: Command
  backup(kind: 'full' | 'incremental'): Command
  /** Restores the latest backup; the source lies under its own absolute path below `target`. */
  restore(target: string): Command
  checkAllData: Command
  /** Fails if what a backup printed does not say that it is complete. */
  confirm(stdout: string): void
}

/**
 * Makes the peer's folders and gives the environment of its commands: nothing of this machine's user is in
 * it.
 */
export function preparePlace(place: Place): Record<string, string> {
  for (const name of ['home', 'tmp', 'cache']) mkdirSync(join(place.folder, name), { recursive: true })
  return {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    LANG: 'C.UTF-8',
    HOME: join(place.folder, 'home'),
    TMPDIR: join(place.folder, 'tmp'),
    XDG_CACHE_HOME: join(place.folder, 'cache'),
  }
}

/** Sum of the sizes of all files below a folder, each once: a link to a folder in it leads to them again. */
export function folderBytes(path: string): number {
  const sizes = new Map<number, number>()
  for (const entry of readdirSync(path, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const { ino, size } = statSync(join(entry.parentPath, entry.name))
    sizes.set(ino, size)
  }
  return [...sizes.values()].reduce((sum, size) => sum + size, 0)
}
