/**
 * Changes of who may do what: writers, restorers, janitors, epochs. Each is one signed config/<n+1>, put if
 * absent; whoever loses the race reads again and redoes its change. Bundles are put before the config that
 * needs them, so a crash leaves the old state (and bundles that nothing lists) or the new one.
 *
 * Only the recovery kit may do this. Nothing here deletes: taking a right away binds the future, not the
 * past.
 */
import type { Clock } from '../base/clock.ts'
import { formatTime } from '../base/clock.ts'
import { assert, Failure, isFailure } from '../base/failure.ts'
import { randomBytes, randomHex } from '../base/random.ts'
import { isAgeRecipient } from '../format/age.ts'
import { CONFIG_LIMITS, configName, recipientId } from '../format/config.ts'
import type { Config, ConfigDomain, ConfigRecipient, RecipientRole } from '../format/config.ts'
import { publicKeyOf } from '../format/curve-keys.ts'
import type { BlobStore, Stray } from '../storage/store.ts'
import { putBundle } from './bundles.ts'
import type { FullBundle } from './bundles.ts'
import { CONFIG_ATTEMPTS_MAX, putConfig, readConfig } from './configs.ts'
import type { KnownConfig, OpenConfig } from './configs.ts'
import {
  authoritySeedOf,
  checkKeyName,
  configEpoch,
  domainKeys,
  findDomain,
  newBundle,
  newConfigDomain,
  newEpochBundle,
  openKeys,
  ownDomains,
  ownSigningSeed,
} from './keys.ts'
import type { Access } from './keys.ts'
import type { Kit, Writer } from './kit.ts'

/** Numbers tried for one new epoch: those that dead attempts used are skipped. */
const EPOCH_ATTEMPTS_MAX = 64

/** Whoever changes keys: the store, the recovery kit, and the time. */
export interface Owner {
  readonly store: BlobStore
  readonly kit: Kit
  readonly clock: Clock
  readonly known?: KnownConfig
}

/** What `key list` shows; nothing secret. */
export interface KeyList {
  readonly config: number
  readonly authority: string
  readonly recipients: readonly ConfigRecipient[]
  readonly writers: readonly {
    readonly domain: string
    readonly name: string
    readonly revoked: string | null
    readonly epoch: number
    readonly epochs: number
  }[]
}

/** What a removed recipient can still open, to be said to whoever removed it. */
export interface RemovedRecipient {
  readonly recipient: ConfigRecipient
  readonly stillOpens: readonly { readonly domain: string; readonly epochs: readonly number[] }[]
}

export function listKeys(config: Config): KeyList {
  const writers = config.domains.map(({ id, writer, epochs }) => ({
    domain: id,
    name: writer.name,
    revoked: writer.revoked,
    epoch: epochs.at(-1)?.epoch ?? 0,
    epochs: epochs.length,
  }))
  return { config: config.n, authority: config.authority, recipients: config.recipients, writers }
}

/**
 * Lets the holder of another age identity read (restorer) or see what is referenced (janitor), in all domains
 * and epochs. Again for the same recipient and role: no change. Fails: key.invalid (no age1… key),
 * usage.invalid (listed in another role, too many), storage.exists.
 */
export async function addRecipient(
  owner: Owner,
  recipient: { readonly age: string; readonly name: string; readonly role: RecipientRole },
): Promise<OpenConfig> {
  const { age, name, role } = recipient
  if (!isAgeRecipient(age)) {
    throw new Failure('key.invalid', 'Cannot add a recipient: it is not the age1… key of an identity', {
      facts: {
        hint: 'Give the public half of an identity: its file has it in the line "# public key: age1…".',
      },
    })
  }
  checkKeyName(name)
  const added: ConfigRecipient = { id: recipientId(age), name, role, age }
  return changeConfig(owner, async (access) => {
    const { config } = access
    const listed = config.recipients.find((each) => each.id === added.id)
    if (listed?.role === role) return undefined
    if (listed !== undefined) throw refused(`recipient "${listed.name}" is a ${listed.role} already`)
    if (config.recipients.length >= CONFIG_LIMITS.recipients) throw refused('there are too many recipients')
    for (const domain of config.domains) {
      for (const bundle of await ownBundles(access, domain)) await putBundleFor(owner, bundle, added)
    }
    return { recipients: [...config.recipients, added] }
  })
}

/**
 * Makes a writer with a domain of its own and returns its credential. `save` must make the credential
 * durable; it is called once, before the writer is registered, so that no registered writer lacks its file.
 * Fails: usage.invalid (an active writer has this name), whatever `save` fails with.
 */
