/**
 * Backstock, driven through its command line as an operator would: a config file, one source of files, no
 * parity. The published form is measured: dist/ is built from this checkout first.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { preparePlace, type Peer, type Place, type Repository } from './peer.ts'

const checkout = resolve(import.meta.dirname, '../..')
const sourceName = 'shop'

/** Builds this checkout, or takes another backstock that is named by its path. */
export function openBackstock(path: string | undefined): Peer {
  const { words, version } = backstockCommand(path)
  return { name: 'backstock', version, prepare: (place) => prepare(words, place) }
}

/** What starts it, and what it is. */
export function backstockCommand(path: string | undefined): { words: string[]; version: string } {
  if (path !== undefined) return { words: commandOf(resolve(path)), version: resolve(path) }
  return { words: publishedCommand(), version: versionText() }
}

function publishedCommand(): string[] {
  const compiler = join(checkout, 'node_modules/.bin/tsc')
  const built = spawnSync(compiler, ['-p', 'tsconfig.build.json'], { cwd: checkout, encoding: 'utf8' })
  if (built.status !== 0) throw new Error(`Cannot build backstock:\n${built.stdout}${built.stderr}`)
  return [process.execPath, layOutPackage()]
}

/** The launcher beside dist/ and without src/, as npm installs it: it then runs what was built. */
function layOutPackage(): string {
  const folder = join(checkout, 'node_modules/.cache/backstock-bench')
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  cpSync(join(checkout, 'bin'), join(folder, 'bin'), { recursive: true })
  symlinkSync(join(checkout, 'dist'), join(folder, 'dist'))
  return join(folder, 'bin/backstock')
}

function commandOf(path: string): string[] {
  const isScript = /\.[jt]s$/.test(path)
  return isScript ? [process.execPath, '--disable-warning=ExperimentalWarning', path] : [path]
}

/** The version of package.json and the commit, with a plus sign if the program differs from the commit. */
function versionText(): string {
  const manifest: unknown = JSON.parse(readFileSync(join(checkout, 'package.json'), 'utf8'))
  const version = hasVersion(manifest) ? manifest.version : 'unknown'
  const git = (...words: string[]) =>
    spawnSync('git', words, { cwd: checkout, encoding: 'utf8' }).stdout.trim()
  const changed = git('status', '--porcelain', '--', 'src', 'bin', 'package.json', 'package-lock.json') !== ''
  return `${version}, commit ${git('rev-parse', '--short=12', 'HEAD')}${changed ? '+' : ''}`
}

function hasVersion(value: unknown): value is { version: string } {
  return (
    typeof value === 'object' && value !== null && 'version' in value && typeof value.version === 'string'
  )
}

function prepare(words: string[], place: Place): Repository {
  const storePath = join(place.folder, 'repository')
  const configPath = join(place.folder, 'backstock.yaml')
  const env = { ...preparePlace(place), BACKSTOCK_CACHE_DIR: join(place.folder, 'cache') }
  writeFileSync(configPath, configText(place))
  const command = (...rest: string[]) => ({
    argv: [...words, '--config', configPath, '--json', ...rest],
    env,
    folder: place.folder,
  })
  return {
    storePath,
    init: command('init'),
    backup: (kind) => command('backup', '--kind', kind),
    restore: (target) => command('restore', sourceName, '--to', target),
    checkAllData: command('check', '--read-data'),
    confirm: confirmSummary,
  }
}

function configText(place: Place): string {
  const quoted = (text: string) => `'${text.replaceAll("'", "''")}'`
  const store = quoted(`file://${join(place.folder, 'repository')}`)
  const identity = quoted(join(place.folder, 'identity.age'))
  return [
    'shop: bench',
    `repository: { store: ${store}, identity: ${identity} }`,
    `sources: { ${sourceName}: { kind: files, paths: [${quoted(place.source)}] } }`,
    '',
  ].join('\n')
}

/** The last line of --json output is the summary; a backup without one has not ended as promised. */
function confirmSummary(stdout: string): void {
  const line = stdout.trimEnd().split('\n').at(-1) ?? ''
  const event: unknown = line.startsWith('{') ? JSON.parse(line) : undefined
  const isSummary = typeof event === 'object' && event !== null && 'type' in event && event.type === 'summary'
  if (!isSummary)
    throw new Error(`Cannot believe a backup of backstock without a summary, it ended: "${line}"`)
}
