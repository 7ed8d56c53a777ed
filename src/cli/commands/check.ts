/** `backstock check`: proves that what is stored can be restored, as findings. */
import { check, type CheckReport } from '../../recovery/check.ts'
import type { Finding } from '../../recovery/check-findings.ts'
import { updateHostState } from '../../repo/host-folder.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { formatBytes, formatCount, formatCounted, formatDuration } from '../human.ts'
import { withRepository } from '../open-repository.ts'
import { detail, printEvent, printFinding, printLine, printSummary, showMoment } from '../print.ts'
import { beginProgress, endProgress, updateProgress } from '../progress.ts'

/** Hurt files named to people for one finding; --json and --verbose get all that the finding holds. */
const FILES_SHOWN_MAX = 10

export async function run(context: CommandContext, input: InputOf<'check'>): Promise<number> {
  return withRepository(context, async ({ access, host, workers }) => {
    const { printer, clock, signal } = context
    const progress = beginProgress(printer, clock, 'check')
    let report: CheckReport
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
    } finally {
      endProgress(progress)
    }
    const { errors, warnings } = report
    updateHostState(host, (state) => ({ ...state, lastCheck: { at: clock.now(), errors, warnings } }))
    for (const finding of report.findings) showFinding(context, finding)
    printReport(context, report)
    return errors > 0 ? 1 : 0
  })
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
    printLine(printer, `  hurts ${path}${below ? ' and all below it' : ''} in ${snapshot}`)
  }
  const more = fileCount - shown.length
  if (more > 0) printLine(printer, `  … and ${formatCounted(more, 'more file')}`)
}

function printReport({ printer }: CommandContext, report: CheckReport): void {
  const { counts, coverage, errors, warnings, leftOut, seconds } = report
  const event = {
    type: 'summary',
    command: 'check',
    errors,
    warnings,
    findings: report.findings.length,
    leftOut,
    ...counts,
    coverage,
    seconds: Math.round(seconds * 1000) / 1000,
  } as const
  const what = [
    formatCounted(counts.snapshots, 'snapshot'),
    formatCounted(counts.files, 'file entry', 'file entries'),
    formatCounted(counts.packs, 'pack'),
  ].join(', ')
  const { bytes, bytesRead, bytesCovered, oldest } = coverage
  const part = bytes === 0 ? 100 : Math.floor((bytesCovered / bytes) * 100)
  const since = oldest === undefined ? '' : `, the oldest proof of ${showMoment(printer, oldest)}`
  const read = `Data: ${formatBytes(bytesRead)} read now, ${part} % of ${formatBytes(bytes)} proven${since}`
  const result =
    errors === 0 && warnings === 0
      ? 'No errors.'
      : `${formatCounted(errors, 'error')}, ${formatCounted(warnings, 'warning')}`
  const out = leftOut > 0 ? ` (${formatCount(leftOut)} more findings were left out)` : ''
  printSummary(printer, event, [`Checked ${what} in ${formatDuration(seconds * 1000)}`, read, result + out])
}
