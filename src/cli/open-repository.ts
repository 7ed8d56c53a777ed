/**
 * From the configuration to an opened repository: the credential, the store, what this host remembers of
 * both. The one place of the command line that decides where the host's cache lies and how many threads
 * work.
 */
import { availableParallelism, homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Failure, isFailure } from '../base/failure.ts'
import type { KnownConfig, OpenConfig } from '../repo/configs.ts'
import { type HostFolder, readHostState, updateHostState } from '../repo/host-folder.ts'
import { readKitFile, readWriterFile } from '../repo/key-files.ts'
import { type Access, openRepository } from '../repo/keys.ts'
import type { Credential } from '../repo/kit.ts'
import { limitedStore } from '../storage/limited.ts'
import { openStore } from '../storage/open.ts'
import type { BlobStore } from '../storage/store.ts'
import type { LoadedConfig } from './config-file.ts'
import type { CommandContext } from './context.ts'
import type { OwnPlace } from './own-places.ts'
import { warn } from './print.ts'
import { readSecret } from './secret.ts'
import { openRunFolder, type RunFolder } from './spare-cache.ts'

export interface OpenedRepository {
  readonly loaded: LoadedConfig
  readonly store: BlobStore
  readonly access: Access
  readonly host: HostFolder
  /** Threads for the work, besides this one. */
  readonly workers: number
}

/** More threads than this wait for the disk, and each takes its memory. */
const WORKERS_MAX = 8

/**
 * Opens what the configuration names and runs `use` with it; the store is closed afterwards, whatever
 * happens. Fails: config._, key._, repo.missing, repo.foreign, repo.rolledback, storage.*.
 */
export async function withRepository<T>(
  context: CommandContext,
  use: (repository: OpenedRepository) => Promise<T>,
  options: { readonly uploadLimit?: number | undefined } = {},
): Promise<T> {
  const loaded = await context.loadConfig()
  const { repository } = loaded.config
  const store = await openKnownStore(context, loaded)
  let folder: RunFolder | undefined
  try {
    const credential = await readCredential(context, loaded, store)
    folder = openRunFolder(cacheFolder(context, loaded), credential.repository)
    if (folder.because !== undefined) warn(context.printer, spareText(folder.because))
    const { host } = folder
    const known = readHostState(host).config
    const say = (text: string): void => warn(context.printer, text)
    const open = { signal: context.signal, warn: say, ...(known === undefined ? {} : { known }) }
    const limit = options.uploadLimit ?? repository.uploadLimit
    const used = limit === undefined ? store : limitedStore(store, limit, { signal: context.signal })
    const access = await openRepository(used, credential, open)
    rememberConfig(host, access)
    return await use({ loaded, store: used, access, host, workers: workerCount(context) })
  } finally {
    folder?.end()
    await store.close()
  }
}

function spareText(because: string): string {
  const what = 'this run works in a temporary folder, and what it learns is not remembered'
  return `the cache folder cannot be used (${because}): ${what}; free space, or set repository.cache`
}

/** Notes the highest config seen, so that a store that shows an older one is noticed. */
export function rememberConfig(
  host: HostFolder,
  seen: OpenConfig | { config: { n: number }; configSha256: string },
): void {
  const sha256 = 'sha256' in seen ? seen.sha256 : seen.configSha256
  const config: KnownConfig = { n: seen.config.n, sha256 }
  if (readHostState(host).config?.n === config.n) return
  updateHostState(host, (state) => ({ ...state, config }))
}

/** Whether this host remembers the repository, as far as that can be read. */
export function hasUsed(context: CommandContext, loaded: LoadedConfig, repository: string): boolean {
  try {
    return readHostState({ path: join(cacheFolder(context, loaded), repository) }).config !== undefined
  } catch (error) {
    if (isFailure(error)) return false
    throw error
  }
}

