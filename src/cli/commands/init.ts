/**
 * `backstock init`: the store, the identity file and the repository, in the order in which a crash harms
 * nothing.
 */
import { mkdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname } from 'node:path'
import { describeError, Failure, isFailure } from '../../base/failure.ts'
import type { OpenConfig } from '../../repo/configs.ts'
import { readKitFile, writeKitFile } from '../../repo/key-files.ts'
import { createKeys } from '../../repo/keys.ts'
import { formatKit, formatLockedKit, type Kit, newKit } from '../../repo/kit.ts'
import { openStore } from '../../storage/open.ts'
import type { InputOf } from '../commands.ts'
import type { LoadedConfig } from '../config-file.ts'
import type { CommandContext } from '../context.ts'
import { cacheFolder, hasUsed, holdsRepository, readPassphrase, rememberConfig } from '../open-repository.ts'
import { note, printLine, printSummary, warn } from '../print.ts'
import { openRunFolder } from '../spare-cache.ts'

export async function run(context: CommandContext, _input: InputOf<'init'>): Promise<number> {
  const { printer } = context
  const loaded = await context.loadConfig()
  const { shop, repository } = loaded.config
  const { identity } = repository
  if (identity === undefined) {
    const is = 'this host has a writer credential only (repository.identity must name a file)'
    throw new Failure('usage.invalid', `Cannot create the repository: ${is}`)
  }
  const store = await openStore(repository.store, { create: true })
  try {
    if (await holdsRepository(store)) {
      const message = `Cannot create a repository in ${store.location}: there is one already`
      throw new Failure('repo.exists', message, { facts: { store: store.location } })
    }
    const passphrase = await readPassphrase(context, loaded)
    const { kit, isNew } = await ownKit(context, loaded, identity, passphrase)
    const folder = openRunFolder(cacheFolder(context, loaded), kit.repository)
    let created: OpenConfig
    try {
      created = await createKeys({ store, kit, shop, writer: hostname(), clock: context.clock })
      rememberConfig(folder.host, created)
    } finally {
      folder.end()
    }
    // Never in clear where a passphrase protects it: terminals and logs keep what they show.
    const text = passphrase === undefined ? formatKit(kit) : formatLockedKit(kit, passphrase)
    for (const line of text.trimEnd().split('\n')) printLine(printer, line)
    const event = {
      type: 'summary',
      command: 'init',
      repository: kit.repository,
      shop,
      store: store.location,
      identity,
      identityCreated: isNew,
      recipient: kit.recipient,
      domain: created.config.domains[0]?.id,
    } as const
    printSummary(printer, event, ['', `The repository is in ${store.location}.`])
    const locked = passphrase === undefined ? '' : ', locked with the passphrase'
    note(printer, `The lines above are the recovery kit${locked}; the same is in "${identity}" (mode 0600).`)
    const also = passphrase === undefined ? '' : ', and the passphrase'
    const why = 'without it nobody can restore, and it must not be lost together with this host'
    if (folder.because !== undefined) warn(printer, `the cache folder cannot be used: ${folder.because}`)
    warn(printer, `keep a copy of the recovery kit${also} away from this host: ${why}`)
    return 0
  } finally {
    await store.close()
  }
}

/** The kit of the identity file, which is written if it is absent: before the repository, which needs it. */
async function ownKit(
  context: CommandContext,
  loaded: LoadedConfig,
  path: string,
  passphrase: string | undefined,
): Promise<{ kit: Kit; isNew: boolean }> {
  try {
    const { key, warnings, isLocked } = await readKitFile(path, passphrase)
    for (const text of warnings) warn(context.printer, text)
    if (passphrase !== undefined && !isLocked) throw notLocked(path)
    refuseUsed(context, loaded, path, key)
    return { kit: key, isNew: false }
  } catch (error) {
    // A locked file without its passphrase is "missing" too, but names no path: it must not be replaced.
    if (!isFailure(error, 'key.missing') || error.facts['path'] === undefined) throw error
  }
  const kit = newKit()
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  } catch (cause) {
    const message = `Cannot make the folder of the identity "${path}": ${describeError(cause)}`
    throw new Failure('host.file', message, { cause })
  }
  await writeKitFile(path, passphrase === undefined ? formatKit(kit) : formatLockedKit(kit, passphrase))
  return { kit, isNew: true }
}

/** Who configures a passphrase must not be left with a file that opens without it. */
function notLocked(path: string): Failure {
  const is = `the identity "${path}" is not locked (with repository.passphrase it must be)`
  const hint = `Lock it: \`age -p -a -o NEW "${path}"\`, then put NEW in its place; or name another file.`
  return new Failure('config.invalid', `Cannot create the repository: ${is}`, { facts: { path, hint } })
}

/** A kit belongs to one repository: two with one id would be taken for each other. */
function refuseUsed(context: CommandContext, loaded: LoadedConfig, path: string, kit: Kit): void {
  if (!hasUsed(context, loaded, kit.repository)) return
  const is = `the identity "${path}" is that of repository ${kit.repository}, which this host has used`
  throw new Failure('repo.exists', `Cannot create a repository: ${is}`, {
    facts: { path, repository: kit.repository, hint: 'Name another file as repository.identity.' },
  })
}
