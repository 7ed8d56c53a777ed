/**
 * Joins the walk with the parent's tree: both come in the same order, so one forward pass finds each entry's
 * earlier self. A damaged cache ends the join: everything after it counts as new and is read again.
 */
import { isFailure } from '../base/failure.ts'
import { nextRecord, type CacheReader, type CacheRecord } from '../repo/tree-cache.ts'

export interface ParentCursor {
  reader: CacheReader | undefined
  /** The next record, not yet consumed. */
  peeked: CacheRecord | undefined
  /** For each open directory of the walk: whether the parent has it too. */
  readonly matched: boolean[]
}

/** A cursor at the root of the parent's tree; without a reader nothing is ever found. */
export function newParentCursor(reader: CacheReader | undefined): ParentCursor {
  return { reader, peeked: undefined, matched: [reader !== undefined] }
}

/** The parent's record of a directory the walk enters. Balance with leaveParent(). */
export function enterParent(cursor: ParentCursor, name: string): CacheRecord | undefined {
  const record = advanceTo(cursor, name)
  const found = record?.kind === 'enter'
  if (found) cursor.peeked = undefined
  cursor.matched.push(found)
  return found ? record : undefined
}

/** The parent's record of an entry that is no directory. */
export function findParent(cursor: ParentCursor, name: string): CacheRecord | undefined {
  const record = advanceTo(cursor, name)
  if (record?.kind !== 'entry') return undefined
  cursor.peeked = undefined
  return record
}

/** The walk leaves its directory: skips what the parent still has in it. */
export function leaveParent(cursor: ParentCursor): void {
  if (cursor.matched.pop() !== true) return
  skipToLeave(cursor)
}

/**
 * Peeks at the record of `name` in the open directory; skips all below it. Leaves the record for the caller
 * to take.
 */
function advanceTo(cursor: ParentCursor, name: string): CacheRecord | undefined {
  if (cursor.matched.at(-1) !== true) return undefined
  for (;;) {
    const record = peek(cursor)
    if (record?.entry === undefined || record.entry.name > name) return undefined
    if (record.entry.name === name) return record
    cursor.peeked = undefined
    if (record.kind === 'enter') skipToLeave(cursor)
  }
}

/** Consumes records up to the end of the directory the cursor is in. */
function skipToLeave(cursor: ParentCursor): void {
  for (let depth = 0; ;) {
    const record = peek(cursor)
    if (record === undefined) return
    cursor.peeked = undefined
    if (record.kind === 'enter') depth++
    if (record.kind === 'leave' && depth-- === 0) return
  }
}

function peek(cursor: ParentCursor): CacheRecord | undefined {
  if (cursor.peeked !== undefined || cursor.reader === undefined) return cursor.peeked
  try {
    cursor.peeked = nextRecord(cursor.reader)
  } catch (error) {
    if (!isFailure(error)) throw error
    cursor.reader = undefined // only a cache: the rest of the source is read again
  }
  return cursor.peeked
}
