/** The one list of source kinds: from what the configuration says of a source to the source. */
import { filesSource } from './files/files.ts'
import type { FilesOptions, FilesSettings } from './files/files.ts'
import { postgresSource, type PostgresSettings } from './postgres/postgres.ts'
import type { Source } from './source.ts'

/** What the configuration says of a source of each kind that this version knows, and what that needs. */
export type SourceSettings =
  | ({ readonly kind: 'files'; readonly options: FilesOptions } & FilesSettings)
  | ({ readonly kind: 'postgres' } & PostgresSettings)

/** Opens nothing yet: Source.begin() does. */
export function openSource(name: string, settings: SourceSettings): Source {
  return settings.kind === 'files'
    ? filesSource(name, settings, settings.options)
    : postgresSource(name, settings)
}
