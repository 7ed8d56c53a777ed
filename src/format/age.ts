/**
 * age files, version 1 (https://c2sp.org/age): to one X25519 recipient or to a passphrase, binary or armored.
 * Enough for key bundles and recovery kits, on node:crypto alone: loading and warming up the age-encryption
 * package takes about 80 ms of each run, this 2 ms. The tests read its files with that package and the other
 * way round. Not here: plugins, post-quantum and SSH recipients, several recipients in one file, streams.
 *
 * ```
 * age-encryption.org/v1
 * -> X25519 <ephemeral public key>      or   -> scrypt <salt> <log2 N>
 * <file key, sealed>
 * --- <HMAC of the header>
 * <nonce 16> <64 KiB chunks, ChaCha20-Poly1305>
 * ```
 */
import { createCipheriv, createDecipheriv, createHmac, scryptSync, timingSafeEqual } from 'node:crypto'
import { corrupt } from '../base/bytes.ts'
import { assert, Failure } from '../base/failure.ts'
import { randomBytes } from '../base/random.ts'
import { decodeBech32, encodeBech32 } from './bech32.ts'
import { agree, CURVE_KEY_BYTES, publicKeyOf } from './curve-keys.ts'
import { hkdf } from './seal.ts'

/** Random bytes that one file takes: file key 16, nonce 16, ephemeral private key (or salt) 32. */
export const AGE_RANDOM_BYTES = 64
/** Kits and bundles are small; anything larger is another file. */
export const AGE_BYTES_MAX = 1024 * 1024
const FILE_KEY_BYTES = 16
const CHUNK_BYTES = 64 * 1024
const TAG_BYTES = 16
const STANZAS_MAX = 64
/** What `age` itself chooses: about a second, 256 MiB. */
const SCRYPT_LOG_N = 18
const SCRYPT_LOG_N_MAX = 20
const VERSION_LINE = 'age-encryption.org/v1'
const X25519_LABEL = 'age-encryption.org/v1/X25519'
const SCRYPT_LABEL = 'age-encryption.org/v1/scrypt'
const ARMOR_BEGIN = '-----BEGIN AGE ENCRYPTED FILE-----'
const ARMOR_END = '-----END AGE ENCRYPTED FILE-----'

interface Stanza {
  readonly args: readonly string[]
  readonly body: Buffer
}

/** A fresh identity, `AGE-SECRET-KEY-1…`. */
export function newAgeIdentity(): string {
  return encodeBech32('age-secret-key-', randomBytes(CURVE_KEY_BYTES)).toUpperCase()
}

/** The `age1…` recipient of an identity, or undefined if the identity is damaged or of another kind. */
export function ageRecipient(identity: string): string | undefined {
  const secret = decodeIdentity(identity)
  return secret === undefined ? undefined : encodeBech32('age', publicKeyOf('x25519', secret))
}

/** Whether the text is an X25519 recipient. */
export function isAgeRecipient(text: string): boolean {
  return decodeRecipient(text) !== undefined
}

/**
 * A binary age file to one X25519 recipient. `random` (AGE_RANDOM_BYTES) must be secret and never serve
 * another plaintext or recipient; given again with the same arguments it gives the same file. Fails:
 * key.invalid.
 */
export function encryptToRecipient(recipient: string, plaintext: Uint8Array, random: Uint8Array): Buffer {
  const publicKey = decodeRecipient(recipient)
  if (publicKey === undefined) {
    throw new Failure(
      'key.invalid',
      `Cannot use recipient "${recipient.slice(0, 80)}": it is no age1… key of an identity`,
    )
  }
  const parts = splitRandom(random)
  const share = publicKeyOf('x25519', parts.last)
  const shared = agree(parts.last, publicKey)
  const key = hkdf(shared, Buffer.concat([share, publicKey]), X25519_LABEL)
  const stanza = { args: ['X25519', unpadded(share)], body: sealSmall(key, parts.fileKey) }
  return encodeFile(stanza, parts.fileKey, parts.nonce, plaintext)
}

