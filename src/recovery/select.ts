/**
 * Which entries of a snapshot a restore takes: globs over absolute paths. A selected folder takes all below
 * it, an excluded one leaves all below it out. A glob without a leading `/` matches at any depth.
 */
import { matchesGlob } from 'node:path'
import { rawPath } from '../base/file-entry.ts'

export interface Selection {
  readonly paths: readonly string[]
  readonly exclude: readonly string[]
}

export function newSelection(paths: readonly string[], exclude: readonly string[]): Selection {
  return { paths: paths.map(absoluteGlob), exclude: exclude.map(absoluteGlob) }
}

function absoluteGlob(glob: string): string {
  const raw = rawPath(glob).replace(/(?<=.)\/+$/, '')
  return raw.startsWith('/') ? raw : `/**/${raw}`
}

/** Whether the entry at `path` (absolute, raw) belongs to the restore; `inSelected`: a folder above it does. */
export function isSelected(selection: Selection, path: string, inSelected: boolean): boolean {
  return inSelected || selection.paths.length === 0 || selection.paths.some((glob) => matches(path, glob))
}

export function isExcluded(selection: Selection, path: string): boolean {
  return selection.exclude.some((glob) => matches(path, glob))
}

/** Whether something below the folder `path` could be selected by a glob. */
export function mayHoldSelected(selection: Selection, path: string): boolean {
  return selection.paths.some((glob) => {
    const parts = glob.split('/')
    const names = path.split('/')
    for (let i = 0; i < names.length; i++) {
      const part = parts[i]
      if (part === undefined) return false
      if (part === '**') return true
      if (!matchesGlob(names[i]!, part) && names[i] !== part) return false
    }
    return true
  })
}

/** A path is matched as it is too, so that names with `[` or `*` can be given plainly. */
function matches(path: string, glob: string): boolean {
  return path === glob || matchesGlob(path, glob)
}
