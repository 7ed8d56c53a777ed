/**
 * Puts configuration that lay outside of the data folder into it, so that a restored cluster starts by its
 * folder alone: included files become part of the file that names them, and lines that lead elsewhere, or to
 * what is not on this host, become comments that say why.
 */
import { chownSync, existsSync, rmSync, writeFileSync } from 'node:fs'
import { displayName, pathBytes } from '../base/file-entry.ts'
import { describeError, errnoOf, Failure } from '../base/failure.ts'
import { findEntry, readFile, walkTree, type SnapshotReader } from '../repo/tree-reader.ts'
import { CLUSTER_PATHS } from '../sources/postgres/cluster-paths.ts'
import {
  includedPath,
  isInclude,
  isIncludedName,
  mapWordsOfList,
  namesFile,
  parseConfigLine,
  parseListLine,
  wordsOfList,
  type ConfigLine,
} from '../sources/postgres/config-lines.ts'
import type { FileOwner } from './auto-conf.ts'

/** What the snapshot holds of configuration from elsewhere: texts, raw. */
export interface StoredConfig {
  /** By absolute path on the server's host. */
  readonly files: ReadonlyMap<string, string>
  /** Where postgresql.conf was, or undefined: not known. */
  readonly config: string | undefined
  readonly hba: string | undefined
  readonly ident: string | undefined
  /** Where the data folder was. */
  readonly data: string | undefined
}

/** Of postgresql.conf: it came with the data folder, is put there from beside it, or is in no backup. */
export type ConfigState = 'inside' | 'placed' | 'missing'

/** What configuration is limited to; more is not looked at. */
const BYTES_MAX = 16 * 1024 * 1024
const RECORD_BYTES_MAX = 256 * 1024 * 1024
/** As the server has it (CONF_FILE_MAX_DEPTH). */
const INCLUDE_DEPTH_MAX = 10
export const MARK = '# backstock:'
/** They name the files themselves, or one of another server on this host. */
const PLACES = ['data_directory', 'hba_file', 'ident_file', 'external_pid_file']
const TLS_FILES = ['ssl_cert_file', 'ssl_key_file', 'ssl_ca_file', 'ssl_crl_file', 'ssl_dh_params_file']
/** Two servers must not write to one: where one leads out of the data folder, the usual one counts. */
const OWN_FOLDERS = ['stats_temp_directory', 'log_directory']
export const HBA_MISSING = [
  `${MARK} the backup holds no pg_hba.conf. Only users of this host may log in, by their own names.`,
  'local all all peer',
  '',
].join('\n')

/** Fails: repo.corrupt, storage.*. */
export async function readStoredConfig(reader: SnapshotReader): Promise<StoredConfig> {
  const record = await findEntry(reader, CLUSTER_PATHS.server)
  const parts: Uint8Array[] = []
  if (record?.type === 'file' && record.size <= RECORD_BYTES_MAX)
    for await (const part of readFile(reader, record)) parts.push(part)
  const { config, hba, ident, data } = placesOf(Buffer.concat(parts).toString('utf8'))
  return { files: await readFiles(reader), config, hba, ident, data }
}

/** Whether postgresql.conf lay elsewhere, and is there. */
export function hasStoredConfig({ files, config }: StoredConfig): boolean {
  return config !== undefined && files.has(config)
}

/** Not synced. Fails: restore.failed. */
export function writeStoredConfig(folder: string, stored: StoredConfig, owner: FileOwner): void {
  const exists = (path: string): boolean => existsSync(pathBytes(path))
  writeConfigFiles(folder, { 'postgresql.conf': adjustedConfig(stored, exists), ...listTexts(stored) }, owner)
}

/** `texts` by name, raw; in place of what is there. Not synced. Fails: restore.failed. */
export function writeConfigFiles(
  folder: string,
  texts: Readonly<Record<string, string>>,
  owner: FileOwner,
): void {
  try {
    for (const [name, text] of Object.entries(texts)) {
      const path = pathBytes(`${folder}/${name}`)
      // A link that somebody planted there would be followed.
      rmSync(path, { force: true })
      writeFileSync(path, text, { encoding: 'latin1', mode: 0o600, flag: 'wx' })
      if (owner !== undefined) chownSync(path, owner.uid, owner.gid)
    }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    const message = `Cannot write the configuration to "${displayName(folder)}": ${describeError(error)}`
    throw new Failure('restore.failed', message, { cause: error })
  }
}

/** postgresql.conf for the data folder. `exists`: whether this host has such a file or folder. */
export function adjustedConfig(stored: StoredConfig, exists: (path: string) => boolean): string {
  let hasTlsFiles = true
  const adjust = (line: string, found: ConfigLine | undefined): string => {
    if (found === undefined) return line
    const { name, value } = found
    if (PLACES.includes(name)) return `${MARK} all of it is in the data folder now\n#${line}`
    if (OWN_FOLDERS.includes(name) && leadsOut(value))
      return `${MARK} another server may write there\n#${line}`
    const gone = missingOf(name, value, exists)
    if (gone === undefined) return line
    if (TLS_FILES.includes(name)) hasTlsFiles = false
    return `${MARK} "${gone}" was not on this host\n#${line}`
  }
  const head = `${MARK} this was ${stored.config} and what it included\n`
  const path = stored.config ?? 'postgresql.conf'
  const text = flatten(stored, { path, parse: parseConfigLine, adjust, depth: 0 })
  const tail = hasTlsFiles ? '' : `\n${MARK} until the files for TLS are there\nssl = off\n`
  return `${head}${text}${tail}`
}

