/**
 * Logs in to a PostgreSQL server by the library `pg`: SCRAM, TLS, and the second try without or with TLS that
 * `sslmode` allow and prefer ask for. The library gets from us whatever it would look for in
 * variables of the environment and in files.
 */
import type { Socket } from 'node:net'
import { Client } from 'pg'
import { describeError, errnoOf, Failure } from '../../base/failure.ts'
import type { ServerPlace } from './replication.ts'

export interface LogInWish {
  /** undefined: none, the connection is for replication. */
  readonly database: string | undefined
  readonly newSocket: () => Socket
}

/** What a server says to a login that its pg_hba.conf has no line for. */
const NO_SUCH_LOGIN = '28000'
/** The name of replication connections in .pgpass and pg_hba.conf. */
const REPLICATION = 'replication'
const APPLICATION = 'backstock'
const SQLSTATE = /^[0-9A-Z]{5}$/
/** Texts of the library for the server's answer to "may I have TLS?". */
const NO_TLS = /does not support SSL|error establishing an SSL connection/
const FOREIGN_ROOT = new Set([
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
])

/** Fails: source.failed; its `sqlstate` is what the server said, if it said something. */
export async function logIn(place: ServerPlace, wish: LogInWish): Promise<Client> {
  try {
    return await tryLogIn(place, place.tls, wish)
  } catch (error) {
    if (place.tlsElse === undefined || isSocketFolder(place) || !asksForOther(error))
      throw loginFailure(place, explain(place, wish, error), error)
    try {
      return await tryLogIn(place, place.tlsElse, wish)
    } catch (second) {
      const names = place.tls === false ? ['without TLS', 'with TLS'] : ['with TLS', 'without TLS']
      const texts = [explain(place, wish, error), explain(place, wish, second)]
      const both = names.map((name, at) => `${name}: ${texts[at]}`).join('; ')
      throw loginFailure(place, both, second)
    }
  }
}

/** A server as people are told of it. */
export function shownPlace({ host, port, user }: ServerPlace): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port} as ${user}`
}

export function connectionFailure(place: ServerPlace, is: string, cause?: unknown): Failure {
  return new Failure('source.failed', `Cannot talk to PostgreSQL on ${shownPlace(place)}: ${is}`, { cause })
}

/** The SQLSTATE of an error of the library, or undefined. */
export function sqlstateOf(error: unknown): string | undefined {
  // Errors of the socket have a code too, which may have five letters as well (EPIPE).
  if (!(error instanceof Error) || !('severity' in error) || !('code' in error)) return undefined
  return typeof error.code === 'string' && SQLSTATE.test(error.code) ? error.code : undefined
}

async function tryLogIn(place: ServerPlace, tls: ServerPlace['tls'], wish: LogInWish): Promise<Client> {
  const socket = wish.newSocket()
  const settings = {
    host: place.host,
    port: place.port,
    user: place.user,
    password: () => givePassword(place, wish),
    database: wish.database ?? 'postgres',
    application_name: place.applicationName ?? APPLICATION,
    ssl: isSocketFolder(place) ? false : tls,
    sslnegotiation: 'postgres' as const,
    connectionTimeoutMillis: place.connectTimeoutMs,
    ...(wish.database === undefined ? { replication: 'true' } : {}),
    stream: () => socket,
  }
  const client = new Client(settings)
  // What happens later is told by the socket, or to the statement that waits.
  client.on('error', () => undefined)
  try {
    await client.connect()
    return client
  } catch (error) {
    socket.destroy()
    throw error
  }
}

function givePassword({ password }: ServerPlace, { database = REPLICATION }: LogInWish): string {
  if (typeof password === 'function') return password(database).text
  // The library would say that a password "must be a string".
  if (password === undefined || password === '')
    throw new Failure('source.failed', 'the server asks for a password, none is given')
  return password
}

/** A server that wants the login the other way, not one that is not there or that refuses the password. */
function asksForOther(error: unknown): boolean {
  if (sqlstateOf(error) !== undefined) return sqlstateOf(error) === NO_SUCH_LOGIN
  const code = errnoOf(error) ?? ''
  return NO_TLS.test(describeError(error)) || code === 'EPROTO' || /^ERR_(SSL|TLS)_/.test(code)
}

function isSocketFolder({ host }: ServerPlace): boolean {
  return host.startsWith('/')
}

function explain(place: ServerPlace, { database = REPLICATION }: LogInWish, error: unknown): string {
  const text =
    error instanceof AggregateError ? error.errors.map(describeError).join(', ') : describeError(error)
  const code = errnoOf(error) ?? ''
  if (text === 'timeout expired') return `no answer within ${place.connectTimeoutMs / 1000} s`
  if (NO_TLS.test(text))
    return 'the server does not offer TLS (it must have ssl = on, or sslmode must not ask for it)'
  if (FOREIGN_ROOT.has(code))
    return `its certificate is not signed by the root certificate that sslrootcert names (${text})`
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return `its certificate is for another host (${text}; sslmode=verify-full asks for the name)`
  if (code === 'CERT_HAS_EXPIRED') return 'its certificate has expired'
  if (sqlstateOf(error) !== '28P01' || typeof place.password !== 'function') return text
  return `${text} (the password is from ${place.password(database).from})`
}

function loginFailure(place: ServerPlace, is: string, cause: unknown): Failure {
  const { message } = connectionFailure(place, is)
  return new Failure('source.failed', message, { cause, facts: { sqlstate: sqlstateOf(cause) } })
}
