/**
 * The variables by which a program of PostgreSQL reaches the very server that we talk to. Passwords go this
 * way, since arguments are seen by every user of the host.
 */
import { isFailure } from '../../base/failure.ts'
import type { ServerPlace } from './replication.ts'
import type { ServerTarget } from './server-place.ts'
import { PARAMETERS, type ParameterName } from './server-url.ts'

/** Taken over as they were given: what they mean is the program's own business. */
const PASSED = [
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'passfile',
] as const satisfies readonly ParameterName[]

export function libpqEnvironment(
  { parameters }: ServerTarget,
  place: ServerPlace,
  database: string,
): Record<string, string> {
  const { host, port, user, connectTimeoutMs, applicationName = 'backstock' } = place
  const password = passwordOf(place, database)
  const env: Record<string, string> = {
    [PARAMETERS.host]: host,
    [PARAMETERS.port]: `${port}`,
    [PARAMETERS.user]: user,
    [PARAMETERS.dbname]: database,
    [PARAMETERS.connect_timeout]: `${Math.ceil(connectTimeoutMs / 1000)}`,
    [PARAMETERS.application_name]: applicationName,
  }
  if (password !== undefined) env[PARAMETERS.password] = password
  for (const name of PASSED) {
    const value = parameters[name]
    if (value !== undefined) env[PARAMETERS[name]] = value
  }
  return env
}

/** undefined: there is none; the server need not ask for one. */
function passwordOf({ password }: ServerPlace, database: string): string | undefined {
  if (typeof password !== 'function') return password
  try {
    return password(database).text
  } catch (error) {
    if (!isFailure(error, 'source.failed')) throw error
    return undefined
  }
}
