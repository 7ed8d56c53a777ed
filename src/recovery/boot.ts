/**
 * The proof that a snapshot of a cluster is one: it is restored into a scratch folder, recovered as far as
 * its log goes by a server of its version, and looked through. Nothing outside of that folder is touched, and
 * nothing of it is left, whatever happens. What is wrong is a finding; printing is the caller's.
 */
import { execFile } from 'node:child_process'
import { readFileSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Clock } from '../base/clock.ts'
import { displayName } from '../base/file-entry.ts'
import { describeError, errnoOf, Failure, isFailure, type FailureCode } from '../base/failure.ts'
import type { HostFolder } from '../repo/host-folder.ts'
import type { Access } from '../repo/keys.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { parseControlFile, type ControlFile } from '../sources/postgres/control-file.ts'
import { formatLsn } from '../sources/postgres/lsn.ts'
import { PAGE_BYTES } from '../sources/postgres/page-checksum.ts'
import { AUTO_CONF } from './auto-conf.ts'
import { checkDatabases, type BootCounts, type CheckStep } from './boot-checks.ts'
import { tablespacesMade } from './made-tablespaces.ts'
import {
  makeBootFolder,
  openBootFolder,
  placeInData,
  removeBootFolder,
  tablespacesFolder,
} from './boot-folder.ts'
import { checkPageSums } from './boot-pages.ts'
import { findServerFolder, serverUser, type ServerUser } from './boot-programs.ts'
import {
  dataFolder,
  endServer,
  killServer,
  newBootServer,
  prepareServer,
  startServer,
  stopServer,
  type BootServer,
} from './boot-server.ts'
import { addFinding, newFindings, type Finding, type Findings } from './check-findings.ts'
import { throwIfCancelled } from './check-threads.ts'
import type { RecoveryTarget } from './cluster-log.ts'
import { writeRecoverySettings } from './recovery-settings.ts'
import { restoreCluster, type ClusterRestoreOptions, type ClusterRestoreSummary } from './restore-cluster.ts'

export interface BootOptions {
  /** Where the scratch folder is made; the server's user must reach it. */
  readonly scratch: string
  /** Folder of the server's programs; undefined: found in `path` or where packages put them. */
  readonly bin: string | undefined
  /** Folders joined by ":". */
  readonly path: string
  /** Also all of the log that goes on from the snapshot. */
  readonly replaysLog: boolean
  /** For all of it together. */
  readonly timeoutSeconds: number
  readonly workers: number
  readonly clock: Clock
  readonly signal: AbortSignal
  /** When a step begins for the first time. */
  readonly onStep?: (step: BootStep) => void
}

export type BootStep = 'restore' | 'recover' | 'pages' | 'prepare' | CheckStep

export interface BootReport {
  readonly source: string
  readonly snapshot: string
  /** It started, no finding is an error, and all was looked into. */
  readonly proven: boolean
  /** In their order, with the time of each. */
  readonly steps: readonly { readonly step: BootStep; readonly seconds: number }[]
  readonly findings: readonly Finding[]
  readonly counts: Readonly<BootCounts> & { readonly pages: number }
  /** Of the server's programs; undefined: none was found. */
  readonly major: number | undefined
  /** The last record that was recovered, where that was the goal; else the recovery ends with the backup. */
  readonly recoveredTo: string | undefined
}

/** Beside the files of the copy: log that the recovery writes, sorting, maps. */
const ROOM_SPARE_BYTES = 256 * 1024 * 1024
const PROGRAM_MS_MAX = 30_000
/** What says nothing of the snapshot, only that it could not be looked at here. */
const HINDRANCES: readonly FailureCode[] = [
  'host.unsupported',
  'host.full',
  'host.file',
  'storage.offline',
  'storage.denied',
  'storage.timeout',
]
const run = promisify(execFile)