/** Whether a path, as settings have it, is none in the data folder. */
export function leadsOut(path: string): boolean {
  return path.startsWith('/') || path.split('/').includes('..')
}

function listTexts(stored: StoredConfig): Record<string, string> {
  const texts: Record<string, string> = {}
  for (const [name, path] of [
    ['pg_hba.conf', stored.hba],
    ['pg_ident.conf', stored.ident],
  ] as const)
    if (path !== undefined && stored.files.has(path)) texts[name] = adjustedList(stored, path)
  texts['pg_hba.conf'] ??= HBA_MISSING
  return texts
}

/** pg_hba.conf or pg_ident.conf as one file. */
export function adjustedList(stored: StoredConfig, path: string): string {
  const adjust = (line: string, _: ConfigLine | undefined, from: string): string =>
    withNames(stored, line, from)
  return flatten(stored, { path, parse: parseListLine, adjust, depth: 0 })
}

/** With the names themselves in the place of `@file`. */
function withNames({ files }: StoredConfig, line: string, from: string): string {
  let lost: string | undefined
  // Who was to be kept out must not get in because a file is lost.
  const instead = wordsOfList(line).includes('reject') ? 'all' : ''
  const text = mapWordsOfList(line, (word) => {
    const file = namesFile(word)
    if (file === undefined) return word
    const names = namesIn(files, includedPath(from, file), 0)
    if (names.length === 0) lost = file
    return names.length === 0 ? instead : names.join(',')
  })
  if (lost === undefined) return text
  return `${MARK} "${lost}" is not in the backup, or empty\n#${line}${instead === '' ? '' : `\n${text}`}`
}

function namesIn(files: StoredConfig['files'], path: string, depth: number): string[] {
  if (depth >= INCLUDE_DEPTH_MAX) return []
  const words = (files.get(path) ?? '').split('\n').flatMap(wordsOfList)
  return words.flatMap((word) => {
    const file = namesFile(word)
    return file === undefined ? [word] : namesIn(files, includedPath(path, file), depth + 1)
  })
}

interface Flattening {
  readonly path: string
  readonly parse: (line: string) => ConfigLine | undefined
  readonly adjust: (line: string, found: ConfigLine | undefined, from: string) => string
  readonly depth: number
}

/** The file's text, with those of included files in the places of their lines: the order stays. */
function flatten(stored: StoredConfig, at: Flattening): string {
  const lines = (stored.files.get(at.path) ?? '').split('\n')
  return lines
    .map((line) => {
      const found = at.parse(line)
      if (found === undefined || !isInclude(found)) return at.adjust(line, found, at.path)
      const paths = includedFiles(stored, at.path, found)
      if (paths.length === 0 || at.depth >= INCLUDE_DEPTH_MAX)
        return `${MARK} not in the backup, or empty\n#${line}`
      const texts = paths.map((path) => {
        const text = flatten(stored, { ...at, path, depth: at.depth + 1 })
        return `${MARK} from ${path}\n${text}\n${MARK} end of ${path}`
      })
      return `#${line}\n${texts.join('\n')}`
    })
    .join('\n')
}

function includedFiles({ files }: StoredConfig, from: string, { name, value }: ConfigLine): string[] {
  const path = includedPath(from, value)
  if (name !== 'include_dir') return files.has(path) ? [path] : []
  return [...files.keys()]
    .filter((each) => each.startsWith(`${path}/`) && isIncludedName(each.slice(path.length + 1)))
    .filter((each) => !each.slice(path.length + 1).includes('/'))
    .toSorted()
}

/** A file or folder that a setting needs and that is not there; relative ones are those of the data folder. */
function missingOf(name: string, value: string, exists: (path: string) => boolean): string | undefined {
  const isSockets = name === 'unix_socket_directories'
  if (!TLS_FILES.includes(name) && !isSockets) return undefined
  const paths = isSockets ? value.split(',') : [value]
  return paths
    .map((path) => path.trim().replaceAll('"', ''))
    .find((path) => path.startsWith('/') && !exists(path))
}

type Places = Readonly<Partial<Record<'config' | 'hba' | 'ident' | 'data', string>>>

/** Raw paths. What cannot be understood names none. */
function placesOf(json: string): Places {
  try {
    const record: unknown = JSON.parse(json)
    if (typeof record !== 'object' || record === null || !('configuration' in record)) return {}
    const { configuration } = record
    if (typeof configuration !== 'object' || configuration === null) return {}
    const texts = Object.entries(configuration).filter(([, path]) => typeof path === 'string')
    return Object.fromEntries(
      texts.map(([name, path]) => [name, Buffer.from(String(path), 'utf8').toString('latin1')]),
    )
  } catch {
    return {}
  }
}

async function readFiles(reader: SnapshotReader): Promise<Map<string, string>> {
  const root = CLUSTER_PATHS.config
  const files = new Map<string, string>()
  let bytes = 0
  const into = (path: string): boolean => path === root || path.startsWith(`${root}/`)
  for await (const { kind, path, entry } of walkTree(reader, { into })) {
    if (kind !== 'entry' || entry.type !== 'file' || !path.startsWith(`${root}/`)) continue
    bytes += entry.size
    if (bytes > BYTES_MAX) break
    const parts: Uint8Array[] = []
    for await (const part of readFile(reader, entry)) parts.push(part)
    files.set(path.slice(root.length), Buffer.concat(parts).toString('latin1'))
  }
  return files
}
