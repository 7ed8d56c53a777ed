/**
 * Connects to the first of a target's servers that answers and is of the kind that is wanted
 * (target_session_attrs, as libpq understands it). Beyond libpq: a server that refuses the login is passed
 * over too, and all of them are named when none will do.
 */
import { describeError, Failure, isFailure } from '../../base/failure.ts'
import { shownPlace } from './log-in.ts'
import {
  closeReplication,
  openReplication,
  runCommand,
  type Replication,
  type ServerPlace,
} from './replication.ts'
import type { ServerTarget, SessionKind } from './server-place.ts'
import { closeSql, openSql, runSql, type SqlSession } from './sql-session.ts'

/** What target_session_attrs is about. */
interface SessionFacts {
  readonly isStandby: boolean
  readonly isReadOnly: boolean
}

/** One way to connect. */
interface Door<Session> {
  readonly open: (place: ServerPlace) => Promise<Session>
  readonly look: (session: Session) => Promise<SessionFacts>
  readonly close: (session: Session) => Promise<void>
}

type Kind = Exclude<SessionKind, 'prefer-standby'>

/** From this version on a server says whether it is a standby. */
const SAYS_STANDBY = 140_000

/** For BASE_BACKUP and the log. End with closeReplication(). Fails: source.failed. */
export async function connectReplication(target: ServerTarget): Promise<Replication> {
  return openFirst(target, {
    open: openReplication,
    look: lookByCommands,
    close: async (replication) => closeReplication(replication),
  })
}

/** For SQL, to the target's database. End with closeSql(). Fails: source.failed. */
export async function connectSql(target: ServerTarget): Promise<SqlSession> {
  return openFirst(target, {
    open: async (place) => openSql(place, target.database),
    look: lookBySql,
    close: closeSql,
  })
}

async function openFirst<Session>(target: ServerTarget, door: Door<Session>): Promise<Session> {
  const { places, session: kind } = target
  const kinds: readonly Kind[] = kind === 'prefer-standby' ? ['standby', 'any'] : [kind]
  let problems: unknown[] = []
  for (const wanted of kinds) {
    problems = []
    for (const place of places) {
      try {
        return await openFitting(place, wanted, door)
      } catch (error) {
        if (!isFailure(error, 'source.failed')) throw error
        problems.push(error)
      }
    }
  }
  throw noServer(places.length, problems)
}

/** The one problem, or a failure that names them all. */
export function noServer(placeCount: number, problems: readonly unknown[]): unknown {
  const [only] = problems
  if (problems.length === 1) return only
  const message = `Cannot connect to any of ${placeCount} servers:`
  const each = problems.map((problem) => `\n  ${describeError(problem)}`).join('')
  return new Failure('source.failed', `${message}${each}`, { cause: only })
}

async function openFitting<Session>(place: ServerPlace, kind: Kind, door: Door<Session>): Promise<Session> {
  const session = await door.open(place)
  try {
    if (kind === 'any') return session
    const is = misfit(kind, await door.look(session))
    if (is === undefined) return session
    throw new Failure(
      'source.failed',
      `Cannot use PostgreSQL on ${shownPlace(place)}: it is ${is} (target_session_attrs=${kind})`,
    )
  } catch (error) {
    await door.close(session)
    throw error
  }
}

/** What a server is instead of what is wanted. */
function misfit(kind: Kind, { isStandby, isReadOnly }: SessionFacts): string | undefined {
  if (kind === 'primary') return isStandby ? 'a standby' : undefined
  if (kind === 'standby') return isStandby ? undefined : 'a primary'
  const takesWrites = !isStandby && !isReadOnly
  if (kind === 'read-write') return takesWrites ? undefined : 'read-only'
  return kind === 'read-only' && takesWrites ? 'one that takes writes' : undefined
}

async function lookBySql(session: SqlSession): Promise<SessionFacts> {
  const [row] = await runSql(
    session,
    "select pg_is_in_recovery(), current_setting('default_transaction_read_only')",
  )
  return { isStandby: row?.[0] === 't', isReadOnly: row?.[1] === 'on' }
}

export async function lookByCommands(replication: Replication): Promise<SessionFacts> {
  const show = async (name: string): Promise<string> =>
    (await runCommand(replication, `SHOW ${name}`))[0]?.[0] ?? ''
  const isReadOnly = (await show('default_transaction_read_only')) === 'on'
  if (Number(await show('server_version_num')) >= SAYS_STANDBY)
    return { isStandby: (await show('in_hot_standby')) === 'on', isReadOnly }
  // A standby's transactions are read-only whatever the setting; one that has both is taken for a primary.
  return { isStandby: !isReadOnly && (await show('transaction_read_only')) === 'on', isReadOnly }
}
