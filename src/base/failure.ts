/**
 * The one error class and the one table of failure codes.
 *
 * A Failure is an operating error that a person can act on: what was tried, what is, what must be, what to
 * do. Foreign errors (errno, age, zod) become a Failure once, where they arise, with `cause` kept. Bugs are
 * `assert`. Results that are the product (check, drill) are findings, never exceptions.
 */

interface FailureKind {
  /** Exit status of the CLI. 0–130 as restic's, our own from 20. */
  readonly exit: number
  /** What the reader can do about it; printed below the message unless the thrower gave a better one. */
  readonly hint: string
}

/** code -> exit status and advice. One row is one code; each is raised by a test. */
export const FAILURES = {
  'usage.invalid': { exit: 20, hint: 'Run the command with --help to see what it takes.' },
  'config.missing': { exit: 20, hint: 'Write a backstock.yaml, or name one with --config FILE.' },
  'config.invalid': { exit: 20, hint: 'Mend the named line of the configuration file.' },
  cancelled: { exit: 130, hint: 'Run the command again: finished parts are taken over.' },
  'host.unsupported': { exit: 1, hint: 'See the list of supported systems in README.md.' },
  'host.file': {
    exit: 1,
    hint: 'Look at the named file or folder: does it exist, and may this user use it?',
  },
  'host.full': {
    exit: 1,
    hint: 'Free space on the disk of the named folder, or raise its limit: it goes on by itself.',
  },
  'host.hook': { exit: 27, hint: 'Run the hook by hand to see why it fails.' },
  'storage.missing': { exit: 1, hint: 'Run `backstock check` to see which restore points this hurts.' },
  'storage.exists': {
    exit: 1,
    hint: 'Two writers share one credential, or the store is damaged: run `backstock check`.',
  },
  'storage.full': {
    exit: 21,
    hint: 'Free space in the store, or expire old snapshots; then run the command again.',
  },
  'storage.readonly': { exit: 22, hint: 'Mount the store read-write, or choose another one.' },
  'storage.denied': { exit: 22, hint: 'Give this user the right to use the store.' },
  'storage.offline': {
    exit: 22,
    hint: 'Bring the store back (mount, network, server); then run the command again.',
  },
  'storage.short': { exit: 1, hint: 'The object is cut short: run `backstock check`.' },
  'storage.timeout': { exit: 22, hint: 'The store does not answer: look at its host and the line to it.' },
  'repo.missing': { exit: 10, hint: 'Run `backstock init` first, or correct repository.store.' },
  'repo.exists': { exit: 1, hint: 'Choose an empty place, or use the repository that is there.' },
  'repo.busy': { exit: 11, hint: 'Wait for the other run to end; nothing needs to be unlocked.' },
  'repo.corrupt': { exit: 23, hint: 'Run `backstock check` to see what is hurt.' },
  'repo.foreign': {
    exit: 12,
    hint: 'The credential or object belongs to another repository: use the matching one.',
  },
  'repo.forged': {
    exit: 23,
    hint: 'Do not trust this store until you know who wrote the object; other copies may be sound.',
  },
  'repo.rolledback': {
    exit: 23,
    hint: 'The store shows an older state than this host has seen: someone hid or lost objects.',
  },
  'repo.newer': { exit: 26, hint: 'Use a newer Backstock: this one would not understand what it reads.' },
  'repo.older': { exit: 26, hint: 'Use the Backstock that wrote it, or migrate the repository.' },
  'repo.nosnapshot': { exit: 1, hint: 'Run `backstock snapshots` to see what there is.' },
  'repo.rule': { exit: 1, hint: 'Run a full backup: it depends on nothing older.' },
  'key.wrong': { exit: 12, hint: 'Use the identity that `backstock init` wrote for this repository.' },
  'key.invalid': {
    exit: 12,
    hint: 'The key file is damaged or cut short: use another copy of the recovery kit.',
  },
  'key.missing': { exit: 12, hint: 'Name the file with repository.identity or repository.writer.' },
  'key.role': {
    exit: 12,
    hint: 'This credential may only write: use the recovery kit on another host to read.',
  },
  'key.revoked': { exit: 12, hint: 'Make a new credential with `backstock key writer`.' },
  'source.missing': {
    exit: 24,
    hint: 'Is the disk mounted? Nothing was stored; the older snapshots are untouched.',
  },
  'source.emptied': { exit: 24, hint: 'If it is meant to be empty, run once with --allow-empty.' },
  'source.unreadable': { exit: 3, hint: 'Give the user the right to read the named files, or exclude them.' },
  'source.failed': { exit: 24, hint: 'Look at the source: nothing was committed.' },
  'source.foreign': {
    exit: 24,
    hint: 'Correct the address; or if the database was made anew, run a full backup of it.',
  },
  'source.diverged': {
    exit: 24,
    hint: 'Find out which server is the right one, then run a full backup of it; older points stay.',
  },
  'source.gap': {
    exit: 24,
    hint: 'Run a full backup: points in time after the gap need it; those before it stay.',
  },
  'restore.refused': {
    exit: 25,
    hint: 'Choose an empty folder, or say --delta to rewrite what differs, or --overwrite.',
  },
  'restore.failed': {
    exit: 1,
    hint: 'Free space or mend the named place, then run the same command: it resumes.',
  },
} as const satisfies Record<string, FailureKind>

export type FailureCode = keyof typeof FAILURES

/** What a Failure carries besides its sentence: names and numbers for `--json`, never secrets. */
export type FailureFacts = Record<string, string | number | boolean | undefined>

/**
 * An operating error with a stable code. `message` reads: Cannot <action> "<thing>": <what is> (<what must
 * be>).
 */
export class Failure extends Error {
  override readonly name = 'Failure'
  readonly code: FailureCode
  readonly facts: FailureFacts

  constructor(code: FailureCode, message: string, options: { facts?: FailureFacts; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.facts = options.facts ?? {}
  }
}

/** Whether `error` is a Failure (of this code, when one is given). */
export function isFailure(error: unknown, code?: FailureCode): error is Failure {
  return error instanceof Failure && (code === undefined || error.code === code)
}

/**
 * The errno name of a system error (`ENOENT`), or undefined, also of a Failure: that has been understood
 * already. Only drivers and sources ask.
 */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || error instanceof Failure || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/** One line of text for any thrown value. */
export function describeError(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** Stops the run at a programmer's mistake. Never for outside input. */
export function assert(condition: unknown, what: string): asserts condition {
  if (condition === false || condition === undefined || condition === null) throw new Error(`Bug: ${what}`)
}
