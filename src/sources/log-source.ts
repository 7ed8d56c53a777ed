/**
 * The port of change streams: the log of a database, received without end into a spool on this host. What is
 * stored of it, and when, is the shipper's (src/backup/ship.ts). A driver is a function that returns this
 * record.
 */

/** A place in a log: `branch` names what positions count in, such as a timeline of one cluster. */
export interface LogPoint {
  readonly branch: string
  readonly at: bigint
}

/** Positions [from, to) of a branch. */
export interface LogStretch {
  readonly branch: string
  readonly from: bigint
  readonly to: bigint
}

/** A small file that belongs to a branch, such as where its timeline comes from. */
export interface LogFile {
  readonly branch: string
  readonly name: string
  readonly bytes: Uint8Array
}

/** What people and `status` are told of the receiving. */
export type LogFeedState =
  | { readonly kind: 'connected'; readonly from: string }
  | { readonly kind: 'disconnected'; readonly reason: string }
  /** No room: the server keeps the log for `hoursLeft`, as far as that is known. */
  | { readonly kind: 'stalled'; readonly reason: string; readonly hoursLeft: number | undefined }
  /** Log that cannot be understood: it is kept, but nothing can be said of what is in it. */
  | { readonly kind: 'unread'; readonly reason: string }
  /** A piece of the log did not come, though later ones did: it is waited for. */
  | { readonly kind: 'gap'; readonly reason: string }
  /** Something that is there is not taken; it stays where it is. */
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'branch'; readonly from: string; readonly to: string }

/** Called synchronously. */
export interface LogFeedEvents {
  /** More is durable in the spool, or a mark came. */
  readonly onMore: () => void
  readonly onState: (state: LogFeedState) => void
}

/** An open spool, for one process at a time. */
export interface LogFeed {
  /**
   * Receives until the signal, then resolves. Fails, so that a person looks: source.gap, source.foreign,
   * source.diverged, host.file.
   */
  run(signal: AbortSignal): Promise<void>
  /** What is durable in the spool, by branch, the oldest first; each is one stretch. */
  held(): LogStretch[]
  /** All that belong to what is held; they are stored before it. */
  files(): LogFile[]
  /** Held bytes, 64 MiB at most; the caller's. Fails: host.file. */
  read(stretch: LogStretch): Buffer
  /**
   * What is to be found quickly later: times, commits, …; encoded, for the notes of one log object. Those of
   * a segment tell all that the notes of its tails did: these are deleted. Of an empty stretch: what is known
   * of its place since the segment before.
   */
  notes(stretch: LogStretch): Uint8Array
  /** Whether there is something to note at the end of the branch that no notes have told yet. */
  hasNews(): boolean
  /** What lies before is durable elsewhere. Fails: host.file. */
  release(point: LogPoint): void
  close(): void
}

export interface LogSource {
  readonly name: string
  /** As Source.kind. */
  readonly kind: string
  /** Opens (makes) the spool in `folder`. Fails: repo.busy, source._, host._. */
  open(folder: string, events: LogFeedEvents): LogFeed
}
