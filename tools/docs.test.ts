/**
 * Holds the pages for people to what they describe: links, configuration keys and examples, failures,
 * findings, and the two READMEs to each other. ARCHITECTURE.md has a test of its own.
 */
import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { parse } from 'yaml'
import { jsonSchemaOfConfig, parseConfig } from '../src/protocol/config.ts'
import { FINDINGS } from '../src/recovery/check-findings.ts'
import { exitCodesPage, failuresPage, unexplained } from './failures.ts'

const ROOT = join(import.meta.dirname, '..')
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

/** A JSON Schema, as far as a walk over its keys needs it. */
interface Shape {
  readonly properties?: Readonly<Record<string, Shape>>
  readonly items?: Shape
  readonly additionalProperties?: Shape | boolean
  readonly anyOf?: readonly Shape[]
  readonly oneOf?: readonly Shape[]
}

/** Every key that a configuration may have: `sources.NAME.pages[].glob`. */
function keysOf(shape: Shape, at = ''): string[] {
  const own = Object.entries(shape.properties ?? {}).flatMap(([key, below]) => {
    const path = at === '' ? key : `${at}.${key}`
    return [path, ...keysOf(below, path)]
  })
  const { items, additionalProperties: named, anyOf = [], oneOf = [] } = shape
  return [
    ...own,
    ...(items === undefined ? [] : keysOf(items, `${at}[]`)),
    ...(typeof named === 'object' ? keysOf(named, `${at}.NAME`) : []),
    ...[...anyOf, ...oneOf].flatMap((variant) => keysOf(variant, at)),
  ]
}

/** First cells of the rows of tables that are one piece of code. */
function rowNames(page: string): string[] {
  return [...page.matchAll(/^\| `([^`]+)` \|/gm)].map(([, name = '']) => name)
}

function codeBlocks(page: string, language: string): string[] {
  const fence = new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm')
  return [...page.matchAll(fence)].map(([, text = '']) => text)
}

test('docs/guide/configuration.md has a row for every key, and no other', () => {
  const keys = new Set(keysOf(jsonSchemaOfConfig() as Shape))
  const page = read('docs/guide/configuration.md').replace(/^## Environment[\s\S]*/m, '')
  assert.ok(keys.has('sources.NAME.pages[].glob'), 'the schema is walked')
  assert.deepEqual(rowNames(page).toSorted(), [...keys].toSorted())
})

test('the configurations that the pages show are sound', () => {
  let shown = 0
  for (const page of ['README.md', 'README.zh-CN.md', ...globSync('docs/guide/*.md', { cwd: ROOT })]) {
    for (const text of codeBlocks(read(page), 'yaml').filter((block) => block.startsWith('shop:'))) {
      const checked = parseConfig(parse(text))
      assert.deepEqual('problems' in checked ? checked.problems : [], [], page)
      shown++
    }
  }
  assert.ok(shown >= 4, `${shown} configurations were found`)
})

test('docs/guide/failures.md and exit-codes.md are what `node tools/failures.ts` makes', () => {
  assert.deepEqual(unexplained(), [], 'tools/failures.ts does not know these codes')
  assert.equal(read('docs/guide/failures.md'), failuresPage())
  assert.equal(read('docs/guide/exit-codes.md'), exitCodesPage())
})

test('docs/guide/check.md explains every finding with its severity', () => {
  const rows = [...read('docs/guide/check.md').matchAll(/^\| `([a-z.-]+)` \| (error|warning|info) \|/gm)]
  const shown = Object.fromEntries(rows.map(([, code = '', severity]) => [code, severity]))
  assert.deepEqual(shown, { ...FINDINGS })
})

test('links between pages lead to files that are there', () => {
  const pages = globSync(['*.md', 'docs/**/*.md', 'test/**/*.md', 'bench/*.md'], { cwd: ROOT })
  const broken: string[] = []
  for (const page of pages) {
    for (const [, target = ''] of read(page).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue
      const [path = '', anchor] = target.split('#')
      const file = path === '' ? page : join(dirname(page), path)
      const isThere = existsSync(join(ROOT, file))
      if (!isThere || (anchor !== undefined && !anchorsOf(read(file)).includes(anchor)))
        broken.push(`${page}: ${target}`)
    }
  }
  assert.deepEqual(broken, [])
})

/** Written by a bench that is recorded; a room that is still to come. */
const LATER = new Set(['bench/RESULTS.md', 'src/strategy'])

test('files that the pages name are there', () => {
  const pages = globSync(['*.md', 'docs/**/*.md'], { cwd: ROOT })
  const gone: string[] = []
  for (const page of pages) {
    for (const [, path = ''] of read(page).matchAll(
      /`((?:src|test|tools|docs|bench|scripts)\/[\w./*-]+)`/g,
    )) {
      if (!LATER.has(path) && globSync(path, { cwd: ROOT }).length === 0) gone.push(`${page}: ${path}`)
    }
  }
  assert.deepEqual(gone, [])
})

/** As GitHub makes them of headings. */
function anchorsOf(page: string): string[] {
  return [...page.matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

test('README.md and README.zh-CN.md have one structure', () => {
  assert.deepEqual(outline(read('README.zh-CN.md')), outline(read('README.md')))
})

/** Levels of headings, rows of tables, list items, links and code without comments, in order. */
function outline(page: string): string[] {
  const links = [...page.matchAll(/\]\(([^)]+)\)/g)].map(([, target = '']) => target)
  const lines = page.split('\n').flatMap((line) => {
    const start = /^(#+ |\| |- |\d+\. |```)/.exec(line)?.[1]
    return start === undefined ? [] : [start === '| ' ? `row of ${line.split(' | ').length}` : start]
  })
  const code = codeBlocks(page, '\\w*').map((text) => text.replace(/ +# .*$/gm, ''))
  const languages = ['README.md', 'README.zh-CN.md']
  return [...lines, ...code, ...links.filter((link) => !languages.includes(link)).toSorted()]
}
