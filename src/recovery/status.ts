/**
 * How safe things are, from what is public in a repository and what this host remembers: the last snapshots
 * of each source, what they cost, and what should be mended. Reads no contents and no clock of its own.
 */
import {
  type BadPack,
  type HostFolder,
  type HostState,
  type LastCheck,
  readHostState,
} from '../repo/host-folder.ts'
import { missingHeads } from '../repo/heads.ts'
import type { Access } from '../repo/keys.ts'
import { newestSnapshot } from '../repo/select-snapshot.ts'
import { listSnapshots, type StoredSnapshot } from '../repo/snapshots.ts'
import { readLogStatus, type LogStatus } from './status-logs.ts'

export interface SourceStatus {
  readonly source: string
  /** Whose, where several writers have a source of this name. */
  readonly writer: string | undefined
  /** Whether the configuration still has it. */
  readonly configured: boolean
  readonly snapshots: number
  readonly latest: StoredSnapshot | undefined
  /** Since the latest was complete; undefined if there is none. */
  readonly ageSeconds: number | undefined
  /** The newest of each kind, when it was complete. */
  readonly newestFull: string | undefined
  /** Of all its pack sets. */
  readonly bytesStored: number
  /** undefined: the repository has none that could follow the latest snapshot. */
  readonly log: LogStatus | undefined
  /** Whether the configuration says that its log is streamed. */
  readonly streamed: boolean
}

export interface StatusWarning {
  /** An error: what the configuration asks for is not there, or what is there cannot be believed. */
  readonly severity: 'error' | 'warning'
  readonly code: string
  readonly source: string | undefined
  readonly message: string
}

export interface RepositoryStatus {
  readonly sources: readonly SourceStatus[]
  readonly bytesStored: number
  readonly warnings: readonly StatusWarning[]
  readonly lastCheck: LastCheck | undefined
}

const ERROR_CODES = new Set([
  'source.unprotected',
  'snapshot.bad',
  'stream.hidden',
  'log.none',
  'log.gap',
  'check.errors',
  'check.damaged',
  'check.unreadable',
])
/** A repository that was not checked for this long deserves a word. */
const CHECK_AGE_MS_MAX = 30 * 24 * 3600 * 1000
/** A shipper puts something each minute, however quiet the server is. */
const LOG_AGE_MS_MAX = 5 * 60 * 1000
/** Clocks of two hosts may differ by this much. */
const CLOCK_SLACK_MS = 300_000

export interface StatusWanted {
  readonly configured: readonly string[]
  /** Those of them whose logs are streamed. */
  readonly streamed?: readonly string[]
  readonly named: readonly string[]
  readonly now: number
}

/** Of the named sources, and, when none is named, of all that are configured or stored. Fails: storage.*. */
export async function repositoryStatus(
  access: Access,
  host: HostFolder,
  wanted: StatusWanted,
): Promise<RepositoryStatus> {
  const { configured, streamed = [], named, now } = wanted
  const { snapshots, bad, revoked } = await listSnapshots(access.store, access.config)
  const bySource = Map.groupBy(snapshots, (one) => one.source)
  const names = named.length > 0 ? named : [...new Set([...configured, ...bySource.keys()])]
  const sources: SourceStatus[] = []
  for (const source of names) {
    const its = bySource.get(source) ?? []
    const isConfigured = configured.includes(source)
    const of = {
      source,
      writer: undefined,
      configured: isConfigured,
      streamed: streamed.includes(source),
      now,
    }
    const byDomain = Map.groupBy(its, ({ domain }) => domain)
    const logs = await logsOf(access, host, of, byDomain)
    if (byDomain.size < 2) sources.push(sourceStatus({ ...of, log: newestLog(logs) }, its))
    else
      for (const [domain, ofDomain] of byDomain) {
        const writer = access.config.domains.find(({ id }) => id === domain)?.writer.name ?? domain
        const log = logs.find((each) => each.domain === domain)
        sources.push(sourceStatus({ ...of, writer, log }, ofDomain))
      }
  }
  const state = readHostState(host)
  const { lastCheck } = state
  const warnings = [
    ...keyWarnings(access),
    ...bad.map(({ name, failure }) =>
      warning('snapshot.bad', undefined, `${name} does not count: ${failure.message}`),
    ),
    ...missingHeads(host, [...snapshots, ...revoked]).map((text) =>
      warning('stream.hidden', undefined, text),
    ),
    ...checkWarnings(state, snapshots.length, now),
    ...sources.flatMap((one) => [...sourceWarnings(one, now), ...logWarnings(one, now)]),
  ]
  return { sources, bytesStored: storedBytes(snapshots), warnings, lastCheck }
}

/** Only of what can have a log: listing costs a request. */
async function logsOf(
  access: Access,
  host: HostFolder,
  { source, streamed }: Pick<SourceStatus, 'source' | 'streamed'>,
  byDomain: ReadonlyMap<string, readonly StoredSnapshot[]>,
): Promise<LogStatus[]> {
  const latest = [...byDomain.values()].flatMap((its) => newestSnapshot(its) ?? [])
  if (!streamed && latest.every(({ log }) => log === undefined)) return []
  return await readLogStatus(access, host, { source, latest })
}

function newestLog(logs: readonly LogStatus[]): LogStatus | undefined {
  return logs.toSorted((a, b) => a.until - b.until).at(-1)
}

