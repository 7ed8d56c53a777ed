/**
 * A snapshot in a form that needs no Backstock: a PostgreSQL cluster as a data folder, or as the tars that
 * `pg_basebackup -Ft` makes; any snapshot's tree as one tar. Nothing is there under its own name before all
 * of it is whole and durable.
 */
import { chmodSync, chownSync, existsSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import type { Clock } from '../base/clock.ts'
import { displayName, pathBytes, rawPath } from '../base/file-entry.ts'
import { Failure, isFailure } from '../base/failure.ts'
import { makeFolders } from '../base/folders.ts'
import type { TreeEntry } from '../format/tree.ts'
import type { HostFolder } from '../repo/host-folder.ts'
import type { Access } from '../repo/keys.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import {
  closeSnapshot,
  findEntry,
  openSnapshot,
  readDirectory,
  type SnapshotReader,
} from '../repo/tree-reader.ts'
import { CLUSTER_PATHS } from '../sources/postgres/cluster-paths.ts'
import { LOGICAL_KIND } from '../sources/postgres/logical-paths.ts'
import {
  beginStaging,
  dropStaging,
  endStaging,
  shielded,
  syncFolder,
  writeStaged,
  type Staging,
} from './export-folder.ts'
import {
  cancelledExport,
  copyFile,
  endTarFile,
  newTarCounts,
  writeTarEntry,
  writeTarPart,
  type TarCounts,
  type TarOutput,
  type TarPart,
  type WriteBytes,
} from './export-tar.ts'
import { restoreCluster, type ClusterRestoreSummary, type RestoredCluster } from './restore-cluster.ts'
import { refuseRepositoryFolder, storeFolders } from './restore-guard.ts'
import { restore, type RestoreSummary } from './restore.ts'
import { newSelection } from './select.ts'

export interface ExportOptions {
  /** Absolute; empty, or not there yet. */
  readonly to: string
  readonly format: 'plain' | 'tar'
  /** New places of tablespaces by their old ones. */
  readonly tablespaceMap: ReadonlyMap<string, string>
  readonly noOwner: boolean
  readonly workers: number
  readonly clock: Clock
  readonly signal?: AbortSignal
  readonly onProgress?: (done: { readonly files: number; readonly bytes: number }) => void
}

export interface ExportSummary {
  /** What now lies in the folder, sorted. */
  readonly names: readonly string[]
  readonly counts: TarCounts
  /** Of a plain export, its data folder in place. */
  readonly cluster: RestoredCluster | undefined
  readonly seconds: number
}

/** A tablespace of the cluster; places are for people. */
interface Space {
  readonly oid: string
  readonly place: string
}

const { data: DATA, tablespaces: TABLESPACES, config: CONFIG, server: SERVER } = CLUSTER_PATHS
const LOG = `${DATA}/pg_wal`
const CONTROL = `${DATA}/global/pg_control`
const MANIFEST = 'backup_manifest'
/** As PostgreSQL's own tars name them; numbers stand beside it. */
const OWNER = 'postgres'
const LINKS = 'pg_tblspc'

/**
 * Exports into a folder, durable when it resolves; after a failure nothing is left of it. A snapshot of files
 * goes as a tar only. Fails: restore.refused (the folder is not empty or the repository's; files as plain),
 * restore.failed (disk full), repo.corrupt (something is damaged), storage.*, cancelled.
 */
export async function exportSnapshot(
  access: Access,
  host: HostFolder,
  snapshot: StoredSnapshot,
  options: ExportOptions,
): Promise<ExportSummary> {
  const started = options.clock.elapsed()
  const isCluster = snapshot.sourceKind === 'postgres'
  if (!isCluster && options.format === 'plain') throw filesRefused(snapshot)
  const to = rawPath(options.to)
  const reader = await openSnapshot(access, host, snapshot)
  try {
    await refuseRepositoryFolder(reader, storeFolders(access.store.location), newSelection([], []), to)
    const spaces = isCluster ? await tablespacesOf(reader) : []
    refuseUnknown(options.tablespaceMap, spaces)
    const staging = beginStaging(to)
    try {
      const counts = newTarCounts()
      const made = { access, host, reader, staging, spaces, options, counts }
      let cluster: RestoredCluster | undefined
      if (options.format === 'plain') cluster = await exportPlain(made)
      else if (isCluster) await exportTars(made)
      else await exportFiles(made)
      const names = readdirSync(pathBytes(staging.path)).toSorted()
      endStaging(staging, cluster !== undefined ? 'data' : isCluster ? MANIFEST : 'files.tar')
      return { names, counts, cluster, seconds: (options.clock.elapsed() - started) / 1000 }
    } catch (error) {
      dropStaging(staging)
      // The data folder of a plain one is restored; nobody has heard of a restore.
      throw isFailure(error, 'cancelled') ? cancelledExport(error) : error
    }
  } finally {
    closeSnapshot(reader)
  }
}

/** The whole tree of any snapshot as one archive. Fails: as exportSnapshot(), and as `write` fails. */
export async function exportStream(
  reader: SnapshotReader,
  write: WriteBytes,
  options: Pick<ExportOptions, 'signal' | 'onProgress'>,
): Promise<TarCounts> {
  const output = outputOf(reader, newTarCounts(), options)(write)
  await writeTree(output)
  return output.counts
}

