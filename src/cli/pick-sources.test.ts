import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../protocol/config.ts'
import type { LoadedConfig } from './config-file.ts'
import { pickSources } from './pick-sources.ts'

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
  assert.throws(() => pickSources(config, ['x']), { message: /known: media, logos/ })
  assert.throws(() => pickSources(config, ['constructor']), { code: 'usage.invalid' })
})

test('pickSources() refuses kinds that this version does not have, when they are used', () => {
  const config = loaded({ media: files, orders: { kind: 'postgres', url: 'postgres://db/orders' } })
  assert.deepEqual(names(pickSources(config, ['media'])), ['media'])
  assert.throws(() => pickSources(config, []), {
    code: 'config.invalid',
    message: /"orders": sources of kind postgres/,
  })
})
