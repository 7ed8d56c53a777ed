/**
 * The port of sources: one protected thing that can be read at one moment. Knows no repository, chunks or
 * schedule. A driver is a function returning this record; src/sources/open.ts lists them.
 */
import type { FileEntry } from '../base/file-entry.ts'
import type { FileProblem } from './files/problem.ts'
import type { WalkEvent } from './files/walk.ts'
import type { LogStretch } from './log-source.ts'
import type { ChecksumRule } from './postgres/page-check.ts'

/** What the latest snapshot of this source held, for the driver to notice a source that is suddenly gone. */
export interface SourceBefore {
  readonly files: number
  readonly bytes: number
  /** The same by root, as far as this host remembers it. */
  readonly roots: Readonly<Record<string, { readonly files: number; readonly bytes: number }>>
}

export interface Source {
  readonly name: string
  /** As in the configuration: `files`, `postgres`, … */
  readonly kind: string
  /** Whether a backup of it may build on an earlier one; else each is a full. */
  readonly increments: boolean
  /**
   * Begins to read the source at one moment. `before` is undefined when there is no snapshot yet.
   * Fails: source.missing, source.emptied, source.failed: nothing is stored then.
   */
  begin(before: SourceBefore | undefined): Promise<SourceView>
}

/**
 * A file whose content comes once and in order, of a length not known before: a pipe. `entry.size` is not
 * looked at.
 */
export interface StreamEvent {
  readonly kind: 'stream'
  readonly path: string
  readonly entry: FileEntry
  /** Fails as its producer fails: then nothing is committed. */
  readonly content: AsyncIterable<Uint8Array>
}

/** A folder that is on no disk: what lies in it follows, then its `leave`. */
export interface MadeFolderEvent {
  readonly kind: 'made'
  readonly path: string
  readonly entry: FileEntry
}

export type SourceEvent = WalkEvent | StreamEvent | MadeFolderEvent

/** A database file's pages: stored by page, so that an increment holds what changed and no more. */
export interface PageFormat {
  readonly pageBytes: number
  /** Checksums that its pages carry; undefined: not looked at. */
  readonly checksums: ChecksumRule | undefined
}

/**
 * Takes the files of a source as they come, in any order. Paths are raw and absolute; each folder is told
 * once, before or after what lies in it, the root too. Calls fail as the store fails, and with `cancelled`.
 */
export interface Receiver {
  /** Anything but a file. */
  takeEntry(path: string, entry: FileEntry): void
  /** The file whose bytes come next. `entry.size`: how many, as far as that is known. */
  beginFile(path: string, entry: FileEntry, format: PageFormat | undefined): void
  /** Copies the bytes. Returns true when no more should come until room() resolves. */
  takeBytes(bytes: Uint8Array): boolean
  /** What came is the whole file. */
  endFile(): void
  room(): Promise<void>
  /** Resolves when all that was taken is saved. Tells which pages were damaged, by path and page number. */
  finish(): Promise<readonly DamagedPages[]>
}

export interface DamagedPages {
  readonly path: string
  /** Numbers of pages in the file, ascending. */
  readonly pages: readonly number[]
  /** So many others, of a file or a backup with too many to be listed. */
  readonly more: number
}

/** Files in the order in which the source's server sends them. */
export interface Delivery {
  /** Resolves when all of it was taken and saved. Fails: source.failed, and as the receiver fails. */
  deliver(receiver: Receiver, signal: AbortSignal | undefined): Promise<void>
}

/** Positions of a log (log-source.ts). */
export interface SourceLogRange extends LogStretch {
  /** The files that were read hold the log up to here, which may be beyond `to`; undefined: none of it. */
  readonly held: bigint | undefined
}

export interface SourceView {
  /** Raw paths that are backed up, for people. */
  readonly roots: readonly string[]
  readonly excludes: readonly string[]
  /** Entries in walk order (files/walk.ts), read lazily and once; or a delivery. */
  entries(): Iterable<SourceEvent> | Delivery
  /** Page bytes of a database file by its path; −1: look at its content; 0: it is none. */
  pageBytesOf(path: string): number
  /** Identity of a file does not count when it is compared with its earlier self (NFS, FUSE). */
  readonly ignoreInode: boolean
  /** Names of users and groups by number, for people who restore on another host. */
  owners(): {
    readonly users: Readonly<Record<string, string>>
    readonly groups: Readonly<Record<string, string>>
  }
  /** Where the log was when the reading began and ended, once all of it is read; undefined: there is none. */
  logRange(): SourceLogRange | undefined
  /** What was read below each root, once all entries are; empty for a source without folders. */
  rootCounts(): SourceBefore['roots']
  /** Ends the reading; also after a failure. Returns what went wrong late. */
  end(): Promise<readonly FileProblem[]>
}
