/**
 * The payload of `config/<n>`: its shape, its bounds, and whether this program understands it
 * (docs/format.md, section 2). Reading, signing and replacing configs is src/repo/keys.ts.
 *
 * Unknown fields are kept, so that an older program that adds a writer does not drop what a newer one wrote.
 */
import * as z from 'zod'
import { corrupt } from '../base/bytes.ts'
import { Failure } from '../base/failure.ts'
import { FRAME_BYTES, OWN_FRAME_BYTES } from './pack.ts'
import { sha256 } from './seal.ts'
import { checkVersion, hex, name, parsePayload, time } from './shapes.ts'

const CONFIG_VERSION = 1
/** What `features.required` may hold for this program to go on. Grows with the format. */
const KNOWN_FEATURES: readonly string[] = []

/** Bounds of every list in a config. */
export const CONFIG_LIMITS = {
  configs: 1_000_000,
  features: 64,
  recipients: 256,
  domains: 4096,
  epochs: 1024,
} as const

export type RecipientRole = 'restorer' | 'janitor'

export interface ConfigRecipient {
  /** recipientId() of `age`. */
  readonly id: string
  readonly name: string
  readonly role: RecipientRole
  readonly age: string
}

export interface ConfigEpoch {
  readonly epoch: number
  /** X25519 public keys, hex. */
  readonly meta: string
  readonly data: string
}

export interface ConfigDomain {
  readonly id: string
  readonly name: string
  readonly writer: { readonly name: string; readonly signing: string; readonly revoked: string | null }
  /** Ascending by number, gaps allowed; the last one is the current one. */
  readonly epochs: readonly ConfigEpoch[]
  readonly idKeyHash: string
  readonly indexKeyHash: string
}

export interface ConfigChunking {
  readonly cdc: {
    readonly minBytes: number
    readonly maskBits: number
    readonly maxBytes: number
  }
  readonly pagesRunBytes: number
  readonly inlineBytesMax: number
  readonly packBytesMax: number
}

export interface Config {
  readonly type: 'config'
  readonly version: number
  readonly n: number
  /** SHA-256 of config/<n−1>, hex; null for the first. */
  readonly previous: string | null
  readonly repository: string
  readonly shop: string
  readonly created: string
  readonly features: { readonly required: readonly string[]; readonly optional: readonly string[] }
  /** Ed25519 public key, hex. */
  readonly authority: string
  readonly id: 'hmac-sha256'
  readonly chunking: ConfigChunking
  readonly parity: unknown
  readonly recipients: readonly ConfigRecipient[]
  readonly domains: readonly ConfigDomain[]
}

/** How a repository cuts unless it is told otherwise (docs/format.md, section 2). */
export const DEFAULT_CHUNKING: ConfigChunking = {
  cdc: { minBytes: 524_288, maskBits: 19, maxBytes: 8_388_608 },
  pagesRunBytes: 131_072,
  inlineBytesMax: 512,
  packBytesMax: 16_777_216,
}

const KIB = 1024
const MIB = 1024 * KIB
const bytes = (from: number, to: number) => z.int().min(from).max(to)

const chunkingShape = z
  .looseObject({
    cdc: z.looseObject({
      minBytes: bytes(64, 64 * MIB),
      maskBits: z.int().min(4).max(30),
      maxBytes: bytes(256, 64 * MIB),
    }),
    pagesRunBytes: bytes(4 * KIB, 16 * MIB),
    inlineBytesMax: bytes(0, 64 * KIB),
    packBytesMax: bytes(64 * KIB, 256 * MIB),
  })
  .refine((chunking) => chunking.cdc.minBytes <= chunking.cdc.maxBytes, 'cdc.minBytes is above cdc.maxBytes')

const domainShape = z.looseObject({
  id: hex(8),
  name,
  writer: z.looseObject({ name, signing: hex(32), revoked: time.nullable() }),
  epochs: z
    .array(z.looseObject({ epoch: z.int().min(1).max(0xffff_ffff), meta: hex(32), data: hex(32) }))
    .min(1)
    .max(CONFIG_LIMITS.epochs),
  idKeyHash: hex(32),
  indexKeyHash: hex(32),
})

const feature = z.string().regex(/^[a-z0-9][a-z0-9.-]{0,63}$/)
const features = z.array(feature).max(CONFIG_LIMITS.features)