export async function addWriter(
  owner: Owner,
  name: string,
  save: (writer: Writer) => Promise<void>,
): Promise<{ open: OpenConfig; writer: Writer }> {
  const { kit } = owner
  const bundle = newBundle(randomHex(8))
  const signingSeed = randomBytes(32)
  const { domain, epoch, idKey, indexKey } = bundle
  const { meta, data } = configEpoch(bundle)
  const { repository, authority } = kit
  const known = { type: 'writer', repository, authority, domain, epoch, meta, data } as const
  const writer: Writer = { ...known, signingSeed, idKey, indexKey }
  let saved = false
  const open = await changeConfig(owner, async (access) => {
    const domains = await addDomain(owner, access, bundle, name, signingSeed)
    if (!saved) await save(writer)
    saved = true
    return { domains }
  })
  return { open, writer }
}

/**
 * Gives the recovery kit a new domain to write to, after its own was revoked.
 * Fails: usage.invalid (the kit still has an active one, or an active writer has this name).
 */
export async function addOwnWriter(owner: Owner, name: string): Promise<OpenConfig> {
  const bundle = newBundle(randomHex(8))
  const seed = ownSigningSeed(owner.kit.repository, authoritySeedOf(owner.kit), bundle.domain)
  return changeConfig(owner, async (access) => {
    if (ownDomains(access).some((domain) => domain.writer.revoked === null)) {
      throw refused('the recovery kit has a domain to write to (revoke it first)')
    }
    return { domains: await addDomain(owner, access, bundle, name, seed) }
  })
}

/**
 * Ends a writer: its domain gets no new snapshots; what it wrote stays readable. Again: no change.
 * Fails: usage.invalid (no such domain).
 */
export async function revokeWriter(owner: Owner, domainId: string): Promise<OpenConfig> {
  return changeConfig(owner, ({ config }) => {
    const domain = namedDomain(config, domainId)
    if (domain.writer.revoked !== null) return Promise.resolve(undefined)
    const revoked = formatTime(owner.clock.now())
    const changed = { ...domain, writer: { ...domain.writer, revoked } }
    return Promise.resolve({ domains: replaceDomain(config, changed) })
  })
}

/**
 * A new epoch for one domain: what is sealed from now on needs the new keys. All present recipients get them.
 * Fails: usage.invalid (no such domain, revoked, too many epochs).
 */
export async function rotateEpoch(owner: Owner, domainId: string): Promise<OpenConfig> {
  return changeConfig(owner, async (access) => {
    const domain = namedDomain(access.config, domainId)
    if (domain.writer.revoked !== null) throw refused(`writer "${domain.writer.name}" is revoked`)
    const changed = await addEpoch(owner, access, domain, access.config.recipients)
    return { domains: replaceDomain(access.config, changed) }
  })
}

/**
 * Takes a recipient from the list and gives every active domain a new epoch that it does not get. What was
 * sealed before stays open to it, and so do the index keys, which do not change: see `stillOpens`. Fails:
 * usage.invalid (no such recipient, or the kit's own).
 */
export async function removeRecipient(
  owner: Owner,
  id: string,
): Promise<RemovedRecipient & { readonly open: OpenConfig }> {
  let removed: RemovedRecipient | undefined
  const open = await changeConfig(owner, async (access) => {
    const { config } = access
    const recipient = config.recipients.find((each) => each.id === id)
    if (recipient === undefined) throw refused(`there is no recipient ${id}`)
    if (recipient.age === owner.kit.recipient) throw refused('the recovery kit cannot remove itself')
    const recipients = config.recipients.filter((each) => each !== recipient)
    const domains: ConfigDomain[] = []
    for (const domain of config.domains) {
      const isActive = domain.writer.revoked === null
      domains.push(isActive ? await addEpoch(owner, access, domain, recipients) : domain)
    }
    const stillOpens = config.domains.map((each) => ({
      domain: each.id,
      epochs: each.epochs.map((e) => e.epoch),
    }))
    removed = { recipient, stillOpens }
    return { recipients, domains }
  })
  assert(removed, 'the change was made')
  return { ...removed, open }
}

/**
 * Reads the config, lets `change` say which fields become what (undefined: none), and puts the next one.
 * `change` is called again after a lost race. Fails: repo.busy (lost too often), repo.forged (something that
 * is no config has the next name), as readConfig() and openKeys().
 */