interface Booting {
  readonly access: Access
  readonly host: HostFolder
  readonly snapshot: StoredSnapshot
  readonly options: BootOptions
  /** Of the user and of the time limit together. */
  readonly signal: AbortSignal
  readonly findings: Findings
  readonly seconds: Map<BootStep, number>
  readonly counts: BootCounts & { pages: number }
  /** The one at hand, or the last one. */
  step: BootStep | undefined
  major: number | undefined
  target: RecoveryTarget | undefined
}

/** Boots one snapshot of a cluster. Fails: cancelled; all else is a finding. */
export async function bootSnapshot(
  access: Access,
  host: HostFolder,
  snapshot: StoredSnapshot,
  options: BootOptions,
): Promise<BootReport> {
  const limit = AbortSignal.timeout(options.timeoutSeconds * 1000)
  const booting: Booting = {
    access,
    host,
    snapshot,
    options,
    signal: AbortSignal.any([options.signal, limit]),
    findings: newFindings(),
    seconds: new Map(),
    counts: { databases: 0, tables: 0, indexes: 0, unchecked: 0, pages: 0 },
    step: undefined,
    major: undefined,
    target: undefined,
  }
  try {
    const user = serverUser()
    await withScratch(options.scratch, user, (folder) => bootIn(booting, folder, user))
  } catch (error) {
    throwIfCancelled(options.signal)
    if (limit.aborted) addFailed(booting, `it was not done within ${options.timeoutSeconds} s`)
    else tellWhy(booting, error)
  }
  const { findings, counts, major, target } = booting
  return {
    source: snapshot.source,
    snapshot: snapshot.id,
    proven: counts.unchecked === 0 && findings.list.every(({ severity }) => severity !== 'error'),
    steps: [...booting.seconds].map(([step, seconds]) => ({ step, seconds })),
    findings: findings.list,
    counts,
    major,
    recoveredTo: target && formatLsn(target.lsn),
  }
}

async function bootIn(booting: Booting, folder: string, user: ServerUser | undefined): Promise<void> {
  const { options, signal, snapshot, findings, counts } = booting
  const plan = await planRestore(booting, folder)
  const { major, segmentBytes } = plan.cluster
  const bin = findServerFolder(major, { named: options.bin, path: options.path })
  booting.major = major
  refuseLittleRoom(folder, plan)
  const data = dataFolder({ folder })
  const restored = await timed(booting, 'restore', () => restoreHere(booting, plan.options))
  booting.target = restored.recovery?.target
  await refuseTablespaces(data, { major, segmentBytes, signal })
  const control = parseControlFile(readFileSync(join(data, 'global/pg_control')))
  openBootFolder(folder, user)
  const preload = await preloadLibraries(booting, { bin, data, user })
  placeInData(folder, user, (drafts) => writeIsolation(drafts, booting.target))
  const server = newBootServer({ bin, major, user, folder, preload, limits: restored.limits })
  const end = (): void => endServer(server)
  process.prependOnceListener('exit', end)
  signal.addEventListener('abort', end)
  try {
    await timed(booting, 'recover', () => startServer(server, signal))
    tellLeftOut(booting, preload, server)
    await timed(booting, 'recover', () => stopServer(server, signal))
    await timed(booting, 'pages', () => checkPages(booting, data, control))
    await timed(booting, 'prepare', () => prepareServer(server, signal))
    await timed(booting, 'prepare', () => startServer(server, signal))
    const step = <T>(name: CheckStep, work: () => Promise<T>): Promise<T> => timed(booting, name, work)
    const { source, id } = snapshot
    await checkDatabases({
      server,
      source,
      snapshot: id,
      findings,
      counts,
      signal,
      timed: step,
      said: new Set(),
    })
  } finally {
    await killServer(server)
    process.removeListener('exit', end)
    signal.removeEventListener('abort', end)
  }
}

interface RestorePlan extends ClusterRestoreSummary {
  readonly options: ClusterRestoreOptions
}

