/**
 * The databases of a server: size, encoding, collation, extensions. Indexes on text are sorted by the glibc
 * or ICU of their host; on another one they may be wrong, so that versions are part of what is known.
 */
import { isFailure } from '../../base/failure.ts'
import { askSql, type Asking } from './sql-asking.ts'
import { closeSql, openSql, runSql, type SqlSession } from './sql-session.ts'

export interface ExtensionFacts {
  readonly name: string
  readonly version: string
}

/** Collations of one provider that were made with one version. */
export interface CollationFacts {
  /** `libc`, `icu` or `builtin`; the version is glibc's, or that of ICU's collator. */
  readonly provider: string
  readonly version: string
  /** What the host has now; undefined: it does not say. */
  readonly actual: string | undefined
  readonly count: number
}

export interface DatabaseFacts {
  readonly name: string
  readonly number: number
  readonly encoding: string
  readonly collate: string
  readonly ctype: string
  /** From version 15 on: of its default collation, when it was made and now. */
  readonly collationVersion: string | undefined
  readonly collationActual: string | undefined
  /** undefined: the role may not know. */
  readonly bytes: number | undefined
  /** undefined: the role may not connect. */
  readonly extensions: readonly ExtensionFacts[] | undefined
  readonly collations: readonly CollationFacts[]
}

const KEEPS_VERSION = 150_000
/** Each is a connection; more are counted, not entered. */
const ENTERED_MAX = 500
const PROVIDERS: Readonly<Record<string, string>> = { c: 'libc', i: 'icu', b: 'builtin' }

/** All but the template that takes no connection. What a database refuses is in `asking`. */
export async function listDatabases(
  session: SqlSession,
  { version, asking }: { version: number; asking: Asking },
): Promise<DatabaseFacts[]> {
  const versions =
    version >= KEEPS_VERSION ? 'datcollversion, pg_database_collation_actual_version(oid)' : 'null, null'
  const rows = await askSql(asking, 'the databases', async () =>
    runSql(
      session,
      `select datname, oid, pg_encoding_to_char(encoding), datcollate, datctype, ${versions},
        case when has_database_privilege(oid, 'connect')
          or pg_has_role('pg_read_all_stats', 'usage') then pg_database_size(oid) end
        from pg_database where datallowconn order by oid`,
    ),
  )
  const found: DatabaseFacts[] = []
  for (const [at, row] of rows.entries()) {
    const [name, number, encoding, collate, ctype, collationVersion, collationActual, bytes] = row
    const own = {
      name: name ?? '',
      number: Number(number),
      encoding: encoding ?? '',
      collate: collate ?? '',
      ctype: ctype ?? '',
      collationVersion: collationVersion ?? undefined,
      collationActual: collationActual ?? undefined,
      bytes: typeof bytes === 'string' ? Number(bytes) : undefined,
    }
    const inside = at < ENTERED_MAX ? await enterDatabase(session, own.name, asking) : undefined
    found.push({ ...own, extensions: inside?.extensions, collations: inside?.collations ?? [] })
  }
  if (rows.length > ENTERED_MAX)
    asking.unread.push({
      what: `the extensions of ${rows.length - ENTERED_MAX} databases`,
      why: `only the first ${ENTERED_MAX} are entered`,
    })
  return found
}

async function enterDatabase(
  { place }: SqlSession,
  database: string,
  asking: Asking,
): Promise<Pick<DatabaseFacts, 'extensions' | 'collations'> | undefined> {
  let inside: SqlSession
  try {
    inside = await openSql(place, database)
  } catch (error) {
    if (!isFailure(error, 'source.failed')) throw error
    asking.unread.push({ what: `the extensions of database ${database}`, why: error.message })
    return undefined
  }
  try {
    const extensions = await runSql(inside, 'select extname, extversion from pg_extension order by 1')
    const collations = await askSql(asking, `the collations of database ${database}`, async () =>
      runSql(
        inside,
        `select collprovider, collversion, pg_collation_actual_version(oid), count(*)
          from pg_collation where collversion is not null group by 1, 2, 3 order by 1, 2`,
      ),
    )
    return {
      extensions: extensions.map(([name, version]) => ({ name: name ?? '', version: version ?? '' })),
      collations: collations.map(([provider, version, actual, count]) => ({
        provider: PROVIDERS[provider ?? ''] ?? provider ?? '',
        version: version ?? '',
        actual: actual ?? undefined,
        count: Number(count),
      })),
    }
  } finally {
    await closeSql(inside)
  }
}
