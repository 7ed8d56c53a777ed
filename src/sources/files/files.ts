/**
 * The source of kind `files`: folders and files of this host. Guards against a disk that is not there before
 * it reads, and against a source that has become empty before the backup counts.
 */
import { readFileSync } from 'node:fs'
import { displayName, rawPath, type FileEntry } from '../../base/file-entry.ts'
import { describeError, errnoOf, Failure, isFailure } from '../../base/failure.ts'
import type { Source, SourceBefore, SourceEvent, SourceView } from '../source.ts'
import { compilePatterns, decideExclude } from './patterns.ts'
import type { Pattern } from './patterns.ts'
import { normalPath } from './pins.ts'
import { guardPaths, isEmptied, judgeShrink } from './sentinel.ts'
import { walkFiles } from './walk.ts'
import type { WalkOptions } from './walk.ts'

/** What the configuration says of such a source, as a person wrote it (not raw). */
export interface FilesSettings {
  readonly paths: readonly string[]
  readonly exclude: readonly string[]
  readonly excludeFiles: readonly string[]
  readonly excludeFrom: readonly string[]
  readonly excludeIfPresent: readonly string[]
  readonly excludeLargerThan?: number | undefined
  readonly oneFileSystem: boolean
  readonly cachedirTag: boolean
  readonly mountpoint: boolean
  readonly sentinel?: string | undefined
  readonly inode: 'use' | 'ignore'
  readonly pages: readonly { readonly glob: string; readonly pageSize: number }[]
}

export interface FilesOptions {
  /** Folders not to walk into, such as our own repository. Not raw. */
  readonly never: readonly string[]
  /** Raw absolute paths of single entries that are backed up instead of `paths`: kind `files-list`. */
  readonly singles?: readonly string[] | undefined
  /** Stores a source that has become empty. */
  readonly allowEmpty: boolean
  /** Told what is probably not meant, one sentence each. */
  readonly warn: (text: string) => void
}

/** Page bytes that say: look at the content (SourceView). */
const DETECT = -1
/** Names in passwd(5) and group(5) files; longer lists are no host's. */
const NAMES_MAX = 65_536

interface Counts {
  files: number
  bytes: number
}

interface Reading {
  readonly settings: FilesSettings
  readonly options: FilesOptions
  readonly roots: readonly string[]
  readonly before: SourceBefore | undefined
  readonly counts: Counts
  /** By root, with what is in roots below it. */
  readonly rootCounts: Map<string, Counts>
  readonly uids: Set<number>
  readonly gids: Set<number>
}

export function filesSource(name: string, settings: FilesSettings, options: FilesOptions): Source {
  return {
    name,
    kind: options.singles === undefined ? 'files' : 'files-list',
    increments: true,
    begin: (before) => Promise.resolve().then(() => beginFiles(name, settings, options, before)),
  }
}

function beginFiles(
  name: string,
  settings: FilesSettings,
  options: FilesOptions,
  before: SourceBefore | undefined,
): SourceView {
  const roots = options.singles === undefined ? settings.paths.map((path) => normalPath(rawPath(path))) : []
  guardRoots(roots, settings, options.warn)
  const counts = { files: 0, bytes: 0 }
  const rootCounts = new Map(roots.map((root) => [root, { files: 0, bytes: 0 }]))
  const [uids, gids] = [new Set<number>(), new Set<number>()]
  const reading: Reading = { settings, options, roots, before, counts, rootCounts, uids, gids }
  const pages = settings.pages.map(({ glob, pageSize }) => ({
    patterns: compilePatterns([rawPath(glob)], 'root'),
    pageSize,
  }))
  return {
    roots: options.singles ?? roots,
    excludes: settings.exclude.map(rawPath),
    entries: () => readEntries(name, reading),
    pageBytesOf: (path) => pages.find(({ patterns }) => isNamed(patterns, roots, path))?.pageSize ?? DETECT,
    ignoreInode: settings.inode === 'ignore',
    owners: () => ({
      users: namesById('/etc/passwd', reading.uids),
      groups: namesById('/etc/group', reading.gids),
    }),
    logRange: () => undefined,
    rootCounts: () => Object.fromEntries(rootCounts),
    end: () => Promise.resolve([]),
  }
}

