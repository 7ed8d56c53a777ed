/**
 * The URL of a PostgreSQL server, as libpq reads it (documentation, "Connection URIs"):
 * `postgres://user:password@host1:port1,host2/database?name=value`. Not here: defaults, environment, files.
 *
 * Messages show nothing between "//" and "/": a password with a bare "@" or "/" spills into host and port.
 */
import { Failure } from '../../base/failure.ts'

/** Settings of a connection by libpq's names, and the variable that gives one where the URL does not. */
export const PARAMETERS = {
  host: 'PGHOST',
  port: 'PGPORT',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  dbname: 'PGDATABASE',
  passfile: 'PGPASSFILE',
  service: 'PGSERVICE',
  sslmode: 'PGSSLMODE',
  sslrootcert: 'PGSSLROOTCERT',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  connect_timeout: 'PGCONNECT_TIMEOUT',
  target_session_attrs: 'PGTARGETSESSIONATTRS',
  application_name: 'PGAPPNAME',
} as const

export type ParameterName = keyof typeof PARAMETERS
export type Parameters = Partial<Record<ParameterName, string>>

const SCHEME = /^postgres(?:ql)?:\/\//
const SPELLING = 'in user and password write "@" as %40, "/" as %2F, ":" as %3A, "%" as %25'

export function isParameterName(name: string): name is ParameterName {
  return Object.hasOwn(PARAMETERS, name)
}

/** Lists of hosts and ports keep their commas; what is empty is left out. Fails: config.invalid. */
export function parseServerUrl(url: string): Parameters {
  const scheme = SCHEME.exec(url)
  if (scheme === null) throw urlFailure('it must begin with postgres:// or postgresql://')
  const rest = url.slice(scheme[0].length)
  const pathAt = rest.search(/[/?]/)
  const authority = pathAt < 0 ? rest : rest.slice(0, pathAt)
  const tail = pathAt < 0 ? '' : rest.slice(pathAt)
  const queryAt = tail.indexOf('?')
  const path = queryAt < 0 ? tail : tail.slice(0, queryAt)
  const parameters: Parameters = {}
  takeAuthority(parameters, authority)
  put(parameters, 'dbname', decodePart(path.slice(1), 'the name of the database'))
  if (queryAt >= 0) takeQuery(parameters, tail.slice(queryAt + 1))
  return parameters
}

function takeAuthority(parameters: Parameters, authority: string): void {
  const at = authority.indexOf('@')
  if (at !== authority.lastIndexOf('@')) throw urlFailure(`there is more than one "@" (${SPELLING})`)
  if (at >= 0) {
    const login = authority.slice(0, at)
    const colon = login.indexOf(':')
    put(parameters, 'user', decodePart(colon < 0 ? login : login.slice(0, colon), 'the user'))
    if (colon >= 0) put(parameters, 'password', decodePart(login.slice(colon + 1), 'the password'))
  }
  const hosts: string[] = []
  const ports: string[] = []
  for (const part of authority.slice(at + 1).split(',')) {
    // An address of version 6 stands in brackets, since it has colons itself.
    const pieces = /^(?:\[([^\]]+)\]|([^:[\]]*))(?::(.*))?$/s.exec(part)
    const [, bracketed, plain = '', port = ''] = pieces ?? []
    if (pieces === null || !/^\d*$/.test(port))
      throw urlFailure(`a host or its port cannot be read (an IPv6 address stands in brackets; ${SPELLING})`)
    hosts.push(bracketed ?? decodePart(plain, 'a host'))
    ports.push(port)
  }
  if (hosts.some((host) => host !== '')) parameters.host = hosts.join(',')
  if (ports.some((port) => port !== '')) parameters.port = ports.join(',')
}

function takeQuery(parameters: Parameters, query: string): void {
  for (const pair of query.split('&')) {
    if (pair === '') continue
    const equals = pair.indexOf('=')
    if (equals < 0) throw urlFailure(`its parameter "${pair}" has no value (must be name=value)`)
    const name = decodePart(pair.slice(0, equals), 'the name of a parameter')
    const value = decodePart(pair.slice(equals + 1), `the parameter "${name}"`)
    if (name === 'ssl' && value === 'true') put(parameters, 'sslmode', 'require')
    else if (isParameterName(name)) put(parameters, name, value)
    else
      throw urlFailure(
        `its parameter "${name}" is not known (must be one of ${Object.keys(PARAMETERS).join(', ')})`,
      )
  }
}

function put(parameters: Parameters, name: ParameterName, value: string): void {
  if (value !== '') parameters[name] = value
}

function decodePart(text: string, what: string): string {
  let decoded: string
  try {
    decoded = decodeURIComponent(text)
  } catch {
    throw urlFailure(`${what} has a "%" that is no escape (write "%" as %25)`)
  }
  // They would end or split what is sent to the server.
  if (/[\0\r\n]/.test(decoded)) throw urlFailure(`${what} holds a line break or a zero byte`)
  return decoded
}

function urlFailure(is: string): Failure {
  return new Failure('config.invalid', `Cannot use the url of the PostgreSQL server: ${is}`)
}
