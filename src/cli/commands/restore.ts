/** `backstock restore`: a source, or a part of it, as it was. */
import { resolve } from 'node:path'
import { displayName } from '../../base/file-entry.ts'
import { FAILURES } from '../../base/failure.ts'
import { restore, type RestoreSummary } from '../../recovery/restore.ts'
import type { StoredSnapshot } from '../../repo/snapshots.ts'
import type { FileProblem } from '../../sources/files/problem.ts'
import { LOGICAL_KIND } from '../../sources/postgres/logical-paths.ts'
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
  return withRepository(context, async (repository) => {
    const snapshot = await chooseOfSource(context, repository, input.source, input)
    // Parts of a database are files like others.
    const isPart = input.path.length + input.exclude.length > 0
    if (snapshot.sourceKind === 'postgres' && !isPart) {
      const { restorePostgres } = await import('../restore-postgres.ts')
      return await restorePostgres(context, repository, snapshot, input)
    }
    refuseDatabaseOptions(input.source, input)
    const isLogical = snapshot.sourceKind === LOGICAL_KIND
    const logical = isLogical ? await import('../restore-logical.ts') : undefined
    logical?.refuseMoment(input.source, input)
    const to = resolve(context.cwd, input.to)
    const moment = showMoment(context.printer, Date.parse(snapshot.completed))
    note(context.printer, `Restoring "${snapshot.source}" as of ${moment} (${snapshot.id}) to ${to}`)
    const summary = await restoreShown(context, repository, snapshot, { ...input, to })
    const { damaged, unreadable, failed } = summary.counts
    const isWhole = !isPart && !input.dryRun && damaged + unreadable + failed === 0
    const commands = isWhole ? (logical?.restoreCommands(to) ?? []) : []
    return printRestored(context, snapshot, { ...summary, commands }, { ...input, to })
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

/**
 * What is missing makes the exit status 1, or that of a store that cannot be read when nothing else is the
 * matter; an owner or attribute that this user may not set does not.
 */
function printRestored(
  context: CommandContext,
  snapshot: StoredSnapshot,
  result: RestoreSummary & { readonly commands: readonly string[] },
  input: InputOf<'restore'>,
): number {
  const { printer } = context
  const { commands, ...summary } = result
  const { damaged, unreadable, failed, problems, rebuilt, counts } = summary
  warnRebuilt(printer, rebuilt)
  printProblems(context, damaged, counts.damaged, 'repo.corrupt')
  printProblems(context, unreadable, counts.unreadable, 'storage.offline')
  printProblems(context, failed, counts.failed, 'restore.failed')
  printProblems(context, problems, counts.problems, 'restore.failed')
  const missing = counts.damaged + counts.unreadable + counts.failed
  const exit = exitOf(counts)
  const { seconds, rebuilt: _, counts: __, ...numbers } = summary
  const event = {
    ...numbers,
    type: 'summary',
    command: 'restore',
    source: snapshot.source,
    completed: snapshot.completed,
    to: input.to,
    dryRun: input.dryRun,
    ...counts,
    ...rebuiltFacts(rebuilt),
    ...(commands.length > 0 ? { commands } : {}),
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
  if (counts.unreadable > 0)
    lines.push(
      `${formatCounted(counts.unreadable, 'of these is', 'of these are')} unreadable now, not known to be ` +
        'damaged: mend the store, then run the same command again.',
    )
  if (commands.length > 0)
    lines.push('Bring the dumps into a new server with:', ...commands.map((command) => `  ${command}`))
  printSummary(printer, event, lines)
  return exit
}

function exitOf({ damaged, unreadable, failed }: RestoreSummary['counts']): number {
  if (damaged + failed > 0) return FAILURES['restore.failed'].exit
  return unreadable > 0 ? FAILURES['storage.offline'].exit : 0
}

/** `count`: how many there are; `problems` may hold fewer. */
function printProblems(
  { printer }: CommandContext,
  problems: readonly FileProblem[],
  count: number,
  code: 'repo.corrupt' | 'storage.offline' | 'restore.failed',
): void {
  const { hint, exit } = FAILURES[code]
  for (const { path, code: errno, what } of problems) {
    const message = `"${displayName(path)}": ${what}`
    printEvent(printer, { type: 'error', code, message, hint, exit, facts: { errno, ...pathFacts(path) } })
  }
  if (printer.json) return
  const shown = printer.verbose ? problems : problems.slice(0, PROBLEMS_SHOWN_MAX)
  for (const { path, what } of shown) warn(printer, `${displayName(path)}: ${what}`)
  const more = count - shown.length
  const all = printer.verbose ? '' : ' (--verbose names more)'
  if (more > 0) warn(printer, `… and ${formatCounted(more, 'problem')} more${all}`)
}
