/**
 * Where a PostgreSQL server is and how to log in: the configured URL, then a service file, then the PG*
 * variables, then libpq's defaults (documentation, "libpq - Database Connection Control"). Not here: asking
 * a server anything.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../../base/failure.ts'
import { findPassword, readPassFile, SOCKET_FOLDERS, type PassFile } from './pass-file.ts'
import type { Password, ServerPlace } from './replication.ts'
import { chooseTls } from './server-tls.ts'
import { PARAMETERS, parseServerUrl, type ParameterName, type Parameters } from './server-url.ts'
import { readService } from './pg-services.ts'

export interface ServerInput {
  readonly url?: string | undefined
  /** From the configuration, where a URL should not hold it. */
  readonly password?: string | undefined
  readonly env: Readonly<Record<string, string | undefined>>
  /** The name of who runs the program: the user where nothing else names one. */
  readonly systemUser: string
}

/** Which of several servers will do (target_session_attrs). */
export type SessionKind = (typeof SESSION_KINDS)[number]

export interface ServerTarget {
  /** In the order in which they are tried. */
  readonly places: readonly ServerPlace[]
  /** For SQL. */
  readonly database: string
  readonly session: SessionKind
  /** All that was given, for other programs (libpq-environment.ts). */
  readonly parameters: Parameters
  /** What was passed over and is worth telling. */
  readonly warnings: readonly string[]
}

const SESSION_KINDS = ['any', 'primary', 'standby', 'read-write', 'read-only', 'prefer-standby'] as const
const PLACES_MAX = 100
const PORT_DEFAULT = 5432
const TIMEOUT_SECONDS_DEFAULT = 10
const TIMEOUT_SECONDS_MAX = 3600
const DATABASE_DEFAULT = 'postgres'

/** Fails: config.invalid, host.file. */
export function findServer(input: ServerInput): ServerTarget {
  const home = nonEmpty(input.env['HOME'])
  const given = allParameters(input, home)
  const user = given.user ?? input.systemUser
  const passFilePath = given.passfile ?? (home === undefined ? undefined : join(home, '.pgpass'))
  const passFile = passFilePath === undefined ? undefined : readPassFile(passFilePath)
  const common = {
    user,
    ...chooseTls(given, home),
    connectTimeoutMs: 1000 * parseTimeout(given.connect_timeout),
    applicationName: given.application_name,
  }
  const places = hostsOf(given).map(({ host, port }) => ({
    ...common,
    host,
    port,
    password: passwordOf(input, given, (database) => filePassword(passFile, { host, port, user, database })),
  }))
  return {
    places,
    database: given.dbname ?? DATABASE_DEFAULT,
    session: parseSession(given.target_session_attrs),
    parameters: given,
    warnings: passFile?.ignored === undefined ? [] : [passFile.ignored],
  }
}

/** The URL before the service, the service before the environment. */
function allParameters({ url, env }: ServerInput, home: string | undefined): Parameters {
  const own = url === undefined ? {} : parseServerUrl(url)
  const fromEnv: Parameters = {}
  for (const [name, variable] of Object.entries(PARAMETERS) as [ParameterName, string][]) {
    const value = nonEmpty(env[variable])
    if (value !== undefined) fromEnv[name] = value
  }
  const service = own.service ?? fromEnv.service
  if (service === undefined) return { ...fromEnv, ...own }
  const userFile = env['PGSERVICEFILE'] ?? (home === undefined ? undefined : join(home, '.pg_service.conf'))
  const systemFile = join(env['PGSYSCONFDIR'] ?? '/etc/postgresql-common', 'pg_service.conf')
  const files = userFile === undefined ? [systemFile] : [userFile, systemFile]
  return { ...fromEnv, ...readService(service, files), ...own }
}

/** One port is for all hosts, else each has its own; an empty one is the default. */
function hostsOf(given: Parameters): { host: string; port: number }[] {
  const ports = (given.port ?? '').split(',').map(parsePort)
  const [firstPort = PORT_DEFAULT] = ports
  const hosts = (given.host ?? '').split(',')
  if (ports.length > 1 && ports.length !== hosts.length)
    throw placeFailure(`there are ${ports.length} ports for ${hosts.length} hosts (must be one, or one each)`)
  if (hosts.length > PLACES_MAX) throw placeFailure(`there are ${hosts.length} hosts (at most ${PLACES_MAX})`)
  return hosts.map((host, at) => {
    const port = ports[at] ?? firstPort
    return { host: host === '' ? localPlace(port) : host, port }
  })
}

function localPlace(port: number): string {
  return SOCKET_FOLDERS.find((folder) => existsSync(`${folder}/.s.PGSQL.${port}`)) ?? 'localhost'
}

function parsePort(text: string): number {
  if (text === '') return PORT_DEFAULT
  const port = Number(text)
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535)
    throw placeFailure(`the port is "${text}" (must be 1 to 65535)`)
  return port
}

/** Seconds; 0 waits as long as the system does. */
function parseTimeout(text: string | undefined): number {
  if (text === undefined) return TIMEOUT_SECONDS_DEFAULT
  if (!/^-?\d{1,9}$/.test(text) || Number(text) > TIMEOUT_SECONDS_MAX)
    throw placeFailure(`connect_timeout is "${text}" (must be seconds, at most ${TIMEOUT_SECONDS_MAX})`)
  return Math.max(0, Number(text))
}

function parseSession(text = 'any'): SessionKind {
  const session = SESSION_KINDS.find((known) => known === text)
  if (session === undefined)
    throw placeFailure(`target_session_attrs is "${text}" (must be one of ${SESSION_KINDS.join(', ')})`)
  return session
}

function passwordOf(
  { url, password }: ServerInput,
  given: Parameters,
  lookUp: (database: string) => Password,
): ServerPlace['password'] {
  if (password === undefined) return given.password ?? lookUp
  if (url !== undefined && parseServerUrl(url).password !== undefined)
    throw placeFailure('both url and password hold a password (one of them must go)')
  return password
}

function filePassword(
  file: PassFile | undefined,
  question: { host: string; port: number; user: string; database: string },
): Password {
  const text = file === undefined ? undefined : findPassword(file.lines, question)
  if (file !== undefined && text !== undefined) return { text, from: file.path }
  const { host, port, database, user } = question
  const why =
    file === undefined
      ? 'none is given'
      : (file.ignored ??
        `none is given, and ${file.path} has no line for ${host}:${port}:${database}:${user}`)
  throw new Failure('source.failed', `the server asks for a password, ${why}`)
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text
}

function placeFailure(is: string): Failure {
  return new Failure('config.invalid', `Cannot use the address of the PostgreSQL server: ${is}`)
}
