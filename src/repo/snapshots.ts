/**
 * Reading the snapshots of a domain: verified, in the order of their counters. An object that cannot be
 * believed is not in the list but beside it, with its failure: one bad object must not hide the good ones.
 */
import { parseTime } from '../base/clock.ts'
import { Failure, isFailure } from '../base/failure.ts'
import type { Config, ConfigDomain } from '../format/config.ts'
import { decodeSigned, verifySigned } from '../format/signed.ts'
import { parseSnapshot, type Snapshot } from '../format/snapshot.ts'
import type { BlobStore } from '../storage/store.ts'

/** A snapshot that was signed by its domain's writer. */
export interface StoredSnapshot extends Snapshot {
  readonly domain: string
  /** Object name. */
  readonly name: string
  /** SHA-256 of the object, hex. */
  readonly sha256: string
}

export interface SnapshotList {
  /** Ascending by domain, source and counter. */
  readonly snapshots: readonly StoredSnapshot[]
  readonly bad: readonly { readonly name: string; readonly failure: Failure }[]
  /** Those of `bad` that are genuine but for their writer, who was revoked before they were complete. */
  readonly revoked: readonly StoredSnapshot[]
}

/**
 * All snapshots of the given domains (default: all of the config), or of one source only. `known`: read and
 * verified before; those that are still listed are not read again.
 */
export async function listSnapshots(
  store: BlobStore,
  config: Config,
  scope: { domain?: string; source?: string; known?: readonly StoredSnapshot[] } = {},
): Promise<SnapshotList> {
  const known = new Map(scope.known?.map((snapshot) => [snapshot.name, snapshot]))
  const snapshots: StoredSnapshot[] = []
  const bad: { name: string; failure: Failure }[] = []
  const revoked: StoredSnapshot[] = []
  for (const domain of config.domains) {
    if (scope.domain !== undefined && scope.domain !== domain.id) continue
    const prefix = `d/${domain.id}/snapshots/${scope.source === undefined ? '' : `${scope.source}/`}`
    for await (const { name } of store.list(prefix)) {
      try {
        const snapshot = known.get(name) ?? (await readSnapshot(store, config, domain, name))
        const late = revokedFailure(domain, snapshot)
        if (late === undefined) snapshots.push(snapshot)
        else {
          revoked.push(snapshot)
          bad.push({ name, failure: late })
        }
      } catch (error) {
        if (!isFailure(error)) throw error
        if (
          error.code.startsWith('storage.') &&
          error.code !== 'storage.missing' &&
          error.code !== 'storage.short'
        )
          throw error
        bad.push({ name, failure: error })
      }
    }
  }
  snapshots.sort(byStream)
  revoked.sort(byStream)
  return { snapshots, bad, revoked }
}

/** What a revoked writer completed later, by its own claim, is not a restore point. */
function revokedFailure({ writer }: ConfigDomain, snapshot: StoredSnapshot): Failure | undefined {
  const { completed, begun, name } = snapshot
  if (writer.revoked === null) return undefined
  const ended = Math.max(parseTime(completed) ?? Infinity, parseTime(begun) ?? Infinity)
  if (ended <= (parseTime(writer.revoked) ?? 0)) return undefined
  const after = `after its writer "${writer.name}" was revoked (${writer.revoked})`
  return new Failure('key.revoked', `Cannot trust ${name}: it was completed at ${completed}, ${after}`)
}

/**
 * Reads and verifies one snapshot object. Fails: repo.corrupt, repo.forged, repo.foreign, repo.newer,
 * storage.*.
 */
export async function readSnapshot(
  store: BlobStore,
  config: Config,
  domain: ConfigDomain,
  name: string,
): Promise<StoredSnapshot> {
  const bytes = await store.get(name)
  const object = decodeSigned(bytes, { kind: 'snapshot', repository: config.repository, name })
  verifySigned(object, Buffer.from(domain.writer.signing, 'hex'))
  const snapshot = parseSnapshot(object.payload, name)
  if (name !== `d/${domain.id}/snapshots/${snapshot.source}/${snapshot.id}`)
    throw new Failure('repo.forged', `Cannot trust ${name}: it says it is ${snapshot.source}/${snapshot.id}`)
  return { ...snapshot, domain: domain.id, name, sha256: object.sha256 }
}

function byStream(a: StoredSnapshot, b: StoredSnapshot): number {
  if (a.domain !== b.domain) return a.domain < b.domain ? -1 : 1
  if (a.source !== b.source) return a.source < b.source ? -1 : 1
  return a.counter - b.counter || (a.name < b.name ? -1 : 1)
}
