import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { rawPath } from '../../base/file-entry.ts'
import { compilePatterns, decideExclude, patternLines } from './patterns.ts'

/** What patterns are made of. */
const PIECES =
  'a b ab B * ? ** *** / / \\* \\ [ab] [!a] [^b] [a-c] []a] [!]a] [[:alpha:]] [[:nope:]] [ ] ! # . - [b-a]'
    .split(' ')
    .concat('[\\]a]', '[a-]', ' ', '\\ ')

/** As the walk asks, for a path of which no parent is excluded. */
function verdict(patterns: string[], path: string, isFolder = false): boolean | undefined {
  const name = path.slice(path.lastIndexOf('/') + 1)
  return decideExclude(compilePatterns(patterns, 'path'), { name, path, absolute: `srv/${path}`, isFolder })
}

test('`decideExclude()` anchors a pattern by where its slashes are', () => {
  const subject = { name: 'cache', path: 'a/cache', absolute: 'srv/media/a/cache', isFolder: true }
  const decide = (pattern: string, leading: 'root' | 'path'): boolean | undefined =>
    decideExclude(compilePatterns([pattern], leading), subject)
  assert.equal(decide('cache', 'root'), true)
  assert.equal(decide('a/cache', 'root'), true)
  assert.equal(decide('media/a/cache', 'root'), undefined)
  assert.equal(decide('/srv/media/a/cache', 'root'), true)
  assert.equal(decide('/srv/**/cache/', 'root'), true)
  assert.equal(decide('/a/cache', 'root'), undefined)
  assert.equal(decide('/a/cache', 'path'), true)
})

test('`decideExclude()` lets the last pattern that speaks win', () => {
  assert.equal(verdict(['*.log', '!keep.log'], 'keep.log'), false)
  assert.equal(verdict(['!keep.log', '*.log'], 'keep.log'), true)
  assert.equal(verdict(['*.log'], 'keep.txt'), undefined)
})

test('`decideExclude()` takes names that are not UTF-8 byte by byte', () => {
  assert.equal(verdict(['caf?'], 'caf\xe9'), true)
  assert.equal(verdict([rawPath('*.Voilà')], rawPath('x.Voilà')), true)
  // The last byte of `à` is a no-break space in latin1: it must not be trimmed as a blank.
  assert.equal(verdict([rawPath('*.Voilà')], 'x.Voil\xc3'), undefined)
  assert.equal(verdict(['\xff*'], '\xfe\xff'), undefined)
  assert.equal(verdict(['new*line'], 'new\nline'), true)
})

test('`patternLines()` drops a byte order mark and carriage returns', () => {
  assert.deepEqual(patternLines(Buffer.from('\ufeff*.tmp\r\n#no\n\ncaf\u00e9')), [
    '*.tmp',
    '#no',
    '',
    'caf\xc3\xa9',
  ])
  assert.equal(compilePatterns(['*.tmp', '#no', '', '   ', '/'], 'path').length, 1)
})

test('`decideExclude()` reads the lower end of an empty range alone, as git does', () => {
  assert.equal(verdict(['[b-a]'], 'b'), true)
  assert.equal(verdict(['[b-a]'], 'a'), undefined)
})

test('`decideExclude()` agrees with git on any pattern and path', () => {
  const dir = mkdtempSync(join(tmpdir(), 'backstock-patterns-'))
  try {
    execFileSync('git', ['init', '-q', dir])
    const piece = fc.constantFrom(...PIECES)
    const line = fc.array(piece, { minLength: 1, maxLength: 7 }).map((pieces) => pieces.join(''))
    const name = fc.array(
      fc.constantFrom('a', 'b', 'c', 'B', '*', '\\', ' ', '[', ']', '!', '#', '.x', '-'),
      {
        minLength: 1,
        maxLength: 3,
      },
    )
    const path = fc
      .array(
        name.map((chars) => chars.join('')),
        { minLength: 1, maxLength: 3 },
      )
      .map((names) => names.join('/'))
    const check = fc.property(
      fc.array(line, { minLength: 1, maxLength: 4 }),
      fc.array(path, { maxLength: 12 }),
      (lines, paths) => {
        const asked = paths.filter(
          (given) => !given.split('/').some((part) => /^\.{1,2}$/.test(part) || part === '.git'),
        )
        if (asked.length === 0) return
        writeFileSync(join(dir, '.gitignore'), lines.join('\n'))
        assert.deepEqual(
          asked.map((given) => walkVerdict(lines, given)),
          askGit(dir, asked),
          JSON.stringify(lines),
        )
      },
    )
    fc.assert(check, { numRuns: 500 })
  } finally {
    rmSync(dir, { recursive: true })
  }
})

/** Excluded itself, or by one of its folders. */
function walkVerdict(lines: string[], path: string): boolean {
  const names = path.split('/')
  return names.some(
    (_, nth) => verdict(lines, names.slice(0, nth + 1).join('/'), nth < names.length - 1) === true,
  )
}

function askGit(dir: string, paths: string[]): boolean[] {
  const input = paths.map((path) => `${path}\0`).join('')
  const asked = spawnSync('git', ['-C', dir, 'check-ignore', '--no-index', '-z', '-v', '-n', '--stdin'], {
    input,
    encoding: 'latin1',
  })
  assert.equal(asked.stderr, '')
  // Four fields a path: file, line, pattern, path.
  const fields = asked.stdout.split('\0')
  return paths.map((_, nth) => (fields[nth * 4] ?? '') !== '' && !(fields[nth * 4 + 2] ?? '').startsWith('!'))
}
