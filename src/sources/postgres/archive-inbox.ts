/**
 * The inbox of a spool: a folder into which PostgreSQL's archive_command (bin/backstock-archive) puts
 * finished files of the log, as its own user, each durable and under its final name. Here they are listed,
 * read and removed; in what order they are taken is archive-order.ts.
 *
 * ```
 * <spool>/inbox/.backstock                            how many files it may hold; that it is an inbox
 * <spool>/inbox/000000010000000000000003              a segment of the log
 * <spool>/inbox/000000010000000000000004.partial      the last segment of a timeline that was left
 * <spool>/inbox/00000002.history
 * <spool>/inbox/000000010000000000000003.00000028.backup
 * <spool>/inbox/.000000010000000000000005.4711.tmp    not whole yet, or left by one that was killed
 * ```
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { errnoOf, Failure, isFailure } from '../../base/failure.ts'
import { parseSegmentName, type Lsn } from './lsn.ts'
import { diskFailure, onDisk, writeDurably } from './spool-files.ts'

/** A whole segment, or what there is of the last one of a timeline. */
export interface InboxSegment {
  readonly name: string
  readonly timeline: number
  readonly start: Lsn
  readonly isPartial: boolean
}

/** Names, by what they say. */
export interface InboxNames {
  /** Not in any order: what their names say depends on the length of segments. */
  readonly segments: readonly string[]
  readonly histories: readonly { readonly name: string; readonly timeline: number }[]
  /** Where a base backup began: our backups hold that themselves. */
  readonly backups: readonly string[]
  readonly temporary: readonly string[]
  readonly unknown: readonly string[]
}

const MARKER = '.backstock'
const SEGMENT = /^[0-9A-F]{24}(\.partial)?$/
const HISTORY = /^([0-9A-F]{8})\.history$/
const BACKUP = /^[0-9A-F]{24}\.[0-9A-F]{8}\.backup$/
const TEMPORARY = /^\..*\.tmp$/
const PARTIAL = '.partial'
/** Writing and deleting is for its group too, and files get that group, whoever writes them. */
const INBOX_MODE = 0o2770
/** Files in folders above are for their owner only. */
const PASSAGE_MODE = 0o711
const MARKER_MODE = 0o644
const SMALL_BYTES_MAX = 1 << 20

/** Where the inbox of a source lies whose spool is in `folder`. */
export function inboxPath(folder: string): string {
  return join(folder, 'inbox')
}

/**
 * Makes the inbox if it is missing, and lets it hold `filesMax`. A new one gets the group of the folder that
 * all spools are in, if this user may give it; the group and mode of one that is there stay as they are.
 * Fails: host.full, host.file.
 */
export function makeInbox(folder: string, filesMax: number): string {
  const inbox = inboxPath(folder)
  const isNew = onDisk('look at', inbox, () => statSync(inbox, { throwIfNoEntry: false })) === undefined
  if (isNew) onDisk('make the folder', inbox, () => openInbox(folder, inbox))
  const text = Buffer.from(`${filesMax}\n`)
  // Who hands log over may put anything in the place of the marker, or of its draft if that were there.
  if (!holdsExactly(join(inbox, MARKER), text))
    writeDurably(inbox, MARKER, text, { mode: MARKER_MODE, draftFolder: folder })
  return inbox
}

/** There in one step, so that a crash leaves none that the server cannot use. Throws the system's error. */
function openInbox(folder: string, inbox: string): void {
  const draft = `${inbox}.new`
  mkdirSync(draft, { mode: 0o700, recursive: true })
  takeGroup(draft, dirname(dirname(folder)))
  chmodSync(draft, INBOX_MODE)
  // The server's user has to get there: through the folders of the source and of the repository.
  for (const path of [folder, dirname(folder)]) chmodSync(path, PASSAGE_MODE)
  renameSync(draft, inbox)
}

function takeGroup(path: string, from: string): void {
  try {
    chownSync(path, -1, statSync(from).gid)
  } catch (error) {
    if (errnoOf(error) !== 'EPERM') throw error
  }
}

