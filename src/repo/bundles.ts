/**
 * Key bundles: the keys of one domain and epoch, wrapped for one recipient as an age file (docs/format.md,
 * section 3). A bundle is not signed: it is believed only as far as the signed config vouches for it.
 */
import { Failure, isFailure } from '../base/failure.ts'
import * as z from 'zod'
import { AGE_BYTES_MAX, AGE_RANDOM_BYTES, decryptWithIdentity, encryptToRecipient } from '../format/age.ts'
import { bundleName, recipientId } from '../format/config.ts'
import type { ConfigDomain, ConfigEpoch, ConfigRecipient, RecipientRole } from '../format/config.ts'
import { publicKeyOf } from '../format/curve-keys.ts'
import { hkdf, sha256 } from '../format/seal.ts'
import { checkVersion, hex, parsePayload } from '../format/shapes.ts'
import type { BlobStore } from '../storage/store.ts'
import type { Kit } from './kit.ts'

/** The secrets of one domain in one epoch; a janitor lacks the id key and the data key. */
export interface Bundle {
  readonly domain: string
  readonly epoch: number
  readonly indexKey: Buffer
  readonly metaPrivate: Buffer
  readonly idKey: Buffer | undefined
  readonly dataPrivate: Buffer | undefined
}

/** A bundle that holds everything, as it must to be wrapped for others. */
export interface FullBundle extends Bundle {
  readonly idKey: Buffer
  readonly dataPrivate: Buffer
}

const bundleShape = z.looseObject({
  type: z.literal('bundle'),
  version: z.literal(1),
  repository: hex(16),
  domain: hex(8),
  epoch: z.int().min(1).max(0xffff_ffff),
  role: z.enum(['restorer', 'janitor']),
  indexKey: hex(32),
  metaPrivate: hex(32),
  idKey: hex(32).optional(),
  dataPrivate: hex(32).optional(),
})

/**
 * Wraps and puts a bundle for one recipient. The randomness of the age file is derived from the authority's
 * seed and the plaintext, so a repeated put after a crash writes the same bytes and is no conflict. Fails:
 * storage.exists (somebody else put another bundle there), key.invalid (recipient), as put().
 */
export async function putBundle(
  store: BlobStore,
  owner: { readonly repository: string; readonly authoritySeed: Buffer },
  bundle: FullBundle,
  recipient: Pick<ConfigRecipient, 'age' | 'role'>,
): Promise<void> {
  const name = bundleName(bundle.domain, bundle.epoch, recipientId(recipient.age))
  const plaintext = encodeBundle(bundle, owner.repository, recipient.role)
  const random = hkdf(owner.authoritySeed, sha256(plaintext), `backstock/1 bundle ${name}`, AGE_RANDOM_BYTES)
  await store.put(name, encryptToRecipient(recipient.age, plaintext, random))
}

/**
 * Reads and opens the kit's bundle of one domain and epoch, and holds it against the config. Fails:
 * repo.corrupt (missing, cut, damaged), repo.forged (another's, or other keys than the config lists),
 * repo.newer.
 */
export async function openBundle(
  store: BlobStore,
  kit: Kit,
  role: RecipientRole,
  domain: ConfigDomain,
  epoch: ConfigEpoch,
): Promise<Bundle> {
  const name = bundleName(domain.id, epoch.epoch, recipientId(kit.recipient))
  const file = await openBundleRead(store, name)
  const json = decodeBundle(openBundleDecrypt(kit, file, name), name)
  if (json.repository !== kit.repository || json.domain !== domain.id || json.epoch !== epoch.epoch) {
    throw forged(
      name,
      `it holds keys of domain ${json.domain}, epoch ${json.epoch}, repository ${json.repository}`,
    )
  }
  const bundle: Bundle = {
    domain: json.domain,
    epoch: json.epoch,
    indexKey: Buffer.from(json.indexKey, 'hex'),
    metaPrivate: Buffer.from(json.metaPrivate, 'hex'),
    // A janitor is given no more than the role says, whatever the bundle holds.
    idKey: role === 'restorer' ? fromHex(json.idKey) : undefined,
    dataPrivate: role === 'restorer' ? fromHex(json.dataPrivate) : undefined,
  }
  openBundleCheck(bundle, role, domain, epoch, name)
  return bundle
}

