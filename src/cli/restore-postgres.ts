/** The part of `backstock restore` that brings a PostgreSQL cluster back. */
import { resolve } from 'node:path'
import { displayName } from '../base/file-entry.ts'
import { FAILURES, Failure } from '../base/failure.ts'
import {
  restoreCluster,
  type ClusterRestoreSummary,
  type RestoredCluster,
} from '../recovery/restore-cluster.ts'
import type { RecoveryGoal } from '../recovery/cluster-log.ts'
import { resolveGoal } from '../recovery/recovery-goal.ts'
import type { Access } from '../repo/keys.ts'
import { listLogs } from '../repo/logs.ts'
import { listSnapshots, type StoredSnapshot } from '../repo/snapshots.ts'
import { formatLsn, parseLsn } from '../sources/postgres/lsn.ts'
import { systemIdOf } from '../sources/postgres/wal-branch.ts'
import type { ResolvedTarget, WantedTarget } from '../sources/postgres/recovery-target.ts'
import { formatTime } from '../sources/postgres/target-words.ts'
import { type InputOf, optionFlag } from './commands.ts'
import type { CommandContext } from './context.ts'
import { droppedName } from './dropped-name.ts'
import { formatBytes, formatCounted, formatDuration } from './human.ts'
import type { OpenedRepository } from './open-repository.ts'
import { pathFacts } from './paths.ts'
import { note, printEvent, printSummary, showMoment, warn } from './print.ts'
import { beginProgress, endProgress, updateProgress } from './progress.ts'
import { rebuiltFacts, warnRebuilt } from './rebuilt.ts'
import { startCommand } from './start-command.ts'

/**
 * `chosen`: by --snapshot or --at, else the latest. Fails: as restoreCluster() and resolveGoal(),
 * usage.invalid.
 */
export async function restorePostgres(
  context: CommandContext,
  repository: OpenedRepository,
  chosen: StoredSnapshot,
  input: InputOf<'restore'>,
): Promise<number> {
  const { printer, clock, signal } = context
  refuseFileOptions(input)
  const timeline = timelineOf(input.timeline)
  const { snapshot, goal } = await chooseGoal(context, repository, { chosen, input, timeline })
  const to = resolve(context.cwd, input.to)
  const moment = showMoment(printer, Date.parse(snapshot.completed))
  note(printer, `Restoring the cluster "${snapshot.source}" from ${snapshot.id} of ${moment} to ${to}`)
  const progress = beginProgress(printer, clock, `restore ${snapshot.source}`)
  try {
    const summary = await restoreCluster(repository.access, repository.host, snapshot, {
      to,
      tablespaceMap: tablespaceMapOf(input.tablespaceMap),
      goal,
      timeline,
      dryRun: input.dryRun,
      noOwner: input.noOwner,
      keepsSettings: input.keepSettings,
      workers: repository.workers,
      clock,
      signal,
      onProgress: (done) => updateProgress(progress, done),
    })
    endProgress(progress)
    return printRestored(context, snapshot, summary, { to, dryRun: input.dryRun })
  } finally {
    endProgress(progress)
  }
}

interface Choosing {
  readonly chosen: StoredSnapshot
  readonly input: InputOf<'restore'>
  readonly timeline: number | undefined
}

/** The backup and the position. A snapshot by name, and nothing else said, is meant as it is. */
async function chooseGoal(
  context: CommandContext,
  { access }: OpenedRepository,
  { chosen, input, timeline }: Choosing,
): Promise<{ snapshot: StoredSnapshot; goal: RecoveryGoal | undefined }> {
  const isNamed = input.snapshot !== undefined
  // The end of a timeline that was left: the latest backup may not come from it.
  const end = timeline === undefined || isNamed || input.immediate ? undefined : ({ kind: 'latest' } as const)
  const target = targetOf(input) ?? end
  if (target === undefined) {
    if (!isNamed) await noteClusters(context, access, chosen)
    const isAsItIs = input.immediate || isNamed
    return { snapshot: chosen, goal: isAsItIs ? undefined : { kind: 'latest' } }
  }
  const { domain, source } = chosen
  if (target.kind === 'time' && !(await hasLog(access, { domain, source }))) {
    warn(
      context.printer,
      `"${source}" has no log in the repository: the snapshot before that moment is taken`,
    )
    return { snapshot: chosen, goal: undefined }
  }
  const { snapshots } = await listSnapshots(access.store, access.config, { domain, source })
  const among = isNamed ? [chosen] : snapshots
  const { snapshot, target: found } = await resolveGoal(access, among, { target, timeline })
  noteTarget(context, found)
  return { snapshot, goal: { kind: 'lsn', lsn: found.lsn, isExclusive: !found.isInclusive } }
}

