/** The part of `backstock check` that starts databases from scratch copies. */
import { tmpdir } from 'node:os'
import { resolve } from 'node:path'
import { Failure } from '../base/failure.ts'
import type { BootReport } from '../recovery/boot.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { chooseOfSource, knownSnapshots } from './choose-snapshot.ts'
import { type InputOf, optionFlag } from './commands.ts'
import type { CommandContext } from './context.ts'
import { formatCounted, formatDuration } from './human.ts'
import type { OpenedRepository } from './open-repository.ts'
import { note, printEvent, showMoment } from './print.ts'

const TIMEOUT_SECONDS = 6 * 3600
const ONLY_WITH_BOOT = ['snapshot', 'postgresBin', 'scratch', 'bootTimeout'] as const

/**
 * The snapshot that is named; else the latest one of the source, or of each database. None without --boot.
 * Fails: usage.invalid, repo.nosnapshot.
 */
export async function chooseBoots(
  context: CommandContext,
  repository: OpenedRepository,
  input: InputOf<'check'>,
): Promise<StoredSnapshot[]> {
  refuseAlone(input)
  if (!input.boot) return []
  const { source, snapshot } = input
  if (source !== undefined) {
    const chosen = await chooseOfSource(context, repository, source, { snapshot, at: undefined })
    if (chosen.sourceKind === 'postgres') return [chosen]
    const is = `it is of kind ${chosen.sourceKind} (--boot is for kind postgres)`
    throw new Failure('usage.invalid', `Cannot boot "${source}": ${is}`)
  }
  const latest = new Map<string, StoredSnapshot>()
  // Ascending by counter.
  for (const one of (await knownSnapshots(context, repository)).snapshots)
    if (one.sourceKind === 'postgres') latest.set(`${one.domain}/${one.source}`, one)
  if (latest.size > 0) return [...latest.values()]
  throw new Failure('repo.nosnapshot', 'Cannot boot a database: there is no snapshot of kind postgres')
}

/** One after the other. Fails: cancelled. */
export async function runBoots(
  context: CommandContext,
  { access, host, workers }: OpenedRepository,
  { chosen, input }: { readonly chosen: readonly StoredSnapshot[]; readonly input: InputOf<'check'> },
): Promise<BootReport[]> {
  const { printer, env, clock, signal, cwd } = context
  const reports: BootReport[] = []
  if (chosen.length === 0) return reports
  // Only here: most checks start no server.
  const { bootSnapshot } = await import('../recovery/boot.ts')
  for (const snapshot of chosen) {
    const { source, id, completed } = snapshot
    note(printer, `Booting "${source}" from ${id} of ${showMoment(printer, Date.parse(completed))}`)
    const report = await bootSnapshot(access, host, snapshot, {
      scratch: resolve(cwd, input.scratch ?? env['TMPDIR'] ?? tmpdir()),
      bin: input.postgresBin === undefined ? undefined : resolve(cwd, input.postgresBin),
      path: env['PATH'] ?? '',
      replaysLog: input.snapshot === undefined,
      timeoutSeconds: input.bootTimeout ?? TIMEOUT_SECONDS,
      workers,
      clock,
      signal,
      onStep: (step) =>
        printEvent(printer, { type: 'status', command: 'check', phase: 'boot', source, step }),
    })
    const { findings, ...facts } = report
    printEvent(printer, { type: 'boot', ...facts, steps: roundedSteps(report), findings: findings.length })
    reports.push(report)
  }
  return reports
}

/** For the summary; nothing where nothing was booted. */
export function bootFacts(boots: readonly BootReport[]): object {
  if (boots.length === 0) return {}
  return { booted: boots.length, bootsProven: boots.filter(({ proven }) => proven).length }
}

export function bootLines(report: BootReport): string[] {
  const { source, snapshot, proven, major, recoveredTo, counts, steps } = report
  const times = steps.map(({ step, seconds }) => `${step} ${formatDuration(seconds * 1000)}`).join(', ')
  const lines = times === '' ? [] : [`  ${times}`]
  if (!proven) return [`Not proven: "${source}" from ${snapshot}`, ...lines]
  const what = [
    formatCounted(counts.databases, 'database'),
    formatCounted(counts.tables, 'table'),
    formatCounted(counts.indexes, 'index', 'indexes'),
    formatCounted(counts.pages, 'page'),
  ].join(', ')
  const upTo = recoveredTo === undefined ? 'up to the end of the backup' : `with the log up to ${recoveredTo}`
  return [`Proven: "${source}" from ${snapshot} starts in PostgreSQL ${major}, ${upTo}: ${what}`, ...lines]
}

function roundedSteps({ steps }: BootReport): object[] {
  return steps.map(({ step, seconds }) => ({ step, seconds: Math.round(seconds * 1000) / 1000 }))
}

/** Fails: usage.invalid. */
function refuseAlone(input: InputOf<'check'>): void {
  if (input.boot && (input.snapshot === undefined || input.source !== undefined)) return
  const alone = ONLY_WITH_BOOT.find((key) => input[key] !== undefined)
  const what = input.source !== undefined ? 'a source' : alone === undefined ? undefined : optionFlag(alone)
  if (what === undefined) return
  const must = input.boot ? 'it must come with a source' : 'it must come with --boot'
  throw new Failure('usage.invalid', `Cannot use ${what}: ${must}`)
}
