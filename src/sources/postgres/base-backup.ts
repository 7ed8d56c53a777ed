/**
 * Runs BASE_BACKUP and hands out its files as they come (documentation, chapter "Streaming Replication
 * Protocol"). From version 15 on one copy holds all archives and the manifest, each message with its kind in
 * front; before, each archive and the manifest come in a copy of their own.
 */
import { assert, Failure } from '../../base/failure.ts'
import { parseLsn, type Lsn } from './lsn.ts'
import { runCommand, type Replication } from './replication.ts'
import { endTar, feedTar, newTarReader, type TarMember, type TarReader } from './tar-reader.ts'

export interface BaseBackupOptions {
  /** Version of the server before the first dot. */
  readonly major: number
  readonly label: string
  /** `spread` waits for the next checkpoint, as the server paces it; `fast` makes one at once. */
  readonly checkpoint: 'fast' | 'spread'
  /** Kilobytes a second that the server sends at most: 32 to 1 048 576; undefined: no limit. */
  readonly rateKilobytesMax: number | undefined
  /** Sends the log from the start to the end of the backup too, so that it can be recovered by itself. */
  readonly includesLog: boolean
  /** The server looks at the checksums of pages, which costs it processor time. */
  readonly verifiesChecksums: boolean
}

/** Bytes are valid during the call only. `tablespace`: its number, 0 for the data folder. */
export interface BaseBackupEvents {
  readonly onMember: (tablespace: number, member: TarMember) => void
  /** Returns true to pause the reading, as in runCommand(). */
  readonly onBytes: (bytes: Buffer) => boolean | void
  /** As onBytes(). */
  readonly onManifest: (bytes: Buffer) => boolean | void
}

export interface Tablespace {
  readonly number: number
  readonly location: string
}

export interface BaseBackup {
  readonly start: Lsn
  readonly timeline: number
  /** The backup is of use only together with the log up to here. */
  readonly end: Lsn
  readonly tablespaces: readonly Tablespace[]
}

interface Run {
  readonly events: BaseBackupEvents
  readonly rows: (string | null)[][]
  tar: TarReader | undefined
  inManifest: boolean
  copies: number
  isPausing: boolean
}

const KIND = { archive: 0x6e, manifest: 0x6d, data: 0x64 } as const
const LABEL_BYTES_MAX = 1000
/** Once files come. Below a low rate limit, and at a checkpoint of another session, a server pauses. */
const SILENCE_MS = 30 * 60_000

/** Resolves when all of it came. Fails: source.failed, also when the server finds corrupt pages, at its end. */
export async function runBaseBackup(
  replication: Replication,
  options: BaseBackupOptions,
  events: BaseBackupEvents,
): Promise<BaseBackup> {
  const run: Run = { events, rows: [], tar: undefined, inManifest: false, copies: 0, isPausing: false }
  const isOne = options.major >= 15
  await runCommand(replication, baseBackupCommand(options), {
    onRow: (row) => {
      run.rows.push(row)
    },
    silenceMs: SILENCE_MS,
    isPatient: true,
    onCopyOut: () => {
      if (!isOne) beginCopy(run)
    },
    onData: (payload) => {
      run.isPausing = false
      if (isOne) takeTagged(run, payload)
      else takeContent(run, payload)
      return run.isPausing
    },
    onCopyDone: () => {
      endArchive(run)
    },
  })
  return backupOf(run.rows)
}

/**
 * Without a tablespace_map: the archive then holds the links, and a restore decides where they lead. Without
 * waiting for the server's own archive of the log, which need not work: the backup brings its log itself, or
 * has it from `ship`.
 */
