/**
 * Walks the file system depth-first and yields every entry that is to be backed up, names of a folder in
 * ascending order of bytes. Synchronous and lazy: it holds the names of the folders it is in and nothing
 * else.
 *
 * The walk begins at `/`: the folders above a named path come with their real metadata and without the rest
 * of what is in them. A file that goes away while we look was not there; what cannot be read is a problem
 * event.
 */
import { closeSync, readSync, statSync } from 'node:fs'
import { pathBytes } from '../../base/file-entry.ts'
import type { FileEntry } from '../../base/file-entry.ts'
import { errnoOf } from '../../base/failure.ts'
import { listFolder, nameList, takeName } from './names.ts'
import type { NameList } from './names.ts'
import { compilePatterns, decideExclude, patternLines } from './patterns.ts'
import type { Pattern } from './patterns.ts'
import { parsePathList, planPins, readNamedFile } from './pins.ts'
import type { Pin } from './pins.ts'
import { problemOf } from './problem.ts'
import type { FileProblem } from './problem.ts'
import { openSourceFile } from './read.ts'
import { readEntry } from './stat.ts'

/** Everything here is raw (latin1): rawPath() makes it of what a person wrote. */
export interface WalkOptions {
  /** Absolute paths of folders (with all below them), files or symlinks. */
  readonly paths: readonly string[]
  /** Patterns (patterns.ts). A named path itself is never excluded. */
  readonly exclude?: readonly string[]
  /** Files that hold such patterns, one a line, taken after `exclude`. */
  readonly excludeFrom?: readonly string[]
  /** Names of files such as `.backstockignore` that hold patterns for the folder they are in. */
  readonly excludeFiles?: readonly string[]
  /** A folder that holds one of these names is stored with that entry alone. */
  readonly excludeIfPresent?: readonly string[]
  /** The same for a folder with a valid CACHEDIR.TAG (https://bford.info/cachedir/). */
  readonly cachedirTag?: boolean
  /** Larger regular files are left out. */
  readonly excludeLargerThan?: number
  /** Mount points below a named path are stored as empty folders. */
  readonly oneFileSystem?: boolean
  /** Files that list paths, by newline or NUL: just these entries, not what is below them. */
  readonly filesFrom?: readonly string[]
  /** Absolute paths of such single entries. */
  readonly singles?: readonly string[]
  /** Folders that are stored as empty ones, such as our own repository and cache. */
  readonly never?: readonly string[]
}

/** `path` is absolute and raw; `entry.xattrs` is empty (readXattrs() where it is needed). */
export type WalkEvent =
  | { readonly kind: 'enter'; readonly path: string; readonly entry: FileEntry }
  | { readonly kind: 'entry'; readonly path: string; readonly entry: FileEntry }
  | { readonly kind: 'leave'; readonly path: string }
  | ({ readonly kind: 'problem' } & FileProblem)

/** Patterns of an ignore file; `outer` speaks where it is silent. */
interface FolderRules {
  readonly patterns: readonly Pattern[]
  /** Where a subject's path relative to the folder begins in the absolute path. */
  readonly cut: number
  readonly outer: FolderRules | undefined
}

interface Frame {
  readonly path: string
  readonly names: NameList
  readonly pin: Pin | undefined
  /** Whether what is in it belongs to the backup, or only what is pinned. */
  readonly isTree: boolean
  readonly dev: number
  /** Where a subject's path relative to the named path begins in the absolute path. */
  readonly cut: number
  readonly rules: FolderRules | undefined
}

interface Walk {
  readonly options: WalkOptions
  readonly patterns: readonly Pattern[]
  /** Names that are looked out for while a folder is read. */
  readonly watched: ReadonlySet<string>
  /** `dev:inode` of folders never to walk into. */
  readonly never: ReadonlySet<string>
  readonly frames: Frame[]
  /** Problems to be yielded after the event at hand. */
  readonly problems: FileProblem[]
}

const CACHEDIR_TAG = 'CACHEDIR.TAG'
/** An ignore file is read up to here. */
const RULES_BYTES_MAX = 1 << 20
const CACHEDIR_SIGNATURE = 'Signature: 8a477f597d28d172789f06886806bc55'

