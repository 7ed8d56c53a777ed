/** Seeds one violation of each rule of tidy.ts and one near miss. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tidyFile, tidyRooms } from './tidy.ts'

const WIDE = 'x'.repeat(111)

/** File, what stands in it, what the finding says; '' where there must be none. */
const SEEDS: [path: string, text: string, finding: string][] = [
  ['src/repo/pack.ts', `const a = '${WIDE}'`, '123 columns, at most 110'],
  ['src/repo/pack.ts', `// https://example.com/${WIDE}`, ''],
  ['src/repo/pack.ts', ` * | ${WIDE} |`, ''],
  ['src/repo/pack.ts', `/** ${'x'.repeat(110)} */`, ''],
  ['src/repo/pack.ts', `/** ${WIDE} */`, '111 columns'],
  ['src/repo/utils.ts', '', '"utils" says nothing'],
  ['src/repo/pack-helpers.ts', '', '"pack-helpers" says nothing'],
  ['src/common/pack.ts', '', '"common" says nothing'],
  ['src/repo/index.ts', '', '"index" says nothing'],
  ['src/repo/types.ts', '', '"types" says nothing'],
  ['src/repo/chunk-index.ts', '', ''],
  ['src/repo/packWriter.ts', '', 'not kebab-case'],
  ['src/pack.ts', '', 'lies in no room'],
  ['src/repo/pack.ts', '// TO' + 'DO: later', 'is banned: do it'],
  ['src/repo/pack.ts', `mkdtemp('a-XXXXXX')`, ''],
  ['src/repo/pack.ts', 'const now = new Date()', 'take a Clock'],
  ['src/repo/pack.ts', 'const then = new Date(ms)', ''],
  ['src/repo/pack.test.ts', 'const now = new Date()', ''],
  ['src/repo/pack.ts', `import { env } from 'node:process'`, 'only src/cli reads them'],
  ['src/repo/pack.ts', `new URL('./cut-worker.ts', import.meta.url)`, 'ends in .js'],
  ['src/repo/pack.ts', `import { x } from '../../test/harness/x.ts'`, 'stands without tests'],
  ['src/repo/pack.test.ts', `import { x } from '../../test/harness/x.ts'`, ''],
]

for (const [path, text, finding] of SEEDS) {
  test(`tidyFile() ${finding === '' ? 'accepts' : 'finds'} ${path}: ${text.slice(0, 50)}`, () => {
    const findings = tidyFile(path, text)
    assert.equal(findings.length, finding === '' ? 0 : 1, findings.join('\n'))
    assert.ok((findings[0] ?? '').includes(finding))
  })
}

test('tidyRooms() wants each room on the map and behind a fence', () => {
  const lint = '"files": ["src/repo/**"]'
  assert.deepEqual(tidyRooms(['repo', 'cli'], 'src/repo/ src/cli/', lint), [])
  assert.deepEqual(tidyRooms(['attic'], 'src/repo/', lint), [
    'ARCHITECTURE.md: does not name src/attic/',
    '.oxlintrc.json: has no import fence for src/attic/',
  ])
})
