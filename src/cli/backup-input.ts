/** From the command line of `backup` to the sources it means: the configured ones, a list of paths, a pipe. */
import { SNAPSHOT_LIMITS } from '../format/snapshot.ts'
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { Readable } from 'node:stream'
import { rawPath } from '../base/file-entry.ts'
import { describeError, Failure } from '../base/failure.ts'
import type { Hooks } from '../backup/hooks.ts'
import type { FilesSourceConfig, PostgresSourceConfig } from '../protocol/config.ts'
import { sourceNamePattern } from '../protocol/config.ts'
import { streamSource } from '../sources/files/stream-source.ts'
import type { FilesSettings } from '../sources/files/files.ts'
import { openSource } from '../sources/open.ts'
import type { Source } from '../sources/source.ts'
import type { InputOf } from './commands.ts'
import type { LoadedConfig } from './config-file.ts'
import type { CommandContext } from './context.ts'
import { formatCounted } from './human.ts'
import { ownPlaces } from './open-repository.ts'
import { type OwnPlace, pathsOutside, placesInSource } from './own-places.ts'
import { pickSources } from './pick-sources.ts'
import { detail, note, warn } from './print.ts'

/** A source, and what the configuration wants done with its snapshots. */
export interface BackupInput {
  readonly source: Source
  readonly tags: readonly string[]
  readonly hooks: Hooks | undefined
}

const LIST_BYTES_MAX = 1024 ** 3
/** Of entries that are named one by one: nothing of them is left out or guarded. */
const LIST_SETTINGS: FilesSettings = {
  paths: [],
  exclude: [],
  excludeFiles: [],
  excludeFrom: [],
  excludeIfPresent: [],
  oneFileSystem: false,
  cachedirTag: false,
  mountpoint: false,
  inode: 'use',
  pages: [],
}

/** Fails: usage.invalid, config.invalid, host.file, source.emptied (a list that names nothing). */
export async function backupInputs(
  context: CommandContext,
  input: InputOf<'backup'>,
): Promise<BackupInput[]> {
  const loaded = await context.loadConfig()
  if (input.stdin) return [stdinInput(context, loaded, input)]
  const places = ownPlaces(context, loaded)
  const options = {
    never: places.map(({ path }) => path),
    allowEmpty: input.allowEmpty,
    warn: (text: string) => warn(context.printer, text),
  }
  if (input.filesFrom.length + input.filesFrom0.length > 0) {
    const name = requireFreeName('a list of paths', loaded, input.sources)
    const singles = await listedPaths(context, input, { name, places })
    const settings = { ...LIST_SETTINGS, exclude: input.exclude, options: { ...options, singles } }
    return [inputOf(await openSource(name, { kind: 'files', ...settings }), undefined, input)]
  }
  const inputs: BackupInput[] = []
  for (const { name, source } of pickSources(loaded, input.sources)) {
    if (source.kind === 'postgres') {
      const { postgresSettings } = await import('./postgres-input.ts')
      const settings = await postgresSettings(context, name, source)
      inputs.push(inputOf(await openSource(name, settings), source, input))
      continue
    }
    for (const { what, path } of placesInSource(name, source.paths, places)) {
      const say = what === 'repository' ? note : detail
      say(context.printer, `${name}: leaves out the ${what} "${path}", which lies in it`)
    }
    const settings = { ...source, exclude: [...source.exclude, ...input.exclude], options }
    inputs.push(inputOf(await openSource(name, settings), source, input))
  }
  return inputs
}

/** The paths of the lists without those of the repository and the cache. Fails: host.file, source.emptied. */
async function listedPaths(
  context: CommandContext,
  input: InputOf<'backup'>,
  { name, places }: { readonly name: string; readonly places: readonly OwnPlace[] },
): Promise<string[]> {
  const listed = await readLists(context, input)
  const singles = pathsOutside(listed, places)
  const left = formatCounted(listed.length - singles.length, 'path')
  if (singles.length < listed.length)
    note(context.printer, `${name}: leaves out ${left} that belong to the repository or the cache`)
  if (singles.length > 0 || input.allowEmpty) return singles
  const what = listed.length === 0 ? 'nothing' : 'only what belongs to the repository or the cache'
  const is = `the list names ${what} (it must name a path to back up)`
  throw new Failure('source.emptied', `Cannot back up "${name}": ${is}`, { facts: { source: name } })
}

/**
 * The name under which something is stored that the configuration does not describe. A configured source has
 * another content: beside its snapshots this one would look as if all else had been deleted.
 * Fails: usage.invalid.
 */
