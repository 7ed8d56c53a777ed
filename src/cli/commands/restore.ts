/** `backstock restore`: a source, or a part of it, as it was. */
import { resolve } from 'node:path'
import { displayName } from '../../base/file-entry.ts'
import { FAILURES } from '../../base/failure.ts'
import { restore, type RestoreSummary } from '../../recovery/restore.ts'
import type { StoredSnapshot } from '../../repo/snapshots.ts'
import type { FileProblem } from '../../sources/files/problem.ts'
import { chooseOfSource } from '../choose-snapshot.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { formatBytes, formatCounted, formatDuration } from '../human.ts'
import { type OpenedRepository, withRepository } from '../open-repository.ts'
import { pathFacts } from '../paths.ts'
import { refuseDatabaseOptions } from '../pick-sources.ts'
import { note, printEvent, printSummary, showMoment, warn } from '../print.ts'
import { rebuiltFacts, warnRebuilt } from '../rebuilt.ts'
import { beginProgress, endProgress, updateProgress } from '../progress.ts'

const PROBLEMS_SHOWN_MAX = 20

export async function run(context: CommandContext, input: InputOf<'restore'>): Promise<number> {
  refuseDatabaseOptions(input.source, input)
  return withRepository(context, async (repository) => {
    const snapshot = await chooseOfSource(context, repository, input.source, input)
    const to = resolve(context.cwd, input.to)
    const moment = showMoment(context.printer, Date.parse(snapshot.completed))
    note(context.printer, `Restoring "${snapshot.source}" as of ${moment} (${snapshot.id}) to ${to}`)
    const summary = await restoreShown(context, repository, snapshot, { ...input, to })
    return printRestored(context, snapshot, summary, { ...input, to })
  })
}

async function restoreShown(
  context: CommandContext,
  { access, host, workers }: OpenedRepository,
  snapshot: StoredSnapshot,
  input: InputOf<'restore'>,
): Promise<RestoreSummary> {
  const { printer, clock, signal } = context
  const progress = beginProgress(printer, clock, `restore ${snapshot.source}`)
  const { to, exclude, delta, overwrite, dryRun, noOwner, path } = input
  // A part of a snapshot has no total that is known before.
  const isWhole = path.length === 0 && exclude.length === 0
  try {
    return await restore(access, host, snapshot, {
      to,
      paths: path,
      exclude,
      delta,
      overwrite,
      dryRun,
      noOwner,
      workers,
      clock,
      signal,
      onProgress: ({ files, bytes, filesTotal, bytesTotal }) =>
        updateProgress(progress, isWhole ? { files, bytes, filesTotal, bytesTotal } : { files, bytes }),
    })
  } finally {
    endProgress(progress)
  }
}

/** What is missing makes the exit status 1; an owner or attribute that this user may not set does not. */
function printRestored(
  context: CommandContext,
  snapshot: StoredSnapshot,
  summary: RestoreSummary,
  input: InputOf<'restore'>,
): number {
  const { printer } = context
  const { damaged, failed, problems, rebuilt } = summary
  warnRebuilt(printer, rebuilt)
  printProblems(context, damaged, 'repo.corrupt')
  printProblems(context, failed, 'restore.failed')
  printProblems(context, problems, 'restore.failed')
  const missing = damaged.length + failed.length
  const exit = missing > 0 ? FAILURES['restore.failed'].exit : 0
  const { seconds, rebuilt: _, ...numbers } = summary
  const event = {
    ...numbers,
    type: 'summary',
    command: 'restore',
    source: snapshot.source,
    completed: snapshot.completed,
    to: input.to,
    dryRun: input.dryRun,
    damaged: damaged.length,
    failed: failed.length,
    problems: problems.length,
    ...rebuiltFacts(rebuilt),
    seconds: Math.round(seconds * 1000) / 1000,
    exit,
  } as const
  const done = input.dryRun ? 'Would restore' : 'Restored'
  const what = `${formatCounted(summary.files, 'file')}, ${formatBytes(summary.bytes)}`
  const folders = formatCounted(summary.directories, 'folder')
  const kept = summary.bytesKept > 0 ? `, of which ${formatBytes(summary.bytesKept)} was there already` : ''
  const resumed = summary.resumed > 0 ? `, ${formatCounted(summary.resumed, 'file')} by an earlier run` : ''
  const lines = [`${done} ${what}, ${folders} in ${formatDuration(seconds * 1000)}${kept}${resumed}`]
  if (missing > 0) lines.push(`${formatCounted(missing, 'entry', 'entries')} could not be restored.`)
  printSummary(printer, event, lines)
  return exit
}

function printProblems(
  { printer }: CommandContext,
  problems: readonly FileProblem[],
  code: 'repo.corrupt' | 'restore.failed',
): void {
  const { hint, exit } = FAILURES[code]
  for (const { path, code: errno, what } of problems) {
    const message = `"${displayName(path)}": ${what}`
    printEvent(printer, { type: 'error', code, message, hint, exit, facts: { errno, ...pathFacts(path) } })
  }
  if (printer.json) return
  const shown = printer.verbose ? problems : problems.slice(0, PROBLEMS_SHOWN_MAX)
  for (const { path, what } of shown) warn(printer, `${displayName(path)}: ${what}`)
  const more = problems.length - shown.length
  if (more > 0) warn(printer, `… and ${formatCounted(more, 'problem')} more (--verbose names all)`)
}
