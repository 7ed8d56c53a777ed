/**
 * Restores a PostgreSQL cluster: the data folder, the tablespaces, each to its place, and at the very end
 * `pg_control`, without which no server starts. Configuration that lay elsewhere goes into the data folder
 * (restore-config.ts). Refuses before it writes anything where a folder is in use.
 * The same command resumes: until the end the data folder holds the marker of a restore under way.
 */
import { chmodSync, chownSync, existsSync, rmSync, symlinkSync } from 'node:fs'
import { isAbsolute, join, normalize } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { displayName, pathBytes, rawPath } from '../base/file-entry.ts'
import { describeError, errnoOf, Failure } from '../base/failure.ts'
import type { TreeEntry } from '../format/tree.ts'
import type { HostFolder } from '../repo/host-folder.ts'
import type { Access } from '../repo/keys.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import {
  closeSnapshot,
  findEntry,
  openSnapshot,
  readDirectory,
  readFile,
  type SnapshotReader,
} from '../repo/tree-reader.ts'
import { CLUSTER_PATHS } from '../sources/postgres/cluster-paths.ts'
import type { ReplayLimits } from '../sources/postgres/control-file.ts'
import { isSegmentBytes } from '../sources/postgres/lsn.ts'
import {
  planRecovery,
  writeRecoveryLog,
  type WrittenLog,
  type RecoveryGoal,
  type RecoveryPlan,
  type RecoveryTarget,
} from './cluster-log.ts'
import type { FileOwner } from './auto-conf.ts'
import { quietSettings, type SetAside } from './quiet-settings.ts'
import { largestLimits, limitsOfControl, raiseLimits } from './replay-limits.ts'
import { writeRecoverySettings } from './recovery-settings.ts'
import { mendInsideConfig } from './inside-config.ts'
import {
  hasStoredConfig,
  readStoredConfig,
  writeStoredConfig,
  type ConfigState,
  type StoredConfig,
} from './restore-config.ts'
import { refuseEmptying, tablespacesMade } from './made-tablespaces.ts'
import { restore, type RestoreOptions, type RestoreSummary } from './restore.ts'
import { previewMarker } from './restore-marker.ts'

export interface ClusterRestoreOptions {
  /** The new data folder; empty, or not there yet. */
  readonly to: string
  /** New places of tablespaces by their old ones. */
  readonly tablespaceMap: ReadonlyMap<string, string>
  /**
   * A folder for those that the map does not name, each by its number; undefined: they go to their old
   * places.
   */
  readonly tablespacesBelow?: string
  /** How far beyond the backup to go; undefined: not at all. */
  readonly goal: RecoveryGoal | undefined
  /** Of the goal; undefined: the newest that comes from the backup's. */
  readonly timeline: number | undefined
  readonly dryRun: boolean
  readonly noOwner: boolean
  /** Nothing is put into the data folder that was not in it. */
  readonly leavesConfig?: boolean
  /** What binds it to other servers counts as it did; else it is set aside (quiet-settings.ts). */
  readonly keepsSettings?: boolean
  /** Also where its recovery would empty somebody's tablespace: the caller refuses that itself. */
  readonly allowsEmptying?: boolean
  readonly workers: number
  readonly clock: Clock
  readonly signal?: AbortSignal
  readonly onProgress?: NonNullable<RestoreOptions['onProgress']>
}

export interface RestoredCluster {
  /** The data folder, raw. */
  readonly data: string
  /** Version of the server before the first dot. */
  readonly major: number
  readonly owner: { readonly uid: number; readonly gid: number }
  /** Of one file of its log. */
  readonly segmentBytes: number
  readonly config: ConfigState
}

export interface ClusterRestoreSummary {
  readonly cluster: RestoredCluster
  /** Of the data folder, then one for each tablespace. */
  readonly parts: readonly RestoreSummary[]
  /** What the server recovers when it is started; undefined: to the end of the backup. */
  readonly recovery: { readonly target: RecoveryTarget | undefined; readonly bytes: number } | undefined
  /** Of the server that wrote the log; one that replays it needs as much. */
  readonly limits: ReplayLimits
  /** Settings that do not count until somebody puts them back. */
  readonly setAside: readonly SetAside[]
  /** Raw paths of folders for tablespaces that the log makes: they must be there, empty, before it starts. */
  readonly foldersNeeded: readonly string[]
}

