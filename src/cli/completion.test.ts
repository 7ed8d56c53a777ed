/** The completion scripts, asked in the shells that they are for: what is offered at the end of a line? */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { commands } from './commands.ts'
import { completionScript, type Shell } from './completion.ts'

const main = fileURLToPath(new URL('./main.ts', import.meta.url))
/** zsh completes only at a terminal: types the line and a tab into a shell that has one. */
const zshLine = `
zmodload zsh/zpty
zpty shell TERM=dumb zsh -f -i
zpty -w shell 'source ./shell.zsh'
while zpty -r shell text '*ready-to-type*'; do break; done
zpty -w -n shell "$1"$'\\t'
while zpty -r shell text; do :; done
`

/** That shell: notes what matches, and ends. */
const zshShell = `
fpath=($PWD $fpath)
autoload -U compinit
compinit -u -d ./dump
bindkey '^I' complete-word
compadd() {
  if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
  local -a hits
  builtin compadd -A hits "$@"
  print -rl -- $hits >> found
  builtin compadd "$@"
}
compfinish() { exit }
comppostfuncs=(compfinish)
print -n > found
echo ready-to-''type
`

const dir = mkdtempSync(join(tmpdir(), 'backstock-completion-'))
after(() => rmSync(dir, { recursive: true }))

before(() => {
  const place = (name: string, text: string): void => writeFileSync(join(dir, name), text)
  place('backstock', `#!/bin/sh\nexec ${process.execPath} ${main} "$@"\n`)
  chmodSync(join(dir, 'backstock'), 0o755)
  mkdirSync(join(dir, 'folder'))
  for (const shell of ['bash', 'zsh', 'fish'] as const) place(`script.${shell}`, completionScript(shell))
  place('_backstock', completionScript('zsh'))
  place('backstock.yaml', config('media'))
  place('other.yaml', config('logos'))
  place('broken.yaml', 'shop: [')
  place('line.zsh', zshLine)
  place('shell.zsh', zshShell)
})

function config(source: string): string {
  return `shop: acme
repository: { store: file:///x, identity: i }
sources: { ${source}: { kind: files, paths: [/srv] } }
`
}

function runShell(shell: Shell, ...argv: string[]): string {
  const env = { ...process.env, PATH: `${dir}:${process.env['PATH']}`, HOME: dir, XDG_CONFIG_HOME: dir }
  const result = spawnSync(shell, argv, { cwd: dir, env, encoding: 'utf8', timeout: 30_000 })
  assert.deepEqual([result.status, result.stderr], [0, ''])
  return result.stdout
}

/** What each shell says to a line that ends where the cursor stands. */
const shells: Record<Shell, (line: string) => string> = {
  bash: (line) => {
    const call = '. ./script.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _backstock'
    return runShell('bash', '-c', `${call}; printf '%s\\n' "\${COMPREPLY[@]}"`, 'bash', ...line.split(' '))
  },
  zsh: (line) => {
    runShell('zsh', '-f', 'line.zsh', line)
    return readFileSync(join(dir, 'found'), 'utf8')
  },
  fish: (line) => runShell('fish', '--no-config', '-c', `source script.fish; complete -C '${line}'`),
}

for (const [shell, offers] of Object.entries(shells)) {
  const isThere = spawnSync(shell, ['-c', 'exit 0']).status === 0
  test(`${shell} completes commands, options, choices and the names of sources`, { skip: !isThere }, () => {
    for (const [line, expected] of [
      ['ba', ['backup']],
      ['key r', ['revoke', 'rotate']],
      ['help sta', ['status']],
      ['backup --ki', ['--kind']],
      ['backup --kind ', ['auto', 'differential', 'full', 'incremental']],
      ['backup --tag x --ki', ['--kind']],
      ['backup ', ['media']],
      ['status --json ', ['media']],
      ['find --source ', ['media']],
      ['-c other.yaml restore ', ['logos']],
      ['restore -c other.yaml ', ['logos']],
      ['-c broken.yaml restore ', []],
      ['restore media --de', ['--delta']],
      ['restore media --to fo', ['folder']],
      ['key writer web1 --out brok', ['broken.yaml']],
      ['completion z', ['zsh']],
    ] as const) {
      const words = offers(`backstock ${line}`)
        .split('\n')
        // fish adds what a word means, and a slash to folders.
        .map((one) => one.split('\t')[0]?.replace(/\/$/, '') ?? '')
        .filter((one) => one !== '')
      assert.deepEqual([...new Set(words)].toSorted(), expected, line)
    }
  })
}

test('every script names every command', () => {
  for (const shell of ['bash', 'zsh', 'fish'] as const) {
    const script = completionScript(shell)
    for (const name of Object.keys(commands)) assert.ok(script.includes(name.split(' ').at(-1) ?? ''), name)
    assert.ok(!script.includes('undefined'))
  }
})
