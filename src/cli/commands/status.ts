/**
 * `backstock status`: how safe each source is. Needs no key to contents. Exit status 1 when a finding is an
 * error.
 */
import { repositoryStatus, type SourceStatus } from '../../recovery/status.ts'
import { formatLsn } from '../../sources/postgres/lsn.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import type { LoadedConfig } from '../config-file.ts'
import { formatBytes, formatCount, formatDuration } from '../human.ts'
import { withRepository } from '../open-repository.ts'
import { requireKnownSource } from '../pick-sources.ts'
import { printEvent, printFinding, printLine, printSummary, printTable, showMoment } from '../print.ts'
import { shownKind, snapshotFacts } from '../snapshot-facts.ts'
import type { Column } from '../table.ts'

const columns: readonly Column[] = [
  { title: 'SOURCE', flexible: true },
  { title: 'LATEST' },
  { title: 'AGE', align: 'right' },
  { title: 'KIND' },
  { title: 'FILES', align: 'right' },
  { title: 'SIZE', align: 'right' },
  { title: 'STORED', align: 'right' },
  { title: 'SNAPSHOTS', align: 'right' },
]

export async function run(context: CommandContext, input: InputOf<'status'>): Promise<number> {
  return withRepository(context, async ({ access, host, loaded, store }) => {
    const { printer, clock } = context
    const wanted = {
      configured: Object.keys(loaded.config.sources),
      streamed: streamedSources(loaded),
      named: [...new Set(input.sources)],
      now: clock.now(),
    }
    const { sources, bytesStored, warnings, lastCheck } = await repositoryStatus(access, host, wanted)
    const unknown = sources.find(({ configured, snapshots }) => !configured && snapshots === 0)
    if (unknown !== undefined) {
      const all = await repositoryStatus(access, host, { ...wanted, named: [] })
      const stored = all.sources.map(({ source }) => source)
      requireKnownSource(loaded, unknown.source, stored)
    }
    printLine(
      printer,
      `Repository ${access.config.repository} of shop ${access.config.shop} in ${store.location}`,
    )
    const part = lastCheck?.whole === false ? ' (contents not read)' : ''
    const check = lastCheck === undefined ? 'never' : showMoment(printer, lastCheck.at) + part
    printLine(
      printer,
      `Stored: ${formatBytes(bytesStored)}   Last check: ${check}   Credential: ${access.role}`,
    )
    printLine(printer)
    for (const one of sources)
      printEvent(printer, { type: 'source', ...sourceFacts(one), ...logFacts(one, clock.now()) })
    printTable(
      printer,
      columns,
      sources.map((one) => rowOf(one, (at) => showMoment(printer, at))),
    )
    for (const one of sources) printLog(context, one)
    if (warnings.length > 0) printLine(printer)
    for (const { severity, code, source, message } of warnings) {
      printFinding(printer, { severity, message, facts: { code, source } })
    }
    const errors = warnings.filter(({ severity }) => severity === 'error').length
    const summary = {
      type: 'summary',
      command: 'status',
      repository: access.config.repository,
      shop: access.config.shop,
      store: store.location,
      role: access.role,
      config: access.config.n,
      bytesStored,
      sources: sources.length,
      errors,
      warnings: warnings.length - errors,
      lastCheck: lastCheck && { ...lastCheck, at: new Date(lastCheck.at).toISOString() },
    } as const
    printSummary(printer, summary, [])
    return errors > 0 ? 1 : 0
  })
}

function streamedSources({ config }: LoadedConfig): string[] {
  return Object.entries(config.sources).flatMap(([name, source]) =>
    source.kind === 'postgres' && source.logs !== 'none' ? [name] : [],
  )
}

function printLog({ printer, clock }: CommandContext, { source, writer, log }: SourceStatus): void {
  if (log === undefined) return
  const age = formatDuration(clock.now() - log.until)
  const label = writer === undefined ? source : `${writer}:${source}`
  const place = `${formatLsn(log.lsn)} on timeline ${log.timeline}`
  const whole = log.gap === undefined ? 'no gap' : `a gap ${log.gap}`
  printLine(
    printer,
    `Log of ${label}: until ${showMoment(printer, log.until)} (${age} ago), ${place}, ${whole}`,
  )
}

function logFacts({ log, streamed }: SourceStatus, now: number): Record<string, unknown> {
  if (log === undefined) return streamed ? { log: null } : {}
  const { timeline, lsn, until, gap = null } = log
  const ageSeconds = Math.round((now - until) / 1000)
  return { log: { until: new Date(until).toISOString(), ageSeconds, timeline, lsn: formatLsn(lsn), gap } }
}

function rowOf(status: SourceStatus, moment: (milliseconds: number) => string): string[] {
  const { writer, latest, ageSeconds = 0, snapshots, bytesStored } = status
  const source = writer === undefined ? status.source : `${writer}:${status.source}`
  if (latest === undefined) return [source, 'none', '', '', '', '', formatBytes(bytesStored), '0']
  return [
    source,
    moment(Date.parse(latest.completed)),
    formatDuration(ageSeconds * 1000),
    shownKind(latest),
    formatCount(latest.totals.files),
    formatBytes(latest.totals['bytes'] ?? 0),
    formatBytes(bytesStored),
    formatCount(snapshots),
  ]
}

function sourceFacts(status: SourceStatus): Record<string, unknown> {
  const { source, writer, configured, snapshots, latest, ageSeconds, newestFull, bytesStored } = status
  return {
    source,
    writer,
    configured,
    snapshots,
    ageSeconds,
    newestFull,
    bytesStored,
    latest: latest === undefined ? null : snapshotFacts(latest),
  }
}
