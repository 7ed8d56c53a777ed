/** One thing that went wrong with one file: a result of the walk or the restore, never an exception. */
import { getSystemErrorMessage } from 'node:util'
import { describeError, errnoOf } from '../../base/failure.ts'

export interface FileProblem {
  /** Raw path (latin1). */
  readonly path: string
  /** errno name such as `EACCES`, or one of ours: `EREPLACED`, `ESOCKET`, `ENEVER`. */
  readonly code: string
  /** What could not be done and why, without the path: `cannot read the folder: permission denied`. */
  readonly what: string
  /** Of a restore: the entry is not there at all. Otherwise something about it could not be had or set. */
  readonly missing?: true
}

/** The problem of a thrown system error; rethrows a Failure, and what is a bug. */
export function problemOf(path: string, attempt: string, error: unknown): FileProblem {
  const code = errnoOf(error)
  if (code === undefined) throw error
  return { path, code, what: `${attempt}: ${reasonOf(error)}` }
}

function reasonOf(error: unknown): string {
  const known = error instanceof Error && 'errno' in error && typeof error.errno === 'number'
  return known ? getSystemErrorMessage(error.errno as number) : describeError(error)
}
