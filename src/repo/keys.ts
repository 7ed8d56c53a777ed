/**
 * Who may do what with an open repository: init, and from a credential (kit, identity, writer) to the keys of
 * each domain. Bundles are opened one domain at a time, when first asked for. docs/format.md, sections 2 and 3.
 *
 * Adding and removing writers and recipients is key-changes.ts; the text of key files is kit.ts.
 */
import type { Clock } from '../base/clock.ts'
import { formatTime } from '../base/clock.ts'
import { corrupt } from '../base/bytes.ts'
import { assert, Failure } from '../base/failure.ts'
import { randomBytes, randomHex } from '../base/random.ts'
import { contentFrameBytesMax, DEFAULT_CHUNKING, isKeyName, recipientId } from '../format/config.ts'
import type { Config, ConfigChunking, ConfigDomain } from '../format/config.ts'
import { publicKeyOf } from '../format/curve-keys.ts'
import { hkdf, newKeyPair, openWithKey, sealToKey } from '../format/seal.ts'
import { decodeDetails, encodeDetails } from '../format/snapshot.ts'
import type { SnapshotDetails } from '../format/snapshot.ts'
import type { BlobStore } from '../storage/store.ts'
import { idKeyHash, indexKeyHash, openBundle, putBundle } from './bundles.ts'
import type { FullBundle } from './bundles.ts'
import { putConfig, readConfig } from './configs.ts'
import type { OpenConfig, ReadConfigOptions } from './configs.ts'
import type { Credential, Kit } from './kit.ts'

export type Role = 'owner' | 'restorer' | 'janitor' | 'writer'

/** An opened repository as one credential may use it. */
export interface Access {
  readonly role: Role
  readonly store: BlobStore
  readonly credential: Credential
  readonly config: Config
  /** SHA-256 of the config object, hex: remember it with `config.n`. */
  readonly configSha256: string
  /** Domains opened so far. */
  readonly opened: Map<string, Promise<DomainKeys>>
}

export interface EpochKeys {
  readonly epoch: number
  readonly metaPublic: Buffer
  readonly dataPublic: Buffer
  readonly metaPrivate: Buffer | undefined
  readonly dataPrivate: Buffer | undefined
}

/** The keys of one domain, as far as the credential reaches. The buffers must not be changed. */
export interface DomainKeys {
  readonly domain: string
  /** Ascending; the last one is the current one. */
  readonly epochs: readonly EpochKeys[]
  readonly idKey: Buffer | undefined
  readonly indexKey: Buffer
  /** Only for whoever may write to the domain now. */
  readonly signingSeed: Buffer | undefined
  /** Ed25519 key that signs the domain's snapshots. */
  readonly signingPublic: Buffer
  /** What a frame of file content may open to, by the config. */
  readonly frameBytesMax: number
}

export interface CreateKeysOptions {
  readonly store: BlobStore
  readonly kit: Kit
  readonly shop: string
  /** Name of the first writer, usually the host. */
  readonly writer: string
  readonly clock: Clock
  readonly chunking?: ConfigChunking
}

/**
 * Creates the repository: the bundle first, then config/1, which is the promise. A crash before leaves no
 * repository, and init may simply run again. The kit must be safe on disk before: without it the repository
 * cannot be opened. Fails: repo.exists (also for the loser of two concurrent inits), key.missing,
 * usage.invalid (names), as put().
 */
export async function createKeys(options: CreateKeysOptions): Promise<OpenConfig> {
  const { store, kit } = options
  checkKeyName(options.shop)
  checkKeyName(options.writer)
  await createKeysRefuse(store)
  const owner = { repository: kit.repository, authoritySeed: authoritySeedOf(kit) }
  const domain = randomHex(8)
  const seed = ownSigningSeed(kit.repository, owner.authoritySeed, domain)
  const bundle = newBundle(domain)
  await putBundle(store, owner, bundle, { age: kit.recipient, role: 'restorer' })
  const config: Config = {
    type: 'config',
    version: 1,
    n: 1,
    previous: null,
    repository: kit.repository,
    shop: options.shop,
    created: formatTime(options.clock.now()),
    features: { required: [], optional: [] },
    authority: kit.authority,
    id: 'hmac-sha256',
    chunking: options.chunking ?? DEFAULT_CHUNKING,
    parity: null,
    recipients: [
      { id: recipientId(kit.recipient), name: 'recovery kit', role: 'restorer', age: kit.recipient },
    ],
    domains: [newConfigDomain(bundle, options.writer, publicKeyOf('ed25519', seed))],
  }
  const created = await putConfig(store, config, owner.authoritySeed)
  if (created === false) throw exists(store, 'another init was faster')
  return created
}

