/** Which sources of the configuration a command works on, and what may be asked of them. */
import { Failure } from '../base/failure.ts'
import type { FilesSourceConfig, PostgresSourceConfig } from '../protocol/config.ts'
import { nearest } from '../protocol/nearest.ts'
import { type InputOf, optionFlag } from './commands.ts'
import type { LoadedConfig } from './config-file.ts'

const AVAILABLE = 'must be files or postgres'
/** Names of sources that one message lists. */
const SOURCES_SHOWN_MAX = 20

/** A source that this version can back up and restore. */
export interface PickedSource {
  readonly name: string
  readonly source: FilesSourceConfig | PostgresSourceConfig
}

/**
 * The named sources, or all when none is named, in the order of the file, each once.
 * Fails: usage.invalid (no such source), config.invalid (its kind is not available in this version).
 */
export function pickSources(loaded: LoadedConfig, names: readonly string[]): PickedSource[] {
  for (const name of names) requireSourceName(loaded, name)
  const wanted = new Set(names.length === 0 ? Object.keys(loaded.config.sources) : names)
  return Object.entries(loaded.config.sources)
    .filter(([name]) => wanted.has(name))
    .map(([name, source]) => {
      if (isAvailable(source)) return { name, source }
      throw new Failure(
        'config.invalid',
        `Cannot use the source "${name}": kind ${source.kind} is not available yet (${AVAILABLE})`,
        {
          facts: {
            source: name,
            kind: source.kind,
            hint: 'Name the sources to work on, or use a newer Backstock.',
          },
        },
      )
    })
}

/** Whether this version can work on sources of this kind. */
export function isAvailable(source: { readonly kind: string }): source is PickedSource['source'] {
  return source.kind === 'files' || source.kind === 'postgres'
}

/** Refuses a name that the configuration does not have. Fails: usage.invalid. */
function requireSourceName(loaded: LoadedConfig, name: string): void {
  const known = Object.keys(loaded.config.sources)
  if (!known.includes(name)) throw unknownSource(name, `${loaded.file} has none of this name`, known)
}

/**
 * Refuses a source, as it was typed, that is neither configured nor among the `stored` labels.
 * Fails: usage.invalid.
 */
export function requireKnownSource(loaded: LoadedConfig, typed: string, stored: readonly string[]): void {
  const known = [...new Set([...Object.keys(loaded.config.sources), ...stored])]
  if (known.includes(typed)) return
  throw unknownSource(typed, `neither ${loaded.file} nor the repository has it`, known)
}

function unknownSource(name: string, is: string, known: readonly string[]): Failure {
  const meant = nearest(name, known)
  const shown = known.slice(0, SOURCES_SHOWN_MAX)
  const more = known.length > shown.length ? ', …' : ''
  const guess = meant === undefined ? '' : `; did you mean "${meant}"?`
  const message = `Cannot find the source "${name}": ${is} (known: ${shown.join(', ')}${more}${guess})`
  return new Failure('usage.invalid', message, {
    facts: { source: name, hint: 'Name one of those; `backstock snapshots` lists what is stored.' },
  })
}

const databaseOptions = [
  'lsn',
  'before',
  'beforeXid',
  'name',
  'immediate',
  'exclusive',
  'timeline',
  'tablespaceMap',
  'keepSettings',
] as const satisfies readonly (keyof InputOf<'restore'>)[]

/** Refuses options of `restore` that name a place in a database's log. Fails: usage.invalid. */
export function refuseDatabaseOptions(name: string, input: InputOf<'restore'>): void {
  for (const key of databaseOptions) {
    const value = input[key]
    const given = Array.isArray(value) ? value.length > 0 : value !== undefined && value !== false
    if (!given) continue
    const is = `"${name}" holds files, and files have no log (${optionFlag(key)} is for databases)`
    throw new Failure('usage.invalid', `Cannot use ${optionFlag(key)}: ${is}`, {
      facts: { source: name, hint: 'Choose a moment with --at TIME or a snapshot with --snapshot ID.' },
    })
  }
}
