/** Making folders with their parents. */
import { mkdirSync, statSync } from 'node:fs'
import { errnoOf } from './failure.ts'
import { pathBytes } from './file-entry.ts'

/**
 * Makes the folder `path` (absolute, raw) and its missing parents; returns whether it was missing. Throws the
 * system's error. Not mkdirSync's `recursive`: that spins for ever where mkdir says ENOENT below a parent
 * that exists (/proc).
 */
export function makeFolders(path: string, mode = 0o700): boolean {
  const missing: string[] = []
  let at = path.replace(/(?<=.)\/+$/, '')
  while (at !== '' && statSync(pathBytes(at), { throwIfNoEntry: false }) === undefined) {
    missing.push(at)
    at = at.slice(0, at.lastIndexOf('/'))
  }
  for (const folder of missing.reverse()) makeFolder(folder, mode)
  if (missing.length === 0 && !statSync(pathBytes(path)).isDirectory())
    throw Object.assign(new Error(`ENOTDIR: not a directory, mkdir '${path}'`), { code: 'ENOTDIR' })
  return missing.length > 0
}

function makeFolder(path: string, mode: number): void {
  try {
    mkdirSync(pathBytes(path), { mode })
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error // another process made it meanwhile
  }
}
