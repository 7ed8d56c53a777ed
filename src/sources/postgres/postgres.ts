/**
 * The source of kind `postgres`: a cluster as its server sends it over the replication protocol, with the log
 * from the start to the end of the backup, so that each snapshot can be recovered by itself.
 *
 * The tree: `/data` is the data folder, `/tablespaces/<oid>` what lies elsewhere, `/config` configuration
 * that lies elsewhere, `/server.json` what the server says of itself.
 */
import type { FileEntry } from '../../base/file-entry.ts'
import { describeError, Failure, isFailure } from '../../base/failure.ts'
import { randomHex } from '../../base/random.ts'
import type { FileProblem } from '../files/problem.ts'
import type {
  DamagedPages,
  Delivery,
  PageFormat,
  Receiver,
  Source,
  SourceLogRange,
  SourceView,
} from '../source.ts'
import { runBaseBackup, type BaseBackup } from './base-backup.ts'
import { CLUSTER_PATHS } from './cluster-paths.ts'
import { nextSegment } from './lsn.ts'
import { PAGE_BYTES } from './page-checksum.ts'
import { deliverRecord, type EntryBase } from './record-entries.ts'
import {
  closeReplication,
  resumeReplication,
  runCommand,
  type Replication,
  type ServerPlace,
} from './replication.ts'
import type { ServerRecord } from './server-record.ts'
import type { TarMember } from './tar-reader.ts'
import { withoutTornPages, type Judged, type RelationFile } from './torn-pages.ts'
import { walBranch } from './wal-branch.ts'

export interface PostgresSettings {
  /** Logs in for replication; called once each backup. */
  readonly connect: () => Promise<Replication>
  readonly checkpoint: 'fast' | 'spread'
  /** Bytes a second that the server sends at most; undefined: no limit. */
  readonly rateBytesMax: number | undefined
  /** Milliseconds since 1970: for what has no time of its own. */
  readonly now: () => number
  /** What is stored beside the data, of the server there; it resolves to undefined where nothing can be asked. */
  readonly facts?: (place: ServerPlace) => Promise<ServerRecord | undefined>
}

interface Server {
  readonly replication: Replication
  readonly major: number
  readonly systemId: string
  readonly blockBytes: number
  /** Blocks in one file of a relation. */
  readonly fileBlocks: number
  readonly hasChecksums: boolean
  /** Of one file of its log. */
  readonly segmentBytes: number
  /** Permission bits of the data folder. */
  readonly mode: number
}

interface Reading {
  readonly name: string
  readonly settings: PostgresSettings
  readonly server: Server
  backup: BaseBackup | undefined
  judged: Judged
  isOfStandby: boolean
  uid: number
  gid: number
}

/** The delivery under way. */
interface Sending {
  readonly reading: Reading
  readonly receiver: Receiver
  readonly time: bigint
  /** Bytes of the file at hand that have not come yet. */
  left: number
  /** As far as it has come; undefined: another file is at hand. */
  label: string | undefined
  hasOwner: boolean
  readonly tablespaces: Set<number>
  hasManifest: boolean
  isWaiting: boolean
}

/** The oldest version whose manifest lists what a backup holds. */
const MAJOR_MIN = 13
/** SQLSTATEs of a refused login for replication: no line of pg_hba.conf, no right. */
const REFUSALS: ReadonlySet<unknown> = new Set(['28000', '42501'])
const RELATION =
  /^(?:global|base\/(\d+)|(?:pg_tblspc\/\d+\/)?PG_\d+_\d+\/(\d+))\/(\d+)(?:_(fsm|vm|init))?(?:\.(\d+))?$/
/** Of what a folder's mode allows. */
const FILE_MODE = 0o666
const RATE_KILOBYTES = { min: 32, max: 1_048_576 } as const
const { data: DATA, tablespaces: TABLESPACES } = CLUSTER_PATHS

export function postgresSource(name: string, settings: PostgresSettings): Source {
  return {
    name,
    kind: 'postgres',
    increments: false,
    begin: async () => {
      const server = await openServer(settings)
      return viewOf({
        name,
        settings,
        server,
        backup: undefined,
        judged: { damaged: [] },
        isOfStandby: false,
        uid: 0,
        gid: 0,
      })
    },
  }
}