async function writeTree(output: TarOutput): Promise<void> {
  const nameOf = (path: string): string => path.slice(1)
  const owner = output.reader.snapshot.sourceKind === 'postgres' ? OWNER : ''
  await writeTarPart(output, { nameOf, targetOf: (_, { target }) => target, owner })
  await endTarFile(output)
}

interface Export {
  readonly access: Access
  readonly host: HostFolder
  readonly reader: SnapshotReader
  readonly staging: Staging
  readonly spaces: readonly Space[]
  readonly options: ExportOptions
  readonly counts: TarCounts
}

function outputOf(
  reader: SnapshotReader,
  counts: TarCounts,
  { signal, onProgress = () => {} }: Pick<ExportOptions, 'signal' | 'onProgress'>,
): (write: WriteBytes) => TarOutput {
  return (write) => ({ reader, write, counts, signal, onProgress })
}

async function exportFiles({ reader, staging, options, counts }: Export): Promise<void> {
  const outputTo = outputOf(reader, counts, options)
  await writeStaged(staging, 'files.tar', async (write) => writeTree(outputTo(write)))
}

/** base.tar, one tar for each tablespace, pg_wal.tar, backup_manifest; what was stored beside it likewise. */
async function exportTars({ reader, staging, spaces, options, counts }: Export): Promise<void> {
  const outputTo = outputOf(reader, counts, options)
  const put = async (name: string, part: TarPart, last?: TreeEntry): Promise<void> =>
    await writeStaged(staging, name, async (write) => {
      const output = outputTo(write)
      await writeTarPart(output, part)
      if (last !== undefined)
        await writeTarEntry(output, last, { name: 'global/pg_control', target: '', owner: OWNER })
      await endTarFile(output)
    })
  const links = new Map(spaces.map(({ oid, place }) => [oid, options.tablespaceMap.get(place) ?? place]))
  await put('base.tar', basePart(links), await findEntry(reader, CONTROL))
  for (const { oid } of spaces) await put(`${oid}.tar`, partBelow(`${TABLESPACES}/${oid}`))
  await put('pg_wal.tar', partBelow(LOG))
  if ((await findEntry(reader, CONFIG)) !== undefined) await put('config.tar', partBelow(CONFIG))
  const manifest = await findEntry(reader, `${DATA}/${MANIFEST}`)
  if (manifest === undefined) throw new Failure('repo.corrupt', `Cannot export: it has no ${MANIFEST}`)
  await putFile({ reader, staging }, MANIFEST, manifest)
  await putServer({ reader, staging })
}

/** The data folder without the log, the manifest, and pg_control, which comes last. */
function basePart(links: ReadonlyMap<string, string>): TarPart {
  const leftOut = new Set([CONTROL, `${DATA}/${MANIFEST}`])
  const { nameOf, owner } = partBelow(DATA)
  return {
    nameOf: (path, entry) => {
      const isLog = path.startsWith(`${LOG}/`)
      const isFile = entry !== undefined && entry.type !== 'directory'
      return leftOut.has(path) || (isLog && isFile) ? undefined : nameOf(path, entry)
    },
    targetOf: (path, { name, target }) => {
      const to = path === `${DATA}/${LINKS}/${name}` ? links.get(name) : undefined
      return to === undefined ? target : rawPath(to)
    },
    owner,
  }
}

/** What lies in a folder of the tree, without the folder. */
function partBelow(folder: string): TarPart {
  return {
    nameOf: (path) => {
      if (path === folder || folder.startsWith(`${path}/`)) return ''
      return path.startsWith(`${folder}/`) ? path.slice(folder.length + 1) : undefined
    },
    targetOf: (_, { target }) => target,
    owner: OWNER,
  }
}

async function putFile(
  { reader, staging }: Pick<Export, 'reader' | 'staging'>,
  name: string,
  entry: TreeEntry,
): Promise<void> {
  await writeStaged(staging, name, async (write) => {
    await copyFile(reader, entry, write)
  })
}

async function putServer(made: Pick<Export, 'reader' | 'staging'>): Promise<void> {
  const server = await findEntry(made.reader, SERVER)
  if (server !== undefined) await putFile(made, SERVER.slice(1), server)
}

