/**
 * Turns the issues that zod found into problems that a person understands: what is, what must be, what was
 * meant. Values below keys that look secret are never repeated. Pure: positions in the file are added by the
 * reader.
 */
import type { z } from 'zod'
import { nearest } from './nearest.ts'

type Issue = z.core.$ZodIssue
type JsonSchema = z.core.JSONSchema.BaseSchema

/** One thing wrong with the configuration. */
export interface ConfigProblem {
  /** Keys and list positions down to the value; empty for the whole file. */
  readonly path: readonly (string | number)[]
  /** Whether the value or its key is wrong, for pointing at it. */
  readonly at: 'value' | 'key'
  /** One sentence, without the position. */
  readonly message: string
}

/** A value longer than this is cut when a message repeats it. */
const shownCharsMax = 40

const secretKeyPattern = /pass(word|phrase)?$|secret|token|credential|private|accesskey|apikey/i

/** Whether a key names something whose value must not be printed. */
export function isSecretKey(key: string): boolean {
  return secretKeyPattern.test(key.replace(/[-_]/g, ''))
}

/** A URL's password replaced by stars; the rest as it is. */
export function hideUrlPassword(text: string): string {
  return text.replace(/(\b[a-z][a-z0-9+.-]*:\/\/[^\s:/@]*:)[^\s@]+@/gi, '$1***@')
}

/** All problems, in the order of the issues. `json` is the schema as JSON Schema, asked for the known keys. */
export function configProblems(issues: readonly Issue[], data: unknown, json: JsonSchema): ConfigProblem[] {
  const problems = new Map<string, ConfigProblem>()
  for (const problem of issues.flatMap((issue) => problemsOfIssue(issue, [], data, json))) {
    problems.set(JSON.stringify([problem.path, problem.message]), problem)
  }
  return [...problems.values()]
}

function problemsOfIssue(issue: Issue, base: Path, data: unknown, json: JsonSchema): ConfigProblem[] {
  const path = [...base, ...issue.path.map((part) => (typeof part === 'symbol' ? String(part) : part))]
  const value = valueAt(data, path)
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => unknownKey(key, path, data, json))
    case 'invalid_key': {
      const must = issue.issues[0]?.message ?? 'must be another name'
      return [{ path, at: 'key', message: `the name ${show(path.at(-1), [])} ${must}` }]
    }
    case 'invalid_union': {
      const inner = unionIssues(issue, value)
      if (inner !== undefined) return inner.flatMap((one) => problemsOfIssue(one, path, data, json))
      if ('options' in issue && issue.options !== undefined) return [wrongChoice(path, value, issue.options)]
      return [sentence(path, value, issue.message)]
    }
    case 'invalid_value':
      return [wrongChoice(path, value, issue.values)]
    case 'invalid_type':
      return [sentence(path, value, mustOf(issue.message) ?? `must be ${typeWord(issue.expected)}`)]
    default:
      return [sentence(path, value, mustOf(issue.message) ?? `must be valid: ${issue.message}`)]
  }
}

/**
 * The issues inside the one branch of a union that was clearly meant: the value is an object and exactly one
 * branch knows its keys but found something wrong deeper down. Otherwise undefined: then the union's own
 * sentence is better.
 */
function unionIssues(issue: Issue & { code: 'invalid_union' }, value: unknown): readonly Issue[] | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const meant = issue.errors.filter((branch) =>
    branch.every((one) => one.path.length > 0 && valueAt(value, toPath(one.path)) !== undefined),
  )
  return meant.length === 1 ? meant[0] : undefined
}

function sentence(path: Path, value: unknown, must: string): ConfigProblem {
  if (value === undefined) return { path, at: 'key', message: `${nameOf(path)} is missing; it ${must}` }
  const is = must.startsWith('must be ') ? `is ${show(value, path)}; it ${must}` : must
  return { path, at: 'value', message: `${nameOf(path)} ${is}` }
}

function wrongChoice(path: Path, value: unknown, options: readonly unknown[]): ConfigProblem {
  const words = options.map(String)
  const meant = typeof value === 'string' ? nearest(value, words) : undefined
  const problem = sentence(path, value, `must be ${orList(words)}`)
  return meant === undefined
    ? problem
    : { ...problem, message: `${problem.message} (did you mean "${meant}"?)` }
}

