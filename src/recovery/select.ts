/**
 * Which entries of a snapshot a restore takes: globs over absolute paths, byte by byte as in excludes
 * (sources/files/patterns.ts). A selected folder takes all below it, an excluded one leaves all below it out.
 * A glob without a leading `/` matches at any depth.
 */
import { rawPath } from '../base/file-entry.ts'
import { compilePatterns } from '../sources/files/patterns.ts'

export interface Selection {
  /** None: everything. */
  readonly paths: readonly PathGlob[]
  readonly exclude: readonly PathGlob[]
}

export interface PathGlob {
  /** As it was given. */
  readonly text: string
  /** The path that it names when it is taken plainly, so that `[` and `*` in names need no escapes. */
  readonly plain: string
  readonly matches: (path: string) => boolean
  /** A matcher for each name of the path, `any` from the first `**` on. */
  readonly names: readonly (((name: string) => boolean) | 'any')[]
  /** Whether isSelected() has seen a path that it matches. */
  isMatched: boolean
}

export function newSelection(paths: readonly string[], exclude: readonly string[]): Selection {
  return { paths: paths.map(compilePath), exclude: exclude.map(compilePath) }
}

/**
 * Whether the entry at `path` (absolute, raw) belongs to the restore; `inSelected`: a folder above it does.
 * Notes which globs match.
 */
export function isSelected(selection: Selection, path: string, inSelected: boolean): boolean {
  let selected = inSelected || selection.paths.length === 0
  for (const glob of selection.paths) {
    if ((selected && glob.isMatched) || !matchesPath(glob, path)) continue
    glob.isMatched = true
    selected = true
  }
  return selected
}

export function isExcluded(selection: Selection, path: string): boolean {
  return selection.exclude.some((glob) => matchesPath(glob, path))
}

/** Whether something below the folder `path` could be selected by a glob. */
export function mayHoldSelected(selection: Selection, path: string): boolean {
  const names = path.slice(1).split('/')
  return selection.paths.some((glob) => glob.plain.startsWith(`${path}/`) || leadsTo(glob, names))
}

function leadsTo(glob: PathGlob, names: readonly string[]): boolean {
  for (const [at, name] of names.entries()) {
    const matcher = glob.names[at]
    if (matcher === 'any') return true
    if (matcher?.(name) !== true) return false
  }
  return true
}

function matchesPath(glob: PathGlob, path: string): boolean {
  return path === glob.plain || glob.matches(path)
}

function compilePath(text: string): PathGlob {
  const raw = rawPath(text).replace(/(?<=.)\/+$/, '')
  if (raw === '/') return { text, plain: raw, matches: () => true, names: ['any'], isMatched: false }
  const absolute = raw.startsWith('/') ? raw : `/**/${raw}`
  const glob = absolute.replace(SHOWN_BYTE, (_, hex: string) => `\\${byteOf(hex)}`)
  const matches = compileMatcher(glob)
  const names = glob
    .slice(1)
    .split('/')
    .map((name) => (name === '**' ? 'any' : compileMatcher(`/${name}`)))
  return {
    text,
    plain: absolute.replace(SHOWN_BYTE, (_, hex: string) => byteOf(hex)),
    matches: (path) => matches(path.slice(1)),
    names,
    isMatched: false,
  }
}

/** A byte as displayName() shows it when it is no text, so that what `ls` prints can be given back. */
const SHOWN_BYTE = /\\x([01][0-9a-f]|7f|[89a-f][0-9a-f])/g

function byteOf(hex: string): string {
  return String.fromCharCode(Number.parseInt(hex, 16))
}

/** `glob` begins with `/`; the subject does not. A malformed glob matches nothing, as git has it. */
function compileMatcher(glob: string): (subject: string) => boolean {
  // Trailing spaces belong to a name that somebody typed; only in pattern files are they noise.
  const [pattern] = compilePatterns([glob.replace(/ +$/, (spaces) => '\\ '.repeat(spaces.length))], 'root')
  return pattern?.matches ?? (() => false)
}
