import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../protocol/config.ts'
import type { InputOf } from './commands.ts'
import type { LoadedConfig } from './config-file.ts'
import { parseCommandLine } from './program.ts'
import { pickSources, requireKnownSource, refuseDatabaseOptions } from './pick-sources.ts'

function loaded(sources: Record<string, unknown>): LoadedConfig {
  const result = parseConfig({ shop: 'acme', repository: { store: 'file:///x', identity: '/i' }, sources })
  assert.ok('config' in result)
  return { file: '/backstock.yaml', config: result.config, warnings: [] }
}

const files = { kind: 'files', paths: ['/srv'] }
const names = (picked: readonly { name: string }[]): string[] => picked.map((one) => one.name)

test('pickSources() takes all or the named ones, in the order of the file', () => {
  const config = loaded({ media: files, logos: files, docs: files })
  assert.deepEqual(names(pickSources(config, [])), ['media', 'logos', 'docs'])
  assert.deepEqual(names(pickSources(config, ['docs', 'media', 'docs'])), ['media', 'docs'])
})

test('pickSources() refuses an unknown name with a suggestion', () => {
  const config = loaded({ media: files, logos: files })
  assert.throws(() => pickSources(config, ['meda']), {
    code: 'usage.invalid',
    message: /did you mean "media"\?/,
  })
  assert.throws(() => pickSources(config, ['x']), { message: /known: media, logos\)$/ })
  assert.throws(() => pickSources(config, ['constructor']), { code: 'usage.invalid' })
})

test('requireKnownSource() takes what is configured or stored, and else lists both', () => {
  const config = loaded({ media: files })
  for (const name of ['media', 'dumps']) requireKnownSource(config, name, ['dumps'])
  assert.throws(() => requireKnownSource(config, 'x', ['dumps', 'media']), {
    code: 'usage.invalid',
    message:
      /^Cannot find the source "x": neither \/backstock.yaml nor the repository .*known: media, dumps\)$/,
  })
})

test('pickSources() refuses kinds that this version does not have, when they are used', () => {
  const config = loaded({ media: files, orders: { kind: 'mariadb', url: 'mysql://db/orders' } })
  assert.deepEqual(names(pickSources(config, ['media'])), ['media'])
  assert.throws(() => pickSources(config, []), {
    code: 'config.invalid',
    message: /"orders": kind mariadb is not available yet/,
  })
})

test('refuseDatabaseOptions() lets a restore of files pass, and none of a database’s options', async () => {
  const parse = async (line: string): Promise<InputOf<'restore'>> => {
    const request = await parseCommandLine(`restore media --to x ${line}`.trim().split(' '), '1')
    assert.ok(request.kind === 'run')
    return request.input as InputOf<'restore'>
  }
  refuseDatabaseOptions('media', await parse('--delta --path a --at 2026-11-22'))
  const lines = [
    '--lsn 0/1',
    '--before-xid 7',
    '--name p',
    '--immediate',
    '--exclusive',
    '--timeline 2',
    '--tablespace-map a=b',
  ]
  for (const line of lines) {
    const input = await parse(line)
    const flag = line.split(' ')[0] ?? ''
    assert.throws(() => refuseDatabaseOptions('media', input), {
      code: 'usage.invalid',
      message: `Cannot use ${flag}: "media" holds files, and files have no log (${flag} is for databases)`,
    })
  }
})
