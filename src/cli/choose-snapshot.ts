/** The snapshot that a command line names, among all that can be believed. */
import { Failure, isFailure } from '../base/failure.ts'
import { missingHeads } from '../repo/heads.ts'
import { type Access, writingDomain } from '../repo/keys.ts'
import {
  labelsOf,
  parseNamedSource,
  selectSnapshot,
  selectSnapshotAt,
  snapshotsOfSource,
  type Writers,
} from '../repo/select-snapshot.ts'
import { listSnapshots, type StoredSnapshot } from '../repo/snapshots.ts'
import type { LoadedConfig } from './config-file.ts'
import type { CommandContext } from './context.ts'
import type { OpenedRepository } from './open-repository.ts'
import { requireKnownSource } from './pick-sources.ts'
import { warn } from './print.ts'

/** What there is to choose from. */
export interface KnownSnapshots {
  readonly snapshots: readonly StoredSnapshot[]
  /** Completed after their writer was revoked: only their whole id names one. */
  readonly revoked: readonly StoredSnapshot[]
  readonly writers: Writers
}

/** All snapshots; warns of those that do not count, and of those that the store hides. */
export async function knownSnapshots(
  context: CommandContext,
  { access, host }: OpenedRepository,
): Promise<KnownSnapshots> {
  const { snapshots, bad, revoked } = await listSnapshots(access.store, access.config)
  for (const { name, failure } of bad) warn(context.printer, `${name} does not count: ${failure.message}`)
  for (const text of missingHeads(host, [...snapshots, ...revoked])) warn(context.printer, text)
  return { snapshots, revoked, writers: writersOf(access) }
}

export function writersOf(access: Access): Writers {
  const names = new Map(access.config.domains.map(({ id, writer }) => [id, writer.name]))
  return { names, own: ownDomain(access) }
}

/** The domain that this credential writes to; undefined if it only reads, or may no more. */
function ownDomain(access: Access): string | undefined {
  try {
    return writingDomain(access).id
  } catch (error) {
    if (isFailure(error)) return undefined
    throw error
  }
}

/** Fails: repo.nosnapshot, usage.invalid (several match). */
export async function chooseSnapshot(
  context: CommandContext,
  repository: OpenedRepository,
  selector: string,
): Promise<StoredSnapshot> {
  return chooseKnown(context, await knownSnapshots(context, repository), selector)
}

/** One of `known`. Fails: repo.nosnapshot, usage.invalid (several match). */
export function chooseKnown(
  context: CommandContext,
  { snapshots, revoked, writers }: KnownSnapshots,
  selector: string,
): StoredSnapshot {
  const id = selector.slice(selector.lastIndexOf(':') + 1)
  const late = revoked.filter((one) => one.id === id)
  if (late.length === 0 || snapshots.some((one) => one.id === id))
    return selectSnapshot(snapshots, selector, writers)
  const chosen = selectSnapshot(late, selector, writers)
  warn(context.printer, `snapshot ${chosen.id} was made by a revoked writer: it is used since you named it`)
  return chosen
}

/** Refuses a source, `SOURCE` or `WRITER:SOURCE`, that is neither configured nor stored. Fails: usage.invalid. */
export function requireStoredSource(
  loaded: LoadedConfig,
  { snapshots, revoked, writers }: KnownSnapshots,
  typed: string,
): void {
  const stored = [...snapshots, ...revoked]
  if (snapshotsOfSource(stored, parseNamedSource(typed), writers).length > 0) return
  requireKnownSource(loaded, typed, labelsOf(stored, writers))
}

/**
 * A snapshot of one source: by selector, by time, else the latest. The source may have left the configuration
 * since. Fails: repo.nosnapshot, usage.invalid (neither configured nor stored, of another source, or of
 * several writers).
 */
export async function chooseOfSource(
  context: CommandContext,
  repository: OpenedRepository,
  typed: string,
  wanted: { readonly snapshot: string | undefined; readonly at: number | undefined },
): Promise<StoredSnapshot> {
  const known = await knownSnapshots(context, repository)
  const { writers } = known
  const named = parseNamedSource(typed)
  const among = {
    writers,
    snapshots: snapshotsOfSource(known.snapshots, named, writers),
    revoked: snapshotsOfSource(known.revoked, named, writers),
  }
  requireStoredSource(repository.loaded, known, typed)
  if (wanted.at !== undefined) return selectSnapshotAt(among.snapshots, typed, wanted.at, writers)
  const selector = wanted.snapshot ?? 'latest'
  if (wanted.snapshot === undefined && among.snapshots.length === 0)
    throw new Failure('repo.nosnapshot', `Cannot find a snapshot of "${typed}": there is none yet`)
  if (!selector.includes(':')) return chooseKnown(context, among, selector)
  const chosen = chooseKnown(context, known, selector)
  if (among.snapshots.includes(chosen) || among.revoked.includes(chosen)) return chosen
  const is = `it is of "${chosen.source}"`
  throw new Failure('usage.invalid', `Cannot use snapshot "${selector}" for "${typed}": ${is}`)
}
