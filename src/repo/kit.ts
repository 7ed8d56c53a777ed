/**
 * Key files as text: the recovery kit, a reader's identity (both age identity files) and the writer
 * credential (JSON). docs/format.md, section 3. Text <-> records only; files on disk are key-files.ts, keys
 * in the store are keys.ts.
 *
 * No message here quotes what a file holds.
 */
import * as z from 'zod'
import { Failure, isFailure } from '../base/failure.ts'
import { randomBytes, randomHex } from '../base/random.ts'
import {
  ageRecipient,
  armor,
  decryptWithPassphrase,
  encryptWithPassphrase,
  isAgeFile,
  newAgeIdentity,
} from '../format/age.ts'
import { publicKeyOf } from '../format/curve-keys.ts'
import { hex, parsePayload } from '../format/shapes.ts'

/** Larger files are not key files. */
export const KEY_FILE_BYTES_MAX = 64 * 1024

/** A recovery kit, or the identity of a restorer or janitor, which lacks the authority's seed. */
export interface Kit {
  readonly type: 'kit'
  readonly repository: string
  /** `AGE-SECRET-KEY-1…` */
  readonly identity: string
  /** Its public half, `age1…`. */
  readonly recipient: string
  /** Ed25519 public key that must have signed the config, hex. */
  readonly authority: string
  readonly authoritySeed: Buffer | undefined
}

/** What a host gets that may write and not read. */
export interface Writer {
  readonly type: 'writer'
  readonly repository: string
  readonly authority: string
  readonly domain: string
  readonly signingSeed: Buffer
  readonly idKey: Buffer
  readonly indexKey: Buffer
  readonly epoch: number
  /** X25519 public keys of that epoch, hex. */
  readonly meta: string
  readonly data: string
}

export type Credential = Kit | Writer

/** A kit for a repository that does not exist yet; every part is fresh. */
export function newKit(): Kit {
  const authoritySeed = randomBytes(32)
  const authority = publicKeyOf('ed25519', authoritySeed).toString('hex')
  return { ...newIdentity(randomHex(16), authority), authoritySeed }
}

/** A fresh identity for a restorer or janitor, to be registered with addRecipient(). */
export function newIdentity(repository: string, authority: string): Kit {
  const identity = newAgeIdentity()
  const recipient = ageRecipient(identity) ?? ''
  return { type: 'kit', repository, identity, recipient, authority, authoritySeed: undefined }
}

/** The text of a kit; it ends with a newline. */
export function formatKit(kit: Kit): string {
  const lines =
    kit.authoritySeed === undefined
      ? ['# Backstock identity', `# repository: ${kit.repository}`, `# authority: ${kit.authority}`]
      : [
          '# Backstock recovery kit: it opens every backup, and without it nobody can.',
          `# repository: ${kit.repository}`,
          `# authority-key: ${kit.authoritySeed.toString('hex')}`,
        ]
  return [...lines, `# public key: ${kit.recipient}`, kit.identity, ''].join('\n')
}

/** The text of a kit, encrypted with a passphrase and armored. `logN` is age's scrypt work factor. */
export function formatLockedKit(kit: Kit, passphrase: string, logN?: number): string {
  return armor(encryptWithPassphrase(passphrase, Buffer.from(formatKit(kit)), logN))
}

/**
 * A kit or identity from the bytes of its file; `what` names the file in messages. Fails: key.invalid
 * (damaged, cut short, or no kit), key.missing (it needs a passphrase), key.wrong (passphrase).
 */
