/** `backstock backup`: one snapshot of each source. A source that fails does not keep the others from theirs. */
import { hostname } from 'node:os'
import { backup, type BackupSummary } from '../../backup/backup.ts'
import { backupBetweenHooks } from '../../backup/hooks.ts'
import { displayName } from '../../base/file-entry.ts'
import { FAILURES, Failure } from '../../base/failure.ts'
import { missingHeads } from '../../repo/heads.ts'
import { newestSnapshot } from '../../repo/select-snapshot.ts'
import { listSnapshots } from '../../repo/snapshots.ts'
import { writersOf } from '../choose-snapshot.ts'
import { type BackupInput, backupInputs } from '../backup-input.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { formatBytes, formatCount, formatCounted, formatDuration } from '../human.ts'
import { type OpenedRepository, withRepository } from '../open-repository.ts'
import { pathFacts } from '../paths.ts'
import { detail, note, printEvent, printFailure, printSummary, printTable, warn } from '../print.ts'
import { beginProgress, endProgress, updateProgress } from '../progress.ts'
import { rebuiltFacts, warnRebuilt } from '../rebuilt.ts'
import { shownKind } from '../snapshot-facts.ts'
import type { Column } from '../table.ts'

/** Problems of one source shown to people; --json and --verbose get all. */
const PROBLEMS_SHOWN_MAX = 20

const columns: readonly Column[] = [
  { title: 'SOURCE', flexible: true },
  { title: 'SNAPSHOT' },
  { title: 'KIND' },
  { title: 'NEW', align: 'right' },
  { title: 'CHANGED', align: 'right' },
  { title: 'UNCHANGED', align: 'right' },
  { title: 'READ', align: 'right' },
  { title: 'ADDED', align: 'right' },
  { title: 'STORED', align: 'right' },
  { title: 'TIME', align: 'right' },
]

interface Outcome {
  readonly source: string
  readonly sourceKind: string
  readonly summary: BackupSummary | undefined
  /** Sentences about snapshots that the store hid before this one was made. */
  readonly hidden: readonly string[]
  readonly exit: number
}

export async function run(context: CommandContext, input: InputOf<'backup'>): Promise<number> {
  const inputs = await backupInputs(context, input)
  const options = { uploadLimit: input.uploadLimit }
  return withRepository(context, (repository) => backUpAll(context, repository, inputs, input), options)
}

async function backUpAll(
  context: CommandContext,
  repository: OpenedRepository,
  inputs: readonly BackupInput[],
  input: InputOf<'backup'>,
): Promise<number> {
  const outcomes: Outcome[] = []
  for (const one of inputs) {
    outcomes.push(await backUpOne(context, repository, one, input))
    if (context.signal.aborted) break
  }
  const exit = worstExit(outcomes.map((outcome) => outcome.exit))
  printOutcomes(context, outcomes, input.dryRun, exit)
  return exit
}

async function backUpOne(
  context: CommandContext,
  repository: OpenedRepository,
  { source, tags, hooks }: BackupInput,
  input: InputOf<'backup'>,
): Promise<Outcome> {
  const { printer, clock, signal } = context
  const { access, host, workers } = repository
  const progress = beginProgress(printer, clock, `backup ${source.name}`)
  let hidden: readonly string[] = []
  const of = { source: source.name, sourceKind: source.kind }
  try {
    const before = await lookBack(context, repository, source.name)
    hidden = before.hidden
    const body = (): Promise<BackupSummary> =>
      backup(access, host, source, {
        kind: input.kind,
        tags,
        hostName: input.host ?? hostname(),
        workers,
        dryRun: input.dryRun,
        clock,
        signal,
        onProgress: (totals, path) =>
          updateProgress(progress, {
            files: totals.files,
            filesTotal: before.files,
            bytes: totals.bytesRead,
            current: displayName(path),
          }),
      })
    const hookOptions = {
      source: source.name,
      env: context.env,
      signal,
      log: (line: string) => note(printer, line),
    }
    const { summary, afterFailure } = await backupBetweenHooks(hooks, hookOptions, body)
    endProgress(progress)
    warnRebuilt(printer, summary.rebuilt)
    printProblems(context, summary)
    for (const text of summary.warnings) warn(printer, `${source.name}: ${text}`)
    if (afterFailure !== undefined)
      return { ...of, summary, hidden, exit: printFailure(printer, afterFailure) }
    const exit = summary.problems.length > 0 ? FAILURES['source.unreadable'].exit : 0
    return { ...of, summary, hidden, exit }
  } catch (error) {
    endProgress(progress)
    const isStopped = signal.aborted && !(error instanceof Failure)
    const cause = isStopped ? new Failure('cancelled', 'Cancelled', { cause: error }) : error
    return { ...of, summary: undefined, hidden, exit: printFailure(printer, cause) }
  } finally {
    endProgress(progress)
  }
}

