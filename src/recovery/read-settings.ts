/**
 * Settings of a data folder as a server that starts on it would read them: postgresql.conf with what it
 * includes, then postgresql.auto.conf; the last line of a name counts.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { pathBytes, rawPath } from '../base/file-entry.ts'
import { errnoOf } from '../base/failure.ts'
import {
  includedPath,
  isInclude,
  isIncludedName,
  parseConfigLine,
  type ConfigLine,
} from '../sources/postgres/config-lines.ts'

const FILE_BYTES_MAX = 1024 * 1024
/** As the server has it (CONF_FILE_MAX_DEPTH). */
const INCLUDE_DEPTH_MAX = 10

/** Raw values by lower-case name. What cannot be read says nothing. `folder`: the data folder, raw. */
export function readConfigFile(folder: string): Map<string, string> {
  return new Map([...linesOf(folder)].map(({ name, value }) => [name, value]))
}

/** Paths, raw, of postgresql.conf and the files that it includes, as far as they set `name`. */
export function filesThatSet(folder: string, name: string): string[] {
  const lines = [...linesOf(folder)].filter((line) => line.name === name)
  return [...new Set(lines.map(({ path }) => path))]
}

/** Of lines without includes, as ALTER SYSTEM writes them. */
export function settingsOf(lines: readonly string[]): Map<string, string> {
  return new Map(
    lines.flatMap((line) => {
      const found = parseConfigLine(line)
      return found === undefined ? [] : [[found.name, found.value]]
    }),
  )
}

interface PlacedLine extends ConfigLine {
  readonly path: string
}

function linesOf(folder: string): Generator<PlacedLine, void> {
  return readLines(join(folder, 'postgresql.conf'), 0)
}

function* readLines(path: string, depth: number): Generator<PlacedLine, void> {
  const text = orNothing(() => {
    const stats = statSync(pathBytes(path))
    return stats.isFile() && stats.size <= FILE_BYTES_MAX ? readFileSync(pathBytes(path), 'latin1') : ''
  })
  for (const line of (text ?? '').split('\n')) {
    const found = parseConfigLine(line)
    if (found === undefined) continue
    if (!isInclude(found)) yield { ...found, path }
    else if (depth < INCLUDE_DEPTH_MAX)
      for (const each of includedFiles(path, found)) yield* readLines(each, depth + 1)
  }
}

function includedFiles(from: string, { name, value }: ConfigLine): string[] {
  const path = includedPath(from, value)
  if (name !== 'include_dir') return [path]
  const names = orNothing(() => readdirSync(pathBytes(path))) ?? []
  const raw = names.map(rawPath).filter(isIncludedName)
  return raw.toSorted().map((each) => `${path}/${each}`)
}

function orNothing<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return undefined
  }
}
