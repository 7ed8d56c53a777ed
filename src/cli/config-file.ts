/**
 * Finds, reads and checks backstock.yaml, and shows every error where it is: file, line, column, the line
 * itself. What is allowed stands in src/protocol/config.ts. Lines that hold secrets are shown without them.
 */
import { readFile, stat } from 'node:fs/promises'
import { dirname, isAbsolute, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import {
  type Document,
  LineCounter,
  isAlias,
  isMap,
  isPair,
  isScalar,
  isSeq,
  parseDocument,
  visit,
} from 'yaml'
import { Failure, describeError, errnoOf, isFailure } from '../base/failure.ts'
import { type ConfigProblem, hideUrlPassword } from '../protocol/config-problems.ts'
import { type Config, parseConfig } from '../protocol/config.ts'
import { checkStoreUrl } from '../storage/open.ts'
import { type PlacedProblem, type TextProblem, newFrames, showProblem } from './code-frame.ts'

export interface LoadedConfig {
  /** Absolute path of the file. */
  readonly file: string
  /** Paths in it are absolute, the store is a URL. */
  readonly config: Config
  /** What is allowed but unwise, one sentence each. */
  readonly warnings: readonly string[]
}

export type CheckedConfig =
  | { readonly loaded: LoadedConfig }
  | { readonly file: string; readonly problems: readonly PlacedProblem[] }

/** Where the configuration is looked for when --config does not name it. */
export const configPlaces = ['backstock.yaml', '/etc/backstock/backstock.yaml']

const configBytesMax = 1024 ** 2
/** Expansions of aliases in one file; a "billion laughs" file stops here. */
const aliasCountMax = 100
const problemsShownMax = 20
const urlPattern = /^[a-z][a-z0-9+.-]*:/i
const wholeFile = { from: 0, to: 1 }

/**
 * Reads and checks the configuration. Fails: config.missing, config.invalid (with every problem in the
 * message).
 */
export async function loadConfigFile(named: string | undefined, cwd: string): Promise<LoadedConfig> {
  const checked = await checkConfigFile(named, cwd)
  if ('loaded' in checked) return checked.loaded
  const { file, problems } = checked
  const count = problems.length === 1 ? '1 error' : `${problems.length} errors`
  const shown = problems.slice(0, problemsShownMax).map((problem) => `\n${showPlaced(file, problem)}`)
  const more = problems.length > problemsShownMax ? `\n… and ${problems.length - problemsShownMax} more` : ''
  throw new Failure('config.invalid', `Cannot use the configuration: ${count}${shown.join('')}${more}`, {
    facts: { file, line: problems[0]?.line, column: problems[0]?.column, problems: problems.length },
  })
}

/** `file:line:column: message`, then the line and a caret. */
export function showPlaced(file: string, problem: PlacedProblem): string {
  return `${file}:${problem.line}:${problem.column}: ${problem.message}\n${problem.frame}`
}

/**
 * Reads and checks the configuration, problems as data. Fails: config.missing, config.invalid (not readable
 * at all).
 */
export async function checkConfigFile(named: string | undefined, cwd: string): Promise<CheckedConfig> {
  const { file, bytes } = await readConfig(named, cwd)
  const text = decodeText(file, bytes)
  const checked = checkConfigText(text)
  if ('problems' in checked) return { file, problems: checked.problems }
  const config = withAbsolutePaths(checked.config, dirname(file))
  return { loaded: { file, config, warnings: await secretWarnings(file, text, config) } }
}

async function readConfig(named: string | undefined, cwd: string): Promise<{ file: string; bytes: Buffer }> {
  const places = named === undefined ? configPlaces : [named]
  for (const place of places) {
    const file = resolve(cwd, place)
    const bytes = await readIfThere(file)
    if (bytes !== undefined) return { file, bytes }
  }
  const files = places.map((place) => `"${resolve(cwd, place)}"`).join(' and ')
  throw new Failure('config.missing', `Cannot read the configuration: there is no ${files}`)
}

async function readIfThere(file: string): Promise<Buffer | undefined> {
  try {
    const { size } = await stat(file)
    if (size > configBytesMax) throw unreadable(file, `it has ${size} bytes (at most ${configBytesMax})`)
    const bytes = await readFile(file)
    if (bytes.length > configBytesMax) throw unreadable(file, `it has more than ${configBytesMax} bytes`)
    return bytes
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined
    if (errno === 'EISDIR') throw unreadable(file, 'it is a folder (it must be a file)', error)
    if (errno === 'EACCES') throw unreadable(file, 'this user may not read it', error)
    if (errno !== undefined) throw unreadable(file, describeError(error), error)
    throw error
  }
}

function unreadable(file: string, is: string, cause?: unknown): Failure {
  const hint = 'Look at the file: --config names another one.'
  return new Failure('config.invalid', `Cannot read the configuration "${file}": ${is}`, {
    facts: { file, hint },
    cause,
  })
}

function decodeText(file: string, bytes: Buffer): string {
  const mark = bytes.subarray(0, 2).toString('hex')
  if (mark === 'fffe' || mark === 'feff') throw unreadable(file, 'it is UTF-16 (it must be UTF-8)')
  if (bytes.includes(0)) throw unreadable(file, 'it holds zero bytes (it must be text)')
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw unreadable(file, 'it is not UTF-8', cause)
  }
}