function viewOf(reading: Reading): SourceView {
  return {
    roots: [DATA],
    excludes: [],
    entries: () => deliveryOf(reading),
    pageBytesOf: () => 0,
    ignoreInode: true,
    owners: () => ({ users: {}, groups: {} }),
    logRange: () => logRangeOf(reading),
    rootCounts: () => ({}),
    end: () => {
      closeReplication(reading.server.replication)
      const { damaged, doubt } = reading.judged
      return Promise.resolve(damaged.map((pages) => damageProblem(pages, doubt)))
    },
  }
}

function logRangeOf({ backup, server, isOfStandby }: Reading): SourceLogRange | undefined {
  if (backup === undefined) return undefined
  const { timeline, start, end } = backup
  // A primary begins a new file of its log behind a backup; a standby cannot, and its last file goes on.
  const held = isOfStandby ? end : nextSegment(end, server.segmentBytes)
  return { branch: walBranch(server.systemId, timeline), from: start, to: end, held }
}

/** Fails: source.failed. */
async function openServer(settings: PostgresSettings): Promise<Server> {
  const replication = await connectOrHint(settings)
  try {
    const show = async (setting: string): Promise<string> => {
      const [row] = await runCommand(replication, `SHOW ${setting}`)
      return row?.[0] ?? ''
    }
    const [system] = await runCommand(replication, 'IDENTIFY_SYSTEM')
    const major = Math.floor(Number(await show('server_version_num')) / 10_000)
    if (major < MAJOR_MIN) {
      const is = `the server is of version ${major} (must be ${MAJOR_MIN} or newer)`
      throw new Failure('source.failed', `Cannot back up PostgreSQL: ${is}`)
    }
    return {
      replication,
      major,
      systemId: system?.[0] ?? '',
      blockBytes: Number(await show('block_size')),
      fileBlocks: (await readBytes(show, 'segment_size')) / Number(await show('block_size')),
      hasChecksums: (await show('data_checksums')) === 'on',
      segmentBytes: await readBytes(show, 'wal_segment_size'),
      mode: Number.parseInt(await show('data_directory_mode'), 8),
    }
  } catch (error) {
    closeReplication(replication)
    throw error
  }
}

/** Where replication is refused the way without it is named: a managed service will never allow it. */
async function connectOrHint({ connect }: PostgresSettings): Promise<Replication> {
  try {
    return await connect()
  } catch (error) {
    if (!isFailure(error, 'source.failed') || !REFUSALS.has(error.facts['sqlstate'])) throw error
    const hint =
      '`backstock check` says what lets replication in. A managed service that never does: mode: logical.'
    throw new Failure(error.code, error.message, { facts: { ...error.facts, hint }, cause: error })
  }
}

/** A setting that is shown with a unit, such as 1GB. */
async function readBytes(show: (setting: string) => Promise<string>, setting: string): Promise<number> {
  const shown = await show(setting)
  const parts = /^(\d+)(kB|MB|GB|TB)$/.exec(shown)
  if (parts === null)
    throw new Failure('source.failed', `Cannot understand the server: its ${setting} is "${shown}"`)
  const units = { kB: 1024, MB: 1024 ** 2, GB: 1024 ** 3, TB: 1024 ** 4 }
  return Number(parts[1]) * units[parts[2] as keyof typeof units]
}

function deliveryOf(reading: Reading): Delivery {
  return {
    deliver: async (receiver, signal) => {
      const { replication } = reading.server
      const abort = (): void => closeReplication(replication)
      signal?.addEventListener('abort', abort, { once: true })
      try {
        await deliver(reading, receiver)
      } catch (error) {
        if (signal?.aborted !== true) throw error
        throw new Failure('cancelled', 'Cannot finish the backup: it was cancelled', { cause: error })
      } finally {
        signal?.removeEventListener('abort', abort)
      }
    },
  }
}

