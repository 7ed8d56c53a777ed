/**
 * The keys that reading takes, out of a credential. Apart from pack-reader.ts, so that threads load no codec
 * of configs.
 */
import { Failure } from '../base/failure.ts'
import { epochPrivateKey, type DomainKeys } from './keys.ts'
import type { ReaderKeys } from './pack-reader.ts'

/** Fails: key.role when the credential may not read contents. */
export function readerKeys(keys: DomainKeys, repository: string): ReaderKeys {
  const halves = (half: 'data' | 'meta') =>
    new Map(keys.epochs.map(({ epoch }) => [epoch, epochPrivateKey(keys, epoch, half)] as const))
  if (keys.idKey === undefined)
    throw new Failure(
      'key.role',
      `Cannot read domain ${keys.domain}: this credential holds no key to its chunks`,
    )
  return {
    repository: Buffer.from(repository, 'hex'),
    domain: keys.domain,
    idKey: keys.idKey,
    indexKey: keys.indexKey,
    frameBytesMax: keys.frameBytesMax,
    dataPrivate: halves('data'),
    metaPrivate: halves('meta'),
  }
}
