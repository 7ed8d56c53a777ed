/** `backstock check`: proves that what is stored can be restored, as findings. */
import { FAILURES } from '../../base/failure.ts'
import { check, type CheckReport } from '../../recovery/check.ts'
import type { Finding } from '../../recovery/check-findings.ts'
import { checkServers, type CheckedServer, type ServerProblem } from '../../recovery/check-servers.ts'
import { CHECK_PARTS, isWholeScope, type DomainScope } from '../../recovery/check-scope.ts'
import type { BootReport } from '../../recovery/boot.ts'
import { bootFacts, bootLines, chooseBoots, runBoots } from '../check-boot.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { formatBytes, formatCount, formatCounted, formatDuration } from '../human.ts'
import { type OpenedRepository, withRepository } from '../open-repository.ts'
import { postgresServer } from '../postgres-input.ts'
import { detail, printEvent, printFinding, printLine, printSummary, showMoment, warn } from '../print.ts'
import { archiveCommandFor, spoolFolder } from '../spool-folder.ts'
import { beginProgress, endProgress, updateProgress } from '../progress.ts'

/** Hurt files named to people for one finding; --json and --verbose get all that the finding holds. */
const FILES_SHOWN_MAX = 10

export async function run(context: CommandContext, input: InputOf<'check'>): Promise<number> {
  return withRepository(context, async (repository) => {
    const { access, host, workers } = repository
    const { printer, clock, signal } = context
    // A wrong name must not be found out after hours.
    const chosen = await chooseBoots(context, repository, input)
    const progress = beginProgress(printer, clock, 'check')
    let report: CheckReport
    let servers: ServerProblem[]
    try {
      report = await check(access, host, {
        ...(input.readData === undefined ? {} : { readData: input.readData }),
        workers,
        clock,
        signal,
        onProgress: ({ phase, done, all, bytes }) =>
          updateProgress(progress, {
            files: done,
            filesTotal: all === 0 ? undefined : all,
            bytes,
            current: phase,
          }),
      })
      servers = await checkServers(input.noServer ? [] : serversOf(context, repository), signal)
    } finally {
      endProgress(progress)
    }
    const { unreadable, unremembered } = report
    for (const finding of report.findings) showFinding(context, finding)
    for (const problem of servers) showProblem(context, problem)
    const boots = await runBoots(context, repository, { chosen, input })
    const booted = boots.flatMap((boot) => boot.findings)
    for (const finding of booted) showFinding(context, finding)
    const beside = [...servers, ...booted]
    const count = (severity: ServerProblem['severity']): number =>
      beside.filter((problem) => problem.severity === severity).length
    const errors = report.errors + count('error')
    const sum = { ...report, errors, warnings: report.warnings + count('warning') }
    printReport(context, sum, { findings: beside.length, boots })
    if (unremembered !== undefined)
      warn(printer, `what this check found is not remembered: ${unremembered.message}`)
    if (errors > unreadable) return 1
    return unreadable > 0 ? FAILURES['storage.offline'].exit : 0
  })
}

/** Of the configured databases. */
function serversOf(context: CommandContext, { loaded, access }: OpenedRepository): CheckedServer[] {
  return Object.entries(loaded.config.sources).flatMap(([source, settings]) => {
    if (settings.kind !== 'postgres') return []
    const { logs, slot, mode } = settings
    const owner = { repository: access.config.repository, source }
    const archiveCommand = archiveCommandFor(spoolFolder(context, loaded, owner))
    const wish = { logs, slot, mode, archiveCommand, applicationName: 'backstock' }
    return [{ source, wish, target: () => postgresServer(context, source, settings) }]
  })
}

function showProblem({ printer }: CommandContext, { code, severity, ...problem }: ServerProblem): void {
  const { message, source, mend } = problem
  printEvent(printer, { type: 'finding', severity, code, message, source, mend })
  if (printer.json) return
  if (severity === 'info') {
    detail(printer, `${code}: ${message}`)
    return
  }
  printFinding(printer, { severity, message: `${code}: ${message}` })
  for (const command of mend) printLine(printer, `  ${command}`)
}

