/** Questions that a role may be refused: what was not answered is kept, and asking goes on. */
import { isFailure } from '../../base/failure.ts'
import type { SqlRow } from './sql-session.ts'

export interface Asking {
  readonly unread: { readonly what: string; readonly why: string }[]
}

/** Classes of SQLSTATE after which the server answers nothing more: connection lost, shut down. */
const GONE = /^(08|57P)/

/** No rows if the server refuses. Fails: source.failed when the connection is gone. */
export async function askSql(
  asking: Asking,
  what: string,
  ask: () => Promise<readonly SqlRow[]>,
): Promise<readonly SqlRow[]> {
  try {
    return await ask()
  } catch (error) {
    if (!isFailure(error, 'source.failed')) throw error
    const { sqlstate } = error.facts
    if (typeof sqlstate !== 'string' || GONE.test(sqlstate)) throw error
    asking.unread.push({ what, why: error.message })
    return []
  }
}
