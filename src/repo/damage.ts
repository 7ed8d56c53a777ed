/** Which failures speak of one object of the repository, and which of the whole store. */
import { isFailure, type Failure } from '../base/failure.ts'

/** Errors of one object, not of the whole store: a bad sector, a file nobody may read. */
const OBJECT_ERRNOS = new Set(['EIO', 'EUCLEAN', 'EACCES', 'ELOOP'])

/** Whether a failure says that an object is missing or wrong, so that others may still be read. */
export function isDamage(error: unknown): error is Failure {
  if (!isFailure(error)) return false
  if (error.code === 'storage.missing' || error.code === 'storage.short') return true
  const { errno } = error.facts
  if (typeof errno === 'string' && OBJECT_ERRNOS.has(errno)) return true
  return ['repo.corrupt', 'repo.forged', 'repo.foreign', 'repo.newer', 'repo.older'].includes(error.code)
}