/** One source name may have led to several servers: which of them comes back must be no surprise. */
async function noteClusters(
  { printer }: CommandContext,
  access: Access,
  chosen: StoredSnapshot,
): Promise<void> {
  const { id, domain, source } = chosen
  const own = systemIdOf(chosen)
  const { snapshots } = await listSnapshots(access.store, access.config, { domain, source })
  const newest = new Map(
    snapshots
      .toSorted((a, b) => a.counter - b.counter)
      .flatMap((each) => {
        const system = systemIdOf(each)
        return system === undefined || system === own ? [] : [[system, each.id] as const]
      }),
  )
  if (newest.size === 0) return
  const others = [...newest].map(([system, last]) => `${system} (--snapshot ${last})`).join(', ')
  const is = `"${source}" has backups of several clusters: ${id} is of system ${own}`
  warn(printer, `${is}; the newest of others are of ${others}`)
}

/** What the command line names; at most one. Fails: usage.invalid. */
function targetOf(input: InputOf<'restore'>): WantedTarget | undefined {
  const { lsn, at, name, beforeXid, before, immediate, exclusive } = input
  const given = { lsn, at, name, beforeXid, before, immediate: immediate || undefined }
  const named = Object.entries(given).filter(([, value]) => value !== undefined)
  if (named.length > 1) {
    const flags = named.map(([key]) => optionFlag(key)).join(' and ')
    throw new Failure('usage.invalid', `Cannot use ${flags} together: one of them says where to stop`)
  }
  if (exclusive && lsn === undefined && at === undefined)
    throw new Failure('usage.invalid', 'Cannot use --exclusive: it must come with --lsn or --at')
  const isInclusive = !exclusive
  if (lsn !== undefined) return { kind: 'lsn', lsn: parseLsn(lsn), isInclusive }
  if (at !== undefined) return { kind: 'time', at: BigInt(Math.round(at * 1000)), isInclusive }
  if (name !== undefined) return { kind: 'name', name }
  if (beforeXid !== undefined) return { kind: 'xid', xid: xidOf(beforeXid), isInclusive: false }
  return before === undefined ? undefined : { kind: 'drop', name: droppedName(before) }
}

/** Fails: usage.invalid. */
function xidOf(text: string): number {
  const xid = Number(text)
  if (Number.isInteger(xid) && xid > 2 && xid < 2 ** 32) return xid
  throw new Failure(
    'usage.invalid',
    `Cannot use --before-xid ${text}: it must be a number from 3 to 4294967295`,
  )
}

async function hasLog(access: Access, of: { domain: string; source: string }): Promise<boolean> {
  return (await listLogs(access, of)).branches.length > 0
}

function noteTarget({ printer }: CommandContext, { kept, lost, clock }: ResolvedTarget): void {
  const last = kept?.at === undefined ? 'nothing after the backup' : `commits up to ${formatTime(kept.at)}`
  const out = formatCounted(lost.count, 'later commit')
  const first = lost.first?.at === undefined ? '' : `, the first of ${formatTime(lost.first.at)}`
  note(printer, `It will hold ${last}, and leave out ${out}${first}`)
  if (clock.stepBack > 0n)
    warn(printer, `the server's clock went back by ${Number(clock.stepBack / 1000n)} ms at most in this log`)
}

/** Fails: usage.invalid. */
function timelineOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const timeline = Number(text)
  if (Number.isInteger(timeline) && timeline > 0 && timeline < 2 ** 32) return timeline
  throw new Failure('usage.invalid', `Cannot use --timeline ${text}: it must be a number from 1 on`)
}

/** Fails: usage.invalid. */
function refuseFileOptions({ delta, overwrite }: InputOf<'restore'>): void {
  if (!delta && !overwrite) return
  const flag = delta ? '--delta' : '--overwrite'
  const is = 'what else lies in the data folder would stay and damage it (restore into an empty folder)'
  throw new Failure('usage.invalid', `Cannot use ${flag} for a cluster: ${is}`)
}

/** Fails: usage.invalid. */
export function tablespaceMapOf(pairs: readonly string[]): Map<string, string> {
  const map = new Map<string, string>()
  for (const pair of pairs) {
    const parts = pair.split(/(?<!\\)=/).map((part) => part.replaceAll('\\=', '='))
    const [from = '', to = ''] = parts
    if (parts.length !== 2 || !from.startsWith('/') || !to.startsWith('/')) {
      const must = 'it must be OLD=NEW, both absolute paths, with \\= for a = in them'
      throw new Failure('usage.invalid', `Cannot use --tablespace-map ${pair}: ${must}`)
    }
    map.set(from.replace(/(?<=.)\/+$/, ''), to)
  }
  return map
}

