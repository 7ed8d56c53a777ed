/**
 * The signed configs of a repository in its store: reading the one that counts, and putting the next one.
 * Their fields are src/format/config.ts; what changes them is key-changes.ts.
 */
import { assert, Failure, isFailure } from '../base/failure.ts'
import { configName, configNumber, parseConfig } from '../format/config.ts'
import type { Config } from '../format/config.ts'
import { publicKeyOf } from '../format/curve-keys.ts'
import {
  decodeSigned,
  encodeSigned,
  peekRepository,
  SIGNED_BYTES_MAX,
  type SignedObject,
  verifySigned,
} from '../format/signed.ts'
import type { BlobStore } from '../storage/store.ts'

/** Lost races after which a change of the config gives up. */
export const CONFIG_ATTEMPTS_MAX = 8
/** Predecessors that one reading follows back to the remembered config. */
const CHAIN_LENGTH_MAX = 10_000
/** What is wrong with an object that the authority did not sign. */
const UNSIGNED = ['repo.corrupt', 'repo.forged', 'repo.foreign'] as const

/** A config whose signature was checked. */
export interface OpenConfig {
  readonly config: Config
  /** SHA-256 of the object, hex: with `config.n`, what a host remembers. */
  readonly sha256: string
}

/** The highest config that a host has seen. */
export interface KnownConfig {
  readonly n: number
  readonly sha256: string
}

interface ConfigPlace {
  readonly n: number
  readonly bytes: number
}

export interface ReadConfigOptions {
  /** Repository id of the credential, hex. */
  readonly repository?: string
  /** Authority's public key of the credential, hex. Without it the config vouches for itself. */
  readonly authority?: string
  readonly known?: KnownConfig
  readonly signal?: AbortSignal
  /** Hears of each config that was passed over. */
  readonly warn?: (text: string) => void
}

/**
 * The highest config of the store, verified; with `known`, also that it follows from the remembered one.
 *
 * Whoever writes to the store without keys can put junk under a higher number. With `known` that does not
 * stop us: what the authority did not sign is passed over, down to the remembered config. Without it a
 * damaged config, perhaps one that revokes a writer, cannot be told from junk, and a person has to look.
 * Fails: repo.missing, repo.foreign, repo.forged, repo.newer, repo.corrupt, repo.rolledback.
 */
export async function readConfig(store: BlobStore, options: ReadConfigOptions = {}): Promise<OpenConfig> {
  const places = await configPlaces(store)
  const { known } = options
  if (places.length === 0) {
    if (known !== undefined) throw rolledBack(store, known, 'it holds no config at all')
    await refuseRemains(store)
    const message = `Cannot open the repository in ${store.location}: there is none`
    throw new Failure('repo.missing', message, { facts: { store: store.location } })
  }
  for (const place of places) {
    const object = await readConfigObject(store, place, options)
    if (!(object instanceof Failure)) {
      const open = openConfigObject(object, place.n)
      if (known !== undefined) await checkConfigFollows(store, open, known, options)
      return open
    }
    if (known === undefined || place.n <= known.n) throw object
    options.warn?.(`${object.message}: it is passed over (put it aside if it is junk, else back from a copy)`)
  }
  assert(known, 'without a remembered config nothing is passed over')
  throw rolledBack(store, known, 'all its configs are damaged or forged')
}

/**
 * A store that holds a domain's objects but no config is a damaged repository, not an empty place. Bundles
 * alone are an init that died: it may run again. Fails: repo.corrupt.
 */
async function refuseRemains(store: BlobStore): Promise<void> {
  for await (const { name } of store.list('d/')) {
    const is = `it holds ${name} but no config (put config/1 and the later ones back from a copy)`
    const message = `Cannot open the repository in ${store.location}: ${is}`
    throw new Failure('repo.corrupt', message, { facts: { name } })
  }
}

/** Number and size of each config, the highest first. */
async function configPlaces(store: BlobStore): Promise<ConfigPlace[]> {
  const places: ConfigPlace[] = []
  for await (const { name, bytes } of store.list('config/')) {
    const n = configNumber(name)
    if (n !== undefined) places.push({ n, bytes })
  }
  return places.sort((one, other) => other.n - one.n)
}

