/** Which failures speak of one object of the repository, and which of the whole store. */
import { isFailure, type Failure } from '../base/failure.ts'

/** Errors of one object, not of the whole store: a bad sector, a file nobody may read. */
const OBJECT_ERRNOS = new Set(['EIO', 'EUCLEAN', 'EACCES', 'ELOOP'])

/**
 * Whether a failure says that an object is missing, wrong or not readable now, so that others may still be
 * read. isUnreadable() tells the last of these apart.
 */
export function isDamage(error: unknown): error is Failure {
  if (!isFailure(error)) return false
  if (error.code === 'storage.missing' || error.code === 'storage.short') return true
  if (isUnreadable(error)) return true
  return ['repo.corrupt', 'repo.forged', 'repo.foreign', 'repo.newer', 'repo.older'].includes(error.code)
}

/** Whether the store could not hand an object out: that says nothing about what the object holds. */
export function isUnreadable(error: unknown): boolean {
  const errno = isFailure(error) ? error.facts['errno'] : undefined
  return typeof errno === 'string' && OBJECT_ERRNOS.has(errno)
}