/** Warns when the store hides what this host has seen; returns the files of the newest snapshot. */
async function lookBack(
  context: CommandContext,
  { access, host }: OpenedRepository,
  source: string,
): Promise<{ files: number | undefined; hidden: readonly string[] }> {
  const { snapshots, revoked } = await listSnapshots(access.store, access.config, { source })
  const hidden = missingHeads(host, [...snapshots, ...revoked], { source })
  for (const text of hidden) warn(context.printer, text)
  const own = writersOf(access).own
  return { files: newestSnapshot(snapshots.filter(({ domain }) => domain === own))?.totals.files, hidden }
}

function printProblems({ printer }: CommandContext, { source, problems }: BackupSummary): void {
  for (const { path, code, what } of problems) {
    const facts = { source, errno: code, ...pathFacts(path) }
    const { exit, hint } = FAILURES['source.unreadable']
    const message = `"${displayName(path)}": ${what}`
    printEvent(printer, { type: 'error', code: 'source.unreadable', message, hint, exit, facts })
  }
  if (printer.json) return
  const shown = printer.verbose ? problems : problems.slice(0, PROBLEMS_SHOWN_MAX)
  for (const { path, what } of shown) warn(printer, `${displayName(path)}: ${what}`)
  const more = problems.length - shown.length
  if (more > 0) warn(printer, `… and ${formatCounted(more, 'problem')} more (--verbose names all)`)
}

function printOutcomes(
  { printer }: CommandContext,
  outcomes: readonly Outcome[],
  isDryRun: boolean,
  exit: number,
): void {
  const done = outcomes.flatMap(({ summary }) => summary ?? [])
  for (const { source, because } of done)
    if (because !== undefined) note(printer, `${source}: full, since ${because}`)
  for (const { source, adoptedPacks } of done) {
    const packs = formatCounted(adoptedPacks, 'pack')
    if (adoptedPacks > 0) detail(printer, `${source}: took over ${packs} of an interrupted backup`)
  }
  if (done.length > 0 && !printer.quiet) printTable(printer, columns, outcomes.flatMap(rowsOf))
  const sources = outcomes.map(({ source, summary, hidden, exit: of }) => ({
    ...(summary === undefined ? { source } : summaryFacts(summary)),
    ...(hidden.length === 0 ? {} : { hidden }),
    exit: of,
  }))
  const [only] = sources
  const event = { command: 'backup', dryRun: isDryRun, sources, exit }
  const whole = only !== undefined && sources.length === 1 ? { ...only, ...event } : event
  const end = isDryRun ? ['Nothing was stored: this was a dry run.'] : []
  const hiding = outcomes.filter(({ hidden }) => hidden.length > 0).map(({ source }) => source)
  if (hiding.length > 0)
    end.push(`The store hides snapshots of ${hiding.join(', ')} that this host has seen: see the warnings.`)
  printSummary(printer, { type: 'summary', ...whole }, end)
}

/** One, or none of a source that failed. */
function rowsOf({ summary, sourceKind }: Outcome): string[][] {
  if (summary === undefined) return []
  const { totals, kind, problems } = summary
  const row = [
    summary.source,
    summary.snapshot ?? '(dry run)',
    shownKind({ kind, sourceKind, partial: problems.length > 0 }),
    formatCount(totals.filesNew),
    formatCount(totals.filesChanged),
    formatCount(totals.filesUnchanged),
    formatBytes(totals.bytesRead),
    formatBytes(totals.bytesFresh),
    formatBytes(summary.bytesStored),
    formatDuration(summary.seconds * 1000),
  ]
  return [row]
}

function summaryFacts(summary: BackupSummary): Record<string, unknown> {
  const { totals, problems, source, snapshot, kind, because, parent, adoptedPacks, bytesStored } = summary
  const { rebuilt, warnings } = summary
  return {
    source,
    snapshot,
    kind,
    because,
    parent,
    adoptedPacks,
    ...totals,
    bytesStored,
    ...rebuiltFacts(rebuilt),
    problems: problems.length,
    ...(warnings.length === 0 ? {} : { warnings }),
    partial: problems.length > 0,
    seconds: Math.round(summary.seconds * 1000) / 1000,
  }
}

/** Cancelled is worse than failed, failed is worse than incomplete. */
function worstExit(exits: readonly number[]): number {
  const rank = (exit: number): number => (exit === FAILURES['source.unreadable'].exit ? 0.5 : exit)
  return exits.reduce((worst, exit) => (rank(exit) > rank(worst) ? exit : worst), 0)
}
