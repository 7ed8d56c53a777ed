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
 * the real place is walked: restored to `/`, the named path leads to the files again. Fails: usage.invalid.
 */
export function planPins(paths: readonly string[], singles: readonly string[]): PinPlan {
  const plan: PinPlan = { root: { children: new Map(), kind: 'way' }, problems: [] }
  const links = new Map<string, string | undefined>()
  for (const path of paths) addPin(plan, normalPath(path), 'tree', { links, followed: 0 })
  for (const path of singles) addPin(plan, normalPath(path), 'single', { links, followed: 0 })
  return plan
}

/** Resolves `//`, `.` and `..` of a raw absolute path without looking at the disk. Fails: usage.invalid. */
export function normalPath(path: string): string {
  if (!path.startsWith('/') || path.includes('\0')) {
    const is = path.includes('\0') ? 'it holds a NUL' : 'it is relative (must be absolute)'
    throw new Failure('usage.invalid', `Cannot back up "${displayName(path)}": ${is}`)
  }
  const names: string[] = []
  for (const name of path.split('/')) {
    if (name === '..') names.pop()
    else if (name !== '' && name !== '.') names.push(name)
  }
  return `/${names.join('/')}`
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
  const names = path === '/' ? [] : path.slice(1).split('/')
  let pin = plan.root
  let at = ''
  for (const [nth, name] of names.entries()) {
    at += `/${name}`
    if (nth < names.length - 1) {
      const target = linkTarget(plan, at, way.links)
      if (target !== undefined) {
        if (way.followed === SYMLINK_COUNT_MAX) {
          plan.problems.push({ path, code: 'ELOOP', what: 'cannot find the path: too many symbolic links' })
          return
        }
        childPin(pin, name).kind = stronger(childPin(pin, name).kind, 'single')
        const base = target.startsWith('/') ? '' : at.slice(0, at.lastIndexOf('/'))
        const real = normalPath(`${base}/${target}/${names.slice(nth + 1).join('/')}`)
        addPin(plan, real, kind, { links: way.links, followed: way.followed + 1 })
        return
      }
    }
    pin = childPin(pin, name)
  }
  pin.kind = stronger(pin.kind, kind)
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