/** Checks the text of a configuration. A byte order mark must be gone. */
export function checkConfigText(text: string): { config: Config } | { problems: PlacedProblem[] } {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true })
  const problems: TextProblem[] = document.errors.map((error) => ({
    message: yamlMessage(error.code, error.message),
    from: error.pos[0],
    to: error.pos[1],
  }))
  const frames = newFrames(text, lines, document)
  if (problems.length > 0) return { problems: problems.map((problem) => showProblem(frames, problem)) }
  const data = plainData(document)
  if ('problem' in data) return { problems: [showProblem(frames, data.problem)] }
  const result = parseConfig(data.value)
  const wrong = [...('problems' in result ? result.problems : []), ...storeProblems(data.value)]
  if ('config' in result && wrong.length === 0) return result
  const found = wrong.map((problem) => ({
    message: problem.message,
    ...placeOf(document, problem),
  }))
  found.sort((one, other) => one.from - other.from)
  return { problems: found.map((problem) => showProblem(frames, problem)) }
}

/** A store that no driver can open: the shape of the file knows nothing of drivers. */
function storeProblems(data: unknown): ConfigProblem[] {
  const path = ['repository', 'store'] as const
  const store = path.reduce<unknown>(
    (value, key) => (typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined),
    data,
  )
  if (typeof store !== 'string' || (!urlPattern.test(store) && !isAbsolute(store))) return []
  try {
    checkStoreUrl(storeUrl(store))
    return []
  } catch (error) {
    if (!isFailure(error)) throw error
    return [{ path, at: 'value', message: `repository.store: ${error.message}` }]
  }
}

/** A store may be written as a path. */
function storeUrl(store: string): string {
  return urlPattern.test(store) ? store : pathToFileURL(store).href
}

function plainData(document: Document.Parsed): { value: unknown } | { problem: TextProblem } {
  let lost: TextProblem | undefined
  visit(document, {
    Alias(_, alias) {
      if (lost !== undefined || alias.resolve(document) !== undefined) return undefined
      lost = { message: 'an alias (*name) must follow its anchor (&name)', ...(rangeOf(alias) ?? wholeFile) }
      return visit.BREAK
    },
  })
  if (lost !== undefined) return { problem: lost }
  try {
    return { value: document.toJS({ maxAliasCount: aliasCountMax }) }
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error
    const message = `its aliases (*name) unfold to more than ${aliasCountMax} values: write them out`
    return { problem: { message, ...wholeFile } }
  }
}

/** The parser's words, without what it repeats of the text: that may be a secret. */
function yamlMessage(code: string, message: string): string {
  const known: Record<string, string> = {
    TAB_AS_INDENT: 'a tab is used to indent; it must be spaces',
    DUPLICATE_KEY: 'this key stands here twice; it must be there once',
    MULTIPLE_DOCS: 'a second document begins here ("---"); there must be one',
    NON_STRING_KEY: 'a key must be plain text',
    BAD_ALIAS: 'an alias (*name) must follow its anchor (&name)',
    RESOURCE_EXHAUSTION: 'this is nested too deeply',
    BLOCK_AS_IMPLICIT_KEY: 'a "key: value" stands inside another value; is a line break or a quote missing?',
    MULTILINE_IMPLICIT_KEY: 'a key must stand on one line and be followed by ":"',
  }
  const fallback = hideUrlPassword(firstLine(message)).replace(/: .*$/, '')
  return known[code] ?? `this is not YAML: ${fallback}`
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? ''
}

