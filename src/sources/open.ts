/** The one list of source kinds: from what the configuration says of a source to the source. */
import { filesSource } from './files/files.ts'
import type { FilesOptions, FilesSettings } from './files/files.ts'
import type { Source } from './source.ts'

/** What the configuration says of a source of each kind that this version knows. */
export type SourceSettings = { readonly kind: 'files' } & FilesSettings

/** Opens nothing yet: Source.begin() does. */
export function openSource(name: string, settings: SourceSettings, options: FilesOptions): Source {
  return SOURCES[settings.kind](name, settings, options)
}

const SOURCES = { files: filesSource } as const
