import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { commands } from './commands.ts'
import { completionScript } from './completion.ts'

const main = fileURLToPath(new URL('./main.ts', import.meta.url))
const hasShell = (shell: string): boolean => spawnSync(shell, ['-c', 'exit 0']).status === 0

test(
  'the bash script completes commands, options, choices and the names of sources',
  { skip: !hasShell('bash') },
  async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'backstock-completion-'))
    t.after(() => rm(dir, { recursive: true }))
    await writeFile(join(dir, 'backstock'), `#!/bin/sh\nexec ${process.execPath} ${main} "$@"\n`)
    await chmod(join(dir, 'backstock'), 0o755)
    await writeFile(join(dir, 'script'), completionScript('bash'))
    const config = (source: string): string =>
      [
        'shop: acme',
        'repository: { store: file:///x, identity: i }',
        `sources: { ${source}: { kind: files, paths: [/srv] } }\n`,
      ].join('\n')
    await writeFile(join(dir, 'backstock.yaml'), config('media'))
    await writeFile(join(dir, 'other.yaml'), config('logos'))
    await writeFile(join(dir, 'broken.yaml'), 'shop: [')
    const complete = (...words: string[]): string[] => {
      const call = '. ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _backstock'
      const code = `${call}; printf '%s\\n' "\${COMPREPLY[@]}"`
      const env = { ...process.env, PATH: `${dir}:${process.env['PATH']}` }
      const result = spawnSync('bash', ['-c', code, 'bash', 'backstock', ...words], {
        cwd: dir,
        env,
        encoding: 'utf8',
      })
      assert.equal(result.stderr, '')
      return result.stdout.split('\n').filter((line) => line !== '')
    }
    assert.deepEqual(complete('ba'), ['backup'])
    assert.deepEqual(complete('key', 'r'), ['rotate', 'revoke'])
    assert.deepEqual(complete('backup', '--ki'), ['--kind'])
    assert.deepEqual(complete('backup', '--kind', ''), ['auto', 'full', 'differential', 'incremental'])
    assert.deepEqual(complete('backup', ''), ['media'])
    assert.deepEqual(complete('-c', 'other.yaml', 'restore', ''), ['logos'])
    assert.deepEqual(complete('-c', 'broken.yaml', 'restore', ''), [])
    assert.deepEqual(complete('key', 'writer', 'web1', '--out', 'brok'), ['broken.yaml'])
    assert.deepEqual(complete('completion', 'z'), ['zsh'])
  },
)

test('the scripts of zsh and fish name every command and pass their shell’s syntax check', (t) => {
  for (const shell of ['zsh', 'fish'] as const) {
    const script = completionScript(shell)
    for (const name of Object.keys(commands)) assert.ok(script.includes(name.split(' ').at(-1) ?? ''), name)
    assert.ok(!script.includes('undefined'))
    if (!hasShell(shell)) {
      t.diagnostic(`${shell} is not here: its syntax was not checked`)
      continue
    }
    const checked = spawnSync(shell, ['-n'], { input: script, encoding: 'utf8' })
    assert.equal(checked.stderr, '')
  }
})