interface TablespacePlan {
  readonly oid: string
  readonly entry: TreeEntry
  /** Raw. */
  readonly to: string
  readonly isMoved: boolean
}

interface Plan {
  readonly cluster: RestoredCluster
  readonly root: TreeEntry
  readonly tablespaces: readonly TablespacePlan[]
  /** What was stored beside the data folder; undefined: nothing of it is wanted. */
  readonly config: StoredConfig | undefined
  /** Of the server when it was backed up. */
  readonly limits: readonly ReplayLimits[]
}

const CONTROL = '/global/pg_control'
const PLACES_HINT = 'Choose another folder with --to, or other places for tablespaces with --tablespace-map.'
const VERSION_BYTES_MAX = 64
const CONTROL_BYTES_MAX = 64 * 1024
const SEGMENT_BYTES_USUAL = 16 * 1024 * 1024

/**
 * Every file is durable when it resolves, unless a part lacks some (summaries). Fails: restore.refused (a
 * folder is not empty, a server runs in it, a tablespace has no place), restore.failed, repo.corrupt,
 * storage.*, cancelled.
 */
export async function restoreCluster(
  access: Access,
  host: HostFolder,
  snapshot: StoredSnapshot,
  options: ClusterRestoreOptions,
): Promise<ClusterRestoreSummary> {
  const plan = await planCluster(access, host, snapshot, options)
  const { cluster, tablespaces } = plan
  const { goal, timeline } = options
  const { segmentBytes } = cluster
  const recovery =
    goal === undefined ? undefined : await planRecovery(access, snapshot, { goal, timeline, segmentBytes })
  let target: RecoveryTarget | undefined
  let setAside: readonly SetAside[] = []
  let foldersNeeded: readonly string[] = []
  let { config } = cluster
  let { limits } = plan
  const given = { ...NOT_ASKED, ...options, below: CLUSTER_PATHS.data, also: aimOf(plan, options) }
  const isResumed = refuseUsed(cluster.data, snapshot, given)
  if (!isResumed)
    for (const { oid, to } of tablespaces) refuseUsed(to, snapshot, { ...given, below: tablespacePath(oid) })
  const parts: RestoreSummary[] = []
  const restoreTablespaces = async (overwrite: boolean): Promise<void> => {
    for (const space of tablespaces) {
      const there = { below: tablespacePath(space.oid), to: shown(space.to), overwrite }
      parts.push(await restore(access, host, snapshot, { ...given, ...there }))
      if (!options.dryRun) ownFolder(space.to, space.entry, options)
    }
  }
  const last = {
    path: CONTROL,
    before: async (): Promise<boolean> => {
      await restoreTablespaces(isResumed)
      if (!parts.every(isComplete)) return false
      ownFolder(cluster.data, plan.root, options)
      for (const space of tablespaces) if (space.isMoved) moveLink(cluster.data, space)
      if (plan.config !== undefined) config = placeConfig(cluster, plan.config, ownerOf(cluster, options))
      // What a standby was told is not meant for a copy: it would go after its primary.
      for (const name of SIGNALS) rmSync(pathBytes(join(cluster.data, name)), { force: true })
      if (options.leavesConfig !== true && options.keepsSettings !== true)
        setAside = quietSettings(cluster.data, { major: cluster.major, owner: ownerOf(cluster, options) })
      // Before the other log lies there: what the backup brought.
      const looks = options.allowsEmptying !== true
      let made = looks ? await tablespacesMade(cluster.data, { ...cluster, signal: options.signal }) : []
      if (recovery !== undefined) {
        const written = await prepareRecovery(access, recovery, cluster, options)
        target = written.target
        made = [...made, ...written.made]
        limits = [...limits, ...written.limits]
      }
      if (options.leavesConfig !== true)
        raiseLimits(cluster.data, largestLimits(limits), ownerOf(cluster, options))
      const own = tablespaces.filter((space) => !space.isMoved).map((space) => space.to)
      if (looks) foldersNeeded = refuseEmptying(made, { major: cluster.major, own, target })
      return true
    },
  }
  const data = await restore(access, host, snapshot, options.dryRun ? given : { ...given, last })
  if (options.dryRun) await restoreTablespaces(false)
  return {
    cluster: { ...cluster, config },
    parts: [data, ...parts],
    recovery: recovery && { target, bytes: recovery.bytes },
    limits: largestLimits(limits),
    setAside,
    foldersNeeded,
  }
}

