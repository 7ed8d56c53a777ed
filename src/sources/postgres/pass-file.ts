/**
 * The password file of libpq, ~/.pgpass (documentation, "The Password File"): lines of
 * `host:port:database:user:password`, of which the first that fits counts. The library `pg` would read one
 * too, but only where the process's own environment says, and drops it without a word when others may read
 * it.
 */
import { readFileSync, statSync } from 'node:fs'
import { errnoOf, Failure } from '../../base/failure.ts'

export interface PassLine {
  readonly host: string
  readonly port: string
  readonly database: string
  readonly user: string
  readonly password: string
}

export interface PassFile {
  readonly path: string
  readonly lines: readonly PassLine[]
  /** Why the file does not count, as it does not for libpq; undefined: it counts, or is not there. */
  readonly ignored: string | undefined
}

export interface PassQuestion {
  readonly host: string
  readonly port: number
  /** A replication connection asks for the database `replication`. */
  readonly database: string
  readonly user: string
}

const FILE_BYTES_MAX = 1 << 20
const OTHERS_MODE = 0o077
const FIELD_COUNT = 5
/** Where servers put their Unix socket by default: such a one is called `localhost` in the file. */
export const SOCKET_FOLDERS = ['/var/run/postgresql', '/run/postgresql', '/tmp']

/** A file that is not there has no lines. Fails: host.file. */
export function readPassFile(path: string): PassFile {
  try {
    const stat = statSync(path)
    if (!stat.isFile()) return { path, lines: [], ignored: `${path} is ignored: it is no plain file` }
    if ((stat.mode & OTHERS_MODE) !== 0)
      return {
        path,
        lines: [],
        ignored: `${path} is ignored: others than its owner may use it (run: chmod 0600 ${path})`,
      }
    if (stat.size > FILE_BYTES_MAX)
      return { path, lines: [], ignored: `${path} is ignored: it is larger than a MiB` }
    return { path, lines: parsePassFile(readFileSync(path, 'utf8')), ignored: undefined }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR')
      return { path, lines: [], ignored: undefined }
    throw new Failure('host.file', `Cannot read the password file "${path}"`, { cause: error })
  }
}

/** Lines that are no entry are passed over, as libpq does. */
export function parsePassFile(text: string): PassLine[] {
  return text.split(/\r?\n/).flatMap((line) => {
    if (line === '' || line.startsWith('#')) return []
    const [host = '', port = '', database = '', user = '', password = ''] = splitFields(line)
    if (password === '') return []
    return [{ host, port, database, user, password }]
  })
}

/** A backslash takes the next character as it is. Colons of the password itself need none. */
function splitFields(line: string): string[] {
  const fields: string[] = []
  let field = ''
  for (let at = 0; at < line.length; at++) {
    const isEscape = line[at] === '\\' && at + 1 < line.length
    if (isEscape) at++
    if (isEscape || line[at] !== ':' || fields.length === FIELD_COUNT - 1) {
      field += line[at]
    } else {
      fields.push(field)
      field = ''
    }
  }
  return [...fields, field]
}

/** The password of the first line that fits, or undefined. */
export function findPassword(lines: readonly PassLine[], question: PassQuestion): string | undefined {
  const hosts = SOCKET_FOLDERS.includes(question.host) ? [question.host, 'localhost'] : [question.host]
  const fits = (field: string, ...values: string[]): boolean => field === '*' || values.includes(field)
  return lines.find(
    (line) =>
      fits(line.host, ...hosts) &&
      fits(line.port, String(question.port)) &&
      fits(line.database, question.database) &&
      fits(line.user, question.user),
  )?.password
}
