/** The one failure of a backup that was cancelled. */
import { Failure } from '../base/failure.ts'

export function cancelledBackup(): Failure {
  return new Failure('cancelled', 'Cannot finish the backup: it was cancelled')
}

/** Fails: cancelled. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelledBackup()
}