/** Resumed with other places or another goal, what the first run left would be taken for this one's. */
function aimOf({ tablespaces }: Plan, { goal, timeline }: ClusterRestoreOptions): string {
  const places = tablespaces.map(({ oid, to }) => [oid, to])
  const wanted = goal?.kind === 'lsn' ? { ...goal, lsn: String(goal.lsn) } : goal
  return JSON.stringify({ places, wanted, timeline })
}

function placeConfig({ data, config }: RestoredCluster, stored: StoredConfig, owner: FileOwner): ConfigState {
  if (config === 'placed') writeStoredConfig(data, stored, owner)
  return config === 'inside' && mendInsideConfig(data, stored, owner) ? 'placed' : config
}

async function prepareRecovery(
  access: Access,
  plan: RecoveryPlan,
  cluster: RestoredCluster,
  options: ClusterRestoreOptions,
): Promise<WrittenLog> {
  const owner = ownerOf(cluster, options)
  const folder = join(cluster.data, 'pg_wal')
  const { major } = cluster
  const written = await writeRecoveryLog(access, plan, { folder, owner, major, signal: options.signal })
  if (written.target !== undefined) writeRecoverySettings(cluster.data, written.target, owner)
  return written
}

/** Of what is written beside what was stored; undefined: the running user. */
function ownerOf({ owner }: RestoredCluster, { noOwner }: ClusterRestoreOptions): FileOwner {
  return noOwner || process.geteuid?.() !== 0 ? undefined : owner
}

function tablespacePath(oid: string): string {
  return `${CLUSTER_PATHS.tablespaces}/${oid}`
}

const SIGNALS = ['standby.signal', 'recovery.signal'] as const
const NOT_ASKED = { paths: [], exclude: [], delta: false, overwrite: false } as const

function isComplete({ counts }: RestoreSummary): boolean {
  return counts.damaged + counts.unreadable + counts.failed === 0
}

async function planCluster(
  access: Access,
  host: HostFolder,
  snapshot: StoredSnapshot,
  options: ClusterRestoreOptions,
): Promise<Plan> {
  const reader = await openSnapshot(access, host, snapshot)
  try {
    const root = await findEntry(reader, CLUSTER_PATHS.data)
    if (root === undefined || snapshot.sourceKind !== 'postgres')
      throw new Failure('restore.refused', `Cannot restore ${snapshot.id} as a cluster: it holds none`)
    const tablespaces = await planTablespaces(reader, options)
    const major = Number.parseInt(
      (await readSmall(reader, '/PG_VERSION', VERSION_BYTES_MAX)).toString('latin1'),
    )
    const owner = { uid: root.uid, gid: root.gid }
    const segmentBytes = await readSegmentBytes(reader)
    const own = await findEntry(reader, `${CLUSTER_PATHS.data}/postgresql.conf`)
    const stored = options.leavesConfig === true ? undefined : await readStoredConfig(reader)
    const isPlaced = own === undefined && stored !== undefined && hasStoredConfig(stored)
    const config = own !== undefined ? 'inside' : isPlaced ? 'placed' : 'missing'
    const cluster = { data: rawPath(options.to), major, owner, segmentBytes, config } as const
    const limits = limitsOfControl(await readSmall(reader, CONTROL, CONTROL_BYTES_MAX))
    return { root, tablespaces, cluster, config: stored, limits }
  } finally {
    closeSnapshot(reader)
  }
}

/** As long as the files of its log are. */
async function readSegmentBytes(reader: SnapshotReader): Promise<number> {
  const folder = await findEntry(reader, `${CLUSTER_PATHS.data}/pg_wal`)
  if (folder?.node !== undefined)
    for await (const { name, size } of readDirectory(reader, folder.node))
      if (/^[0-9A-F]{24}$/.test(name) && isSegmentBytes(size)) return size
  return SEGMENT_BYTES_USUAL
}

