/** Holds ARCHITECTURE.md to the code: every file, function and constant that it names is there. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

const ROOT = join(import.meta.dirname, '..')
const LINES_MAX = 200

const PATH = /^[\w.-]+(\/[\w.-]+)+\/?$/
const CALL = /^(\w+)\(\)$/
const CONSTANT = /^[A-Z][A-Z0-9_]+$/
const ENVIRONMENT = /^BACKSTOCK_/

/** Names of a page: each paragraph or row, with the files in it and what those must declare. */
interface Mention {
  readonly line: number
  readonly files: string[]
  readonly symbols: string[]
}

/** A mention is a paragraph, a list item or a row of a table. */
function mentions(page: string): Mention[] {
  const found: Mention[] = []
  let open: Mention | undefined
  page.split('\n').forEach((text, at) => {
    if (text.trim() === '') {
      open = undefined
      return
    }
    if (open === undefined || /^(\||-|\d+\.|#)/.test(text)) {
      open = { line: at + 1, files: [], symbols: [] }
      found.push(open)
    }
    for (const [, span = ''] of text.matchAll(/`([^`]+)`/g)) {
      const call = CALL.exec(span)?.[1]
      if (call !== undefined) open.symbols.push(call)
      else if (CONSTANT.test(span) && !ENVIRONMENT.test(span)) open.symbols.push(span)
      else if (PATH.test(span)) open.files.push(span)
    }
  })
  return found
}

/** The file or folder that a page means: from the root, or below src/. */
function placeOf(path: string): string | undefined {
  return [path, `src/${path}`].find((place) => existsSync(join(ROOT, place)))
}

/** Whether a source file declares a function, constant or method of this name. */
function declares(text: string, name: string): boolean {
  const declaration = new RegExp(`(function\\*? ${name}\\b|const ${name}\\b|^ {2}${name}\\()`, 'm')
  return declaration.test(text)
}

function problemsOf(page: string): string[] {
  const problems: string[] = []
  for (const { line, files, symbols } of mentions(page)) {
    const texts: string[] = []
    for (const file of files) {
      const place = placeOf(file)
      if (place === undefined) problems.push(`line ${line}: there is no ${file}`)
      else if (/\.(ts|cjs)$/.test(place)) texts.push(readFileSync(join(ROOT, place), 'utf8'))
    }
    for (const symbol of symbols) {
      if (!texts.some((text) => declares(text, symbol)))
        problems.push(`line ${line}: no file named there declares ${symbol}`)
    }
  }
  return problems
}

test('ARCHITECTURE.md names only what is there', () => {
  const page = readFileSync(join(ROOT, 'ARCHITECTURE.md'), 'utf8')
  assert.deepEqual(problemsOf(page), [])
  const named = mentions(page).flatMap(({ files, symbols }) => [...files, ...symbols])
  assert.ok(named.length > 100, `only ${named.length} names were found: is the page still read rightly?`)
})

test('ARCHITECTURE.md fits on a few screens', () => {
  const lines = readFileSync(join(ROOT, 'ARCHITECTURE.md'), 'utf8').trimEnd().split('\n').length
  assert.ok(lines <= LINES_MAX, `${lines} lines, at most ${LINES_MAX}`)
})

test('names that are not there are found', () => {
  const page =
    '- `restore()` in `src/recovery/restore.ts`\n- `gone()` in `src/recovery/restore.ts`\n\n`src/gone.ts`'
  assert.deepEqual(problemsOf(page), [
    'line 2: no file named there declares gone',
    'line 4: there is no src/gone.ts',
  ])
})
