/**
 * What is kept of a server beside its data: its facts, and configuration that lies outside of the data folder
 * and so is in no base backup (Debian keeps it in /etc). Files are read through SQL where the role may, else
 * from this host's disk when the server runs here. What cannot be read is a note, it fails nothing.
 */
import { readdir, readFile, stat } from 'node:fs/promises'
import { rawPath } from '../../base/file-entry.ts'
import { errnoOf } from '../../base/failure.ts'
import {
  includedPath,
  isInclude,
  isIncludedName,
  namesFile,
  parseConfigLine,
  parseListLine,
  wordsOfList,
  type ConfigLine,
} from './config-lines.ts'
import { connectSql } from './connect.ts'
import { readServerFacts, type ServerFacts } from './server-facts.ts'
import type { ServerTarget } from './server-place.ts'
import { askSql, type Asking } from './sql-asking.ts'
import { closeSql, runSql, type SqlSession } from './sql-session.ts'

export interface ConfigContent {
  /** Absolute, raw. */
  readonly path: string
  readonly bytes: Buffer
}

export interface ServerRecord {
  readonly systemId: string | undefined
  /** The content of server.json. */
  readonly json: Buffer
  readonly files: readonly ConfigContent[]
  /** For people: configuration that is not in the backup, and what would help. */
  readonly notes: readonly string[]
}

const FILE_BYTES_MAX = 1024 * 1024
const FILES_MAX = 200
const LOOPBACK = ['localhost', '127.0.0.1', '::1']

/** Where files can be read from. */
interface Reading {
  readonly session: SqlSession
  /** The server runs on this host. */
  readonly isHere: boolean
  readonly asking: Asking
}

/** Fails: source.failed when the server cannot be asked at all. */
export async function readServerRecord(target: ServerTarget): Promise<ServerRecord> {
  const facts = await readServerFacts(target)
  const { config_file: config, hba_file: hba, ident_file: ident, data_directory: data } = facts.settings
  const places = { config, hba, ident, data }
  const files: ConfigContent[] = []
  const notes: string[] = []
  let settings: object = {}
  if (facts.sqlRefusal !== undefined)
    notes.push(`its configuration cannot be asked for: ${facts.sqlRefusal.message}`)
  else {
    const session = await connectSql(target)
    try {
      settings = await readChosenSettings(session)
      const asking: Asking = { unread: [] }
      const reading = { session, isHere: await isOnThisHost(session), asking }
      const needed = await readFiles(reading, facts, files)
      const missing = missingNote(facts, needed.filter(isNotIn(files)), target)
      if (missing !== undefined) notes.push(missing)
    } finally {
      await closeSql(session)
    }
  }
  const stored = files.map(({ path }) => path)
  const json = { format: 1, configuration: { ...places, stored }, notes, settings, facts }
  const text = `${JSON.stringify(json, undefined, 2)}\n`
  return { systemId: facts.systemId, json: Buffer.from(text), files, notes }
}

/** Settings that somebody chose, by name, with where they were set. */
async function readChosenSettings(session: SqlSession): Promise<object> {
  const text = `select name, current_setting(name), source from pg_settings
    where source not in ('default', 'override', 'client', 'session') order by 1`
  const rows = await runSql(session, text)
  return Object.fromEntries(rows.map(([name, value, source]) => [name, { value, source }]))
}

function isNotIn(files: readonly ConfigContent[]): (path: string) => boolean {
  const stored = new Set(files.map(({ path }) => path))
  return (path) => !stored.has(rawPath(path))
}

/**
 * Appends each file outside of the data folder that can be read, with those that it includes or takes names
 * from. Returns which must be there.
 */
