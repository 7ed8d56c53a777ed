/**
 * Exclude patterns with the meaning of gitignore(5), matched byte by byte as git does: names are raw latin1
 * strings, so a name that is not UTF-8 is nothing special and `?` is one byte.
 *
 * One difference in where a pattern is anchored, since a backup has several roots: in the configuration a
 * leading `/` is the root of the file system, a `/` in the middle anchors to each backup path, and no `/`
 * matches the name at any depth. In a file found in a folder (`.backstockignore`) both anchors are that
 * folder, as in git.
 *
 * The walk never asks about anything below an excluded folder, so a negated pattern cannot bring back a file
 * whose folder is excluded: that too is git's rule.
 */

/** A compiled pattern. `anchor`: what the subject is taken relative to. */
export interface Pattern {
  readonly anchor: 'name' | 'path' | 'root'
  readonly negated: boolean
  readonly folderOnly: boolean
  readonly matches: (subject: string) => boolean
}

/** What a pattern is asked about; all raw. `path` is relative to the backup path or ignore file's folder. */
export interface PatternSubject {
  readonly name: string
  readonly path: string
  /** Absolute, without the leading `/`. */
  readonly absolute: string
  readonly isFolder: boolean
}

/** A pattern list longer than this is a mistake (a list of files belongs into filesFrom). */
const PATTERN_BYTES_MAX = 65536

/**
 * Compiles lines of raw text; comments and blank lines give nothing. `leadingSlash` is what a leading `/`
 * means.
 */
export function compilePatterns(lines: readonly string[], leadingSlash: 'root' | 'path'): Pattern[] {
  const patterns: Pattern[] = []
  for (const line of lines) {
    const pattern = compilePattern(line, leadingSlash)
    if (pattern !== undefined) patterns.push(pattern)
  }
  return patterns
}

/**
 * true: excluded, false: brought back by a negated pattern, undefined: no pattern speaks of it. The last one
 * wins.
 */
export function decideExclude(patterns: readonly Pattern[], subject: PatternSubject): boolean | undefined {
  for (let nth = patterns.length - 1; nth >= 0; nth--) {
    const pattern = patterns[nth]
    if (pattern === undefined || (pattern.folderOnly && !subject.isFolder)) continue
    if (pattern.matches(subjectText(pattern, subject))) return !pattern.negated
  }
  return undefined
}

/** The lines of a pattern file. */
export function patternLines(bytes: Uint8Array): string[] {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
  // A byte order mark, as some editors write it.
  return text.replace(/^\u00ef\u00bb\u00bf/, '').split(/\r?\n/)
}

function subjectText(pattern: Pattern, subject: PatternSubject): string {
  if (pattern.anchor === 'name') return subject.name
  return pattern.anchor === 'path' ? subject.path : subject.absolute
}

function compilePattern(line: string, leadingSlash: 'root' | 'path'): Pattern | undefined {
  let text = trimTrailingSpaces(line)
  if (text === '' || text.startsWith('#') || text.length > PATTERN_BYTES_MAX) return undefined
  const negated = text.startsWith('!')
  if (negated) text = text.slice(1)
  const folderOnly = text.endsWith('/')
  if (folderOnly) text = text.slice(0, -1)
  if (text === '') return undefined
  const anchor = text.startsWith('/') ? leadingSlash : text.includes('/') ? 'path' : 'name'
  if (text.startsWith('/')) text = text.slice(1)
  return { anchor, negated, folderOnly, matches: compileGlob(text, anchor !== 'name') }
}

/** git drops trailing spaces unless a backslash quotes them. */
function trimTrailingSpaces(line: string): string {
  let end = line.length
  while (end > 0 && line[end - 1] === ' ') end--
  if (end === line.length) return line
  let slashes = 0
  while (end - 1 - slashes >= 0 && line[end - 1 - slashes] === '\\') slashes++
  return line.slice(0, slashes % 2 === 1 ? end + 1 : end)
}