async function deliver(reading: Reading, receiver: Receiver): Promise<void> {
  const { server, settings, name } = reading
  const sending: Sending = {
    reading,
    receiver,
    time: BigInt(settings.now()) * 1_000_000n,
    left: 0,
    label: undefined,
    hasOwner: false,
    tablespaces: new Set(),
    hasManifest: false,
    isWaiting: false,
  }
  const record = await settings.facts?.(server.replication.place)
  const slot = await keepLog(server.replication)
  reading.backup = await runBaseBackup(
    server.replication,
    {
      major: server.major,
      label: `backstock ${name}`,
      checkpoint: settings.checkpoint,
      rateKilobytesMax: kilobytesOf(settings.rateBytesMax),
      includesLog: true,
      // The lanes look at them: on this host, and not on the shop's.
      verifiesChecksums: false,
    },
    {
      onMember: (tablespace, member) => {
        takeMember(sending, tablespace, member)
      },
      onBytes: (bytes) => takeContent(sending, bytes),
      onManifest: (bytes) => takeManifest(sending, bytes),
    },
  )
  if (sending.hasManifest) receiver.endFile()
  // A name or address may lead to several servers.
  if (record !== undefined && [server.systemId, undefined].includes(record.systemId))
    await deliverRecord(receiver, record, baseEntry(sending))
  receiver.takeEntry('/', folderEntry(sending, '', 0o700))
  if (sending.tablespaces.size > 0)
    receiver.takeEntry(TABLESPACES, folderEntry(sending, TABLESPACES.slice(1), server.mode))
  const damaged = await receiver.finish()
  const { start, end, timeline } = reading.backup
  const { segmentBytes, major } = server
  const log = { slot, start, end, timeline, segmentBytes, major, now: settings.now }
  reading.judged = await withoutTornPages(
    server.replication,
    log,
    damaged.flatMap((pages) => {
      const file = relationFile(pages.path, server.fileBlocks)
      return file === undefined ? [] : [{ ...pages, file }]
    }),
  )
}

/** What the server takes: 32 to 1 048 576; a limit above that is none. */
function kilobytesOf(rate: number | undefined): number | undefined {
  if (rate === undefined || rate > RATE_KILOBYTES.max * 1024) return undefined
  return Math.max(RATE_KILOBYTES.min, Math.floor(rate / 1024))
}

/**
 * A slot that lives as long as the connection: the server keeps the log from before the start of the backup
 * until all of it was sent.
 */
async function keepLog(replication: Replication): Promise<string> {
  const slot = `backstock_backup_${randomHex(6)}`
  await runCommand(replication, `CREATE_REPLICATION_SLOT ${slot} TEMPORARY PHYSICAL RESERVE_WAL`)
  return slot
}

function takeMember(sending: Sending, tablespace: number, member: TarMember): void {
  const { receiver, reading } = sending
  if (!sending.hasOwner) {
    sending.hasOwner = true
    reading.uid = member.uid
    reading.gid = member.gid
    receiver.takeEntry(DATA, folderEntry(sending, DATA.slice(1), reading.server.mode))
  }
  if (tablespace > 0 && !sending.tablespaces.has(tablespace)) {
    sending.tablespaces.add(tablespace)
    receiver.takeEntry(
      `${TABLESPACES}/${tablespace}`,
      folderEntry(sending, `${tablespace}`, reading.server.mode),
    )
  }
  const root = tablespace === 0 ? DATA : `${TABLESPACES}/${tablespace}`
  const path = `${root}/${member.path}`
  const entry = entryOf(member)
  if (member.type !== 'file') {
    receiver.takeEntry(path, entry)
    return
  }
  receiver.beginFile(path, entry, formatOf(sending, member.path))
  sending.left = member.bytes
  sending.label = tablespace === 0 && member.path === 'backup_label' ? '' : undefined
  if (member.bytes === 0) receiver.endFile()
}

function takeContent(sending: Sending, bytes: Buffer): boolean {
  const isFull = sending.receiver.takeBytes(bytes)
  sending.left -= bytes.length
  if (sending.label !== undefined) sending.label += bytes.toString('latin1')
  if (sending.left === 0) endFile(sending)
  return pauseIf(sending, isFull)
}

