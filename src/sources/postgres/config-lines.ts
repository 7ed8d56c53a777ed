/**
 * Lines of PostgreSQL's configuration files as far as they name other files: `name = value` of
 * postgresql.conf (guc-file.l), and the include lines of pg_hba.conf and pg_ident.conf from version 16 on.
 * Texts are raw (latin1). Pure.
 */

export interface ConfigLine {
  /** Lower case. */
  readonly name: string
  /** Without quotes. */
  readonly value: string
}

const ASSIGNMENT =
  /^\s*([A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*)?)(?:\s*=\s*|\s+)('(?:[^'\\]|''|\\.)*'|[^\s#'=]+)/
/** A comment, or a word of pg_hba.conf and pg_ident.conf; commas part them too. */
const LIST_WORD = /#.*$|(?:[^ \t\r,"#]|"[^"]*")+/g
const INCLUDE_OF_LIST = /^\s*(include(?:_if_exists|_dir)?)\s+("[^"]*"|[^\s#"]+)/

/** A line of postgresql.conf; undefined: a comment, empty, or nothing that the server would take. */
export function parseConfigLine(line: string): ConfigLine | undefined {
  const [, name, value] = ASSIGNMENT.exec(line) ?? []
  return name === undefined || value === undefined
    ? undefined
    : { name: name.toLowerCase(), value: unquote(value) }
}

/** What a line of pg_hba.conf or pg_ident.conf includes; undefined: any other line. */
export function parseListLine(line: string): ConfigLine | undefined {
  const [, name, value] = INCLUDE_OF_LIST.exec(line) ?? []
  return name === undefined || value === undefined ? undefined : { name, value: value.replaceAll('"', '') }
}

/** Words of a line of pg_hba.conf, pg_ident.conf or a file of names, as they are written. */
export function wordsOfList(line: string): string[] {
  return (line.match(LIST_WORD) ?? []).filter((word) => !word.startsWith('#'))
}

/** The file of names that a word stands for, as `@admins`; undefined: it stands for itself. */
export function namesFile(word: string): string | undefined {
  return word.startsWith('@') && word.length > 1 ? word.slice(1).replaceAll('"', '') : undefined
}

/** The line with each word as `replace` gives it. */
export function mapWordsOfList(line: string, replace: (word: string) => string): string {
  return line.replace(LIST_WORD, (word) => (word.startsWith('#') ? word : replace(word)))
}

export function isInclude({ name }: ConfigLine): boolean {
  return name === 'include' || name === 'include_if_exists' || name === 'include_dir'
}

/** What an include line names, from the file that it stands in: absolute, without `.` and `..`. */
export function includedPath(from: string, value: string): string {
  const folder = from.slice(0, from.lastIndexOf('/'))
  const names: string[] = []
  for (const name of (value.startsWith('/') ? value : `${folder}/${value}`).split('/')) {
    if (name === '..') names.pop()
    else if (name !== '' && name !== '.') names.push(name)
  }
  return `/${names.join('/')}`
}

/** Which names of an included folder count; they do so in the order of their bytes. */
export function isIncludedName(name: string): boolean {
  return name.endsWith('.conf') && !name.startsWith('.')
}

function unquote(value: string): string {
  if (!value.startsWith("'")) return value
  return value.slice(1, -1).replaceAll("''", "'").replace(/\\(.)/g, '$1')
}