function compileGlob(glob: string, isPath: boolean): (subject: string) => boolean {
  // The common shapes need no regular expression.
  if (!/[*?[\\]/.test(glob)) return (subject) => subject === glob
  if (!isPath && /^\*[^*?[\\]+$/.test(glob)) {
    const suffix = glob.slice(1)
    return (subject) => subject.endsWith(suffix)
  }
  const source = globSource(glob)
  if (source === undefined) return () => false
  const regex = new RegExp(`^(?:${source})$`, 's')
  return (subject) => regex.test(subject)
}

/** The regular expression of a glob, or undefined if it can match nothing (git's answer to a malformed one). */
function globSource(glob: string): string | undefined {
  let source = ''
  let at = 0
  while (at < glob.length) {
    const char = glob.charAt(at)
    if (char === '*') {
      const stars = /^\*+/.exec(glob.slice(at))?.[0].length ?? 1
      const before = at === 0 ? '/' : glob[at - 1]
      const after = glob[at + stars]
      const isWholeName = before === '/' && (after === '/' || after === undefined)
      at += stars
      if (stars === 1 || !isWholeName) source += '[^/]*'
      else if (after === undefined) source += at === stars ? '.*' : '.+'
      else {
        source += '(?:.*/)?'
        at++
      }
    } else if (char === '?') {
      source += '[^/]'
      at++
    } else if (char === '[') {
      const bracket = bracketSource(glob, at)
      if (bracket === undefined) return undefined
      source += bracket.source
      at = bracket.end
    } else {
      if (char === '\\' && at + 1 === glob.length) return undefined
      if (char === '\\') at++
      source += escapeChar(glob.charAt(at))
      at++
    }
  }
  return source
}

const CLASSES: Record<string, string> = {
  alnum: '0-9A-Za-z',
  alpha: 'A-Za-z',
  blank: ' \\t',
  cntrl: '\\x00-\\x1f\\x7f',
  digit: '0-9',
  graph: '!-.0-~',
  lower: 'a-z',
  print: ' -.0-~',
  punct: '!-.:-@\\[-`{-~',
  space: ' \\t\\n\\r',
  upper: 'A-Z',
  xdigit: '0-9A-Fa-f',
}

/** `[abc]`, `[!a-z]`, `[[:digit:]]` as git's wildmatch reads them; never matches `/`. */
function bracketSource(glob: string, start: number): { source: string; end: number } | undefined {
  let at = start + 1
  const negated = glob[at] === '!' || glob[at] === '^'
  if (negated) at++
  let members = ''
  for (let first = true; ; first = false) {
    const char = glob[at]
    if (char === undefined) return undefined
    if (char === ']' && !first) break
    const named = char === '[' && glob[at + 1] === ':' ? /^\[:([a-z]*):\]/.exec(glob.slice(at)) : null
    if (named !== null) {
      const set = CLASSES[named[1] ?? '']
      if (set === undefined) return undefined
      members += set
      at += named[0].length
      continue
    }
    const low = memberAt(glob, at)
    if (low === undefined) return undefined
    at = low.end
    // git compares the lower end before it sees the range: `[b-a]` matches `b`.
    members += escapeChar(low.char)
    const high = glob[at] === '-' && glob[at + 1] !== ']' ? memberAt(glob, at + 1) : undefined
    if (high === undefined) continue
    at = high.end
    if (low.char <= high.char) members += `-${escapeChar(high.char)}`
  }
  const body = members === '' ? '(?!)' : `[${members}]`
  const source = negated ? `(?!/)(?!${body}).` : `(?!/)${body}`
  return { source, end: at + 1 }
}

function memberAt(glob: string, at: number): { char: string; end: number } | undefined {
  const quoted = glob[at] === '\\'
  const char = glob[quoted ? at + 1 : at]
  return char === undefined ? undefined : { char, end: at + (quoted ? 2 : 1) }
}

function escapeChar(char: string): string {
  return `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`
}