/** data, tablespaces/<oid>, config, server.json: as in the tree. */
async function exportPlain(made: Export): Promise<RestoredCluster> {
  const { access, host, reader, staging, spaces, options, counts } = made
  const { snapshot } = reader
  const inside = spaces.filter(({ place }) => !options.tablespaceMap.has(place))
  const places = new Map(options.tablespaceMap)
  for (const { oid, place } of inside) places.set(place, shown(`${staging.path}${TABLESPACES}/${oid}`))
  const elsewhere = [...options.tablespaceMap.values()].map((place) => emptyPlace(rawPath(place)))
  try {
    const { workers, clock, signal, noOwner, onProgress } = options
    const how = { workers, clock, noOwner, dryRun: false, ...(signal && { signal }) }
    const progress = onProgress === undefined ? how : { ...how, onProgress }
    const summary = await restoreCluster(access, host, snapshot, {
      ...progress,
      to: shown(`${staging.path}/data`),
      tablespaceMap: places,
      goal: undefined,
      timeline: undefined,
      leavesConfig: true,
    })
    const parts: RestoreSummary[] = [...summary.parts]
    if ((await findEntry(reader, CONFIG)) !== undefined) {
      const there = { to: shown(`${staging.path}/config`), below: CONFIG }
      parts.push(await restore(access, host, snapshot, { ...how, ...NOT_ASKED, ...there }))
    }
    refuseIncomplete(parts)
    for (const { files, bytes } of parts) {
      counts.files += files
      counts.bytes += bytes
    }
    await putServer(made)
    linkInside(staging, inside)
    ownFolders(staging, summary, options)
    return { ...summary.cluster, data: `${staging.folder}/data` }
  } catch (error) {
    for (const place of elsewhere) place.clear()
    throw error
  }
}

const NOT_ASKED = { paths: [], exclude: [], delta: false, overwrite: false } as const

/** Links lead to where tablespaces will lie, not to where they are made. */
function linkInside({ path, folder }: Staging, spaces: readonly Space[]): void {
  if (spaces.length === 0) return
  shielded(folder, () => {
    const links = `${path}/data/${LINKS}`
    for (const { oid } of spaces) {
      rmSync(pathBytes(`${links}/${oid}`))
      symlinkSync(pathBytes(`${folder}${TABLESPACES}/${oid}`), pathBytes(`${links}/${oid}`))
    }
    syncFolder(links)
    syncFolder(`${path}${TABLESPACES}`)
  })
}

/** Folders above those of the cluster, so that its owner gets there. */
function ownFolders(
  { path, folder, madeFolder }: Staging,
  { cluster }: ClusterRestoreSummary,
  { noOwner }: ExportOptions,
): void {
  if (noOwner || process.geteuid?.() !== 0) return
  const { uid, gid } = cluster.owner
  const above = [
    ...(madeFolder ? [folder] : []),
    ...[`${path}${TABLESPACES}`, `${path}${CONFIG}`].filter((each) => existsSync(pathBytes(each))),
  ]
  shielded(folder, () => {
    for (const each of above) {
      chownSync(pathBytes(each), uid, gid)
      chmodSync(pathBytes(each), 0o700)
    }
  })
}

/** Fails: restore.refused. */
function emptyPlace(path: string): { readonly clear: () => void } {
  return shielded(path, () => {
    const made = makeFolders(path)
    if (readdirSync(pathBytes(path)).length > 0) {
      const folder = displayName(path)
      const hint = 'Name an empty folder with --tablespace-map.'
      const message = `Cannot export a tablespace to "${folder}": it is not empty`
      throw new Failure('restore.refused', message, { facts: { folder, hint } })
    }
    return {
      clear: () => {
        const names = made ? [''] : readdirSync(pathBytes(path), { encoding: 'latin1' })
        for (const name of names) rmSync(pathBytes(`${path}/${name}`), { recursive: true, force: true })
      },
    }
  })
}

/** Fails: repo.corrupt, storage.offline, restore.failed: for the first entry that is missing. */
function refuseIncomplete(parts: readonly RestoreSummary[]): void {
  const codes = { damaged: 'repo.corrupt', unreadable: 'storage.offline', failed: 'restore.failed' } as const
  for (const kind of ['damaged', 'unreadable', 'failed'] as const)
    for (const { [kind]: problems } of parts)
      for (const { path, what } of problems)
        throw new Failure(codes[kind], `Cannot export "${displayName(path)}": ${what}`)
}

async function tablespacesOf(reader: SnapshotReader): Promise<Space[]> {
  const folder = await findEntry(reader, TABLESPACES)
  if (folder?.node === undefined) return []
  const spaces: Space[] = []
  for await (const { name } of readDirectory(reader, folder.node)) {
    const link = await findEntry(reader, `${DATA}/${LINKS}/${name}`)
    spaces.push({ oid: name, place: shown(link?.target ?? '') })
  }
  return spaces
}

function refuseUnknown(map: ExportOptions['tablespaceMap'], spaces: readonly Space[]): void {
  const places = spaces.map(({ place }) => place)
  const unknown = [...map.keys()].find((place) => !places.includes(place))
  if (unknown === undefined) return
  const is = `there is no tablespace in "${unknown}" (there is: ${places.join(', ') || 'none'})`
  throw new Failure('restore.refused', `Cannot export the cluster: ${is}`)
}

function filesRefused({ id, sourceKind }: StoredSnapshot): Failure {
  const what = sourceKind === LOGICAL_KIND ? 'dumps' : 'files'
  const message = `Cannot export ${id} as a folder: it holds ${what} (plain is for PostgreSQL clusters)`
  const hint = 'Use `backstock restore` for a folder, or --format tar.'
  return new Failure('restore.refused', message, { facts: { snapshot: id, hint } })
}

function shown(raw: string): string {
  return Buffer.from(raw, 'latin1').toString('utf8')
}
