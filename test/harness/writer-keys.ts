/** Keys of a writer for tests of the engine below a repository: always the same, but for the epoch's. */
import type { WriterKeys } from '../../src/repo/saver.ts'

/** `epochPublic`: the X25519 key that packs of every kind are sealed to. */
export function testWriterKeys(epochPublic: Uint8Array): WriterKeys {
  return {
    repository: Buffer.alloc(16, 1),
    domain: Buffer.alloc(8, 2),
    packSet: Buffer.alloc(16, 3),
    epoch: 1,
    idKey: Buffer.alloc(32, 4),
    indexKey: Buffer.alloc(32, 5),
    dataPublic: epochPublic,
    metaPublic: epochPublic,
  }
}