/** SHA-256("backstock/1 id key" ‖ key), hex: how the config vouches for an id key. */
export function idKeyHash(key: Uint8Array): string {
  return sha256('backstock/1 id key', key).toString('hex')
}

/** SHA-256("backstock/1 index key" ‖ key), hex. */
export function indexKeyHash(key: Uint8Array): string {
  return sha256('backstock/1 index key', key).toString('hex')
}

function encodeBundle(bundle: FullBundle, repository: string, role: RecipientRole): Buffer {
  const { domain, epoch } = bundle
  const shared = {
    type: 'bundle',
    version: 1,
    repository,
    domain,
    epoch,
    role,
    indexKey: bundle.indexKey.toString('hex'),
    metaPrivate: bundle.metaPrivate.toString('hex'),
  }
  const secrets = { idKey: bundle.idKey.toString('hex'), dataPrivate: bundle.dataPrivate.toString('hex') }
  return Buffer.from(JSON.stringify(role === 'restorer' ? { ...shared, ...secrets } : shared))
}

function decodeBundle(plaintext: Buffer, name: string): z.infer<typeof bundleShape> {
  let json: unknown
  try {
    json = JSON.parse(plaintext.toString('utf8'))
  } catch {
    // The parser's message may quote a key.
    throw new Failure('repo.corrupt', `Cannot read ${name}: it holds no JSON`, { facts: { name } })
  }
  checkVersion(json, 1, name)
  return parsePayload(bundleShape, json, name)
}

async function openBundleRead(store: BlobStore, name: string): Promise<Uint8Array> {
  const stat = await store.stat(name)
  if (stat === undefined) {
    throw new Failure('repo.corrupt', `Cannot read ${name}: the key bundle is missing`, { facts: { name } })
  }
  if (stat.bytes > AGE_BYTES_MAX) {
    throw new Failure('repo.corrupt', `Cannot read ${name}: ${stat.bytes} bytes are no key bundle`, {
      facts: { name },
    })
  }
  return store.get(name)
}

function openBundleDecrypt(kit: Kit, file: Uint8Array, name: string): Buffer {
  try {
    return decryptWithIdentity(kit.identity, file, name)
  } catch (cause) {
    // The config lists this identity, so it is the bundle that is wrong, not the kit.
    if (isFailure(cause, 'key.wrong')) throw forged(name, 'it is encrypted to another identity', cause)
    throw cause
  }
}

function openBundleCheck(
  bundle: Bundle,
  role: RecipientRole,
  domain: ConfigDomain,
  epoch: ConfigEpoch,
  name: string,
): void {
  const fits =
    indexKeyHash(bundle.indexKey) === domain.indexKeyHash &&
    publicKeyOf('x25519', bundle.metaPrivate).toString('hex') === epoch.meta &&
    (role === 'janitor' ||
      (bundle.idKey !== undefined &&
        bundle.dataPrivate !== undefined &&
        idKeyHash(bundle.idKey) === domain.idKeyHash &&
        publicKeyOf('x25519', bundle.dataPrivate).toString('hex') === epoch.data))
  if (!fits) throw forged(name, 'its keys are not those that the config lists')
}

function forged(name: string, is: string, cause?: unknown): Failure {
  return new Failure('repo.forged', `Cannot trust ${name}: ${is}`, { facts: { name }, cause })
}

function fromHex(text: string | undefined): Buffer | undefined {
  return text === undefined ? undefined : Buffer.from(text, 'hex')
}