/** Reads the config that counts, as the credential pins it, and opens the repository with it. */
export async function openRepository(
  store: BlobStore,
  credential: Credential,
  options: Pick<ReadConfigOptions, 'known' | 'signal' | 'warn'> = {},
): Promise<Access> {
  const { repository, authority } = credential
  return openKeys(store, await readConfig(store, { ...options, repository, authority }), credential)
}

/**
 * What the credential may do. Reads nothing yet: domainKeys() opens bundles.
 * Fails: repo.foreign, key.wrong (the config does not know the credential), key.revoked.
 */
export function openKeys(store: BlobStore, open: OpenConfig, credential: Credential): Access {
  const { config } = open
  if (config.repository !== credential.repository) {
    const is = `it holds repository ${config.repository}, the key is for ${credential.repository}`
    const message = `Cannot open ${store.location}: ${is}`
    throw new Failure('repo.foreign', message, { facts: { repository: config.repository } })
  }
  const role = openKeysRole(config, credential)
  return { role, store, credential, config, configSha256: open.sha256, opened: new Map() }
}

/**
 * The keys of one domain. The first call opens the bundles of all its epochs; later ones share the answer.
 * Fails: key.role (a writer asks for another domain), repo.corrupt, repo.forged (bundles), storage failures.
 */
export function domainKeys(access: Access, domainId: string): Promise<DomainKeys> {
  const known = access.opened.get(domainId)
  if (known !== undefined) return known
  const opening = domainKeysOpen(access, domainId)
  access.opened.set(domainId, opening)
  // A failure is the caller's to see; the next call tries again.
  opening.catch(() => access.opened.delete(domainId))
  return opening
}

/**
 * The domain that this credential writes to.
 * Fails: key.missing (restorers and janitors sign nothing), key.revoked (the kit's own writer was revoked).
 */
export function writingDomain(access: Access): ConfigDomain {
  const { config, credential, role } = access
  if (credential.type === 'writer') return findDomain(config, credential.domain)
  if (credential.authoritySeed === undefined) {
    throw new Failure('key.missing', `Cannot write: this identity is a ${role}'s and signs nothing`)
  }
  const active = ownDomains(access).find((domain) => domain.writer.revoked === null)
  if (active !== undefined) return active
  throw new Failure('key.revoked', 'Cannot write: the writer of the recovery kit is revoked')
}

/**
 * Reads the config anew, one listing and one object: whoever was revoked while it worked must not commit.
 * Fails: key.revoked, as readConfig().
 */
export async function refuseRevoked(access: Access, domainId: string): Promise<void> {
  const { store, credential, config, configSha256 } = access
  const { repository, authority } = credential
  const known = { n: config.n, sha256: configSha256 }
  const now = await readConfig(store, { repository, authority, known })
  const { writer } = findDomain(now.config, domainId)
  if (writer.revoked === null) return
  const is = `writer "${writer.name}" was revoked at ${writer.revoked}, while it ran`
  const message = `Cannot commit the backup: ${is} (what it stored stays, and no snapshot refers to it)`
  throw new Failure('key.revoked', message, { facts: { domain: domainId } })
}

/** The domains, revoked ones too, whose signing key derives from this recovery kit. */
export function ownDomains(access: Access): ConfigDomain[] {
  const { config, credential } = access
  if (credential.type === 'writer' || credential.authoritySeed === undefined) return []
  const { repository, authoritySeed } = credential
  return config.domains.filter(
    (domain) => signingKey(ownSigningSeed(repository, authoritySeed, domain.id)) === domain.writer.signing,
  )
}

/** The epoch to seal to. */
export function currentEpoch(keys: DomainKeys): EpochKeys {
  const last = keys.epochs.at(-1)
  assert(last, 'a domain has an epoch')
  return last
}

/**
 * The private key that opens what was sealed in an epoch. Fails: key.role (not this credential's),
 * repo.corrupt.
 */
export function epochPrivateKey(keys: DomainKeys, epoch: number, half: 'meta' | 'data'): Buffer {
  const found = keys.epochs.find((each) => each.epoch === epoch)
  if (found === undefined) throw corrupt(`epoch ${epoch} of domain ${keys.domain}`, 'is not in the config')
  const key = half === 'meta' ? found.metaPrivate : found.dataPrivate
  if (key !== undefined) return key
  const message = `Cannot open the ${half} of domain ${keys.domain}: this credential holds no key to it`
  throw new Failure('key.role', message, { facts: { domain: keys.domain, half } })
}

