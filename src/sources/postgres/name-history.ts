/** What the files of relations were called, and when: from the names in notes. */
import type { NameNote } from './log-notes.ts'
import type { Lsn } from './lsn.ts'
import type { RelationFiles } from './wal-events.ts'

export interface RelationName {
  /** '' for a database. */
  readonly schema: string
  readonly name: string
}

/** By the files, each with its names in the order of the log. */
export type NameHistory = Map<string, NameNote[]>

export function newNameHistory(): NameHistory {
  return new Map()
}

/** Takes names in the order of the log; those that are there already cost nothing. */
export function addNames(history: NameHistory, names: Iterable<NameNote>): void {
  for (const note of names) {
    const key = filesKey(note.files)
    const known = history.get(key)
    if (known === undefined) {
      history.set(key, [note])
      continue
    }
    const last = known.at(-1)
    if (last !== undefined && last.lsn >= note.lsn) continue
    if (last?.schema !== note.schema || last.name !== note.name) known.push(note)
  }
}

/**
 * What the files were called at `lsn`. A relation that was made after the last time that names were read has
 * none, unless its files are first named later.
 */
export function nameAt(history: NameHistory, files: RelationFiles, lsn: Lsn): RelationName | undefined {
  return history.get(filesKey(files))?.findLast((note) => note.lsn <= lsn)
}

/**
 * Whether a person's `orders`, `public.orders` or `shop.public.orders` means this relation. As in SQL a name
 * may stand in quotes, and must where quotes or dots in it would mean something else: `public."o""r.der"`.
 */
export function matchesName(
  history: NameHistory,
  files: RelationFiles,
  asked: { readonly wanted: string; readonly known: RelationName; readonly lsn: Lsn },
): boolean {
  const { wanted, known, lsn } = asked
  const full = known.schema === '' ? [known.name] : [known.schema, known.name]
  const database = nameAt(history, databaseFiles(files.database), lsn)?.name
  if (known.schema !== '' && database !== undefined) full.unshift(database)
  const parts = quotedParts(wanted)
  if (parts === undefined) return full.some((_, nth) => full.slice(nth).join('.') === wanted)
  const from = full.length - parts.length
  return from >= 0 && parts.every((part, nth) => part === full[from + nth])
}

/** The names in a qualified one of which at least one is in quotes; undefined of any other text. */
function quotedParts(text: string): string[] | undefined {
  const isQuoted = /^(?:"(?:[^"]|"")+"|[^".]+)(?:\.(?:"(?:[^"]|"")+"|[^".]+))*$/.test(text)
  if (!isQuoted || !text.includes('"')) return undefined
  const found = text.matchAll(/"(?<quoted>(?:[^"]|"")+)"|[^".]+/g)
  return [...found].map(({ 0: plain, groups }) => groups?.['quoted']?.replaceAll('""', '"') ?? plain)
}

/** Under which a database has its name. */
export function databaseFiles(database: number): RelationFiles {
  return { tablespace: 0, database, relation: 0 }
}

export function filesKey({ tablespace, database, relation }: RelationFiles): string {
  return `${tablespace}/${database}/${relation}`
}
