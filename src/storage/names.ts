/** Guards of blob names, shared by all drivers: a name that passes cannot leave the store's folder. */
import { assert } from '../base/failure.ts'
import { STORE_NAME } from './store.ts'

/**
 * Stops at a name that the program must never have formed; names from outside are parsed before they come
 * here.
 */
export function assertName(name: string): void {
  assert(STORE_NAME.test(name), `blob name ${JSON.stringify(name)} (must match STORE_NAME)`)
}

/** A prefix is empty, or a name and a `/`. */
export function assertPrefix(prefix: string): void {
  if (prefix === '') return
  assert(prefix.endsWith('/'), `prefix ${JSON.stringify(prefix)} (must be empty or end in "/")`)
  assertName(prefix.slice(0, -1))
}

/** The folder part of a name without its last `/`; empty for a name of one part. */
export function folderOf(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf('/')))
}