async function planTablespaces(
  reader: SnapshotReader,
  { to: data, tablespaceMap: map, tablespacesBelow: below }: ClusterRestoreOptions,
): Promise<TablespacePlan[]> {
  const folder = await findEntry(reader, CLUSTER_PATHS.tablespaces)
  if (folder?.node === undefined) {
    refuseUnknown(map, [])
    return []
  }
  const plans: TablespacePlan[] = []
  const places: string[] = []
  for await (const entry of readDirectory(reader, folder.node)) {
    const link = await findEntry(reader, `${CLUSTER_PATHS.data}/pg_tblspc/${entry.name}`)
    if (link?.type !== 'symlink')
      throw new Failure('repo.corrupt', `Cannot restore the tablespace ${entry.name}: nothing says its place`)
    const place = shown(link.target)
    places.push(place)
    const to = map.get(place) ?? (below === undefined ? place : join(below, entry.name))
    if (!isAbsolute(to)) throw refused(`the tablespace in "${place}" must get an absolute path, not "${to}"`)
    plans.push({ oid: entry.name, entry, to: rawPath(normalize(to)), isMoved: to !== place })
  }
  refuseUnknown(map, places)
  refuseNested([rawPath(normalize(data)), ...plans.map((plan) => plan.to)])
  return plans
}

/** A folder that holds another one would not be empty when its turn comes. */
function refuseNested(folders: readonly string[]): void {
  const sorted = folders.map((folder) => `${folder.replace(/\/+$/, '')}/`).toSorted()
  const nth = sorted.findIndex((folder, at) => at > 0 && folder.startsWith(sorted[at - 1]!))
  if (nth === -1) return
  const [outer, inner] = [sorted[nth - 1]!, sorted[nth]!].map((folder) => `"${displayName(folder)}"`)
  throw refused(`${inner} and ${outer} must be folders apart, of tablespaces and the data folder`)
}

function refuseUnknown(map: ClusterRestoreOptions['tablespaceMap'], places: readonly string[]): void {
  const unknown = [...map.keys()].find((place) => !places.includes(place))
  if (unknown === undefined) return
  const known = places.length === 0 ? 'none' : places.join(', ')
  throw refused(`there is no tablespace in "${unknown}" (there is: ${known})`)
}

function refused(is: string): Failure {
  return new Failure('restore.refused', `Cannot restore the cluster: ${is}`, { facts: { hint: PLACES_HINT } })
}

/** Whether an earlier run of this restore was cut off there. Fails: restore.refused. */
function refuseUsed(root: string, snapshot: StoredSnapshot, options: RestoreOptions): boolean {
  const lock = join(root, 'postmaster.pid')
  if (existsSync(pathBytes(lock)))
    throw refused(`"${displayName(root)}" holds a postmaster.pid: a server runs on it, or was killed`)
  try {
    return previewMarker(root, snapshot, options)
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'restore.refused') throw error
    const facts = { hint: PLACES_HINT, ...error.facts }
    throw new Failure('restore.refused', error.message, { facts, cause: error })
  }
}

/** `path`: in the data folder. */
async function readSmall(reader: SnapshotReader, path: string, bytesMax: number): Promise<Buffer> {
  const entry = await findEntry(reader, CLUSTER_PATHS.data + path)
  if (entry?.type !== 'file' || entry.size > bytesMax)
    throw new Failure('repo.corrupt', `Cannot restore the cluster: its ${displayName(path)} is missing`)
  const parts: Uint8Array[] = []
  for await (const part of readFile(reader, entry)) parts.push(part)
  return Buffer.concat(parts)
}

/** The folder itself, which restore() leaves as it is. */
function ownFolder(path: string, entry: TreeEntry, { noOwner }: ClusterRestoreOptions): void {
  try {
    if (!noOwner && process.geteuid?.() === 0) chownSync(pathBytes(path), entry.uid, entry.gid)
    chmodSync(pathBytes(path), entry.mode)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    const message = `Cannot set owner and mode of "${displayName(path)}": ${describeError(error)}`
    throw new Failure('restore.failed', message, { cause: error })
  }
}

/** The link of a tablespace leads to its new place. */
function moveLink(root: string, { oid, to }: TablespacePlan): void {
  const link = pathBytes(join(root, 'pg_tblspc', oid))
  try {
    rmSync(link, { force: true })
    symlinkSync(pathBytes(to), link)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    const message = `Cannot set the link of tablespace ${oid}: ${describeError(error)}`
    throw new Failure('restore.failed', message, { cause: error })
  }
}

function shown(raw: string): string {
  return Buffer.from(raw, 'latin1').toString('utf8')
}