async function changeConfig(
  owner: Owner,
  change: (access: Access) => Promise<Partial<Config> | undefined>,
): Promise<OpenConfig> {
  const { store, kit } = owner
  const seed = authoritySeedOf(kit)
  const pinned = { repository: kit.repository, authority: kit.authority }
  let taken = 0
  for (let attempt = 0; attempt < CONFIG_ATTEMPTS_MAX; attempt++) {
    const open = await readConfig(
      store,
      owner.known === undefined ? pinned : { ...pinned, known: owner.known },
    )
    const fields = await change(openKeys(store, open, kit))
    if (fields === undefined) return open
    const next: Config = { ...open.config, ...fields, n: open.config.n + 1, previous: open.sha256 }
    const put = await putConfig(store, next, seed)
    if (put !== false) return put
    // Who lost a race finds another highest config.
    if (taken === next.n) throw await inTheWay(store, next.n)
    taken = next.n
  }
  const is = `the next config was taken ${CONFIG_ATTEMPTS_MAX} times by others who change keys`
  const message = `Cannot change the keys of ${store.location}: ${is}`
  throw new Failure('repo.busy', message, { facts: { store: store.location } })
}

async function inTheWay(store: BlobStore, n: number): Promise<Failure> {
  const name = configName(n)
  let what = `"${name}", which the authority did not sign,`
  const onStray = (stray: Stray): void => {
    if (stray.name === name) what = `"${name}", a ${stray.is},`
  }
  // Only to hear of strays.
  for await (const _ of store.list('config/', { onStray })) continue
  const is = `${what} lies where the next config must be`
  const hint = `Put ${name} aside (out of the store), find out who wrote it, then run the command again.`
  return new Failure('repo.forged', `Cannot change the keys of ${store.location}: ${is}`, {
    facts: { name, hint },
  })
}

/** The kit's own bundles of a domain, ready to be wrapped for others. */
async function ownBundles(access: Access, domain: ConfigDomain): Promise<FullBundle[]> {
  const { idKey, indexKey, epochs } = await domainKeys(access, domain.id)
  return epochs.map(({ epoch, metaPrivate, dataPrivate }) => {
    assert(idKey && metaPrivate && dataPrivate, 'the kit opens all')
    return { domain: domain.id, epoch, idKey, indexKey, metaPrivate, dataPrivate }
  })
}

/** Puts the bundles of a new domain and returns the list that ends with it. */
async function addDomain(
  owner: Owner,
  { config }: Access,
  bundle: FullBundle,
  name: string,
  signingSeed: Buffer,
): Promise<ConfigDomain[]> {
  checkKeyName(name)
  const isTaken = config.domains.some((each) => each.writer.name === name && each.writer.revoked === null)
  if (isTaken) throw refused(`a writer "${name}" exists (revoke it first, or choose another name)`)
  if (config.domains.length >= CONFIG_LIMITS.domains) throw refused('there are too many writers')
  for (const recipient of config.recipients) await putBundleFor(owner, bundle, recipient)
  return [...config.domains, newConfigDomain(bundle, name, publicKeyOf('ed25519', signingSeed))]
}

/** Puts the bundles of a fresh epoch and returns the domain that lists it. */
async function addEpoch(
  owner: Owner,
  access: Access,
  domain: ConfigDomain,
  recipients: readonly ConfigRecipient[],
): Promise<ConfigDomain> {
  if (domain.epochs.length >= CONFIG_LIMITS.epochs) throw refused(`domain ${domain.id} has too many epochs`)
  const { idKey, indexKey } = await domainKeys(access, domain.id)
  assert(idKey, 'the kit opens all')
  const last = domain.epochs.at(-1)?.epoch ?? 0
  for (let epoch = last + 1; epoch <= last + EPOCH_ATTEMPTS_MAX; epoch++) {
    const bundle = newEpochBundle({ domain: domain.id, idKey, indexKey }, epoch)
    try {
      for (const recipient of recipients) await putBundleFor(owner, bundle, recipient)
    } catch (error) {
      // A dead or a concurrent attempt used this number with other keys.
      if (isFailure(error, 'storage.exists')) continue
      throw error
    }
    return { ...domain, epochs: [...domain.epochs, configEpoch(bundle)] }
  }
  const is = `${EPOCH_ATTEMPTS_MAX} numbers are taken by bundles that nothing lists`
  const message = `Cannot give domain ${domain.id} a new epoch: ${is}`
  throw new Failure('storage.exists', message, { facts: { domain: domain.id } })
}

async function putBundleFor(owner: Owner, bundle: FullBundle, recipient: ConfigRecipient): Promise<void> {
  const { repository } = owner.kit
  await putBundle(owner.store, { repository, authoritySeed: authoritySeedOf(owner.kit) }, bundle, recipient)
}

function namedDomain(config: Config, domainId: string): ConfigDomain {
  if (!config.domains.some((domain) => domain.id === domainId))
    throw refused(`there is no domain ${domainId}`)
  return findDomain(config, domainId)
}

function replaceDomain(config: Config, changed: ConfigDomain): ConfigDomain[] {
  return config.domains.map((domain) => (domain.id === changed.id ? changed : domain))
}

function refused(is: string): Failure {
  return new Failure('usage.invalid', `Cannot change keys: ${is}`)
}