/** The id key, which names chunks. Fails: key.role (janitors have none). */
export function requireIdKey(keys: DomainKeys): Buffer {
  if (keys.idKey !== undefined) return keys.idKey
  throw new Failure(
    'key.role',
    `Cannot name the chunks of domain ${keys.domain}: a janitor holds no key to them`,
  )
}

/** Seals details for the snapshot object `name`; `epoch` and `sealed` go into its payload. */
export function sealDetails(
  keys: DomainKeys,
  place: { readonly repository: string; readonly name: string },
  details: SnapshotDetails,
): { epoch: number; sealed: string } {
  const { epoch, dataPublic } = currentEpoch(keys)
  return {
    epoch,
    sealed: sealToKey(dataPublic, encodeDetails(details), detailsContext(place)).toString('base64'),
  }
}

/** Fails: key.role (no data key), repo.corrupt (damaged, or of another snapshot). */
export function openDetails(
  keys: DomainKeys,
  place: { readonly repository: string; readonly name: string },
  snapshot: { readonly epoch: number; readonly sealed: string },
): SnapshotDetails {
  const what = `the details of ${place.name}`
  const key = epochPrivateKey(keys, snapshot.epoch, 'data')
  const sealed = Buffer.from(snapshot.sealed, 'base64')
  return decodeDetails(openWithKey(key, sealed, detailsContext(place), what), what)
}

/** Fresh keys for a new domain, epoch 1. */
export function newBundle(domain: string): FullBundle {
  const idKey = randomBytes(32)
  return { ...newEpochBundle({ domain, idKey, indexKey: randomBytes(32) }, 1) }
}

/** A fresh epoch of a domain that keeps its id and index keys. */
export function newEpochBundle(
  lasting: { readonly domain: string; readonly idKey: Buffer; readonly indexKey: Buffer },
  epoch: number,
): FullBundle {
  const { domain, idKey, indexKey } = lasting
  return {
    domain,
    epoch,
    idKey,
    indexKey,
    metaPrivate: newKeyPair().privateKey,
    dataPrivate: newKeyPair().privateKey,
  }
}

/** How the config lists a new domain. */
export function newConfigDomain(bundle: FullBundle, writer: string, signingPublic: Buffer): ConfigDomain {
  return {
    id: bundle.domain,
    name: writer,
    writer: { name: writer, signing: signingPublic.toString('hex'), revoked: null },
    epochs: [configEpoch(bundle)],
    idKeyHash: idKeyHash(bundle.idKey),
    indexKeyHash: indexKeyHash(bundle.indexKey),
  }
}

/** How the config lists an epoch. */
export function configEpoch(bundle: FullBundle): ConfigDomain['epochs'][number] {
  return {
    epoch: bundle.epoch,
    meta: publicKeyOf('x25519', bundle.metaPrivate).toString('hex'),
    data: publicKeyOf('x25519', bundle.dataPrivate).toString('hex'),
  }
}

/** The authority's seed of a kit. Fails: key.missing (the file is an identity, not the kit). */
export function authoritySeedOf(kit: Kit): Buffer {
  if (kit.authoritySeed !== undefined) return kit.authoritySeed
  throw new Failure(
    'key.missing',
    'Cannot change keys: this identity lacks the authority key (use the recovery kit)',
  )
}

/** Refuses a name that no config may hold. Fails: usage.invalid. */
export function checkKeyName(text: string): void {
  if (isKeyName(text)) return
  throw new Failure(
    'usage.invalid',
    `Cannot use the name ${JSON.stringify(text.slice(0, 200))}: ` +
      'it must have 1 to 128 characters, none of them control characters',
  )
}

/** A domain of the config. Fails: repo.corrupt. */
export function findDomain(config: Config, domainId: string): ConfigDomain {
  const found = config.domains.find((domain) => domain.id === domainId)
  if (found !== undefined) return found
  throw corrupt(`domain ${domainId}`, `is not in config/${config.n}`)
}

async function createKeysRefuse(store: BlobStore): Promise<void> {
  for (const prefix of ['config/', 'd/']) {
    for await (const { name } of store.list(prefix)) throw exists(store, `it holds ${name}`)
  }
}

function exists(store: BlobStore, is: string): Failure {
  const message = `Cannot create a repository in ${store.location}: ${is}`
  return new Failure('repo.exists', message, { facts: { store: store.location } })
}

function openKeysRole(config: Config, credential: Credential): Role {
  if (config.authority !== credential.authority) {
    throw new Failure(
      'key.wrong',
      'Cannot use this key: it was made by another authority than the repository',
    )
  }
  if (credential.type === 'writer') {
    openKeysWriter(config, credential)
    return 'writer'
  }
  const listed = config.recipients.find((each) => each.id === recipientId(credential.recipient))
  if (listed === undefined) {
    const is = 'the repository does not list it (or no longer)'
    const message = `Cannot use identity ${credential.recipient}: ${is}`
    throw new Failure('key.wrong', message, { facts: { recipient: recipientId(credential.recipient) } })
  }
  return credential.authoritySeed !== undefined && listed.role === 'restorer' ? 'owner' : listed.role
}

