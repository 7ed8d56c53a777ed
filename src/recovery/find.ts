/**
 * Finding entries by name in one snapshot after the other. Snapshots share most of their directories, so what
 * a directory gave is remembered by its node and not looked through again.
 */
import { rawPath } from '../base/file-entry.ts'
import type { TreeEntry } from '../format/tree.ts'
import {
  readDirectory,
  rootNode,
  type SnapshotReader,
  newWalkBudget,
  spendEntry,
  type WalkBudget,
} from '../repo/tree-reader.ts'
import { compilePatterns, decideExclude, type Pattern } from '../sources/files/patterns.ts'

export interface Found {
  /** Raw and absolute. */
  readonly path: string
  readonly entry: TreeEntry
}

export interface Search {
  readonly patterns: readonly Pattern[]
  /** By path and node of a directory: what is in it and below. */
  readonly known: Map<string, readonly Found[]>
  /** Entries and directories in `known`. */
  held: number
}

/** About 1 KB each. */
const HELD_MAX = 100_000

/**
 * Globs as a person writes them: without a slash they match a name, with one a path; one that does not begin
 * with a slash matches at any depth.
 */
export function newSearch(globs: readonly string[]): Search {
  return { patterns: compilePatterns(globs.map(patternOf), 'root'), known: new Map(), held: 0 }
}

function patternOf(glob: string): string {
  const raw = rawPath(glob)
  if (raw.startsWith('/') || raw.startsWith('**/')) return raw
  // No negation and no comment: they are characters of names here.
  const plain = /^[!#]/.test(raw) ? `\\${raw}` : raw
  return plain.replace(/\/$/, '').includes('/') ? `**/${plain}` : plain
}

/**
 * Every entry of the snapshot that a glob names, directories too, in tree order. Fails: storage.*,
 * repo.corrupt.
 */
export async function findEntries(
  search: Search,
  reader: SnapshotReader,
  signal: AbortSignal,
): Promise<readonly Found[]> {
  const walk = { reader, signal, budget: newWalkBudget(reader) }
  return findBelow(search, walk, { path: '', node: rootNode(reader) }, 1)
}

async function findBelow(
  search: Search,
  walk: { reader: SnapshotReader; signal: AbortSignal; budget: WalkBudget },
  folder: { path: string; node: Uint8Array },
  depth: number,
): Promise<readonly Found[]> {
  const key = `${Buffer.from(folder.node).toString('latin1')}${folder.path}`
  const known = search.known.get(key)
  if (known !== undefined) return known
  const found: Found[] = []
  for await (const entry of readDirectory(walk.reader, folder.node)) {
    spendEntry(walk.budget, depth)
    const path = `${folder.path}/${entry.name}`
    if (isNamed(search, path, entry)) found.push({ path, entry })
    if (entry.node === undefined) continue
    walk.signal.throwIfAborted()
    for (const one of await findBelow(search, walk, { path, node: entry.node }, depth + 1)) found.push(one)
  }
  if (search.held + found.length < HELD_MAX) {
    search.held += found.length + 1
    search.known.set(key, found)
  }
  return found
}

function isNamed({ patterns }: Search, path: string, entry: TreeEntry): boolean {
  const subject = { name: entry.name, path: path.slice(1), absolute: path.slice(1) }
  return decideExclude(patterns, { ...subject, isFolder: entry.node !== undefined }) === true
}