/**
 * Where the key or value of a problem stands. For something missing: the nearest thing around it that is
 * there.
 */
function placeOf(document: Document.Parsed, problem: ConfigProblem): { from: number; to: number } {
  let node: unknown = document.contents
  let place = wholeFile
  for (const [at, part] of problem.path.entries()) {
    if (isAlias(node)) node = node.resolve(document)
    if (isMap(node)) {
      const pair = node.items.find(
        (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(part),
      )
      if (pair === undefined) return place
      const key = rangeOf(pair.key) ?? place
      const value = rangeOf(pair.value)
      const last = at === problem.path.length - 1
      place = last && problem.at === 'value' && value !== undefined && value.to > value.from ? value : key
      node = pair.value
    } else if (isSeq(node) && typeof part === 'number') {
      node = node.items[part]
      place = rangeOf(node) ?? place
    } else return place
  }
  return place
}

function rangeOf(node: unknown): { from: number; to: number } | undefined {
  if (typeof node !== 'object' || node === null || !('range' in node) || !Array.isArray(node.range))
    return undefined
  const [from, to]: unknown[] = node.range
  return typeof from === 'number' && typeof to === 'number' ? { from, to } : undefined
}

/** Relative paths start at the folder of the file, so that it means the same wherever the program is started. */
function withAbsolutePaths(config: Config, folder: string): Config {
  const { repository } = config
  const at = (path: string): string => resolve(folder, path)
  const optional = <K extends string>(key: K, path: string | undefined): { [P in K]?: string } =>
    (path === undefined ? {} : { [key]: at(path) }) as { [P in K]?: string }
  const passphrase = repository.passphrase
  const { store } = repository
  return {
    ...config,
    repository: {
      ...repository,
      store: storeUrl(urlPattern.test(store) ? store : at(store)),
      ...optional('identity', repository.identity),
      ...optional('writer', repository.writer),
      ...optional('cache', repository.cache),
      ...optional('spool', repository.spool),
      ...(passphrase !== undefined && 'file' in passphrase
        ? { passphrase: { file: at(passphrase.file) } }
        : {}),
    },
    sources: Object.fromEntries(
      Object.entries(config.sources).map(([name, source]) => [
        name,
        source.kind !== 'files'
          ? withDatabaseFiles(source, at)
          : {
              ...source,
              paths: source.paths.map(at),
              excludeFrom: source.excludeFrom.map(at),
            },
      ]),
    ),
  }
}

function withDatabaseFiles(
  source: Config['sources'][string],
  at: (path: string) => string,
): Config['sources'][string] {
  if (source.kind !== 'postgres') return source
  const { password, pgDump } = source
  return {
    ...source,
    ...(password !== undefined && 'file' in password ? { password: { file: at(password.file) } } : {}),
    ...(pgDump === undefined ? {} : { pgDump: at(pgDump) }),
  }
}

/** Files that hold secrets and that everybody on the host may read. */
async function secretWarnings(file: string, text: string, config: Config): Promise<string[]> {
  const { identity, writer, passphrase } = config.repository
  const files = [
    hideUrlPassword(text) === text ? undefined : file,
    identity,
    writer,
    passphrase !== undefined && 'file' in passphrase ? passphrase.file : undefined,
  ].filter((one) => one !== undefined)
  const open = await Promise.all(files.map(isWorldReadable))
  return files
    .filter((_, at) => open[at])
    .map((one) => `"${one}" holds a secret and every user of this host may read it: chmod 600 "${one}"`)
}

/** Whether everybody may read the file; a file that is not there (yet) is nobody's. */
export async function isWorldReadable(file: string): Promise<boolean> {
  try {
    const { mode } = await stat(file)
    return (mode & 0o004) !== 0
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return false
  }
}