function baseBackupCommand(options: BaseBackupOptions): string {
  const { major, label, checkpoint, rateKilobytesMax, includesLog, verifiesChecksums } = options
  assert(label.length <= LABEL_BYTES_MAX && !/[\0\n\r]/.test(label), 'a label is one short line')
  const quoted = `'${label.replaceAll("'", "''")}'`
  if (major >= 15) {
    const rate = rateKilobytesMax === undefined ? '' : `, MAX_RATE ${rateKilobytesMax}`
    const what = `LABEL ${quoted}, CHECKPOINT '${checkpoint}', PROGRESS true, WAL ${includesLog}`
    const pages = `VERIFY_CHECKSUMS ${verifiesChecksums}`
    return `BASE_BACKUP (${what}, WAIT false, MANIFEST 'yes', ${pages}${rate})`
  }
  const fast = checkpoint === 'fast' ? ' FAST' : ''
  const log = includesLog ? ' WAL' : ''
  const rate = rateKilobytesMax === undefined ? '' : ` MAX_RATE ${rateKilobytesMax}`
  const pages = verifiesChecksums ? '' : ' NOVERIFY_CHECKSUMS'
  return `BASE_BACKUP LABEL ${quoted} PROGRESS${fast}${log} NOWAIT${rate}${pages} MANIFEST 'yes'`
}

function takeTagged(run: Run, payload: Buffer): void {
  const kind = payload[0]
  if (kind === KIND.data) {
    takeContent(run, payload.subarray(1))
  } else if (kind === KIND.archive) {
    endArchive(run)
    const name = payload.toString('utf8', 1, payload.indexOf(0, 1))
    beginArchive(run, name === 'base.tar' ? 0 : Number.parseInt(name))
  } else if (kind === KIND.manifest) {
    endArchive(run)
    run.inManifest = true
  }
}

/** Before version 15: the archives come in the order of the tablespaces, behind them the manifest. */
function beginCopy(run: Run): void {
  const space = tablespaceRows(run.rows)[run.copies++]
  if (space === undefined) run.inManifest = true
  else beginArchive(run, Number(space[0] ?? 0))
}

function takeContent(run: Run, bytes: Buffer): void {
  if (run.tar !== undefined) feedTar(run.tar, bytes)
  else if (run.inManifest && run.events.onManifest(bytes) === true) run.isPausing = true
}

function beginArchive(run: Run, tablespace: number): void {
  if (!Number.isSafeInteger(tablespace))
    throw new Failure('source.failed', 'Cannot understand the server: an archive is of no tablespace')
  const inside = placeInside(run, tablespace)
  run.tar = newTarReader({
    onMember: (member) =>
      inside === undefined
        ? run.events.onMember(tablespace, member)
        : run.events.onMember(0, { ...member, path: `${inside}/${member.path}` }),
    onBytes: (bytes) => {
      if (run.events.onBytes(bytes) === true) run.isPausing = true
    },
  })
}

/**
 * Where in the data folder a tablespace lies that was made without a place (allow_in_place_tablespaces); it
 * is a part of that folder, though it comes by itself from version 16 on.
 */
function placeInside(run: Run, tablespace: number): string | undefined {
  const place = tablespaceRows(run.rows).find(([number]) => number === String(tablespace))?.[1]
  return typeof place !== 'string' || place.startsWith('/') ? undefined : place.replace(/^\.\//, '')
}

function endArchive(run: Run): void {
  if (run.tar !== undefined) endTar(run.tar)
  run.tar = undefined
  run.inManifest = false
}

/** Rows of three columns: number, place, size; the data folder's has no number. */
function tablespaceRows(rows: readonly (string | null)[][]): (string | null)[][] {
  return rows.filter((row) => row.length === 3)
}

function backupOf(rows: readonly (string | null)[][]): BaseBackup {
  const [start, end, ...more] = rows.filter((row) => row.length === 2)
  if (start === undefined || end === undefined || more.length > 0)
    throw new Failure('source.failed', 'Cannot understand the server: its backup has no start and end')
  // Only a standby's: it follows another server to the next timeline. The log between is then on two.
  if (start[1] !== end[1]) {
    const is = `the standby went from timeline ${start[1]} to ${end[1]} meanwhile (must stay on one)`
    throw new Failure('source.failed', `Cannot use the backup: ${is}; run it again`)
  }
  return {
    start: parseLsn(start[0] ?? ''),
    timeline: Number(start[1]),
    end: parseLsn(end[0] ?? ''),
    tablespaces: tablespaceRows(rows).flatMap(([number, location]) =>
      typeof number !== 'string' ? [] : [{ number: Number(number), location: location ?? '' }],
    ),
  }
}
