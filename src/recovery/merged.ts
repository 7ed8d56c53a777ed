/** A shipper merges tail pieces and deletes them while somebody reads: then the reader begins again. */
import { isFailure } from '../base/failure.ts'

const PASSES_MAX = 10

export function isMerged(error: unknown): boolean {
  return isFailure(error, 'storage.missing') && /\/tail\//.test(String(error.facts['name']))
}

/** Runs `read`, which lists and reads, again as long as it fails because of that. Fails: as `read`. */
export async function againWhenMerged<T>(read: () => Promise<T>): Promise<T> {
  for (let pass = 1; ; pass++) {
    try {
      return await read()
    } catch (error) {
      if (!isMerged(error) || pass === PASSES_MAX) throw error
    }
  }
}
