/** `backstock ship`: keeps the logs of databases until it is stopped. */
import { ship, type ShipEvent } from '../../backup/ship.ts'
import { Failure, isFailure } from '../../base/failure.ts'
import type { PostgresSourceConfig } from '../../protocol/config.ts'
import { connectReplication, connectSql } from '../../sources/postgres/connect.ts'
import { readNames, type NameSnapshot } from '../../sources/postgres/relation-names.ts'
import type { ServerTarget } from '../../sources/postgres/server-place.ts'
import { closeSql } from '../../sources/postgres/sql-session.ts'
import { formatLsn } from '../../sources/postgres/lsn.ts'
import { walSource } from '../../sources/postgres/wal-feed.ts'
import { cancelledBy } from '../cancelled.ts'
import type { InputOf } from '../commands.ts'
import type { LoadedConfig } from '../config-file.ts'
import type { CommandContext } from '../context.ts'
import { formatBytes } from '../human.ts'
import { type OpenedRepository, withRepository } from '../open-repository.ts'
import { pickSources } from '../pick-sources.ts'
import { postgresServer } from '../postgres-input.ts'
import { detail, note, printEvent, printFailure, printSummary, warn } from '../print.ts'
import { spoolFolder } from '../spool-folder.ts'

/** Log that one spool holds at most; the server keeps the rest. */
const SPOOL_BYTES_MAX = 16 * 1024 ** 3

interface Shipped {
  readonly source: string
  readonly config: PostgresSourceConfig
}

export async function run(context: CommandContext, input: InputOf<'ship'>): Promise<number> {
  const loaded = await context.loadConfig()
  const sources = shippedSources(loaded, input.sources)
  let exit: number
  try {
    exit = await withRepository(context, (repository) => shipAll(context, repository, sources))
  } catch (error) {
    if (!isStopped(context, error)) throw error
    exit = 0
  }
  printSummary(context.printer, { type: 'summary', command: 'ship', sources: sources.length, exit }, [])
  return exit
}

/** Being stopped is how it ends, also while it begins. */
function isStopped({ signal }: CommandContext, error: unknown): boolean {
  return signal.aborted && isFailure(cancelledBy(signal, error), 'cancelled')
}

/** Fails: usage.invalid when a named source has no log, or none has. */
function shippedSources(loaded: LoadedConfig, names: readonly string[]): Shipped[] {
  const shipped: Shipped[] = []
  const all = names.length === 0 ? Object.keys(loaded.config.sources) : names
  for (const name of all) {
    const config = loaded.config.sources[name]
    if (config?.kind === 'postgres' && config.logs !== 'none') shipped.push({ source: name, config })
    else if (names.length > 0) {
      pickSources(loaded, [name])
      const is = 'its configuration does not say logs: stream or archive'
      const message = `Cannot ship the log of "${name}": ${is}`
      throw new Failure('usage.invalid', message, { facts: { source: name } })
    }
  }
  if (shipped.length > 0) return shipped
  const is = 'no source of the configuration says logs: stream or archive'
  throw new Failure('usage.invalid', `Cannot ship logs: ${is}`)
}

/** One that fails does not keep the others from theirs. */
async function shipAll(
  context: CommandContext,
  repository: OpenedRepository,
  sources: readonly Shipped[],
): Promise<number> {
  const exits = await Promise.all(sources.map((each) => shipOne(context, repository, each)))
  return Math.max(0, ...exits)
}

async function shipOne(
  context: CommandContext,
  { access }: OpenedRepository,
  { source, config }: Shipped,
): Promise<number> {
  const { printer, clock, signal } = context
  try {
    const target = await postgresServer(context, source, config)
    const feed = walSource(source, {
      server:
        config.logs === 'stream'
          ? { connect: () => connectReplication(target), slot: config.slot }
          : undefined,
      spoolBytesMax: SPOOL_BYTES_MAX,
      readNames: () => readNamesOf(target),
      clock,
    })
    const owner = { repository: access.config.repository, source }
    const spool = spoolFolder(context, await context.loadConfig(), owner)
    await ship(access, feed, {
      spool,
      clock,
      signal,
      onEvent: statePrinter(context, source),
    })
    return 0
  } catch (error) {
    return isStopped(context, error) ? 0 : printFailure(printer, error)
  }
}

async function readNamesOf(target: ServerTarget): Promise<NameSnapshot> {
  const session = await connectSql(target)
  try {
    return await readNames(session)
  } finally {
    await closeSql(session)
  }
}

/** Says what happens, and once when a trouble is over. */
function statePrinter(context: CommandContext, source: string): (event: ShipEvent) => void {
  const { printer } = context
  let isLate = false
  return (event) => {
    printState(context, source, event)
    if (event.kind === 'store') isLate = true
    if (!isLate || event.kind !== 'shipped' || event.behind > 0) return
    isLate = false
    if (!printer.json) note(printer, `${source}: the repository has all of the log again`)
  }
}

function printState({ printer }: CommandContext, source: string, event: ShipEvent): void {
  const facts =
    event.kind === 'shipped' ? { ...event, to: `${event.to}`, lsn: formatLsn(event.to) } : { ...event }
  printEvent(printer, { type: 'status', command: 'ship', source, ...facts })
  if (printer.json) return
  if (event.kind === 'connected') note(printer, `${source}: receives the log from ${event.from} on`)
  else if (event.kind === 'branch') note(printer, `${source}: ${event.from} was left for ${event.to}`)
  else if (event.kind === 'disconnected') warn(printer, `${source}: ${event.reason}; trying again`)
  else if (event.kind === 'unread')
    warn(printer, `${source}: ${event.reason}; the log is kept without an index`)
  else if (event.kind === 'store') warn(printer, `${source}: ${event.reason}; the log waits on this host`)
  else if (event.kind === 'gap') warn(printer, `${source}: gap: ${event.reason}`)
  else if (event.kind === 'refused') warn(printer, `${source}: ${event.reason}`)
  else if (event.kind === 'stalled') {
    const left = event.hoursLeft
    const keeps = left === undefined ? 'as long as it has room' : `for ${left.toFixed(1)} hours more`
    warn(printer, `${source}: ${event.reason}; the server keeps its log ${keeps}`)
  } else {
    const behind = event.behind > 0 ? `, ${formatBytes(event.behind)} behind` : ''
    const size = formatBytes(event.bytes)
    detail(printer, `${source}: stored up to ${formatLsn(event.to)}, ${event.object} of ${size}${behind}`)
  }
}
