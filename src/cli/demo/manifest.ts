/**
 * What a folder holds, to the last byte: for the demo's proof. Made with nothing but node:fs and SHA-256, so
 * that it cannot share a mistake with what it judges.
 */
import { createHash } from 'node:crypto'
import {
  type BigIntStats,
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'

export interface ManifestEntry {
  readonly type: 'file' | 'folder' | 'link' | 'other'
  readonly mode: bigint
  /** Nanoseconds. */
  readonly mtime: bigint
  readonly size: bigint
  /** Of a file's content, hex; of a symbolic link, its target. */
  readonly content: string
  /** The first name of a file that has several. */
  readonly firstName: string
}

/** Entries by path below the folder. */
export type Manifest = ReadonlyMap<string, ManifestEntry>

const READ_BYTES = 1024 ** 2

export async function takeManifest(folder: string, signal: AbortSignal): Promise<Manifest> {
  const entries = new Map<string, ManifestEntry>()
  const firstNames = new Map<bigint, string>()
  const buffer = Buffer.allocUnsafe(READ_BYTES)
  const waiting = ['']
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const place = join(folder, path)
    const stats = lstatSync(place, { bigint: true })
    const type = typeOf(stats)
    if (type === 'folder') {
      const names = readdirSync(place).sort()
      for (const name of names.reverse()) waiting.push(join(path, name))
      // Between two folders a cancelling is noticed.
      await setImmediate()
      signal.throwIfAborted()
    }
    const firstName = firstNames.get(stats.ino) ?? path
    if (type === 'file' && stats.nlink > 1n) firstNames.set(stats.ino, firstName)
    const content = type === 'file' ? hashFile(place, buffer) : type === 'link' ? readlinkSync(place) : ''
    const { mode, mtimeNs: mtime } = stats
    entries.set(path, { type, mode, mtime, size: type === 'file' ? stats.size : 0n, content, firstName })
  }
  return entries
}

function typeOf(stats: BigIntStats): ManifestEntry['type'] {
  if (stats.isFile()) return 'file'
  if (stats.isDirectory()) return 'folder'
  return stats.isSymbolicLink() ? 'link' : 'other'
}

function hashFile(path: string, buffer: Buffer): string {
  const hash = createHash('sha256')
  const file = openSync(path, 'r')
  try {
    for (;;) {
      const bytes = readSync(file, buffer, 0, buffer.length, null)
      if (bytes === 0) return hash.digest('hex')
      hash.update(buffer.subarray(0, bytes))
    }
  } finally {
    closeSync(file)
  }
}

/**
 * One sentence for each path that is not as it was; none: equal. `extras` says whether there may be paths
 * that were not there then.
 */
export function compareManifests(then: Manifest, now: Manifest, extras: 'refused' | 'allowed'): string[] {
  const differences: string[] = []
  for (const [path, was] of then) {
    const is = now.get(path)
    if (is === undefined) differences.push(`"${path}" is missing`)
    else {
      const keys = Object.keys(was) as (keyof ManifestEntry)[]
      const changed = keys.filter((key) => was[key] !== is[key])
      if (changed.length > 0) differences.push(`"${path}" differs in ${changed.join(' and ')}`)
    }
  }
  if (extras === 'allowed') return differences
  for (const path of now.keys()) if (!then.has(path)) differences.push(`"${path}" was not there`)
  return differences
}

/** Files and their bytes; a file with two names counts twice, as every listing shows it. */
export function countFiles(manifest: Manifest): { files: number; bytes: number } {
  let [files, bytes] = [0, 0n]
  for (const entry of manifest.values()) {
    if (entry.type !== 'file') continue
    files++
    bytes += entry.size
  }
  return { files, bytes: Number(bytes) }
}