/** A binary age file to a passphrase. */
export function encryptWithPassphrase(
  passphrase: string,
  plaintext: Uint8Array,
  logN = SCRYPT_LOG_N,
): Buffer {
  const parts = splitRandom(randomBytes(AGE_RANDOM_BYTES))
  const salt = parts.last.subarray(0, 16)
  const body = sealSmall(passphraseKey(passphrase, salt, logN), parts.fileKey)
  return encodeFile(
    { args: ['scrypt', unpadded(salt), String(logN)], body },
    parts.fileKey,
    parts.nonce,
    plaintext,
  )
}

/** Fails: key.wrong (it is for another identity), repo.corrupt. `what` names the file. */
export function decryptWithIdentity(identity: string, file: Uint8Array, what: string): Buffer {
  const secret = decodeIdentity(identity)
  assert(secret !== undefined, 'the identity was checked when it was read')
  const header = decodeHeader(file, what)
  const ownPublic = publicKeyOf('x25519', secret)
  for (const { args, body } of header.stanzas) {
    const [kind, shareText = ''] = args
    if (kind !== 'X25519') continue
    const share = fromUnpadded(shareText)
    if (args.length !== 2 || share?.length !== CURVE_KEY_BYTES)
      throw corrupt(what, 'has a stanza that makes no sense')
    const shared = tryAgree(secret, share)
    const fileKey = shared && openSmall(hkdf(shared, Buffer.concat([share, ownPublic]), X25519_LABEL), body)
    if (fileKey !== undefined) return decodeBody(header, fileKey, what)
  }
  throw new Failure('key.wrong', `Cannot open ${what}: it is encrypted to another identity`, {
    facts: { what },
  })
}

/** Fails: key.wrong (passphrase), key.invalid (not a passphrase's file), repo.corrupt. */
export function decryptWithPassphrase(passphrase: string, file: Uint8Array, what: string): Buffer {
  const header = decodeHeader(file, what)
  const [stanza] = header.stanzas
  const [kind, saltText = '', logNText = ''] = stanza?.args ?? []
  if (stanza === undefined || kind !== 'scrypt' || header.stanzas.length !== 1) {
    throw new Failure('key.invalid', `Cannot open ${what}: it is not encrypted with a passphrase`, {
      facts: { what },
    })
  }
  const salt = fromUnpadded(saltText)
  const logN = /^[1-9][0-9]?$/.test(logNText) ? Number(logNText) : Number.NaN
  if (stanza.args.length !== 3 || salt?.length !== 16 || !(logN <= SCRYPT_LOG_N_MAX)) {
    throw corrupt(what, 'has a stanza that makes no sense')
  }
  const fileKey = openSmall(passphraseKey(passphrase, salt, logN), stanza.body)
  if (fileKey === undefined) {
    throw new Failure('key.wrong', `Cannot open ${what}: the passphrase does not fit`, { facts: { what } })
  }
  return decodeBody(header, fileKey, what)
}

/** Whether the bytes begin as an age file, binary or armored. */
export function isAgeFile(bytes: Uint8Array): boolean {
  const start = Buffer.from(bytes.subarray(0, 64)).toString('latin1').trimStart()
  return start.startsWith(VERSION_LINE) || start.startsWith(ARMOR_BEGIN)
}

/** A binary age file as text, lines of 64 characters. */
export function armor(file: Uint8Array): string {
  const lines =
    Buffer.from(file)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return [ARMOR_BEGIN, ...lines, ARMOR_END, ''].join('\n')
}

