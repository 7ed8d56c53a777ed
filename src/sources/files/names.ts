/**
 * The names of one folder in ascending order of bytes. A folder of a million names costs their bytes once,
 * not a million JavaScript strings: beyond one run the names are packed and merged while they are taken.
 */
import { closeSync, constants, openSync, readdirSync } from 'node:fs'
import { pathBytes } from '../../base/file-entry.ts'
import { errnoOf } from '../../base/failure.ts'
import { hasPosix, readNames } from '../../base/posix.ts'
import { reachPath } from './reach.ts'

/** Names below a folder that are still to be taken, by takeName(). */
export interface NameList {
  /** All names, if they fit one run; else empty. */
  names: string[]
  at: number
  /** Sorted runs as a heap, the run with the smallest head first. */
  readonly runs: NameRun[]
}

/** Names joined by `/`, which no name holds. */
interface NameRun {
  readonly bytes: Buffer
  at: number
  head: string
}

const RUN_NAME_COUNT = 32768
const SLASH = 0x2f
const LIST_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

/** Reads a folder. Those of `watched` that are in it are added to `found`. Throws a system error. */
export function listFolder(path: string, watched: ReadonlySet<string>, found: Set<string>): NameList {
  const list: NameList = { names: [], at: 0, runs: [] }
  const take = (name: string): void => {
    if (watched.has(name)) found.add(name)
    if (list.names.length === RUN_NAME_COUNT) packRun(list)
    list.names.push(name)
  }
  reachPath(path, (reachable) => readFolder(reachable, take))
  if (list.runs.length === 0) {
    list.names.sort()
    return list
  }
  packRun(list)
  for (let nth = (list.runs.length >> 1) - 1; nth >= 0; nth--) sinkRun(list.runs, nth)
  return list
}

/** A list of known names. */
export function nameList(names: Iterable<string>): NameList {
  return { names: [...names].sort(), at: 0, runs: [] }
}

/** The next name, or undefined at the end. */
export function takeName(list: NameList): string | undefined {
  const first = list.runs[0]
  if (first === undefined) return list.names[list.at++]
  const name = first.head
  if (advanceRun(first)) sinkRun(list.runs, 0)
  else dropFirst(list.runs)
  return name
}

function readFolder(path: string, take: (name: string) => void): void {
  if (!hasPosix()) {
    // Holds all names at once; but opendir() may look up types by names that it has decoded wrongly.
    for (const name of readdirSync(pathBytes(path), { encoding: 'latin1' })) take(name)
    return
  }
  const fd = openFolder(pathBytes(path))
  try {
    readNames(fd, take)
  } finally {
    closeSync(fd)
  }
}

function openFolder(path: string | Buffer): number {
  try {
    return openSync(path, LIST_FLAGS | constants.O_NOATIME)
  } catch (error) {
    // Only the owner and root may leave the access time alone.
    if (errnoOf(error) !== 'EPERM') throw error
    return openSync(path, LIST_FLAGS)
  }
}

function packRun(list: NameList): void {
  const run = { bytes: Buffer.from(list.names.sort().join('/'), 'latin1'), at: 0, head: '' }
  list.names = []
  advanceRun(run)
  list.runs.push(run)
}

/** Moves to the run's next name; false at its end. */
function advanceRun(run: NameRun): boolean {
  if (run.at >= run.bytes.length) return false
  const slash = run.bytes.indexOf(SLASH, run.at)
  const end = slash < 0 ? run.bytes.length : slash
  run.head = run.bytes.toString('latin1', run.at, end)
  run.at = end + 1
  return true
}

function dropFirst(runs: NameRun[]): void {
  const last = runs.pop()
  if (last === undefined || runs.length === 0) return
  runs[0] = last
  sinkRun(runs, 0)
}

/** Restores the heap's order below `at`. */
function sinkRun(runs: NameRun[], at: number): void {
  const moved = runs[at]
  if (moved === undefined) return
  let place = at
  for (;;) {
    let childAt = 2 * place + 1
    const left = runs[childAt]
    const right = runs[childAt + 1]
    if (left === undefined) break
    const child = right !== undefined && right.head < left.head ? right : left
    if (child === right) childAt++
    if (moved.head <= child.head) break
    runs[place] = child
    place = childAt
  }
  runs[place] = moved
}
