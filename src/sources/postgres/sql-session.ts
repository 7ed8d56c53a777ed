/**
 * An ordinary SQL connection to one database. What it asks cannot be led astray by objects that others made:
 * the search path is empty, so that names without a schema are the system's own.
 */
import { Socket } from 'node:net'
import type { Client } from 'pg'
import { describeError, Failure } from '../../base/failure.ts'
import { logIn, shownPlace, sqlstateOf } from './log-in.ts'
import type { ServerPlace } from './replication.ts'

export interface SqlSession {
  readonly place: ServerPlace
  readonly database: string
  readonly client: Client
  readonly socket: Socket
}

/** Columns as the server writes them. */
export type SqlRow = readonly (string | null)[]

/** A server that does not end the connection when it is told good-bye. */
const GOODBYE_MS_MAX = 2000
const AS_TEXT = { getTypeParser: () => (value: string) => value }

/** Logs in. End with closeSql(). Fails: source.failed, with the server's `sqlstate`. */
export async function openSql(place: ServerPlace, database: string): Promise<SqlSession> {
  // Each try to log in has a socket of its own; the last one is in use.
  let socket = new Socket()
  const newSocket = (): Socket => (socket = new Socket())
  const client = await logIn(place, { database, newSocket })
  const session: SqlSession = { place, database, client, socket }
  try {
    await runSql(session, "select pg_catalog.set_config('search_path', '', false)")
    return session
  } catch (error) {
    await closeSql(session)
    throw error
  }
}

/** The rows of one statement. Fails: source.failed, with the server's words and `sqlstate`. */
export async function runSql(
  { client, place }: SqlSession,
  text: string,
  values: readonly unknown[] = [],
): Promise<SqlRow[]> {
  try {
    const query = { text, values: [...values], rowMode: 'array' as const, types: AS_TEXT }
    const { rows } = await client.query<(string | null)[]>(query)
    return rows
  } catch (error) {
    const sqlstate = sqlstateOf(error)
    const message = `Cannot ask PostgreSQL on ${shownPlace(place)}: ${describeError(error)}`
    throw new Failure('source.failed', message, { cause: error, facts: { sqlstate } })
  }
}

export async function closeSql({ client, socket }: SqlSession): Promise<void> {
  const timer = setTimeout(() => socket.destroy(), GOODBYE_MS_MAX)
  try {
    await client.end()
  } finally {
    clearTimeout(timer)
  }
}