function holdsExactly(path: string, bytes: Buffer): boolean {
  try {
    const { fd, bytes: length } = openInboxFile(path)
    try {
      return length === bytes.length && readInboxFile(path, fd, 0, length).equals(bytes)
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if (isFailure(error)) return false
    throw error
  }
}

/** Fails: host.file. */
export function listInbox(inbox: string): InboxNames {
  const segments: string[] = []
  const histories: { name: string; timeline: number }[] = []
  const backups: string[] = []
  const temporary: string[] = []
  const unknown: string[] = []
  for (const name of onDisk('read the folder', inbox, () => readdirSync(inbox))) {
    const history = HISTORY.exec(name)
    if (SEGMENT.test(name)) segments.push(name)
    else if (history !== null) histories.push({ name, timeline: Number.parseInt(history[1]!, 16) })
    else if (BACKUP.test(name)) backups.push(name)
    else if (TEMPORARY.test(name)) temporary.push(name)
    else if (!name.startsWith(MARKER)) unknown.push(name)
  }
  return { segments, histories, backups, temporary, unknown }
}

/** Oldest first: by timeline, by position. */
export function parseSegments(names: readonly string[], segmentBytes: number): InboxSegment[] {
  return names.toSorted().flatMap((name) => {
    const isPartial = name.endsWith(PARTIAL)
    const parsed = parseSegmentName(isPartial ? name.slice(0, -PARTIAL.length) : name, segmentBytes)
    return parsed === undefined ? [] : [{ name, isPartial, ...parsed }]
  })
}

/** Calls `body` with a file open for reading, and its length. Fails: host.file, source.failed if it is none. */
export async function withInboxFile<T>(
  path: string,
  body: (fd: number, bytes: number) => T | Promise<T>,
): Promise<T> {
  const { fd, bytes } = openInboxFile(path)
  try {
    return await body(fd, bytes)
  } finally {
    closeSync(fd)
  }
}

/** Another user writes here: no link is followed, and nothing that blocks is opened. */
function openInboxFile(path: string): { fd: number; bytes: number } {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  const fd = onDisk('open', path, () => openSync(path, flags))
  const facts = fstatSync(fd)
  if (facts.isFile()) return { fd, bytes: facts.size }
  closeSync(fd)
  throw new Failure('source.failed', `Cannot take "${path}": it is no file`)
}

/** The caller owns the bytes. Fails: host.file, also when there are fewer. */
export function readInboxFile(path: string, fd: number, from: number, bytes: number): Buffer {
  const buffer = Buffer.allocUnsafe(bytes)
  const count = onDisk('read', path, () => readSync(fd, buffer, 0, bytes, from))
  if (count === bytes) return buffer
  throw diskFailure('read', path, new Error(`it ends ${bytes - count} bytes early`))
}

/** A small file whole. Fails: host.file, source.failed. */
export async function readInboxText(path: string): Promise<string> {
  return withInboxFile(path, (fd, bytes) => {
    if (bytes <= SMALL_BYTES_MAX) return readInboxFile(path, fd, 0, bytes).toString('utf8')
    throw new Failure('source.failed', `Cannot take "${path}": it has ${bytes} bytes (at most 1 MiB)`)
  })
}

/** It is durable elsewhere, or of no use. Fails: host.file. */
export function removeInboxFile(inbox: string, name: string): void {
  const path = join(inbox, name)
  onDisk('remove', path, () => rmSync(path, { force: true }))
}

/** Removes what killed commands left, if it is older than that. Fails: host.file. */
export function removeLeftovers(inbox: string, names: readonly string[], before: number): void {
  for (const name of names) {
    const path = join(inbox, name)
    const facts = onDisk('look at', path, () => lstatSync(path, { throwIfNoEntry: false }))
    if (facts !== undefined && facts.mtimeMs < before) removeInboxFile(inbox, name)
  }
}
