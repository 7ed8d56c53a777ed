/** The snapshot that a command line names, among all that can be believed. */
import { Failure } from '../base/failure.ts'
import { selectSnapshot, selectSnapshotAt } from '../repo/select-snapshot.ts'
import { listSnapshots, type StoredSnapshot } from '../repo/snapshots.ts'
import type { CommandContext } from './context.ts'
import type { OpenedRepository } from './open-repository.ts'
import { requireSourceName } from './pick-sources.ts'
import { warn } from './print.ts'

/** All snapshots; those that do not count are warned of. */
export async function knownSnapshots(
  context: CommandContext,
  { access }: OpenedRepository,
): Promise<readonly StoredSnapshot[]> {
  const { snapshots, bad } = await listSnapshots(access.store, access.config)
  for (const { name, failure } of bad) warn(context.printer, `${name} does not count: ${failure.message}`)
  return snapshots
}

/** Fails: repo.nosnapshot, usage.invalid (several match). */
export async function chooseSnapshot(
  context: CommandContext,
  repository: OpenedRepository,
  selector: string,
): Promise<StoredSnapshot> {
  return selectSnapshot(await knownSnapshots(context, repository), selector)
}

/**
 * A snapshot of one source: by selector, by time, else the latest. The source may have left the configuration
 * since. Fails: repo.nosnapshot, usage.invalid (neither configured nor stored, or of another source).
 */
export async function chooseOfSource(
  context: CommandContext,
  repository: OpenedRepository,
  source: string,
  wanted: { readonly snapshot: string | undefined; readonly at: number | undefined },
): Promise<StoredSnapshot> {
  const all = await knownSnapshots(context, repository)
  const among = all.filter((one) => one.source === source)
  if (among.length === 0) requireSourceName(repository.loaded, source)
  if (wanted.at !== undefined) return selectSnapshotAt(all, source, wanted.at)
  const selector = wanted.snapshot ?? 'latest'
  if (wanted.snapshot === undefined && among.length === 0)
    throw new Failure('repo.nosnapshot', `Cannot find a snapshot of "${source}": there is none yet`)
  if (!selector.includes(':')) return selectSnapshot(among, selector)
  const chosen = selectSnapshot(all, selector)
  if (chosen.source === source) return chosen
  const is = `it is of "${chosen.source}"`
  throw new Failure('usage.invalid', `Cannot use snapshot "${selector}" for "${source}": ${is}`)
}