/** Yields what is to be backed up. Fails: usage.invalid, host.file (a list that cannot be read). */
export function* walkFiles(options: WalkOptions): Generator<WalkEvent, void, undefined> {
  const listed = (options.filesFrom ?? []).flatMap((path) =>
    parsePathList(readNamedFile(path, 'list of files')),
  )
  const plan = planPins(options.paths, [...(options.singles ?? []), ...listed])
  const walk = beginWalk(options, plan.problems)
  const root = readEntry('/', '')
  if (root === undefined) return
  yield enterFolder(walk, undefined, { path: '/', entry: root, pin: plan.root })
  for (;;) {
    while (walk.problems.length > 0) {
      const problem = walk.problems.shift()
      if (problem !== undefined) yield { kind: 'problem', ...problem }
    }
    const frame = walk.frames.at(-1)
    if (frame === undefined) return
    const name = takeName(frame.names)
    if (name === undefined) {
      walk.frames.pop()
      yield { kind: 'leave', path: frame.path }
      continue
    }
    const event = visit(walk, frame, name)
    if (event !== undefined) yield event
  }
}

function beginWalk(options: WalkOptions, problems: FileProblem[]): Walk {
  const lists = (options.excludeFrom ?? []).flatMap((path) =>
    patternLines(readNamedFile(path, 'list of patterns')),
  )
  const tags = options.cachedirTag === true ? [CACHEDIR_TAG] : []
  const never = new Set<string>()
  for (const path of options.never ?? []) {
    const stats = statSync(pathBytes(path), { bigint: true, throwIfNoEntry: false })
    if (stats !== undefined) never.add(`${stats.dev}:${stats.ino}`)
  }
  return {
    options,
    patterns: compilePatterns([...(options.exclude ?? []), ...lists], 'root'),
    watched: new Set([...tags, ...(options.excludeIfPresent ?? []), ...(options.excludeFiles ?? [])]),
    never,
    frames: [],
    problems,
  }
}

/** One name of a folder: its event, if it belongs to the backup. */
function visit(walk: Walk, frame: Frame, name: string): WalkEvent | undefined {
  const path = frame.path === '/' ? `/${name}` : `${frame.path}/${name}`
  const pin = frame.pin?.children.get(name)
  let entry: FileEntry | undefined
  try {
    entry = readEntry(path, name)
  } catch (error) {
    walk.problems.push(problemOf(path, 'cannot look at the file', error))
    return undefined
  }
  if (entry === undefined) {
    // Named by a person, it must be there; found by ourselves, it has gone since.
    if (pin !== undefined) walk.problems.push({ path, code: 'ENOENT', what: 'the path is not there' })
    return undefined
  }
  const isPinnedTree = pin?.kind === 'tree'
  const isTree = isPinnedTree || (frame.isTree && !isExcluded(walk, frame, path, entry))
  if (!isTree && pin === undefined) return undefined
  if (entry.type === 'directory') return enterFolder(walk, frame, { path, entry, pin, isTree })
  if (pin !== undefined && pin.children.size > 0) {
    walk.problems.push({ path, code: 'ENOTDIR', what: 'the path leads through something that is no folder' })
    if (pin.kind === 'way' && !isTree) return undefined
  }
  return { kind: 'entry', path, entry }
}

function enterFolder(
  walk: Walk,
  parent: Frame | undefined,
  at: { path: string; entry: FileEntry; pin: Pin | undefined; isTree?: boolean },
): WalkEvent {
  const { path, entry, pin } = at
  const isPinnedTree = pin?.kind === 'tree'
  const isMount = parent !== undefined && entry.dev !== parent.dev
  const isForeign = walk.options.oneFileSystem === true && isMount && !isPinnedTree
  const isOurs = walk.never.size > 0 && walk.never.has(`${entry.dev}:${entry.inode}`)
  const isTree = (isPinnedTree || at.isTree === true) && !isForeign && !isOurs
  const cut = isPinnedTree || parent === undefined ? (path === '/' ? 1 : path.length + 1) : parent.cut
  const pinned = pin === undefined || isOurs ? [] : pin.children.keys()
  if (isOurs && pin !== undefined) reportDropped(walk, path, pin)
  const frame = { path, pin: isOurs ? undefined : pin, isTree, dev: entry.dev, cut, rules: parent?.rules }
  if (isTree) walk.frames.push(listTree(walk, frame, pinned))
  else walk.frames.push({ ...frame, names: nameList(pinned) })
  return { kind: 'enter', path, entry }
}