function openKeysWriter(config: Config, writer: Extract<Credential, { type: 'writer' }>): void {
  const domain = config.domains.find((each) => each.id === writer.domain)
  const epoch = domain?.epochs.find((each) => each.epoch === writer.epoch)
  const facts = { domain: writer.domain }
  if (domain === undefined || epoch === undefined) {
    throw new Failure('key.wrong', `Cannot write: the repository does not list domain ${writer.domain}`, {
      facts,
    })
  }
  const fits =
    signingKey(writer.signingSeed) === domain.writer.signing &&
    idKeyHash(writer.idKey) === domain.idKeyHash &&
    indexKeyHash(writer.indexKey) === domain.indexKeyHash &&
    epoch.meta === writer.meta &&
    epoch.data === writer.data
  if (!fits) {
    throw new Failure(
      'key.wrong',
      `Cannot write: the credential's keys are not those of domain ${domain.id}`,
      { facts },
    )
  }
  if (domain.writer.revoked === null) return
  const message = `Cannot write: writer "${domain.writer.name}" was revoked at ${domain.writer.revoked}`
  throw new Failure('key.revoked', message, { facts })
}

async function domainKeysOpen(access: Access, domainId: string): Promise<DomainKeys> {
  const { config, credential, store } = access
  const domain = findDomain(config, domainId)
  const signingPublic = Buffer.from(domain.writer.signing, 'hex')
  const frameBytesMax = contentFrameBytesMax(config.chunking)
  if (credential.type === 'writer') {
    if (credential.domain !== domainId) {
      throw new Failure(
        'key.role',
        `Cannot open domain ${domainId}: this credential writes to ${credential.domain}`,
      )
    }
    const { idKey, indexKey, signingSeed } = credential
    const epochs = domain.epochs.map((epoch) => epochKeys(epoch, undefined))
    return { domain: domainId, epochs, idKey, indexKey, signingSeed, signingPublic, frameBytesMax }
  }
  const role = access.role === 'janitor' ? 'janitor' : 'restorer'
  const epochs: EpochKeys[] = []
  let lasting: { idKey: Buffer | undefined; indexKey: Buffer } | undefined
  for (const epoch of domain.epochs) {
    const bundle = await openBundle(store, credential, role, domain, epoch)
    epochs.push(epochKeys(epoch, bundle))
    lasting = bundle
  }
  assert(lasting, 'a domain has an epoch')
  const { idKey, indexKey } = lasting
  const signingSeed = domainKeysSeed(credential, domain)
  return { domain: domainId, epochs, idKey, indexKey, signingSeed, signingPublic, frameBytesMax }
}

/** The kit may write where the signing key derives from it. */
function domainKeysSeed(kit: Kit, domain: ConfigDomain): Buffer | undefined {
  if (kit.authoritySeed === undefined || domain.writer.revoked !== null) return undefined
  const seed = ownSigningSeed(kit.repository, kit.authoritySeed, domain.id)
  return signingKey(seed) === domain.writer.signing ? seed : undefined
}

function epochKeys(
  epoch: ConfigDomain['epochs'][number],
  secrets: { metaPrivate: Buffer; dataPrivate: Buffer | undefined } | undefined,
): EpochKeys {
  return {
    epoch: epoch.epoch,
    metaPublic: Buffer.from(epoch.meta, 'hex'),
    dataPublic: Buffer.from(epoch.data, 'hex'),
    metaPrivate: secrets?.metaPrivate,
    dataPrivate: secrets?.dataPrivate,
  }
}

/** HKDF(authority seed, repository id, "backstock/1 writer" ‖ domain id): whoever holds the kit may write. */
export function ownSigningSeed(repository: string, authoritySeed: Buffer, domain: string): Buffer {
  const info = Buffer.concat([Buffer.from('backstock/1 writer'), Buffer.from(domain, 'hex')])
  return hkdf(authoritySeed, Buffer.from(repository, 'hex'), info)
}

function signingKey(seed: Buffer): string {
  return publicKeyOf('ed25519', seed).toString('hex')
}

function detailsContext(place: { readonly repository: string; readonly name: string }): Buffer {
  return Buffer.concat([
    Buffer.from('backstock/1 details'),
    Buffer.from(place.repository, 'hex'),
    Buffer.from(place.name),
  ])
}
