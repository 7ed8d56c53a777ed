/** `backstock export`: a snapshot in a form that other programs read. */
import { resolve } from 'node:path'
import { Failure } from '../../base/failure.ts'
import { exportSnapshot, exportStream, type ExportSummary } from '../../recovery/export-cluster.ts'
import type { TarCounts } from '../../recovery/export-tar.ts'
import type { StoredSnapshot } from '../../repo/snapshots.ts'
import { closeSnapshot } from '../../repo/tree-reader.ts'
import { chooseSnapshot } from '../choose-snapshot.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { formatBytes, formatCounted, formatDuration } from '../human.ts'
import { withRepository, type OpenedRepository } from '../open-repository.ts'
import { note, printSummary, showMoment, warn, writeBytes } from '../print.ts'
import { beginProgress, endProgress, updateProgress } from '../progress.ts'
import { openShown } from '../rebuilt.ts'
import { tablespaceMapOf } from '../restore-postgres.ts'
import { startCommand } from '../start-command.ts'

const STDOUT = '-'

export async function run(context: CommandContext, input: InputOf<'export'>): Promise<number> {
  const tablespaceMap = tablespaceMapOf(input.tablespaceMap)
  return withRepository(context, async (repository) => {
    const snapshot = await chooseSnapshot(context, repository, input.snapshot)
    if (input.to === STDOUT) return await exportToStdout(context, repository, snapshot)
    const to = resolve(context.cwd, input.to)
    const moment = showMoment(context.printer, Date.parse(snapshot.completed))
    note(context.printer, `Exporting "${snapshot.source}" as of ${moment} (${snapshot.id}) to ${to}`)
    const { printer, clock, signal } = context
    const progress = beginProgress(printer, clock, `export ${snapshot.source}`)
    const { format, noOwner } = input
    let summary: ExportSummary
    try {
      const { access, host, workers } = repository
      summary = await exportSnapshot(access, host, snapshot, {
        to,
        format,
        tablespaceMap,
        noOwner,
        workers,
        clock,
        signal,
        onProgress: ({ files, bytes }) => updateProgress(progress, { files, bytes }),
      })
    } finally {
      endProgress(progress)
    }
    printExported(context, snapshot, summary, { to, format })
    return 0
  })
}

/** Only the archive, also with --json: it is the result. */
async function exportToStdout(
  context: CommandContext,
  repository: OpenedRepository,
  snapshot: StoredSnapshot,
): Promise<number> {
  const { printer, signal } = context
  if (printer.out.isTTY === true)
    throw new Failure('usage.invalid', 'Cannot export to a terminal: standard output must be a pipe or file')
  const reader = await openShown(printer, repository, snapshot)
  try {
    const write = async (bytes: Uint8Array): Promise<void> => {
      // Whoever reads half an archive must hear of it.
      if (printer.outClosed) throw new Failure('cancelled', 'Nobody reads the output any more')
      await writeBytes(printer, bytes, signal)
    }
    warnLeftOut(context, await exportStream(reader, write, { signal }))
    return 0
  } finally {
    closeSnapshot(reader)
  }
}

function printExported(
  context: CommandContext,
  snapshot: StoredSnapshot,
  { names, counts, cluster, seconds }: ExportSummary,
  { to, format }: { readonly to: string; readonly format: string },
): void {
  warnLeftOut(context, counts)
  const start = cluster === undefined ? undefined : startCommand(cluster, `${to}/data`)
  const event = {
    type: 'summary',
    command: 'export',
    snapshot: snapshot.id,
    source: snapshot.source,
    completed: snapshot.completed,
    to,
    format,
    names,
    ...counts,
    ...(start === undefined ? {} : { start }),
    seconds: Math.round(seconds * 1000) / 1000,
    exit: 0,
  } as const
  const what = `${formatCounted(counts.files, 'file')}, ${formatBytes(counts.bytes)}`
  const lines = [`Exported ${what} in ${formatDuration(seconds * 1000)}: ${names.join(', ')}`]
  if (cluster !== undefined && cluster.config !== 'inside')
    lines.push('Its configuration lay elsewhere: postgresql.conf is not in data, see config.')
  else if (start !== undefined) lines.push(`Start it with: ${start}`)
  printSummary(context.printer, event, lines)
}

function warnLeftOut({ printer }: CommandContext, { sockets, xattrs, linked }: TarCounts): void {
  if (sockets > 0) warn(printer, `${formatCounted(sockets, 'socket')} left out: an archive holds none`)
  if (xattrs > 0)
    warn(
      printer,
      `extended attributes of ${formatCounted(xattrs, 'entry', 'entries')} are not in the archive`,
    )
  if (linked > 0)
    warn(printer, `${formatCounted(linked, 'name')} of files with several are files of their own there`)
}
