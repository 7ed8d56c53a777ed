/** Makes a lane from settings that can be posted to a thread. */
import { systemClock, type Clock } from '../base/clock.ts'
import { hkdf } from '../format/seal.ts'
import { gearTable, type ChunkSizes } from '../repo/chunker.ts'
import type { Saver } from '../repo/saver.ts'
import type { Lane } from './draft.ts'
import { newPageHasher } from './page-hash.ts'

export interface LaneSettings {
  readonly sizes: ChunkSizes
  readonly runBytes: number
  readonly inlineBytesMax: number
  readonly packBytesMax: number
}

/** Room behind the largest chunk, so that a cut is mostly found without moving bytes. */
const WINDOW_SPARE_BYTES = 2 * 1024 * 1024

export function newLane(saver: Saver, settings: LaneSettings, clock: Clock = systemClock): Lane {
  const { idKey } = saver.keys
  return {
    ...settings,
    saver,
    table: gearTable(idKey),
    pageHasher: newPageHasher(hkdf(idKey, '', 'backstock/1 page hash')),
    window: Buffer.allocUnsafeSlow(settings.sizes.maxBytes + WINDOW_SPARE_BYTES),
    clock,
    rewrites: { changedBytes: 0, rewrittenBytes: 0 },
  }
}
