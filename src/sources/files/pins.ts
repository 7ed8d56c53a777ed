/**
 * The places that a person named, as a tree from `/` down: whole trees (`paths`) and single entries
 * (`filesFrom`), with the folders above them.
 */
import { readFileSync } from 'node:fs'
import { displayName, pathBytes } from '../../base/file-entry.ts'
import { describeError, Failure } from '../../base/failure.ts'
import { problemOf } from './problem.ts'
import type { FileProblem } from './problem.ts'
import { readEntry } from './stat.ts'

/** One place on the way to a named place, or a named place itself. */
export interface Pin {
  readonly children: Map<string, Pin>
  /** `tree`: with all below it; `single`: itself alone; `way`: only because something below it is named. */
  kind: 'tree' | 'single' | 'way'
}

export interface PinPlan {
  readonly root: Pin
  /** Named places that are not there. */
  readonly problems: FileProblem[]
}

/** As the system: more symlinks than this on one path are a loop. */
const SYMLINK_COUNT_MAX = 40

/**
 * Plans the walk to `paths` (raw, absolute). A symlink on the way to a named place is stored as itself, and
 * the real place is walked: restored to `/`, the named path leads to the files again. `singles` are followed
 * as the system follows them: `..` behind a symlink leaves the folder that it leads to, and a symlink with
 * `/` behind it means that folder. Fails: usage.invalid.
 */
export function planPins(paths: readonly string[], singles: readonly string[]): PinPlan {
  const plan: PinPlan = { root: { children: new Map(), kind: 'way' }, problems: [] }
  const links = new Map<string, string | undefined>()
  for (const path of paths) addPin(plan, normalPath(path), 'tree', { links, followed: 0 })
  for (const path of singles) {
    requireAbsolute(path)
    addPin(plan, path, 'single', { links, followed: 0 })
  }
  return plan
}

/** Resolves `//`, `.` and `..` of a raw absolute path without looking at the disk. Fails: usage.invalid. */
export function normalPath(path: string): string {
  requireAbsolute(path)
  const names: string[] = []
  for (const name of path.split('/')) {
    if (name === '..') names.pop()
    else if (name !== '' && name !== '.') names.push(name)
  }
  return `/${names.join('/')}`
}

function requireAbsolute(path: string): void {
  if (path.startsWith('/') && !path.includes('\0')) return
  const is = path.includes('\0') ? 'it holds a NUL' : 'it is relative (must be absolute)'
  throw new Failure('usage.invalid', `Cannot back up "${displayName(path)}": ${is}`)
}

/** The raw paths of a list: separated by NUL if it holds one, else by newlines. */
export function parsePathList(bytes: Uint8Array): string[] {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
  return text.split(text.includes('\0') ? '\0' : '\n').filter((path) => path !== '')
}

/** The bytes of a file that the configuration names. Fails: host.file. */
export function readNamedFile(path: string, what: string): Buffer {
  try {
    return readFileSync(pathBytes(path))
  } catch (error) {
    const message = `Cannot read the ${what} "${displayName(path)}": ${describeError(error)}`
    throw new Failure('host.file', message, { facts: { path: displayName(path) }, cause: error })
  }
}

function addPin(
  plan: PinPlan,
  path: string,
  kind: 'tree' | 'single',
  way: { links: Map<string, string | undefined>; followed: number },
): void {
  const parts = path.slice(1).split('/')
  // Real ones: no symlink is among them, so that `..` takes the last away.
  const names: string[] = []
  for (const [nth, part] of parts.entries()) {
    if (isDots(part)) {
      if (part === '..') names.pop()
      continue
    }
    const base = names.length === 0 ? '' : `/${names.join('/')}`
    names.push(part)
    if (nth === parts.length - 1) break
    const at = `${base}/${part}`
    const target = linkTarget(plan, at, way.links)
    if (target !== undefined) {
      if (way.followed === SYMLINK_COUNT_MAX) {
        plan.problems.push({ path, code: 'ELOOP', what: 'cannot find the path: too many symbolic links' })
        return
      }
      pin(plan, names, 'single')
      const rest = parts.slice(nth + 1).join('/')
      const real = `${target.startsWith('/') ? '' : base}/${target}/${rest}`
      addPin(plan, real, kind, { links: way.links, followed: way.followed + 1 })
      return
    }
    if (isDots(parts[nth + 1] ?? '') && !isFolder(plan, at)) return
  }
  pin(plan, names, kind)
}

/** What only a folder can have behind it, and what the walk does not come to see. */
function isDots(part: string): boolean {
  return part === '' || part === '.' || part === '..'
}

/** Whether a folder is there; if not, that is a problem. */
function isFolder(plan: PinPlan, path: string): boolean {
  try {
    const type = readEntry(path, '')?.type
    if (type === undefined) plan.problems.push({ path, code: 'ENOENT', what: 'the path is not there' })
    else if (type !== 'directory') plan.problems.push({ path, code: 'ENOTDIR', what: 'it is no folder' })
    return type === 'directory'
  } catch (error) {
    plan.problems.push(problemOf(path, 'cannot look at the path', error))
    return false
  }
}

function pin(plan: PinPlan, names: readonly string[], kind: Pin['kind']): void {
  let at = plan.root
  for (const name of names) at = childPin(at, name)
  at.kind = stronger(at.kind, kind)
}

function childPin(pin: Pin, name: string): Pin {
  let child = pin.children.get(name)
  if (child === undefined) {
    child = { children: new Map(), kind: 'way' }
    pin.children.set(name, child)
  }
  return child
}

function stronger(a: Pin['kind'], b: Pin['kind']): Pin['kind'] {
  if (a === 'tree' || b === 'tree') return 'tree'
  return a === 'single' || b === 'single' ? 'single' : 'way'
}

/** Target of a symlink at `path`, or undefined if none is there; looked up once. */
function linkTarget(plan: PinPlan, path: string, links: Map<string, string | undefined>): string | undefined {
  if (links.has(path)) return links.get(path)
  let target: string | undefined
  try {
    const entry = readEntry(path, '')
    if (entry?.type === 'symlink') target = entry.target
  } catch (error) {
    plan.problems.push(problemOf(path, 'cannot look at the path', error))
  }
  links.set(path, target)
  return target
}
