/**
 * Keeps the repository and the cache out of what is backed up. A repository inside a source is left out and
 * named (the walk does the leaving out); a source inside the repository would store each backup in the next
 * one, and is refused.
 */
import { realpathSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { rawPath } from '../base/file-entry.ts'
import { errnoOf, Failure } from '../base/failure.ts'
import { normalPath } from '../sources/files/pins.ts'

/** A folder of ours. */
export interface OwnPlace {
  readonly what: 'repository' | 'cache'
  /** Absolute. */
  readonly path: string
}

/**
 * Those of `places` that lie in one of the source's paths. Fails: config.invalid (a path lies in one of
 * them).
 */
export function placesInSource(
  source: string,
  paths: readonly string[],
  places: readonly OwnPlace[],
): OwnPlace[] {
  const real = paths.map((path) => ({ path, at: realPlace(path) }))
  return places.filter((place) => {
    const at = realPlace(place.path)
    for (const one of real) if (isWithin(one.at, at)) throw insidePlace(source, one.path, place)
    return real.some((one) => isWithin(at, one.at))
  })
}

function insidePlace(source: string, path: string, place: OwnPlace): Failure {
  const is = `its path "${path}" lies in the ${place.what} "${place.path}" (it must lie outside)`
  const key = place.what === 'repository' ? 'store' : 'cache'
  return new Failure('config.invalid', `Cannot back up "${source}": ${is}`, {
    facts: { source, path, hint: `Name another path in paths, or another folder as repository.${key}.` },
  })
}

/**
 * Raw absolute paths without those that are, or lie in, one of `places`, by either name of the place. Where a
 * path with `..` leads only the walk finds out; it goes into none of these places and says so.
 * Fails: usage.invalid (a path that is not absolute).
 */
export function pathsOutside(paths: readonly string[], places: readonly OwnPlace[]): string[] {
  const folders = places.flatMap(({ path }) => [resolve(path), realPlace(path)].map(rawPath))
  const isOurs = (path: string): boolean => folders.some((folder) => isWithin(normalPath(path), folder))
  return paths.filter((path) => path.split('/').includes('..') || !isOurs(path))
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder === '/' ? '/' : `${folder}/`)
}

/** The path without symlinks, as far as it is there. */
function realPlace(path: string): string {
  try {
    return realpathSync(path)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    const parent = dirname(resolve(path))
    return parent === resolve(path) ? parent : join(realPlace(parent), basename(path))
  }
}