/** The binary file of an armored one; a binary one is given back as it is. Fails: repo.corrupt. */
export function unarmor(bytes: Uint8Array, what: string): Buffer {
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const text = whole.toString('latin1').trim()
  if (!text.startsWith(ARMOR_BEGIN)) return whole
  const lines = text.split(/\r?\n/)
  const inner = lines.slice(1, -1)
  const base64 = inner.join('')
  const isStrict = inner.every((line, at) =>
    at < inner.length - 1 ? line.length === 64 : /^.{1,64}$/.test(line),
  )
  const isWhole = lines.at(-1) === ARMOR_END && Buffer.from(base64, 'base64').toString('base64') === base64
  if (!isWhole || !isStrict) throw corrupt(what, 'is cut short or damaged between BEGIN and END')
  return Buffer.from(base64, 'base64')
}

interface Header {
  readonly stanzas: readonly Stanza[]
  /** All up to and including `---`: what the MAC covers. */
  readonly covered: Buffer
  readonly mac: Buffer
  readonly body: Buffer
}

function decodeHeader(file: Uint8Array, what: string): Header {
  const whole = unarmor(file, what)
  if (whole.length > AGE_BYTES_MAX) throw corrupt(what, `has more than ${AGE_BYTES_MAX} bytes`)
  const footAt = whole.indexOf('\n--- ')
  const headEnd = footAt < 0 ? -1 : whole.indexOf(0x0a, footAt + 1)
  if (headEnd < 0) throw corrupt(what, 'is no age file, or cut short')
  const [version, ...lines] = whole.subarray(0, footAt).toString('latin1').split('\n')
  const mac = fromUnpadded(whole.subarray(footAt + 5, headEnd).toString('latin1'))
  if (version !== VERSION_LINE || mac?.length !== 32)
    throw corrupt(what, 'has an age header that makes no sense')
  return {
    stanzas: decodeStanzas(lines, what),
    covered: whole.subarray(0, footAt + 4),
    mac,
    body: whole.subarray(headEnd + 1),
  }
}

function decodeStanzas(lines: readonly string[], what: string): Stanza[] {
  const stanzas: Stanza[] = []
  for (let at = 0; at < lines.length;) {
    const head = /^->(( [!-~]+)+)$/.exec(lines[at++] ?? '')?.[1]
    const bodyFrom = at
    while (lines[at]?.length === 64) at++
    // A body ends with a line shorter than 64 characters, empty if need be.
    const bodyLines = lines.slice(bodyFrom, ++at).map(fromUnpadded)
    const body = bodyLines.filter((part) => part !== undefined)
    const isEnded = (lines[at - 1]?.length ?? 64) < 64 && body.length === bodyLines.length
    if (head === undefined || !isEnded || stanzas.length === STANZAS_MAX)
      throw corrupt(what, 'has a stanza that makes no sense')
    stanzas.push({ args: head.slice(1).split(' '), body: Buffer.concat(body) })
  }
  return stanzas
}

function decodeBody(header: Header, fileKey: Buffer, what: string): Buffer {
  if (!timingSafeEqual(headerMac(fileKey, header.covered), header.mac))
    throw corrupt(what, 'has a changed header')
  const nonce = header.body.subarray(0, 16)
  const sealed = header.body.subarray(16)
  if (nonce.length < 16 || sealed.length < TAG_BYTES) throw corrupt(what, 'is cut short')
  const key = hkdf(fileKey, nonce, 'payload')
  const parts: Buffer[] = []
  const chunks = Math.ceil(sealed.length / (CHUNK_BYTES + TAG_BYTES))
  for (let index = 0; index < chunks; index++) {
    const from = index * (CHUNK_BYTES + TAG_BYTES)
    const chunk = sealed.subarray(from, from + CHUNK_BYTES + TAG_BYTES)
    const opened = openChunk(key, chunkNonce(index, index === chunks - 1), chunk)
    const isEmptyLast = opened?.length === 0 && index > 0
    if (opened === undefined || isEmptyLast) throw corrupt(what, 'is cut short or damaged')
    parts.push(opened)
  }
  return Buffer.concat(parts)
}

