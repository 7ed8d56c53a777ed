/** Why an entry could not be restored, and lists of such that are bounded however much is lost. */
import type { Failure } from '../base/failure.ts'
import { isDamage, isUnreadable } from '../repo/damage.ts'
import type { FileProblem } from '../sources/files/problem.ts'

/** Problems of one kind that are kept; more are counted. About 400 bytes each. */
const PROBLEMS_MAX = 10_000

/**
 * `damaged`: the repository holds it no more; `unreadable`: the store could not hand it out now, it may be
 * whole; `failed`: it could not be written here.
 */
export type LostHow = 'damaged' | 'unreadable' | 'failed'

export interface LostFile {
  readonly how: LostHow
  readonly problem: FileProblem
}

/** What a failure to read makes of the entry `path`. Rethrows what ends the restore. */
export function lostTo(path: string, error: unknown, is = 'cannot be restored'): LostFile {
  if (!isDamage(error)) throw error
  return lostFile(path, error, is)
}

function lostFile(path: string, failure: Failure, is: string): LostFile {
  if (!isUnreadable(failure))
    return { how: 'damaged', problem: { path, code: 'EDAMAGED', what: `${is}: ${failure.message}` } }
  const what = `${is} now, since the store cannot read it: ${failure.message}`
  return { how: 'unreadable', problem: { path, code: 'EUNREADABLE', what } }
}

export interface ProblemList {
  readonly kept: FileProblem[]
  count: number
}

export function newProblemList(): ProblemList {
  return { kept: [], count: 0 }
}

export function addProblem(list: ProblemList, problem: FileProblem): void {
  list.count++
  if (list.kept.length < PROBLEMS_MAX) list.kept.push(problem)
}
