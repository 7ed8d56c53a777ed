/**
 * Proves that the lint configuration finds what it must and lets pass what it may: violations are seeded in
 * a scratch folder that has our .oxlintrc.json, and each has to be reported under its rule.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'

const ROOT = join(import.meta.dirname, '..')
const ISLAND = ['base']
const FLOW = ['base', 'format', 'strategy', 'storage', 'sources', 'repo']
const TOP = [...FLOW, 'protocol', 'backup', 'recovery']

/** What each room may import besides itself; ARCHITECTURE.md draws it. */
const ROOMS: Record<string, string[]> = {
  base: [],
  format: ISLAND,
  strategy: ISLAND,
  protocol: ISLAND,
  storage: ISLAND,
  sources: ISLAND,
  repo: ['base', 'format', 'storage'],
  backup: FLOW,
  recovery: FLOW,
  agent: TOP,
  server: TOP,
  web: ['base', 'strategy', 'protocol'],
  cli: [...TOP, 'agent', 'server', 'web'],
}

const LONG_BODY = '  touch()\n'.repeat(70)

/** File, what stands in it, the rule that must find it; '' where nothing may be found. */
const SEEDS: [path: string, code: string, rule: string][] = [
  ['src/repo/env.ts', `export const home = process.env['HOME']\n`, 'eslint(no-restricted-properties)'],
  ['src/repo/argv.ts', `export const args = process.argv\n`, 'eslint(no-restricted-properties)'],
  ['src/repo/now.ts', `export const now = Date.now()\n`, 'eslint(no-restricted-properties)'],
  ['src/repo/now-taken.ts', `export const { now } = Date\n`, 'eslint(no-restricted-properties)'],
  ['src/repo/chance.ts', `export const chance = Math.random()\n`, 'eslint(no-restricted-properties)'],
  ['src/repo/print.ts', `console.log(1)\n`, 'eslint(no-console)'],
  ['src/repo/swallow.ts', `try {\n  print()\n} catch {}\n`, 'eslint(no-empty)'],
  ['src/repo/default.ts', `export default 1\n`, 'import(no-default-export)'],
  ['src/repo/barrel.ts', `export * from './default.ts'\n`, 'oxc(no-barrel-file)'],
  ['src/repo/any.ts', `export const thing: any = 1\n`, 'typescript(no-explicit-any)'],
  ['src/repo/floating.ts', `Promise.resolve(1)\n`, 'typescript(no-floating-promises)'],
  ['src/repo/cycle-a.ts', `import { b } from './cycle-b.ts'\nexport const a = b\n`, 'import(no-cycle)'],
  ['src/repo/cycle-b.ts', `import { a } from './cycle-a.ts'\nexport const b = a\n`, 'import(no-cycle)'],
  ['src/repo/lines.ts', `export const one = 1\n${'// line\n'.repeat(500)}`, 'eslint(max-lines)'],
  ['src/repo/long.ts', `export function long() {\n${LONG_BODY}}\n`, 'eslint(max-lines-per-function)'],
  ['src/repo/lazy.ts', `export const load = () => import('../cli/x.ts')\n`, 'eslint(no-restricted-imports)'],
  ['src/repo/again.ts', `export { x } from '../backup/x.ts'\n`, 'eslint(no-restricted-imports)'],
  ['src/format/read.ts', `import 'node:fs'\n`, 'import(no-nodejs-modules)'],
  ['src/strategy/seal.ts', `import 'node:crypto'\n`, 'import(no-nodejs-modules)'],
  ['src/format/seal.ts', `import 'node:crypto'\n`, ''],
  ['src/format/read.test.ts', `import 'node:fs'\n`, ''],
  ['src/cli/door.ts', `export const door = [process.env, process.argv, Date.now()]\nconsole.log(door)\n`, ''],
  ['src/base/clock.ts', `export const now = () => Date.now()\n`, ''],
  ['src/base/random.ts', `export const chance = () => Math.random()\n`, ''],
  ['src/repo/some.test.ts', `export function long() {\n${LONG_BODY}}\nexport const now = Date.now()\n`, ''],
  ['src/repo/a.test.ts', `import { it } from 'node:test'\nit('is not awaited', async () => {})\n`, ''],
]

const scratch = mkdtempSync(join(tmpdir(), 'backstock-lint-'))
symlinkSync(join(ROOT, 'node_modules'), join(scratch, 'node_modules'))
after(() => rmSync(scratch, { recursive: true }))

interface Diagnostic {
  code: string
  filename: string
}

/** Lints the given files in the scratch folder; returns the distinct rules found in each. */
function lint(seeds: [path: string, code: string][]): Map<string, Set<string>> {
  for (const name of ['.oxlintrc.json', 'tsconfig.json']) copyFileSync(join(ROOT, name), join(scratch, name))
  for (const [path, code] of seeds) {
    mkdirSync(join(scratch, dirname(path)), { recursive: true })
    writeFileSync(join(scratch, path), code)
  }
  const oxlint = join(ROOT, 'node_modules/oxlint/bin/oxlint')
  const run = spawnSync(process.execPath, [oxlint, '--format=json', 'src'], {
    cwd: scratch,
    encoding: 'utf8',
  })
  const { diagnostics } = JSON.parse(run.stdout) as { diagnostics: Diagnostic[] }
  const found = new Map<string, Set<string>>()
  for (const { filename, code } of diagnostics)
    found.set(filename, (found.get(filename) ?? new Set()).add(code))
  return found
}

test('each room may import the rooms below it and no other', () => {
  const pairs = Object.keys(ROOMS).flatMap((from) => Object.keys(ROOMS).map((to) => [from, to] as const))
  const seeds = pairs
    .filter(([from, to]) => from !== to)
    .map(([from, to]): [string, string] => [
      `src/${from}/deep/uses-${to}.ts`,
      `import type { Thing } from '../../${to}/thing.ts'\nexport type Mine = Thing\n`,
    ])
  const found = lint(seeds)
  for (const [path] of seeds) {
    const [, from = '', , to = ''] = /src\/(\w+)\/(deep)\/uses-(\w+)/.exec(path) ?? []
    const allowed = ROOMS[from]?.includes(to) === true
    assert.equal(found.has(path), !allowed, `src/${from} imports src/${to}`)
  }
  rmSync(join(scratch, 'src'), { recursive: true })
})

test('each rule finds its seeded violation, and the doors are open where they should be', () => {
  const found = lint(SEEDS.map(([path, code]) => [path, code]))
  for (const [path, , rule] of SEEDS) {
    const rules = [...(found.get(path) ?? [])].filter((code) => !code.startsWith('typescript(TS'))
    if (rule === '') assert.deepEqual(rules, [], `${path} breaks no rule`)
    else assert.ok(rules.includes(rule), `${path} breaks ${rule}; found: ${rules.join(', ') || 'nothing'}`)
  }
})
