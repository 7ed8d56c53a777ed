/** Tells what a cancelled run failed with from what went wrong beside it. */
import { Failure, isFailure } from '../base/failure.ts'

/** What was thrown because of the cancelling counts as cancelled; everything else stays what it is. */
export function cancelledBy(signal: AbortSignal, error: unknown): unknown {
  if (!signal.aborted || isFailure(error, 'cancelled')) return error
  const aborted = error === signal.reason || (error instanceof Error && error.name === 'AbortError')
  return aborted ? new Failure('cancelled', 'Cancelled', { cause: error }) : error
}