/** Signs and puts a config under its own number; false if that number is taken. Fails: as put(). */
export async function putConfig(
  store: BlobStore,
  config: Config,
  authoritySeed: Buffer,
): Promise<OpenConfig | false> {
  const name = configName(config.n)
  const place = { kind: 'config', repository: config.repository, name } as const
  // What is never readable is never written.
  const bytes = encodeSigned({ ...place, payload: parseConfig(config, name) }, authoritySeed)
  const object = decodeSigned(bytes, place)
  verifySigned(object, publicKeyOf('ed25519', authoritySeed))
  try {
    await store.put(name, bytes)
  } catch (error) {
    if (isFailure(error, 'storage.exists')) return false
    throw error
  }
  return { config, sha256: object.sha256 }
}

/** Fails: as readConfig(). */
async function readConfigNumber(
  store: BlobStore,
  place: ConfigPlace,
  options: ReadConfigOptions,
): Promise<OpenConfig> {
  const object = await readConfigObject(store, place, options)
  if (object instanceof Failure) throw object
  return openConfigObject(object, place.n)
}

/**
 * An object that the authority signed, or why it is none: anyone may have put it there. Fails: repo.newer,
 * as get().
 */
async function readConfigObject(
  store: BlobStore,
  { n, bytes: size }: ConfigPlace,
  options: ReadConfigOptions,
): Promise<SignedObject | Failure> {
  const name = configName(n)
  if (size > SIGNED_BYTES_MAX)
    return new Failure('repo.corrupt', `Cannot read ${name}: it has ${size} bytes`, { facts: { what: name } })
  const bytes = await store.get(name, options.signal === undefined ? {} : { signal: options.signal })
  try {
    const repository = options.repository ?? peekRepository(bytes, name)
    const object = decodeSigned(bytes, { kind: 'config', repository, name })
    if (options.authority !== undefined) verifySigned(object, Buffer.from(options.authority, 'hex'))
    return object
  } catch (error) {
    const isUnsigned = UNSIGNED.some((code) => isFailure(error, code))
    if (isUnsigned && error instanceof Failure) return error
    throw error
  }
}

function openConfigObject(object: SignedObject, n: number): OpenConfig {
  const { name, repository } = object
  const config = parseConfig(object.payload, name)
  verifySigned(object, Buffer.from(config.authority, 'hex'))
  if (config.n !== n || config.repository !== repository) {
    const message = `Cannot trust ${name}: its payload is that of ${configName(config.n)} of another place`
    throw new Failure('repo.forged', message, { facts: { name } })
  }
  return { config, sha256: object.sha256 }
}

/** Follows `previous` from `open` back to `known`. Fails: repo.rolledback, repo.corrupt, repo.forged. */
async function checkConfigFollows(
  store: BlobStore,
  open: OpenConfig,
  known: KnownConfig,
  options: ReadConfigOptions,
): Promise<void> {
  const { n } = open.config
  if (n < known.n) throw rolledBack(store, known, `its highest config is ${n}`)
  if (n - known.n > CHAIN_LENGTH_MAX) {
    throw new Failure('repo.corrupt', `Cannot follow config/${n} back to config/${known.n}: too far`, {
      facts: { n },
    })
  }
  let at = open
  while (at.config.n > known.n) {
    const stat = await store.stat(configName(at.config.n - 1))
    if (stat === undefined) {
      const missing = `config/${at.config.n - 1}`
      const message = `Cannot follow config/${n} back to config/${known.n}: ${missing} is missing`
      throw new Failure('repo.corrupt', message, { facts: { n: at.config.n - 1 } })
    }
    const before = await readConfigNumber(store, { n: at.config.n - 1, bytes: stat.bytes }, options)
    if (before.sha256 !== at.config.previous) {
      throw rolledBack(store, known, `config/${at.config.n} does not follow config/${before.config.n}`)
    }
    at = before
  }
  if (at.sha256 !== known.sha256) throw rolledBack(store, known, `its config/${known.n} is another one`)
}

function rolledBack(store: BlobStore, known: KnownConfig, is: string): Failure {
  const seen = `this host has seen config/${known.n}`
  const message = `Cannot trust the repository in ${store.location}: ${is} (${seen})`
  return new Failure('repo.rolledback', message, { facts: { store: store.location, known: known.n } })
}
