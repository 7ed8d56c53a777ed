/**
 * What tests of restores share: a repository in a folder, so that threads open its store by themselves;
 * restores with the usual options; and rsync as the judge of what came back.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../src/base/clock.ts'
import { DEFAULT_CHUNKING } from '../../src/format/config.ts'
import { restore, type RestoreOptions, type RestoreSummary } from '../../src/recovery/restore.ts'
import { openStore } from '../../src/storage/open.ts'
import { walkFiles } from '../../src/sources/files/walk.ts'
import type { Source } from '../../src/sources/source.ts'
import { removeHardCases } from '../fixtures/hard-cases.ts'
import {
  aheadClock,
  backUp,
  dropRepository,
  folderSource,
  makeRepository,
  snapshotOf,
  type RepositoryOptions,
  type TestRepository,
} from './engine.ts'

export interface RestoreWorld {
  readonly repository: TestRepository
  /** Of the test: everything lies in it. */
  readonly dir: string
  /** The store's folder. */
  readonly store: string
}

/**
 * A scratch folder in memory where there is one: a restore ends by making the whole file system durable,
 * and waits for all that others write to the same disk.
 */
export function makeScratch(): string {
  const memory = '/dev/shm'
  const isUsable = existsSync(memory) && statfsSync(memory).bavail * statfsSync(memory).bsize > 2 * 1024 ** 3
  return mkdtempSync(join(isUsable ? memory : tmpdir(), 'backstock-restore-'))
}

/** A repository with chunks of the usual size, or small ones. End with dropWorld(). */
export async function makeWorld(options: Omit<RepositoryOptions, 'store'> = {}): Promise<RestoreWorld> {
  const dir = makeScratch()
  const folder = join(dir, 'store')
  mkdirSync(folder)
  const store = await openStore(`file://${folder}`)
  const repository = await makeRepository({ chunking: DEFAULT_CHUNKING, ...options, store })
  return { repository, dir, store: folder }
}

export function dropWorld(world: RestoreWorld): void {
  dropRepository(world.repository)
  removeHardCases(world.dir) // restored folders may deny even their owner
}

/** Several folders as one source. */
export function foldersSource(paths: readonly string[], name = 'shop'): Source {
  const entries = (): ReturnType<typeof walkFiles> => walkFiles({ paths: [...paths] })
  return folderSource(paths[0] ?? '', { name, roots: [...paths], entries })
}

/** Backs up as if everything in it had been settled for long. Returns the snapshot's id. */
export async function backUpSettled(
  world: RestoreWorld,
  source: Source,
  options: Parameters<typeof backUp>[2] = {},
): Promise<string> {
  const done = await backUp(world.repository, source, { clock: aheadClock(10_000), ...options })
  return done.snapshot ?? ''
}

export async function restoreTo(
  world: { repository: TestRepository },
  snapshot: string,
  to: string,
  options: Partial<RestoreOptions> = {},
): Promise<RestoreSummary> {
  const { access, host } = world.repository
  return await restore(access, host, await snapshotOf(world.repository, snapshot), {
    to,
    paths: [],
    exclude: [],
    delta: false,
    overwrite: false,
    dryRun: false,
    noOwner: false,
    workers: 0,
    clock: systemClock,
    ...options,
  })
}

/** What rsync would do to make `restored` equal to `from`, contents and metadata; empty if they are. */
export function differences(from: string, restored: string, options: readonly string[] = []): string {
  const args = ['-aHAXn', '--checksum', '--itemize-changes', '--delete', ...options]
  return execFileSync('rsync', [...args, `${from}/`, `${restored}/`], { encoding: 'latin1' })
}