function printRestored(
  context: CommandContext,
  snapshot: StoredSnapshot,
  { cluster, parts, recovery, setAside, foldersNeeded }: ClusterRestoreSummary,
  { to, dryRun }: { readonly to: string; readonly dryRun: boolean },
): number {
  const { printer } = context
  const total = (of: (part: (typeof parts)[number]) => number): number =>
    parts.reduce((sum, part) => sum + of(part), 0)
  const counts = {
    problems: total((part) => part.counts.problems),
    damaged: total((part) => part.counts.damaged),
    unreadable: total((part) => part.counts.unreadable),
    failed: total((part) => part.counts.failed),
  }
  for (const part of parts) {
    warnRebuilt(printer, part.rebuilt)
    for (const code of ['damaged', 'unreadable', 'failed', 'problems'] as const)
      printPart(context, part[code], code)
  }
  const missing = counts.damaged + counts.unreadable + counts.failed
  const exit = exitOf(counts)
  const command = startCommand(cluster, to)
  const [files, bytes] = [total((part) => part.files), total((part) => part.bytes)]
  const seconds = total((part) => part.seconds)
  const event = {
    type: 'summary',
    command: 'restore',
    snapshot: snapshot.id,
    source: snapshot.source,
    completed: snapshot.completed,
    to,
    dryRun,
    files,
    directories: total((part) => part.directories),
    bytes,
    bytesWritten: total((part) => part.bytesWritten),
    ...counts,
    ...rebuiltFacts(parts[0]?.rebuilt ?? []),
    configuration: cluster.config,
    ...(missing === 0 && !dryRun ? { start: command } : {}),
    ...recoveryFacts(recovery),
    setAside,
    foldersNeeded: foldersNeeded.map(displayName),
    seconds: Math.round(seconds * 1000) / 1000,
    exit,
  } as const
  const done = dryRun ? 'Would restore' : 'Restored'
  const what = `${formatCounted(files, 'file')}, ${formatBytes(bytes)}`
  const lines = [`${done} ${what} in ${formatDuration(seconds * 1000)}`]
  if (missing > 0) {
    const lost = formatCounted(missing, 'entry', 'entries')
    lines.push(`${lost} could not be restored: without pg_control no server starts on what is there.`)
  } else {
    if (recovery !== undefined) lines.push(recoveryText(recovery, dryRun))
    const config = configText(cluster, to)
    if (config !== undefined) lines.push(config)
    lines.push(...setAsideTexts(setAside))
    for (const folder of foldersNeeded)
      lines.push(
        `Before it starts, make "${displayName(folder)}" for its user: the log makes a tablespace there`,
      )
    if (!dryRun) lines.push(`Start it with: ${command}`)
  }
  printSummary(printer, event, lines)
  return exit
}

/** undefined: it came with the data folder. */
function configText({ config }: RestoredCluster, to: string): string | undefined {
  if (config === 'inside') return undefined
  if (config === 'placed')
    return `Its configuration lay elsewhere: it is in ${to}, adjusted, see the comments`
  return 'Its configuration lay elsewhere and is not in the backup: add a postgresql.conf and a pg_hba.conf'
}

function setAsideTexts(setAside: ClusterRestoreSummary['setAside']): string[] {
  if (setAside.length === 0) return []
  const names = setAside.map(({ name }) => name).join(', ')
  const statements = setAside.flatMap(({ putBack }) => (putBack === undefined ? [] : [`${putBack};`]))
  const lines = [`Set aside, so that it disturbs no other server: ${names}`]
  if (statements.length > 0)
    lines.push(`When it takes the old one's place, run these and restart it: ${statements.join(' ')}`)
  return lines
}

function recoveryFacts(recovery: ClusterRestoreSummary['recovery']): object {
  if (recovery === undefined) return {}
  const { target, bytes } = recovery
  const to = target && {
    lsn: formatLsn(target.lsn),
    inclusive: target.isInclusive,
    timeline: target.timeline,
  }
  return { recovery: { logBytes: bytes, ...to } }
}

function recoveryText(
  { target, bytes }: NonNullable<ClusterRestoreSummary['recovery']>,
  dryRun: boolean,
): string {
  const log = formatBytes(bytes)
  if (target === undefined) return `${dryRun ? 'Would add' : 'Added'} ${log} of log`
  const upTo = target.isInclusive ? 'with' : 'up to'
  const position = `${formatLsn(target.lsn)} on timeline ${target.timeline}`
  return `The server will recover ${log} of log, ${upTo} ${position}`
}

type Problems = 'damaged' | 'unreadable' | 'failed' | 'problems'

function printPart(
  { printer }: CommandContext,
  problems: ClusterRestoreSummary['parts'][number][Problems],
  kind: Problems,
): void {
  const codes = { damaged: 'repo.corrupt', unreadable: 'storage.offline' } as const
  const code = kind === 'damaged' || kind === 'unreadable' ? codes[kind] : 'restore.failed'
  const { hint, exit } = FAILURES[code]
  for (const { path, code: errno, what } of problems) {
    const message = `"${displayName(path)}": ${what}`
    printEvent(printer, { type: 'error', code, message, hint, exit, facts: { errno, ...pathFacts(path) } })
    if (!printer.json) warn(printer, message)
  }
}

function exitOf(counts: {
  readonly damaged: number
  readonly failed: number
  readonly unreadable: number
}): number {
  if (counts.damaged + counts.failed > 0) return FAILURES['restore.failed'].exit
  return counts.unreadable > 0 ? FAILURES['storage.offline'].exit : 0
}