function unknownKey(key: string, path: Path, data: unknown, json: JsonSchema): ConfigProblem {
  const known = keysAt(json, path, data)
  const used = valueAt(data, path)
  const free = known.filter((name) => !(typeof used === 'object' && used !== null && name in used))
  const meant = nearest(key, free)
  const where = path.length === 0 ? '' : ` in ${nameOf(path)}`
  const end = meant === undefined ? `; known: ${known.join(', ')}` : ` (did you mean "${meant}"?)`
  return { path: [...path, key], at: 'key', message: `there is no key ${show(key, [])}${where}${end}` }
}

type Path = readonly (string | number)[]

function toPath(parts: readonly PropertyKey[]): Path {
  return parts.map((part) => (typeof part === 'symbol' ? String(part) : part))
}

/** `sources.media.paths[0]`, or "the configuration". */
function nameOf(path: Path): string {
  if (path.length === 0) return 'the configuration'
  return path
    .map((part, at) => (typeof part === 'number' ? `[${part}]` : at === 0 ? part : `.${part}`))
    .join('')
}

function valueAt(data: unknown, path: Path): unknown {
  let value = data
  for (const part of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) return undefined
    value = (value as Record<string | number, unknown>)[part]
  }
  return value
}

/** The value as a message repeats it. Never what lies below a key that looks secret. */
function show(value: unknown, path: Path): string {
  if (value === null) return 'empty'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object') return 'a group of keys'
  if (path.some((part) => typeof part === 'string' && isSecretKey(part))) return wordOfType(value)
  const text = hideUrlPassword(typeof value === 'string' ? value : JSON.stringify(value))
  const cut = text.length > shownCharsMax ? `${text.slice(0, shownCharsMax)}…` : text
  return typeof value === 'string' ? JSON.stringify(cut) : cut
}

function wordOfType(value: unknown): string {
  return typeof value === 'string' ? 'text' : `a ${typeof value}`
}

function typeWord(expected: string): string {
  const words: Record<string, string> = {
    string: 'text',
    number: 'a number',
    int: 'a whole number',
    boolean: 'true or false',
    array: 'a list',
    object: 'a group of keys',
    record: 'a group of keys',
  }
  return words[expected] ?? expected
}

/** Our own messages begin with "must"; zod's do not. */
function mustOf(message: string): string | undefined {
  return message.startsWith('must') ? message : undefined
}

function orList(words: readonly string[]): string {
  if (words.length < 2) return words.join('')
  return `${words.slice(0, -1).join(', ')} or ${words.at(-1) ?? ''}`
}

/**
 * The keys that the schema knows at `path`; of a union, those of the branch with the same `kind`, else of
 * all.
 */
function keysAt(json: JsonSchema, path: Path, data: unknown): string[] {
  let schemas = [json]
  let value = data
  for (const part of path) {
    schemas = schemas.flatMap((one) => branches(one, value)).flatMap((one) => childSchemas(one, part))
    value = valueAt(value, [part])
  }
  return [
    ...new Set(
      schemas.flatMap((one) => branches(one, value)).flatMap((one) => Object.keys(one.properties ?? {})),
    ),
  ]
}

function branches(schema: JsonSchema, value: unknown): JsonSchema[] {
  if (schema.properties !== undefined) return [schema]
  const all = (schema.anyOf ?? schema.oneOf ?? []).filter((one) => typeof one === 'object')
  if (all.length === 0) return [schema]
  const kind = valueAt(value, ['kind'])
  const same = all.filter((one) => {
    const own = one.properties?.['kind']
    return typeof own === 'object' && own.const === kind
  })
  return same.length > 0 ? same : all
}

function childSchemas(schema: JsonSchema, part: string | number): JsonSchema[] {
  const child =
    typeof part === 'number' ? schema.items : (schema.properties?.[part] ?? schema.additionalProperties)
  return typeof child === 'object' && !Array.isArray(child) ? [child] : []
}