function endFile({ receiver, label, reading }: Sending): void {
  receiver.endFile()
  if (label !== undefined) reading.isOfStandby = /^BACKUP FROM: standby$/m.test(label)
}

/** The manifest is a file of the data folder, where pg_verifybackup looks for it. */
function takeManifest(sending: Sending, bytes: Buffer): boolean {
  const { receiver } = sending
  if (!sending.hasManifest) {
    sending.hasManifest = true
    const name = 'backup_manifest'
    const entry = folderEntry(sending, name, sending.reading.server.mode & FILE_MODE)
    receiver.beginFile(`${DATA}/${name}`, { ...entry, type: 'file' }, undefined)
  }
  return pauseIf(sending, receiver.takeBytes(bytes))
}

/** Holds the server back until there is room; a failure of the receiver ends the connection. */
function pauseIf(sending: Sending, isFull: boolean): boolean {
  if (!isFull) return false
  if (sending.isWaiting) return true
  sending.isWaiting = true
  const { replication } = sending.reading.server
  sending.receiver.room().then(
    () => {
      sending.isWaiting = false
      resumeReplication(replication)
    },
    (error: unknown) =>
      replication.socket.destroy(error instanceof Error ? error : new Error(describeError(error))),
  )
  return true
}

/** Relations are stored by page; free space maps, visibility maps and initial forks are such files too. */
function formatOf({ reading }: Sending, path: string): PageFormat | undefined {
  const file = RELATION.exec(path)
  if (file === null) return undefined
  const { blockBytes, fileBlocks, hasChecksums } = reading.server
  const firstBlock = Number(file[5] ?? 0) * fileBlocks
  // A server makes bad pages of the maps anew (RBM_ZERO_ON_ERROR), and the log does not tell of all changes.
  const isMap = file[4] === 'fsm' || file[4] === 'vm'
  const isChecked = hasChecksums && blockBytes === PAGE_BYTES && !isMap
  return { pageBytes: blockBytes, checksums: isChecked ? { firstBlock } : undefined }
}

/** Of a path in the tree. */
function relationFile(path: string, fileBlocks: number): RelationFile | undefined {
  const parts = RELATION.exec(path.replace(/^\/(?:data|tablespaces\/\d+)\//, ''))
  if (parts === null) return undefined
  const database = Number(parts[1] ?? parts[2] ?? 0)
  const firstBlock = Number(parts[5] ?? 0) * fileBlocks
  return { database, relation: Number(parts[3]), isInitial: parts[4] === 'init', firstBlock }
}

function entryOf(member: TarMember): FileEntry {
  const time = BigInt(member.mtimeSeconds) * 1_000_000_000n
  return {
    ...NOTHING,
    name: member.path.slice(member.path.lastIndexOf('/') + 1),
    type: member.type,
    mode: member.mode,
    uid: member.uid,
    gid: member.gid,
    mtime: time,
    ctime: time,
    size: member.bytes,
    target: member.target,
  }
}

function folderEntry(sending: Sending, name: string, mode: number): FileEntry {
  return { ...baseEntry(sending), name, type: 'directory', mode }
}

function baseEntry({ reading, time }: Sending): EntryBase {
  const { uid, gid } = reading
  return { ...NOTHING, uid, gid, mtime: time, ctime: time }
}

const NOTHING = {
  dev: 0,
  inode: 0n,
  links: 1,
  size: 0,
  target: '',
  major: 0,
  minor: 0,
  xattrs: [],
} as const

function damageProblem({ path, pages, more }: DamagedPages, doubt: Failure | undefined): FileProblem {
  const shown = pages.slice(0, 10)
  const all = pages.length + more
  const rest = all > shown.length ? `${shown.length > 0 ? ', ' : ''}… (${all} in all)` : ''
  const torn = doubt === undefined ? '' : `; some may only have been read amid a write: ${doubt.message}`
  const what = `pages whose checksum is wrong, by number in the file: ${shown.join(', ')}${rest}${torn}`
  return { path, code: 'ECHECKSUM', what }
}
