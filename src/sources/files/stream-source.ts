/**
 * A source of one file that comes through a pipe. Whether the program at its other end did well cannot be
 * told from here; that it gave nothing at all can, and is refused.
 */
import type { FileEntry } from '../../base/file-entry.ts'
import { Failure } from '../../base/failure.ts'
import type { Source, SourceEvent } from '../source.ts'
import { normalPath } from './pins.ts'

export interface StreamSettings {
  /** Raw absolute path of the file in the snapshot. */
  readonly path: string
  readonly content: AsyncIterable<Uint8Array>
  /** Milliseconds since 1970, for the file's time. */
  readonly now: number
  /** Stores a stream that gives nothing. */
  readonly allowEmpty: boolean
}

/** Fails: usage.invalid (no path of a file). */
export function streamSource(name: string, settings: StreamSettings): Source {
  const path = normalPath(settings.path)
  if (path === '/') throw new Failure('usage.invalid', 'Cannot name the stream "/": it must name a file')
  return {
    name,
    kind: 'stdin',
    increments: true,
    begin: () =>
      Promise.resolve({
        roots: [path],
        excludes: [],
        entries: () => streamEvents(path, settings),
        pageBytesOf: () => 0,
        ignoreInode: true,
        owners: () => ({ users: {}, groups: {} }),
        logRange: () => undefined,
        rootCounts: () => ({}),
        end: () => Promise.resolve([]),
      }),
  }
}

/** The folders on the way, which exist in the snapshot only, and the file. */
function* streamEvents(path: string, settings: StreamSettings): Generator<SourceEvent, void, undefined> {
  const names = path.slice(1).split('/')
  const file = names.pop() ?? ''
  const folders = names.map((name, nth) => ({ name, path: `/${names.slice(0, nth + 1).join('/')}` }))
  yield { kind: 'made', path: '/', entry: madeEntry('', 'directory', settings) }
  for (const folder of folders) {
    yield { kind: 'made', path: folder.path, entry: madeEntry(folder.name, 'directory', settings) }
  }
  const content = settings.allowEmpty ? settings.content : refuseNothing(settings.content)
  yield { kind: 'stream', path, entry: madeEntry(file, 'file', settings), content }
  for (const folder of folders.toReversed()) yield { kind: 'leave', path: folder.path }
  yield { kind: 'leave', path: '/' }
}

async function* refuseNothing(content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let bytes = 0
  for await (const part of content) {
    bytes += part.length
    yield part
  }
  if (bytes > 0) return
  const is = 'it gave nothing; did the program before it fail? (--allow-empty stores it)'
  throw new Failure('source.emptied', `Cannot back up the stream: ${is}`)
}

/** An entry that is on no disk: of this user, with the time `now` (milliseconds since 1970). */
export function madeEntry(
  name: string,
  type: 'file' | 'directory',
  { now }: Pick<StreamSettings, 'now'>,
): FileEntry {
  const time = BigInt(now) * 1_000_000n
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
  return {
    name,
    type,
    mode: type === 'file' ? 0o600 : 0o700,
    ...owner,
    mtime: time,
    ctime: time,
    dev: 0,
    inode: 0n,
    links: 1,
    size: 0,
    target: '',
    major: 0,
    minor: 0,
    xattrs: [],
  }
}