const configShape: z.ZodType<Config> = z.looseObject({
  type: z.literal('config'),
  version: z.literal(CONFIG_VERSION),
  n: z.int().min(1).max(CONFIG_LIMITS.configs),
  previous: hex(32).nullable(),
  repository: hex(16),
  shop: name,
  created: time,
  features: z.looseObject({ required: features, optional: features }),
  authority: hex(32),
  id: z.literal('hmac-sha256'),
  chunking: chunkingShape,
  parity: z.unknown(),
  recipients: z
    .array(
      z.looseObject({
        id: hex(8),
        name,
        role: z.enum(['restorer', 'janitor']),
        age: z.string().regex(/^age1[a-z0-9]{1,4096}$/),
      }),
    )
    .max(CONFIG_LIMITS.recipients),
  domains: z.array(domainShape).max(CONFIG_LIMITS.domains),
})

/** What must be understood before anything else is read. */
const envelopeShape = z.looseObject({
  version: z.int().min(1),
  features: z.looseObject({ required: features }),
})

/**
 * A config from its parsed JSON; `what` is the object's name. The signature is not looked at here.
 * Fails: repo.newer (version or a required feature this program does not know), repo.corrupt.
 */
export function parseConfig(payload: unknown, what: string): Config {
  const envelope = parsePayload(envelopeShape, payload, what)
  checkFeatures(envelope, what)
  const config = parsePayload(configShape, payload, what)
  parseConfigAgrees(config, what)
  return config
}

/** Refuses a format version or a required feature that this program does not know. Fails: repo.newer. */
export function checkFeatures(
  config: { readonly version: number; readonly features: { readonly required: readonly string[] } },
  what: string,
): void {
  checkVersion(config, CONFIG_VERSION, what)
  const unknown = config.features.required.filter((name) => !KNOWN_FEATURES.includes(name))
  if (unknown.length === 0) return
  throw new Failure('repo.newer', `Cannot use ${what}: it requires unknown features: ${unknown.join(', ')}`, {
    facts: { what, features: unknown.join(',') },
  })
}

/** What no single field shows: numbers that follow each other and names that occur once. */
function parseConfigAgrees(config: Config, what: string): void {
  if ((config.n === 1) !== (config.previous === null)) throw corrupt(what, 'has no fitting predecessor')
  if (new Set(config.domains.map((domain) => domain.id)).size !== config.domains.length) {
    throw corrupt(what, 'lists a domain twice')
  }
  if (new Set(config.recipients.map((recipient) => recipient.id)).size !== config.recipients.length) {
    throw corrupt(what, 'lists a recipient twice')
  }
  for (const recipient of config.recipients) {
    if (recipient.id !== recipientId(recipient.age)) throw corrupt(what, `misnames recipient ${recipient.id}`)
  }
  for (const domain of config.domains) {
    const isAscending = domain.epochs.every((each, at) => each.epoch > (domain.epochs[at - 1]?.epoch ?? 0))
    if (!isAscending) throw corrupt(what, `lists the epochs of domain ${domain.id} out of order`)
  }
}

/** Plaintext bytes that a frame of file content has at most where files are cut so. */
export function contentFrameBytesMax({ cdc, pagesRunBytes }: ConfigChunking): number {
  return Math.max(cdc.maxBytes, pagesRunBytes, FRAME_BYTES + OWN_FRAME_BYTES)
}

/** How objects name a recipient: the first 8 bytes of SHA-256 of its `age1…` text, hex. */
export function recipientId(age: string): string {
  return sha256(age).subarray(0, 8).toString('hex')
}

/** Whether a shop, writer or recipient may be called so. */
export function isKeyName(text: string): boolean {
  return name.safeParse(text).success
}

/** `config/<n>` */
export function configName(n: number): string {
  return `config/${n}`
}

/** n of `config/<n>`, or undefined for any other name. */
export function configNumber(objectName: string): number | undefined {
  const digits = /^config\/([1-9][0-9]{0,6})$/.exec(objectName)?.[1]
  if (digits === undefined || Number(digits) > CONFIG_LIMITS.configs) return undefined
  return Number(digits)
}

/** `keys/<domain>/<epoch>/<recipient>.age` */
export function bundleName(domain: string, epoch: number, recipient: string): string {
  return `keys/${domain}/${epoch}/${recipient}.age`
}