function sourceStatus(
  of: Pick<SourceStatus, 'source' | 'writer' | 'configured' | 'streamed' | 'log'> & { readonly now: number },
  snapshots: readonly StoredSnapshot[],
): SourceStatus {
  const { source, writer, configured, streamed, log, now } = of
  const latest = newestSnapshot(snapshots)
  return {
    source,
    writer,
    configured,
    snapshots: snapshots.length,
    latest,
    ageSeconds: latest === undefined ? undefined : Math.round((now - Date.parse(latest.completed)) / 1000),
    newestFull: newestSnapshot(snapshots.filter((one) => one.kind === 'full'))?.completed,
    bytesStored: storedBytes(snapshots),
    log,
    streamed,
  }
}

/** Bytes of all pack sets that the snapshots depend on, each once. */
function storedBytes(snapshots: readonly StoredSnapshot[]): number {
  const sets = new Map<string, number>()
  for (const { domain, lineage } of snapshots) {
    for (const { packSet, bytes } of lineage) sets.set(`${domain}/${packSet}`, bytes)
  }
  let sum = 0
  for (const bytes of sets.values()) sum += bytes
  return sum
}

function warning(code: string, source: string | undefined, message: string): StatusWarning {
  return { severity: ERROR_CODES.has(code) ? 'error' : 'warning', code, source, message }
}

function keyWarnings({ role, store, config }: Access): StatusWarning[] {
  const warnings: StatusWarning[] = []
  const readers = config.recipients.filter((one) => one.role === 'restorer')
  if (role === 'owner') {
    const more = readers.length > 1 ? '' : ', and it is the only key that opens the backups'
    const text = `the recovery kit lies on this host${more}: keep a copy away from it`
    warnings.push(warning('key.location', undefined, text))
  }
  const { versions, lock } = store.capabilities
  if (!versions && !lock) {
    const text = 'a stolen writer can destroy: whoever may write to this store may also delete what is in it'
    warnings.push(warning('store.erasable', undefined, text))
  }
  return warnings
}

function checkWarnings(state: HostState, snapshots: number, now: number): StatusWarning[] {
  const { lastCheck: last, lastWholeCheck: whole, badPacks = {} } = state
  if (last === undefined) {
    return snapshots === 0
      ? []
      : [warning('check.never', undefined, 'this host has never run `backstock check`')]
  }
  const warnings: StatusWarning[] = []
  if (last.errors > 0)
    warnings.push(warning('check.errors', undefined, `the last check found ${last.errors} errors`))
  else if (last.whole === false && (whole?.errors ?? 0) > 0) {
    const since = 'later ones lacked the keys to look for them'
    const text = `the last check that could read all found ${whole?.errors} errors: ${since}`
    warnings.push(warning('check.errors', undefined, text))
  }
  warnings.push(...badPackWarnings(last, Object.entries(badPacks)))
  if (now - last.at > CHECK_AGE_MS_MAX)
    warnings.push(warning('check.old', undefined, 'the last check is more than 30 days old'))
  return warnings
}

/** What a check found stays until one that looks as deeply finds it right. */
function badPackWarnings(last: LastCheck, bad: readonly [name: string, pack: BadPack][]): StatusWarning[] {
  const warnings: StatusWarning[] = []
  const clears = '`backstock check --read-data` tells whether it still is so'
  const say = (code: string, are: string, names: readonly string[]): void => {
    const text = `packs that ${are}: ${names.length}, of which the first is ${names[0]}; ${clears}`
    if (names.length > 0) warnings.push(warning(code, undefined, text))
  }
  const namesOf = (unreadable: boolean): string[] =>
    bad.filter(([, pack]) => pack.unreadable === unreadable).map(([name]) => name)
  say('check.damaged', 'a check found damaged', namesOf(false))
  const unread = last.unreadable ?? 0
  if (unread === 0) say('check.unreadable', 'a check could not read', namesOf(true))
  else {
    const text = `the last check could not read ${unread} objects: look at its disk, then check again`
    warnings.push(warning('check.unreadable', undefined, text))
  }
  return warnings
}

function sourceWarnings(
  { source, latest, configured, snapshots }: SourceStatus,
  now: number,
): StatusWarning[] {
  if (latest === undefined) return [warning('source.unprotected', source, `"${source}" was never backed up`)]
  const warnings: StatusWarning[] = []
  if (!configured && latest.sourceKind === 'files')
    warnings.push(
      warning(
        'source.left',
        source,
        `"${source}" is not in the configuration; its ${snapshots} snapshots stay`,
      ),
    )
  if (latest.partial) {
    const count = latest.totals['problems'] ?? 0
    warnings.push(
      warning('source.partial', source, `the latest snapshot of "${source}" had ${count} problems`),
    )
  }
  if (Date.parse(latest.completed) > now + CLOCK_SLACK_MS)
    warnings.push(warning('clock.future', source, `the latest snapshot of "${source}" is from the future`))
  return warnings
}

function logWarnings({ source, latest, log, streamed }: SourceStatus, now: number): StatusWarning[] {
  if (log === undefined) {
    const text = `"${source}" has no log in the repository for its last backup: does \`backstock ship\` run?`
    return streamed && latest !== undefined ? [warning('log.none', source, text)] : []
  }
  const warnings: StatusWarning[] = []
  if (log.gap !== undefined)
    warnings.push(
      warning('log.gap', source, `the log of "${source}" has a gap ${log.gap}: make a new backup`),
    )
  if (streamed && now - log.until > LOG_AGE_MS_MAX) {
    const minutes = Math.floor((now - log.until) / 60_000)
    const text = `the log of "${source}" is ${minutes} minutes behind: does \`backstock ship\` run?`
    warnings.push(warning('log.late', source, text))
  }
  return warnings
}