/** Fails: source.missing. */
function guardRoots(roots: readonly string[], settings: FilesSettings, warn: (text: string) => void): void {
  const { mountpoint, sentinel } = settings
  for (const path of roots) {
    try {
      const guard = { path, mountpoint, ...(sentinel === undefined ? {} : { sentinel: rawPath(sentinel) }) }
      for (const text of guardPaths([guard])) warn(text)
    } catch (error) {
      if (isFailure(error) || errnoOf(error) === undefined) throw error
      const message = `Cannot back up "${displayName(path)}": ${describeError(error)}`
      throw new Failure('source.missing', message, { facts: { path: displayName(path) }, cause: error })
    }
  }
}

/** The walk; at its end, before anything is promised, the source is judged. Fails: source.emptied. */
function* readEntries(name: string, reading: Reading): Generator<SourceEvent, void, undefined> {
  const { rootCounts, options } = reading
  const within: { path: string; counts: Counts }[] = []
  for (const event of walkFiles(walkOptions(reading))) {
    if (event.kind === 'enter' || event.kind === 'entry') {
      const counts = rootCounts.get(event.path)
      if (counts !== undefined) within.push({ path: event.path, counts })
      count(reading, event.entry, within)
    }
    if (event.kind !== 'enter' && event.kind !== 'problem' && within.at(-1)?.path === event.path) within.pop()
    yield event
  }
  if (options.singles === undefined) judgeCounts(name, reading)
}

function count(reading: Reading, entry: FileEntry, within: readonly { counts: Counts }[]): void {
  reading.uids.add(entry.uid)
  reading.gids.add(entry.gid)
  if (entry.type !== 'file') return
  reading.counts.files++
  reading.counts.bytes += entry.size
  for (const { counts } of within) {
    counts.files++
    counts.bytes += entry.size
  }
}

/** All of it, then each path: one disk that is gone must not hide behind another. Fails: source.emptied. */
function judgeCounts(name: string, { before, counts, rootCounts, options }: Reading): void {
  const verdict = judgeShrink(name, { previous: before, current: counts }, options)
  if (verdict.kind === 'warning') options.warn(verdict.what)
  for (const [root, current] of rootCounts) {
    if (!isEmptied(before?.roots[root], current)) continue
    const of = `${name}: ${displayName(root)}`
    const emptied = judgeShrink(of, { previous: before?.roots[root], current }, options)
    if (emptied.kind === 'warning' && rootCounts.size > 1) options.warn(emptied.what)
  }
}

function walkOptions({ settings, options, roots }: Reading): WalkOptions {
  const { excludeLargerThan } = settings
  return {
    paths: roots,
    singles: options.singles ?? [],
    exclude: settings.exclude.map(rawPath),
    excludeFrom: settings.excludeFrom.map(rawPath),
    excludeFiles: settings.excludeFiles.map(rawPath),
    excludeIfPresent: settings.excludeIfPresent.map(rawPath),
    ...(excludeLargerThan === undefined ? {} : { excludeLargerThan }),
    oneFileSystem: settings.oneFileSystem,
    cachedirTag: settings.cachedirTag,
    never: options.never.map(rawPath),
  }
}

/** Whether a pattern names the file, taken relative to the root that it is below. */
function isNamed(patterns: readonly Pattern[], roots: readonly string[], path: string): boolean {
  const root = roots.find((one) => one === '/' || path.startsWith(`${one}/`)) ?? '/'
  const subject = {
    name: path.slice(path.lastIndexOf('/') + 1),
    path: path.slice(root === '/' ? 1 : root.length + 1),
    absolute: path.slice(1),
    isFolder: false,
  }
  return decideExclude(patterns, subject) === true
}

/** Names of the given numbers in a file such as /etc/passwd; what is not there has none. */
function namesById(file: string, ids: ReadonlySet<number>): Record<string, string> {
  const names: Record<string, string> = {}
  let text = ''
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    // A system without such a file: numbers are all there is.
    if (errnoOf(error) === undefined) throw error
  }
  for (const line of text.split('\n', NAMES_MAX)) {
    const [name = '', , id = ''] = line.split(':')
    if (name !== '' && name.length <= 256 && ids.has(Number(id)) && /^\d{1,10}$/.test(id)) names[id] ??= name
  }
  return names
}
