/**
 * Entries of a snapshot on stdout, a line each, as paths, as `ls -l` shows them, or as NDJSON. Written in
 * pieces with a wait for the reader, so that a list of millions takes no memory.
 */
import { displayName } from '../base/file-entry.ts'
import { formatTime } from '../base/clock.ts'
import type { TreeEntry } from '../format/tree.ts'
import type { SnapshotDetails } from '../format/snapshot.ts'
import type { CommandContext } from './context.ts'
import { formatMoment } from './human.ts'
import { pathFacts } from './paths.ts'
import { harmless, writeBytes } from './print.ts'

/** Lines on their way to stdout. */
export interface LineWriter {
  readonly context: CommandContext
  waiting: string[]
  bytes: number
}

export type Owners = Pick<SnapshotDetails, 'users' | 'groups'>

const PIECE_BYTES = 64 * 1024
const TYPE_LETTERS = {
  file: '-',
  directory: 'd',
  symlink: 'l',
  fifo: 'p',
  char: 'c',
  block: 'b',
  socket: 's',
} as const

export function newLineWriter(context: CommandContext): LineWriter {
  return { context, waiting: [], bytes: 0 }
}

/** Adds a line; what comes from outside must be harmless. */
export async function writeLine(writer: LineWriter, line: string): Promise<void> {
  writer.waiting.push(line, '\n')
  writer.bytes += line.length + 1
  if (writer.bytes >= PIECE_BYTES) await flushLines(writer)
}

/** Writes what waits. */
export async function flushLines(writer: LineWriter): Promise<void> {
  if (writer.waiting.length === 0) return
  const text = writer.waiting.join('')
  writer.waiting = []
  writer.bytes = 0
  await writeBytes(writer.context.printer, Buffer.from(text), writer.context.signal)
}

/** What --json says of an entry. */
export function entryFacts(path: string, entry: TreeEntry, owners?: Owners): Record<string, unknown> {
  const { type, mode, uid, gid, size, links, mtime, target, major, minor } = entry
  const facts: Record<string, unknown> = {
    ...pathFacts(path),
    kind: type,
    mode: mode.toString(8).padStart(4, '0'),
    uid,
    gid,
    user: owners?.users[uid],
    group: owners?.groups[gid],
    mtime: formatNanoseconds(mtime),
  }
  if (type === 'file') Object.assign(facts, { size, links })
  if (type === 'symlink') facts['target'] = pathFacts(target).path
  if (type === 'char' || type === 'block') Object.assign(facts, { major, minor })
  return facts
}

/** `-rw-r--r-- root root 1234 2026-11-22T14:33:23Z /srv/media/logo.png` */
export function longLine(context: CommandContext, path: string, entry: TreeEntry, owners: Owners): string {
  const { type, uid, gid, size, major, minor, mtime, target } = entry
  const isDevice = type === 'char' || type === 'block'
  const bytes = isDevice ? `${major},${minor}` : type === 'file' ? String(size) : '-'
  const time = formatMoment(Number(mtime / 1_000_000n), context.printer.zone)
  const user = (owners.users[uid] ?? String(uid)).padEnd(8)
  const group = (owners.groups[gid] ?? String(gid)).padEnd(8)
  const link = type === 'symlink' ? ` -> ${displayName(target)}` : ''
  return harmless(
    `${modeText(entry)} ${user} ${group} ${bytes.padStart(12)} ${time} ${displayName(path)}${link}`,
  )
}

/** `drwxr-sr-t` */
function modeText({ type, mode }: TreeEntry): string {
  const bits = Array.from('rwxrwxrwx', (letter, at) => ((mode >> (8 - at)) & 1 ? letter : '-'))
  const special: [number, number, string][] = [
    [0o4000, 2, 's'],
    [0o2000, 5, 's'],
    [0o1000, 8, 't'],
  ]
  for (const [bit, at, letter] of special) {
    if ((mode & bit) !== 0) bits[at] = bits[at] === '-' ? letter.toUpperCase() : letter
  }
  return TYPE_LETTERS[type] + bits.join('')
}

/** ISO 8601 with all nine digits. */
function formatNanoseconds(time: bigint): string {
  const second = 1_000_000_000n
  const rest = ((time % second) + second) % second
  return formatTime(Number((time - rest) / 1_000_000n)).replace(
    /\.\d+Z$/,
    `.${String(rest).padStart(9, '0')}Z`,
  )
}