/** Where this host keeps what it can read again: repository.cache, BACKSTOCK_CACHE_DIR, or the user's cache. */
export function cacheFolder(context: CommandContext, loaded: LoadedConfig): string {
  const named = loaded.config.repository.cache ?? nonEmpty(context.env['BACKSTOCK_CACHE_DIR'])
  if (named !== undefined) return named
  if (process.getuid?.() === 0) return '/var/cache/backstock'
  const home = nonEmpty(context.env['XDG_CACHE_HOME']) ?? join(context.env['HOME'] ?? homedir(), '.cache')
  return join(home, 'backstock')
}

/** Folders of our own that no backup should hold: the repository (when it is a folder) and the cache. */
export function ownPlaces(context: CommandContext, loaded: LoadedConfig): OwnPlace[] {
  const { store } = loaded.config.repository
  const places: OwnPlace[] = [{ what: 'cache', path: cacheFolder(context, loaded) }]
  if (store.startsWith('file://')) places.push({ what: 'repository', path: fileURLToPath(store) })
  return places
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text
}

/** BACKSTOCK_WORKERS, or as many as there are processors, up to a bound. */
function workerCount(context: CommandContext): number {
  const wanted = context.env['BACKSTOCK_WORKERS']
  if (wanted === undefined || wanted === '') return Math.min(availableParallelism(), WORKERS_MAX)
  const count = Number(wanted)
  if (Number.isInteger(count) && count >= 0 && count <= 64) return count
  throw new Failure('usage.invalid', `Cannot use BACKSTOCK_WORKERS=${wanted}: it must be 0 to 64`)
}

/**
 * Opens the store. A folder that was never there is a missing repository; one that was is a disk that is
 * gone.
 */
async function openKnownStore(context: CommandContext, loaded: LoadedConfig): Promise<BlobStore> {
  const url = loaded.config.repository.store
  try {
    return await openStore(url)
  } catch (error) {
    if (!isFailure(error, 'storage.offline') || (await isKnownHere(context, loaded))) throw error
    const message = `Cannot open the repository in ${url}: there is none`
    throw new Failure('repo.missing', message, { facts: { store: url }, cause: error })
  }
}

/** Whether this host has seen the repository before, as far as the credential can be read. */
async function isKnownHere(context: CommandContext, loaded: LoadedConfig): Promise<boolean> {
  try {
    const { repository } = await readCredentialFile(context, loaded)
    return hasUsed(context, loaded, repository)
  } catch (error) {
    if (isFailure(error)) return false
    throw error
  }
}

async function readCredential(
  context: CommandContext,
  loaded: LoadedConfig,
  store: BlobStore,
): Promise<Credential> {
  try {
    return await readCredentialFile(context, loaded)
  } catch (error) {
    if (!isFailure(error, 'key.missing') || (await holdsRepository(store))) throw error
    const message = `Cannot open the repository in ${store.location}: there is none`
    throw new Failure('repo.missing', message, { facts: { store: store.location }, cause: error })
  }
}

/** Whether the store holds any config. */
export async function holdsRepository(store: BlobStore): Promise<boolean> {
  for await (const _ of store.list('config/')) return true
  return false
}

/** The kit, identity or writer credential that the configuration names. Fails: key.*, host.file. */
async function readCredentialFile(context: CommandContext, loaded: LoadedConfig): Promise<Credential> {
  const { identity, writer } = loaded.config.repository
  const tell = (warnings: readonly string[]): void => {
    // The configuration warned already of files that everybody may read.
    for (const text of warnings)
      if (!loaded.warnings.some((one) => one.includes('may read'))) warn(context.printer, text)
  }
  if (writer !== undefined) {
    const file = await readWriterFile(writer)
    tell(file.warnings)
    return file.key
  }
  const file = await readKitFile(identity ?? '', await readPassphrase(context, loaded))
  tell(file.warnings)
  return file.key
}

/** What opens a locked identity file, or undefined if the configuration says nothing of it. */
export async function readPassphrase(
  context: CommandContext,
  loaded: LoadedConfig,
): Promise<string | undefined> {
  const { passphrase } = loaded.config.repository
  if (passphrase === undefined) return undefined
  return readSecret('repository.passphrase', passphrase, {
    env: context.env,
    signal: context.signal,
    warn: (text) => warn(context.printer, text),
  })
}