async function readFiles(
  reading: Reading,
  facts: ServerFacts,
  files: ConfigContent[],
): Promise<readonly string[]> {
  const { hba_file: hba, ident_file: ident, data_directory: data } = facts.settings
  if (data === undefined) return []
  const inside = `${data.replace(/\/+$/, '')}/`
  const waiting = facts.configFiles.filter(({ isOutside }) => isOutside === true).map(({ path }) => path)
  const needed = new Set(waiting)
  const lists = new Set([hba, ident])
  const seen = new Set<string>()
  for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) {
    if (seen.has(path) || path.startsWith(inside) || files.length >= FILES_MAX) continue
    seen.add(path)
    const bytes = await readOne(reading, path)
    if (bytes === undefined) continue
    files.push({ path: rawPath(path), bytes })
    const isList = lists.has(path)
    for (const line of bytes.toString('utf8').split('\n')) {
      const found = isList ? parseListLine(line) : parseConfigLine(line)
      const named = isList ? wordsOfList(line).flatMap((word) => namesFile(word) ?? []) : []
      const paths = named.map((name) => includedPath(path, name))
      for (const each of paths) if (!each.startsWith(inside)) needed.add(each)
      if (found !== undefined && isInclude(found)) paths.push(...(await listIncluded(reading, path, found)))
      for (const each of isList ? paths : []) lists.add(each)
      waiting.push(...paths)
    }
  }
  return [...needed]
}

async function listIncluded(reading: Reading, from: string, { name, value }: ConfigLine): Promise<string[]> {
  const path = includedPath(from, value)
  if (name !== 'include_dir') return [path]
  const names = await listNames(reading, path)
  return names.filter(isIncludedName).map((each) => `${path}/${each}`)
}

/** undefined: it cannot be read, is not there, or is no file of a size that configuration has. */
async function readOne({ session, isHere, asking }: Reading, path: string): Promise<Buffer | undefined> {
  const text = "select encode(pg_read_binary_file($1, 0, $2, true), 'base64')"
  const rows = await askSql(asking, path, async () => runSql(session, text, [path, FILE_BYTES_MAX + 1]))
  const encoded = rows[0]?.[0]
  if (typeof encoded === 'string') {
    const bytes = Buffer.from(encoded, 'base64')
    return bytes.length > FILE_BYTES_MAX ? undefined : bytes
  }
  return isHere ? await ofThisHost(() => readLocal(path)) : undefined
}

async function readLocal(path: string): Promise<Buffer | undefined> {
  const stats = await stat(path)
  return stats.isFile() && stats.size <= FILE_BYTES_MAX ? await readFile(path) : undefined
}

async function listNames({ session, isHere, asking }: Reading, path: string): Promise<string[]> {
  const rows = await askSql(asking, path, async () =>
    runSql(session, 'select pg_ls_dir($1, true, false)', [path]),
  )
  const names = rows.flatMap(([name]) => (typeof name === 'string' ? [name] : []))
  if (names.length > 0 || !isHere) return names
  return (await ofThisHost(() => readdir(path))) ?? []
}

/** undefined: this user may not read it here, or it is not there. */
async function ofThisHost<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return undefined
  }
}

/**
 * Whether the process that serves this session runs here: an address of this host proves nothing, it may be
 * a tunnel or a container. The title of the process names the user and the other end of the connection.
 */
async function isOnThisHost(session: SqlSession): Promise<boolean> {
  const { host, user } = session.place
  if (!host.startsWith('/') && !LOOPBACK.includes(host)) return false
  const [row] = await runSql(session, 'select pg_backend_pid()')
  const title = await ofThisHost(() => readFile(`/proc/${Number(row?.[0])}/cmdline`, 'utf8'))
  const end = host.startsWith('/') ? '[local]' : `(${session.socket.localPort})`
  return title?.startsWith('postgres') === true && title.includes(` ${user} `) && title.includes(end)
}

/** What is missing of the files that are known to lie outside, and the statements that would help. */
function missingNote(
  { role, settings }: ServerFacts,
  missing: readonly string[],
  { database }: ServerTarget,
): string | undefined {
  const name = `"${(role?.name ?? '').replaceAll('"', '""')}"`
  const isNot = 'is not in the backup'
  if (settings.data_directory === undefined)
    return `configuration outside of the data folder ${isNot}: GRANT pg_read_all_settings TO ${name};`
  if (missing.length === 0) return undefined
  const paths = missing.join(', ')
  const functions = 'pg_read_binary_file(text, bigint, bigint, boolean), pg_ls_dir(text, boolean, boolean)'
  const grants = `GRANT pg_read_server_files TO ${name}; GRANT EXECUTE ON FUNCTION ${functions} TO ${name};`
  return `${paths} ${isNot}; in the database "${database}" run: ${grants}`
}