/** With the log where it goes on from the snapshot; else without, which is said. */
async function planRestore(booting: Booting, folder: string): Promise<RestorePlan> {
  const { access, host, snapshot, options, signal } = booting
  const { workers, clock } = options
  // refuseTablespaces() refuses more: also one whose place is free, or is the copy's own.
  const fixed = { timeline: undefined, noOwner: true, allowsEmptying: true, workers, clock, signal } as const
  const places = {
    to: dataFolder({ folder }),
    tablespaceMap: new Map(),
    tablespacesBelow: tablespacesFolder(folder),
  }
  const plan = async (goal: ClusterRestoreOptions['goal']): Promise<RestorePlan> => {
    const wanted = { ...fixed, ...places, goal }
    const summary = await restoreCluster(access, host, snapshot, { ...wanted, dryRun: true })
    return { ...summary, options: { ...wanted, dryRun: false } }
  }
  if (!options.replaysLog || snapshot.log === undefined) return await plan(undefined)
  try {
    return await plan({ kind: 'latest' })
  } catch (error) {
    if (!isFailure(error, 'restore.refused')) throw error
    add(booting, 'not-checked', `not checked: its log: ${error.message}`, 'warning')
    return await plan(undefined)
  }
}

/** Fails: host.full. */
function refuseLittleRoom(folder: string, { parts, recovery }: RestorePlan): void {
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0)
  const needed = bytes + (recovery?.bytes ?? 0) + ROOM_SPARE_BYTES
  const { bavail, bsize } = statfsSync(folder)
  if (bavail * bsize >= needed) return
  const is = `${bavail * bsize} bytes are free, ${needed} are needed`
  throw new Failure('host.full', `Cannot restore a copy to "${folder}": ${is}`, {
    facts: { hint: 'Choose a folder with more room: --scratch FOLDER.' },
  })
}

/** Fails: repo.corrupt, host.file and storage.offline when files are missing in the copy. */
async function restoreHere(booting: Booting, options: ClusterRestoreOptions): Promise<ClusterRestoreSummary> {
  const summary = await restoreCluster(booting.access, booting.host, booting.snapshot, options)
  for (const [kind, code] of [
    ['damaged', 'repo.corrupt'],
    ['failed', 'host.file'],
    ['unreadable', 'storage.offline'],
  ] as const) {
    const count = summary.parts.reduce((sum, part) => sum + part.counts[kind], 0)
    const [first] = summary.parts.flatMap((part) => part[kind])
    if (first === undefined) continue
    throw new Failure(code, `${count} files could not be restored, the first: ${first.path}: ${first.what}`)
  }
  return summary
}

/** Fails: host.unsupported. */
async function refuseTablespaces(data: string, of: Parameters<typeof tablespacesMade>[1]): Promise<void> {
  const [made] = await tablespacesMade(data, of)
  if (made === undefined) return
  const folder = displayName(made.place)
  const is = `its log makes a tablespace in "${folder}", and a server would empty that folder`
  const facts = { hint: 'Make a new backup: from then on the tablespace is part of it.' }
  throw new Failure('host.unsupported', `Cannot start a copy: ${is}`, { facts })
}

/** As the copy's configuration names them. Without one that can be read there are none. */
async function preloadLibraries(
  booting: Booting,
  { bin, data, user }: { readonly bin: string; readonly data: string; readonly user: ServerUser | undefined },
): Promise<string[]> {
  const flags = ['-C', 'shared_preload_libraries', '-D', data]
  const limits = { timeout: PROGRAM_MS_MAX, signal: booting.signal, env: { LC_ALL: 'C' }, cwd: '/' }
  try {
    const { stdout } = await run(join(bin, 'postgres'), flags, { ...limits, ...user })
    const names = stdout.split(',').map((name) => name.trim().replaceAll('"', ''))
    return names.filter((name) => name !== '')
  } catch (error) {
    throwIfCancelled(booting.signal)
    const is = describeError(error).split('\n').slice(1).join('; ') || describeError(error)
    const text = `not checked: preload libraries: its configuration cannot be read: ${is}`
    add(booting, 'not-checked', text, 'warning')
    return []
  }
}

