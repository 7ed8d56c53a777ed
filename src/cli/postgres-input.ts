/** From what the configuration says of a PostgreSQL cluster to what its source needs. */
import { userInfo } from 'node:os'
import { isFailure } from '../base/failure.ts'
import type { PostgresSourceConfig } from '../protocol/config.ts'
import type { SourceSettings } from '../sources/open.ts'
import { connectReplication } from '../sources/postgres/connect.ts'
import { connectStandby } from '../sources/postgres/prefer-standby.ts'
import { LOGICAL_KIND } from '../sources/postgres/logical-paths.ts'
import { findServer, type ServerTarget } from '../sources/postgres/server-place.ts'
import { readServerRecord, type ServerRecord } from '../sources/postgres/server-record.ts'
import type { CommandContext } from './context.ts'
import { note, warn } from './print.ts'
import { readSecret } from './secret.ts'

/** Where the server is and how to log in. Fails: config.invalid, and as the password's secret fails. */
export async function postgresServer(
  context: CommandContext,
  name: string,
  source: PostgresSourceConfig,
): Promise<ServerTarget> {
  const { env, signal, printer } = context
  const options = { env, signal, warn: (text: string) => warn(printer, text) }
  const { password } = source
  const secret =
    password === undefined ? undefined : await readSecret(`sources.${name}.password`, password, options)
  const input = { url: source.url, password: secret, env, systemUser: userInfo().username }
  const target = findServer(input)
  for (const text of target.warnings) warn(printer, `${name}: ${text}`)
  return target
}

/** Connects nothing yet. Fails: config.invalid, and as the password's secret fails. */
export async function postgresSettings(
  context: CommandContext,
  name: string,
  source: PostgresSourceConfig,
): Promise<SourceSettings> {
  const target = await postgresServer(context, name, source)
  if (source.mode === 'logical') {
    const session = source.prefer === 'standby' ? 'prefer-standby' : target.session
    return {
      kind: LOGICAL_KIND,
      target: { ...target, session },
      pgDump: source.pgDump,
      excludeDatabases: source.excludeDatabases,
      env: context.env,
      now: context.clock.now(),
      warn: (text) => warn(context.printer, `${name}: ${text}`),
      signal: context.signal,
    }
  }
  return {
    kind: 'postgres',
    connect: () => {
      // Nothing comes until then: that must not look like a hang.
      if (source.checkpoint === 'spread')
        note(
          context.printer,
          `${name}: waits for a checkpoint as the server paces it (checkpoint: fast: at once)`,
        )
      return source.prefer === 'standby'
        ? connectStandby(target, (text) => warn(context.printer, `${name}: ${text}`))
        : connectReplication(target)
    },
    checkpoint: source.checkpoint,
    rateBytesMax: source.rateLimit,
    now: () => context.clock.now(),
    facts: async (place) => readRecord(context, name, { ...target, places: [place], session: 'any' }),
  }
}

/** What cannot be read is a warning: the backup of the data goes on without it. */
async function readRecord(
  { printer }: CommandContext,
  name: string,
  target: ServerTarget,
): Promise<ServerRecord | undefined> {
  try {
    const record = await readServerRecord(target)
    for (const text of record.notes) warn(printer, `${name}: ${text}`)
    return record
  } catch (error) {
    if (!isFailure(error, 'source.failed')) throw error
    warn(printer, `${name}: its configuration and versions are not in the backup: ${error.message}`)
    return undefined
  }
}