function showFinding({ printer }: CommandContext, finding: Finding): void {
  const { code, severity, message, object, snapshots, files, fileCount } = finding
  printEvent(printer, { type: 'finding', severity, code, message, object, snapshots, files, fileCount })
  if (printer.json) return
  if (severity === 'info') {
    detail(printer, `${code}: ${message}`)
    return
  }
  printFinding(printer, { severity, message: `${code}: ${message}` })
  const shown = printer.verbose ? files : files.slice(0, FILES_SHOWN_MAX)
  for (const { snapshot, path, below } of shown) {
    const verb = code === 'object.unreadable' ? 'keeps back' : 'hurts'
    printLine(printer, `  ${verb} ${path}${below ? ' and all below it' : ''} in ${snapshot}`)
  }
  const more = fileCount - shown.length
  if (more > 0) printLine(printer, `  … and ${formatCounted(more, 'more file')}`)
}

/** `beside`: what is not in the report itself. */
function printReport(
  { printer }: CommandContext,
  report: CheckReport,
  beside: { readonly findings: number; readonly boots: readonly BootReport[] },
): void {
  const { counts, coverage, scope, errors, unreadable, warnings, leftOut, seconds } = report
  const event = {
    type: 'summary',
    command: 'check',
    errors,
    unreadable,
    warnings,
    findings: report.findings.length + beside.findings,
    leftOut,
    ...counts,
    whole: isWholeScope(scope),
    scope,
    coverage,
    ...bootFacts(beside.boots),
    seconds: Math.round(seconds * 1000) / 1000,
  } as const
  const what = [
    formatCounted(counts.snapshots, 'snapshot'),
    formatCounted(counts.files, 'file entry', 'file entries'),
    formatCounted(counts.packs, 'pack'),
  ].join(', ')
  const lines = [
    `Checked ${what} in ${formatDuration(seconds * 1000)}`,
    dataLine(report, (at) => showMoment(printer, at)),
    ...scope.flatMap(scopeLine),
    ...beside.boots.flatMap(bootLines),
    resultLine(report),
  ]
  printSummary(printer, event, lines)
}

/** What was read of the packs; only what was opened counts as proven. */
function dataLine({ coverage, scope }: CheckReport, moment: (milliseconds: number) => string): string {
  const { bytes, bytesRead, bytesCompared, bytesCovered, oldest } = coverage
  const part = bytes === 0 ? 100 : Math.floor((bytesCovered / bytes) * 100)
  const since = oldest === undefined ? '' : `, the oldest proof of ${moment(oldest)}`
  const only = bytesCompared === 0 ? '' : ` (${formatBytes(bytesCompared)} compared with checksums only)`
  const read = `Data: ${formatBytes(bytesRead)} read now${only}`
  if (bytesCovered === 0 && !isWholeScope(scope)) return read
  return `${read}, ${part} % of ${formatBytes(bytes)} proven${since}`
}

const WHY_NOT_EXAMINED = {
  credential: 'to which this credential lacks keys',
  damaged: 'whose bundle of keys is damaged or missing',
  unreadable: 'whose bundle of keys cannot be read now',
} as const

function scopeLine({ domain, name, examined, notExamined, why }: DomainScope): string[] {
  if (why === undefined) return []
  const parts = notExamined.map((part) => CHECK_PARTS[part]).join(', ')
  const only = examined.map((part) => CHECK_PARTS[part]).join(', ')
  return [`Not examined in domain ${domain} (${name}), ${WHY_NOT_EXAMINED[why]}: ${parts}; only ${only}`]
}

function resultLine({ scope, errors, unreadable, warnings, leftOut }: CheckReport): string {
  const isWhole = isWholeScope(scope)
  const out = leftOut > 0 ? ` (${formatCount(leftOut)} more findings were left out)` : ''
  const unread = unreadable === 0 ? '' : `, of which ${formatCount(unreadable)} cannot be read now`
  const found = `${formatCounted(errors, 'error')}${unread}, ${formatCounted(warnings, 'warning')}${out}`
  const result = errors === 0 && warnings === 0 ? 'No errors' : found
  if (isWhole) return errors === 0 && warnings === 0 ? `${result}.` : result
  const tells = scope.some(({ why }) => why === 'credential') ? ": a restorer's check tells" : ''
  return `${result} in what was examined; whether files can be restored is not known${tells}.`
}