export function parseKit(bytes: Uint8Array, what: string, passphrase?: string): Kit {
  if (bytes.length > KEY_FILE_BYTES_MAX) throw invalid(what, 'it is too large to be a key file')
  const text = Buffer.from(isAgeFile(bytes) ? parseKitUnlock(bytes, what, passphrase) : bytes).toString(
    'utf8',
  )
  if (text.trimStart().startsWith('{'))
    throw invalid(what, 'it is JSON, perhaps a writer credential, not an identity')
  const lines = text.split('\n').map((line) => line.trim())
  const identity = onlyLine(lines, /^(AGE-SECRET-KEY-.*)$/i, what, 'AGE-SECRET-KEY-1…')
  const recipient = ageRecipient(identity)
  if (recipient === undefined) {
    const isHybrid = identity.startsWith('AGE-SECRET-KEY-PQ-')
    throw invalid(
      what,
      isHybrid ? 'its key is of a kind not supported yet' : 'its line AGE-SECRET-KEY-1… is damaged',
    )
  }
  const repository = onlyLine(lines, /^# repository:(.*)$/, what, '# repository: …').trim()
  if (!/^[0-9a-f]{32}$/.test(repository)) throw invalid(what, 'its line "# repository: …" is damaged')
  return { type: 'kit', repository, identity, recipient, ...parseKitAuthority(lines, what) }
}

function parseKitUnlock(bytes: Uint8Array, what: string, passphrase: string | undefined): Buffer {
  if (passphrase === undefined) {
    throw new Failure('key.missing', `Cannot open ${what}: it is encrypted (give its passphrase)`, {
      facts: { what },
    })
  }
  try {
    return decryptWithPassphrase(passphrase, bytes, what)
  } catch (cause) {
    if (isFailure(cause, 'repo.corrupt')) throw invalid(what, 'it is damaged or cut short', cause)
    throw cause
  }
}

function parseKitAuthority(lines: readonly string[], what: string): Pick<Kit, 'authority' | 'authoritySeed'> {
  const isKit = lines.some((line) => line.startsWith('# authority-key:'))
  const label = isKit ? '# authority-key' : '# authority'
  const value = onlyLine(lines, new RegExp(`^${label}:(.*)$`), what, `${label}: …`).trim()
  if (!/^[0-9a-f]{64}$/.test(value)) throw invalid(what, `its line "${label}: …" is damaged`)
  if (!isKit) return { authority: value, authoritySeed: undefined }
  const authoritySeed = Buffer.from(value, 'hex')
  return { authority: publicKeyOf('ed25519', authoritySeed).toString('hex'), authoritySeed }
}

function onlyLine(lines: readonly string[], pattern: RegExp, what: string, label: string): string {
  const found = lines.flatMap((line) => pattern.exec(line)?.[1] ?? [])
  const [only] = found
  if (only === undefined) throw invalid(what, `it has no line "${label}"`)
  if (found.length > 1) throw invalid(what, `it has more than one line "${label}"`)
  return only
}

const writerShape = z.looseObject({
  type: z.literal('writer'),
  version: z.int().min(1),
  repository: hex(16),
  authority: hex(32),
  domain: hex(8),
  signingSeed: hex(32),
  idKey: hex(32),
  indexKey: hex(32),
  epoch: z.int().min(1).max(0xffff_ffff),
  meta: hex(32),
  data: hex(32),
})

/** The text of a writer credential; it ends with a newline. */
export function formatWriter(writer: Writer): string {
  const { type, signingSeed, idKey, indexKey, ...open } = writer
  const secrets = {
    signingSeed: signingSeed.toString('hex'),
    idKey: idKey.toString('hex'),
    indexKey: indexKey.toString('hex'),
  }
  return `${JSON.stringify({ type, version: 1, ...open, ...secrets }, null, 2)}\n`
}

/** A writer credential from the bytes of its file. Fails: key.invalid (damaged or no credential), repo.newer. */
export function parseWriter(bytes: Uint8Array, what: string): Writer {
  if (bytes.length > KEY_FILE_BYTES_MAX) throw invalid(what, 'it is too large to be a key file')
  const json = parseWriterJson(Buffer.from(bytes).toString('utf8'), what)
  if (json.version > 1) {
    const message = `Cannot use ${what}: it is a writer credential of version ${json.version} (not 1)`
    throw new Failure('repo.newer', message, { facts: { what, version: json.version } })
  }
  return {
    type: 'writer',
    repository: json.repository,
    authority: json.authority,
    domain: json.domain,
    signingSeed: Buffer.from(json.signingSeed, 'hex'),
    idKey: Buffer.from(json.idKey, 'hex'),
    indexKey: Buffer.from(json.indexKey, 'hex'),
    epoch: json.epoch,
    meta: json.meta,
    data: json.data,
  }
}

function parseWriterJson(text: string, what: string): z.infer<typeof writerShape> {
  if (/^AGE-SECRET-KEY-/m.test(text)) throw invalid(what, 'it is an identity, not a writer credential')
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    // The parser's message may quote a key.
    throw invalid(what, 'it is not JSON, or cut short')
  }
  try {
    return parsePayload(writerShape, json, what)
  } catch (cause) {
    if (!isFailure(cause, 'repo.corrupt')) throw cause
    throw invalid(what, 'a field is missing or damaged, or it is another kind of file', cause)
  }
}

function invalid(what: string, is: string, cause?: unknown): Failure {
  return new Failure('key.invalid', `Cannot use ${what} as a key file: ${is}`, { facts: { what }, cause })
}
