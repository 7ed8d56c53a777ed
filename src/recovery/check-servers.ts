/**
 * The part of a check that asks the servers of databases whether the next backup, and the log, will come. It
 * says nothing about what is stored: its findings are not remembered, and stand beside those of the check.
 */
import { mapConcurrent } from '../base/concurrent.ts'
import { Failure, isFailure } from '../base/failure.ts'
import {
  checkServer,
  SERVER_FINDINGS,
  type ServerFinding,
  type ServerFindingCode,
  type ServerWish,
} from '../sources/postgres/server-check.ts'
import { readServerFacts } from '../sources/postgres/server-facts.ts'
import type { ServerTarget } from '../sources/postgres/server-place.ts'

const SERVERS_AT_ONCE = 8

export interface CheckedServer {
  readonly source: string
  readonly wish: ServerWish
  /** Where it is. A Failure of it counts as a server that cannot be reached. */
  readonly target: () => Promise<ServerTarget>
}

export interface ServerProblem {
  /** As in docs/guide/postgres.md, after `server.`. */
  readonly code: `server.${ServerFindingCode | 'unreachable'}`
  readonly severity: 'error' | 'warning' | 'info'
  readonly source: string
  readonly message: string
  /** Commands, in this order; SQL statements end with ";". */
  readonly mend: readonly string[]
}

/** By source in the order given, worst first. Fails: cancelled. */
export async function checkServers(
  servers: readonly CheckedServer[],
  signal?: AbortSignal,
): Promise<ServerProblem[]> {
  const problems: ServerProblem[][] = servers.map(() => [])
  await mapConcurrent(servers.entries(), SERVERS_AT_ONCE, async ([at, server]) => {
    if (signal?.aborted === true) throw new Failure('cancelled', 'Stopped checking the servers')
    problems[at] = await checkOne(server)
  })
  return problems.flat()
}

async function checkOne({ source, target, wish }: CheckedServer): Promise<ServerProblem[]> {
  try {
    const place = await target()
    const applicationName = place.places[0]?.applicationName ?? wish.applicationName
    const facts = await readServerFacts(place)
    return checkServer(facts, { ...wish, applicationName }).map((found) => problemOf(source, found))
  } catch (error) {
    if (!isFailure(error) || error.code === 'cancelled') throw error
    const message = `"${source}": the server could not be asked: ${error.message}`
    return [{ code: 'server.unreachable', severity: 'warning', source, message, mend: [] }]
  }
}

function problemOf(source: string, { code, is, mustBe, mend }: ServerFinding): ServerProblem {
  const message = `"${source}": ${is} (must be: ${mustBe})`
  return { code: `server.${code}`, severity: SERVER_FINDINGS[code], source, message, mend }
}