function encodeFile(stanza: Stanza, fileKey: Buffer, nonce: Buffer, plaintext: Uint8Array): Buffer {
  const covered = Buffer.from(`${VERSION_LINE}\n-> ${stanza.args.join(' ')}\n${unpadded(stanza.body)}\n---`)
  const key = hkdf(fileKey, nonce, 'payload')
  const parts = [covered, Buffer.from(` ${unpadded(headerMac(fileKey, covered))}\n`), nonce]
  const chunks = Math.max(1, Math.ceil(plaintext.length / CHUNK_BYTES))
  for (let index = 0; index < chunks; index++) {
    const chunk = plaintext.subarray(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES)
    parts.push(sealChunk(key, chunkNonce(index, index === chunks - 1), chunk))
  }
  return Buffer.concat(parts)
}

function headerMac(fileKey: Buffer, covered: Buffer): Buffer {
  return createHmac('sha256', hkdf(fileKey, '', 'header'))
    .update(covered)
    .digest()
}

/** 11 bytes big-endian chunk number, 1 byte that marks the last chunk. */
function chunkNonce(index: number, isLast: boolean): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeUIntBE(index, 5, 6)
  nonce[11] = isLast ? 1 : 0
  return nonce
}

function sealChunk(key: Buffer, nonce: Buffer, plaintext: Uint8Array): Buffer {
  const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: TAG_BYTES })
  const body = cipher.update(plaintext)
  cipher.final()
  return Buffer.concat([body, cipher.getAuthTag()])
}

function openChunk(key: Buffer, nonce: Buffer, sealed: Buffer): Buffer | undefined {
  if (sealed.length < TAG_BYTES) return undefined
  const decipher = createDecipheriv('chacha20-poly1305', key, nonce, { authTagLength: TAG_BYTES })
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES))
  const plaintext = decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES))
  try {
    decipher.final()
  } catch {
    // Not ours to judge: a wrong key and a damaged file look alike here; the callers know which it means.
    return undefined
  }
  return plaintext
}

function sealSmall(key: Buffer, fileKey: Buffer): Buffer {
  return sealChunk(key, Buffer.alloc(12), fileKey)
}

function openSmall(key: Buffer, body: Buffer): Buffer | undefined {
  // The length is checked first, as age demands: a longer body could be made to open under several keys.
  return body.length === FILE_KEY_BYTES + TAG_BYTES ? openChunk(key, Buffer.alloc(12), body) : undefined
}

function passphraseKey(passphrase: string, salt: Uint8Array, logN: number): Buffer {
  const N = 2 ** logN
  const labelled = Buffer.concat([Buffer.from(SCRYPT_LABEL), salt])
  return scryptSync(passphrase, labelled, 32, { N, r: 8, p: 1, maxmem: 128 * 8 * N + 1024 * 1024 })
}

function tryAgree(secret: Buffer, share: Buffer): Buffer | undefined {
  try {
    return agree(secret, share)
  } catch {
    // A point of low order: no honest file has one, so this stanza is not for us.
    return undefined
  }
}

function decodeIdentity(identity: string): Buffer | undefined {
  if (!identity.startsWith('AGE-SECRET-KEY-1')) return undefined
  const secret = decodeBech32('age-secret-key-', identity)
  return secret?.length === CURVE_KEY_BYTES ? secret : undefined
}

function decodeRecipient(text: string): Buffer | undefined {
  const key = text.startsWith('age1') ? decodeBech32('age', text) : undefined
  return key?.length === CURVE_KEY_BYTES ? key : undefined
}

function splitRandom(random: Uint8Array): { fileKey: Buffer; nonce: Buffer; last: Buffer } {
  assert(random.length === AGE_RANDOM_BYTES, `an age file takes ${AGE_RANDOM_BYTES} random bytes`)
  const all = Buffer.from(random)
  return { fileKey: all.subarray(0, 16), nonce: all.subarray(16, 32), last: all.subarray(32) }
}

function unpadded(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64').replace(/=+$/, '')
}

function fromUnpadded(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64')
  return unpadded(bytes) === text ? bytes : undefined
}