function requireFreeName(what: string, loaded: LoadedConfig, names: readonly string[]): string {
  const [name, ...others] = names
  if (name === undefined || others.length > 0) {
    throw new Failure('usage.invalid', `Cannot back up ${what}: it needs one name to be stored under`)
  }
  if (!sourceNamePattern.test(name)) {
    const must = 'it must be 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit'
    throw new Failure('usage.invalid', `Cannot use the source name "${name}": ${must}`)
  }
  if (loaded.config.sources[name] === undefined) return name
  const is = `it is a source of the configuration, whose latest snapshot would then hold nothing else`
  throw new Failure('usage.invalid', `Cannot back up ${what} as "${name}": ${is}`, {
    facts: { source: name, hint: `Give it a name of its own, such as "${name}-extra".` },
  })
}

function stdinInput(context: CommandContext, loaded: LoadedConfig, input: InputOf<'backup'>): BackupInput {
  const name = requireFreeName('standard input', loaded, input.sources)
  const { stdin } = context
  if ('isTTY' in stdin && stdin.isTTY === true) {
    throw new Failure(
      'usage.invalid',
      'Cannot back up standard input: it is the terminal (it must be a pipe)',
    )
  }
  const content = stdin as Readable
  // Reading ends at once when the run is cancelled.
  context.signal.addEventListener('abort', () => content.destroy(), { once: true })
  const source = streamSource(name, {
    path: rawPath(resolve('/', input.stdinFilename)),
    content: endingWith(content, context.signal),
    now: context.clock.now(),
    allowEmpty: input.allowEmpty,
  })
  return inputOf(source, undefined, input)
}

/** The stream; when the run is cancelled its breaking off counts as that. */
async function* endingWith(content: Readable, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    for await (const part of content as AsyncIterable<Uint8Array | string>) {
      yield typeof part === 'string' ? Buffer.from(part) : part
    }
  } catch (cause) {
    if (!signal.aborted) throw cause
    throw new Failure('cancelled', 'Stopped reading standard input', { cause })
  }
}

function inputOf(
  source: Source,
  config: FilesSourceConfig | PostgresSourceConfig | undefined,
  input: InputOf<'backup'>,
): BackupInput {
  const tags = checkTags([...new Set([...(config?.tags ?? []), ...input.tag])])
  return { source, tags, hooks: input.dryRun ? undefined : config?.hooks }
}

/** Fails before anything is read: what a snapshot cannot hold must not be asked for. */
function checkTags(tags: string[]): string[] {
  const bad = tags.find((tag) => !/^[^,\s\p{Cc}]{1,128}$/u.test(tag))
  if (bad !== undefined) {
    const must = 'must be one word of at most 128 characters without commas'
    throw new Failure(
      'usage.invalid',
      `Cannot tag the snapshot ${JSON.stringify(bad.slice(0, 40))}: a tag ${must}`,
    )
  }
  if (tags.length > SNAPSHOT_LIMITS.tags)
    throw new Failure(
      'usage.invalid',
      `Cannot give ${tags.length} tags: a snapshot takes ${SNAPSHOT_LIMITS.tags}`,
    )
  return tags
}

/** Raw absolute paths; relative ones start where the command was started. */
async function readLists(context: CommandContext, input: InputOf<'backup'>): Promise<string[]> {
  const base = rawPath(context.cwd)
  const paths: string[] = []
  const lists = [
    ...input.filesFrom.map((file) => ({ file, end: '\n' })),
    ...input.filesFrom0.map((file) => ({ file, end: '\0' })),
  ]
  for (const { file, end } of lists) {
    const text = (await readList(context, file)).toString('latin1')
    for (const path of text.split(end)) {
      if (path !== '') paths.push(path.startsWith('/') ? path : `${base}/${path}`)
    }
  }
  return paths
}

async function readList(context: CommandContext, file: string): Promise<Buffer> {
  try {
    if (file !== '-') return await readFile(resolve(context.cwd, file), { signal: context.signal })
    const parts: Buffer[] = []
    let bytes = 0
    for await (const part of context.stdin) {
      parts.push(Buffer.from(part))
      bytes += part.length
      if (bytes > LIST_BYTES_MAX) throw new Error(`it has more than ${LIST_BYTES_MAX} bytes`)
    }
    return Buffer.concat(parts)
  } catch (cause) {
    if (context.signal.aborted) throw cause
    const message = `Cannot read the list of paths "${file}": ${describeError(cause)}`
    throw new Failure('host.file', message, { facts: { file }, cause })
  }
}
