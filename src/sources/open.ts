/**
 * The one list of source kinds: from what the configuration says of a source to the source. What a kind needs
 * is loaded when there is one: the library that talks to databases costs 10 MB.
 */
import type { FilesOptions, FilesSettings } from './files/files.ts'
import type { LogicalSettings } from './postgres/logical.ts'
import type { PostgresSettings } from './postgres/postgres.ts'
import type { Source } from './source.ts'

/** What the configuration says of a source of each kind that this version knows, and what that needs. */
export type SourceSettings =
  | ({ readonly kind: 'files'; readonly options: FilesOptions } & FilesSettings)
  | ({ readonly kind: 'postgres' } & PostgresSettings)
  | ({ readonly kind: 'postgres-logical' } & LogicalSettings)

/** Opens nothing yet: Source.begin() does. */
export async function openSource(name: string, settings: SourceSettings): Promise<Source> {
  if (settings.kind === 'files') {
    const { filesSource } = await import('./files/files.ts')
    return filesSource(name, settings, settings.options)
  }
  if (settings.kind === 'postgres-logical') {
    const { logicalSource } = await import('./postgres/logical.ts')
    return logicalSource(name, settings)
  }
  const { postgresSource } = await import('./postgres/postgres.ts')
  return postgresSource(name, settings)
}