/** Takes from the copy what it was told, but for how far it recovers. */
function writeIsolation(folder: string, target: RecoveryTarget | undefined): void {
  // It is read besides any configuration file that is named.
  writeFileSync(join(folder, AUTO_CONF), '', { mode: 0o600 })
  if (target !== undefined) writeRecoverySettings(folder, target, undefined)
}

function tellLeftOut(booting: Booting, wanted: readonly string[], { preload }: BootServer): void {
  const out = wanted.filter((name) => !preload.includes(name))
  if (out.length === 0) return
  const text = `not checked: preload libraries that do not load on this host: ${out.join(', ')}`
  add(booting, 'not-checked', text, 'warning')
}

async function checkPages(booting: Booting, data: string, control: ControlFile): Promise<void> {
  if (!control.hasChecksums || control.pageBytes !== PAGE_BYTES) {
    const is = control.hasChecksums ? `pages of ${control.pageBytes} bytes` : 'it has none'
    add(booting, 'not-checked', `not checked: checksums of pages: ${is}`, 'info')
    return
  }
  const { pages, damaged } = await checkPageSums(data, control, booting.signal)
  booting.counts.pages = pages
  for (const { path, pages: bad, count } of damaged) {
    const more = count > bad.length ? `, … (${count} in all)` : ''
    add(booting, 'boot.page', `pages of ${path} whose checksum is wrong: ${bad.join(', ')}${more}`)
  }
}

/** Runs `use` with a folder of its own, which is gone afterwards. Fails as makeBootFolder() and `use`. */
async function withScratch(
  scratch: string,
  user: ServerUser | undefined,
  use: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = makeBootFolder(scratch, user)
  const remove = (): void => removeBootFolder(folder, user)
  process.once('exit', remove)
  try {
    await use(folder)
  } finally {
    process.removeListener('exit', remove)
    remove()
  }
}

async function timed<T>(booting: Booting, step: BootStep, work: () => Promise<T>): Promise<T> {
  const { options, seconds, signal } = booting
  throwIfCancelled(signal)
  booting.step = step
  if (!seconds.has(step)) options.onStep?.(step)
  const begun = options.clock.elapsed()
  try {
    return await work()
  } finally {
    seconds.set(step, (seconds.get(step) ?? 0) + (options.clock.elapsed() - begun) / 1000)
  }
}

/** Says why it ended early. Throws what is a bug. */
function tellWhy(booting: Booting, error: unknown): void {
  // A failure has a code too.
  if (!isFailure(error) && errnoOf(error) !== undefined) {
    const message = `Cannot use the scratch folder: ${describeError(error)}`
    addHindrance(booting, new Failure('host.file', message, { cause: error }))
    return
  }
  if (!isFailure(error)) throw error
  const { code, message } = error
  if (HINDRANCES.includes(code) || code.startsWith('key.')) addHindrance(booting, error)
  else addFailed(booting, message)
}

function addHindrance(booting: Booting, { message, facts: { hint } }: Failure): void {
  const advice = typeof hint === 'string' ? ` (${hint})` : ''
  add(booting, 'not-checked', `not proven to start: ${message}${advice}`, 'error')
}

function addFailed(booting: Booting, is: string): void {
  const at = booting.step === undefined ? '' : ` (${booting.step})`
  add(booting, 'boot.failed', `does not start as it must${at}: ${is}`)
}

/** What was not looked into leaves the snapshot unproven, unless there is nothing to look into. */
function add(
  { findings, snapshot, counts }: Booting,
  code: Finding['code'],
  text: string,
  severity?: Finding['severity'],
): void {
  const of = { snapshots: [snapshot.id], ...(severity === undefined ? {} : { severity }) }
  if (code === 'not-checked' && severity !== 'info') counts.unchecked++
  addFinding(findings, code, `"${snapshot.source}": ${text}`, of)
}