/** A problem for each named place below a folder that is never walked into. */
function reportDropped(walk: Walk, path: string, pin: Pin): void {
  for (const [name, child] of pin.children) {
    const place = `${path}/${name}`
    const what = 'the path lies in a folder that is never backed up (the repository or the cache)'
    if (child.kind !== 'way') walk.problems.push({ path: place, code: 'ENEVER', what })
    reportDropped(walk, place, child)
  }
}

/** Reads a folder's names and what in them steers the walk. */
function listTree(walk: Walk, frame: Omit<Frame, 'names'>, pinned: Iterable<string>): Frame {
  const found = new Set<string>()
  try {
    const names = listFolder(frame.path, walk.watched, found)
    if (found.size === 0) return { ...frame, names }
    const tags = tagsOf(walk, frame.path, found)
    if (tags.length > 0) return { ...frame, isTree: true, names: nameList(new Set([...tags, ...pinned])) }
    return { ...frame, names, rules: folderRules(walk, frame, found) }
  } catch (error) {
    // Gone since we looked at it: an empty folder is what is left to say of it.
    if (errnoOf(error) !== 'ENOENT')
      walk.problems.push(problemOf(frame.path, 'cannot read the folder', error))
    return { ...frame, names: nameList(pinned) }
  }
}

/** The names because of which the rest of a folder is left out. */
function tagsOf(walk: Walk, path: string, found: ReadonlySet<string>): string[] {
  const tags = (walk.options.excludeIfPresent ?? []).filter((name) => found.has(name))
  const isCache =
    walk.options.cachedirTag === true && found.has(CACHEDIR_TAG) && hasSignature(`${path}/${CACHEDIR_TAG}`)
  if (isCache) tags.push(CACHEDIR_TAG)
  return tags
}

/** What cannot be read is no valid tag: the folder is backed up. */
function hasSignature(path: string): boolean {
  const head = readHead(path, CACHEDIR_SIGNATURE.length)
  return Buffer.isBuffer(head) && head.toString('latin1') === CACHEDIR_SIGNATURE
}

function folderRules(
  walk: Walk,
  frame: Omit<Frame, 'names'>,
  found: ReadonlySet<string>,
): FolderRules | undefined {
  let rules = frame.rules
  for (const name of walk.options.excludeFiles ?? []) {
    if (!found.has(name)) continue
    const bytes = readHead(frame.path === '/' ? `/${name}` : `${frame.path}/${name}`, RULES_BYTES_MAX)
    if (!Buffer.isBuffer(bytes)) {
      walk.problems.push(bytes)
      continue
    }
    const patterns = compilePatterns(patternLines(bytes), 'path')
    rules = { patterns, cut: frame.path === '/' ? 1 : frame.path.length + 1, outer: rules }
  }
  return rules
}

/** The first bytes of a file that steers the walk. */
function readHead(path: string, bytesMax: number): Buffer | FileProblem {
  const opened = openSourceFile(path)
  if (!('fd' in opened)) return opened
  try {
    const head = Buffer.alloc(Math.min(bytesMax, opened.entry.size))
    return head.subarray(0, readSync(opened.fd, head, 0, head.length, 0))
  } catch (error) {
    return problemOf(path, 'cannot read the file', error)
  } finally {
    closeSync(opened.fd)
  }
}

function isExcluded(walk: Walk, frame: Frame, path: string, entry: FileEntry): boolean {
  const limit = walk.options.excludeLargerThan
  if (limit !== undefined && entry.type === 'file' && entry.size > limit) return true
  if (walk.patterns.length === 0 && frame.rules === undefined) return false
  const isFolder = entry.type === 'directory'
  const subject = { name: entry.name, path: path.slice(frame.cut), absolute: path.slice(1), isFolder }
  // The configuration has the first word, then the nearest ignore file.
  let verdict = decideExclude(walk.patterns, subject)
  for (let rules = frame.rules; rules !== undefined && verdict === undefined; rules = rules.outer) {
    verdict = decideExclude(rules.patterns, { ...subject, path: path.slice(rules.cut) })
  }
  return verdict === true
}
