/**
 * Checks what neither the type checker nor the linter can: line widths, file names, rooms, and a few
 * banned spellings. Not the place for anything that .oxlintrc.json can say.
 * Run: `npm run tidy`; one line a finding, exit 1 if there is any.
 */
import { existsSync, globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'

const LINE_COLUMNS_MAX = 110

const FILES = ['{src,test,bench,tools}/**/*.{ts,js,json}', 'scripts/*', 'bin/*']
const NOT_OURS = ['test/golden/**']

/** A drawer: a name that says nothing of what is inside. As a whole name, or as one word of it. */
const DRAWER_NAME = /^(index|types)$|(^|-)(utils?|helpers?|common|misc|manager|service|impl)(-|$)/
const FILE_NAME = /^[a-z0-9]+(-[a-z0-9]+)*(\.test|\.d|\.bench)?(\.[a-z]+)?$/

const SRC = /^src\//
const TESTS = /\.test\.ts$/

interface Ban {
  pattern: RegExp
  where: RegExp
  except: RegExp
  instead: string
}

const BANS: Ban[] = [
  {
    pattern: /\b(TODO|FIXME|XXX)\b/,
    where: SRC,
    except: /^$/,
    instead: 'do it, or write an issue and say here what holds now',
  },
  {
    pattern: /\bnew Date\(\)/,
    where: SRC,
    except: /\.test\.ts$|^src\/base\/clock\.ts$/,
    instead: 'take a Clock (src/base/clock.ts)',
  },
  {
    pattern: /from 'node:process'/,
    where: SRC,
    except: /\.test\.ts$|^src\/cli\//,
    instead: 'take environment and arguments as values; only src/cli reads them',
  },
  {
    pattern: /new URL\((['"`])\.[^'"`]*\.ts\1/,
    where: SRC,
    except: TESTS,
    instead: 'join the name with extname(import.meta.url): the published file ends in .js',
  },
  {
    pattern: /(from|import\() ?'(\.\.\/)+(test|bench|tools)\//,
    where: SRC,
    except: TESTS,
    instead: 'product code stands without tests and benches',
  },
]

/** Findings in one file: its name, its lines. */
export function tidyFile(path: string, text: string): string[] {
  const findings: string[] = []
  const name = basename(path)
  const stem = name.split('.')[0] ?? ''
  const folders = path.split('/').slice(1, -1)
  if (!FILE_NAME.test(name)) findings.push(`${path}: name is not kebab-case`)
  for (const part of [stem, ...folders]) {
    if (DRAWER_NAME.test(part)) findings.push(`${path}: "${part}" says nothing, name the thing inside`)
  }
  if (/^src\/[^/]+$/.test(path)) findings.push(`${path}: lies in no room, move it to src/<room>/`)
  text.split('\n').forEach((line, at) => {
    const columns = columnsOf(line)
    if (columns > LINE_COLUMNS_MAX)
      findings.push(`${path}:${at + 1}: ${columns} columns, at most ${LINE_COLUMNS_MAX}`)
    for (const { pattern, where, except, instead } of BANS) {
      const found = where.test(path) && !except.test(path) && pattern.exec(line)
      if (found) findings.push(`${path}:${at + 1}: "${found[0]}" is banned: ${instead}`)
    }
  })
  return findings
}

/** Width of a line as the formatter counts it: of a comment only the text. Links and tables cannot be wrapped. */
function columnsOf(line: string): number {
  const text = /^\s*(\/\*\*|\*)/.test(line) ? line.replace(/^\s*(\/\*\*|\*) ?| ?\*\/$/g, '') : line
  return /https?:\/\//.test(text) || text.startsWith('|') ? 0 : text.length
}

/** Findings about the rooms: each is on the map and has a fence. cli is the top floor and needs none. */
export function tidyRooms(rooms: string[], map: string, lint: string): string[] {
  const findings: string[] = []
  for (const room of rooms) {
    if (!map.includes(`src/${room}/`)) findings.push(`ARCHITECTURE.md: does not name src/${room}/`)
    const fenced = lint.includes(`"files": ["src/${room}/**"]`) || room === 'cli'
    if (!fenced) findings.push(`.oxlintrc.json: has no import fence for src/${room}/`)
  }
  return findings
}

function tidy(root: string): number {
  const read = (path: string): string =>
    existsSync(join(root, path)) ? readFileSync(join(root, path), 'utf8') : ''
  const entries = globSync(FILES, { cwd: root, exclude: NOT_OURS, withFileTypes: true })
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
  const files = paths.map((path) => path.slice(root.length + 1)).sort()
  const rooms = new Set(
    files.filter((file) => /^src\/[^/]+\//.test(file)).map((file) => file.split('/')[1] ?? ''),
  )
  const findings = [
    ...tidyRooms([...rooms], read('ARCHITECTURE.md'), read('.oxlintrc.json')),
    ...files.flatMap((file) => tidyFile(file, read(file))),
  ]
  for (const finding of findings) console.log(finding)
  console.log(`${files.length} files, ${findings.length} findings`)
  return findings.length > 0 ? 1 : 0
}

if (import.meta.main) process.exitCode = tidy(join(import.meta.dirname, '..'))
