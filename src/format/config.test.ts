import { strict as assert } from 'node:assert'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { testSeed } from '../../test/harness/engine.ts'
import { isFailure } from '../base/failure.ts'
import { ageRecipient, newAgeIdentity } from './age.ts'
import {
  checkFeatures,
  contentFrameBytesMax,
  configName,
  configNumber,
  DEFAULT_CHUNKING,
  parseConfig,
  recipientId,
} from './config.ts'

const seed = testSeed()
const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)
const hex = (bytes: number) => randomBytes(bytes).toString('hex')
const age = ageRecipient(newAgeIdentity()) ?? ''

const domain = {
  id: hex(8),
  name: 'shop-1',
  writer: { name: 'shop-1', signing: hex(32), revoked: null },
  epochs: [
    { epoch: 1, meta: hex(32), data: hex(32) },
    { epoch: 3, meta: hex(32), data: hex(32) },
  ],
  idKeyHash: hex(32),
  indexKeyHash: hex(32),
}
const sound = {
  type: 'config',
  version: 1,
  n: 1,
  previous: null,
  repository: hex(16),
  shop: 'acme',
  created: '2026-11-22T14:33:23.120Z',
  features: { required: [], optional: ['later'] },
  authority: hex(32),
  id: 'hmac-sha256',
  chunking: DEFAULT_CHUNKING,
  parity: null,
  recipients: [{ id: recipientId(age), name: 'kit', role: 'restorer', age }],
  domains: [domain],
}

test('parseConfig() takes a sound config and keeps fields it does not know', () => {
  const later = { ...sound, shelf: 'unknown', domains: [{ ...domain, colour: 'red' }] }
  const config = parseConfig(later, 'config/1')
  assert.deepEqual(config, later)
})

test('parseConfig() refuses whatever is missing or out of bounds, and names the field', () => {
  for (const field of Object.keys(sound).filter((name) => name !== 'parity')) {
    const { [field]: _gone, ...rest } = sound as Record<string, unknown>
    assert.throws(
      () => parseConfig(rest, 'config/1'),
      new RegExp(field === 'features' ? 'features' : `"${field}"`),
    )
  }
  const wrong: Record<string, unknown>[] = [
    { n: 0 },
    { n: 2 },
    { previous: hex(32) },
    { shop: '' },
    { shop: 'a\nb' },
    { created: 'yesterday' },
    { id: 'sha256' },
    { repository: 'XY'.repeat(16) },
    { domains: [domain, domain] },
    { domains: [{ ...domain, epochs: [] }] },
    { domains: [{ ...domain, epochs: domain.epochs.toReversed() }] },
    { domains: Array.from({ length: 5000 }, () => domain) },
    { recipients: [sound.recipients[0], sound.recipients[0]] },
    { recipients: [{ ...sound.recipients[0], id: hex(8) }] },
    { recipients: [{ ...sound.recipients[0], role: 'boss' }] },
    { chunking: { ...DEFAULT_CHUNKING, packBytesMax: 1e12 } },
    { chunking: { ...DEFAULT_CHUNKING, cdc: { ...DEFAULT_CHUNKING.cdc, maxBytes: 1024 } } },
    { features: { required: Array.from({ length: 65 }, () => 'x'), optional: [] } },
  ]
  for (const change of wrong) {
    const label = JSON.stringify(change).slice(0, 80)
    assert.throws(() => parseConfig({ ...sound, ...change }, 'config/1'), fails('repo.corrupt'), label)
  }
  for (const junk of [null, 1, 'config', [], {}])
    assert.throws(() => parseConfig(junk, 'c'), fails('repo.corrupt'))
})

test(`whatever one field holds, it is kept as it is or refused cleanly (SEED=${seed})`, () => {
  const change = fc.record({ field: fc.nat(), value: fc.jsonValue(), inDomain: fc.boolean() })
  fc.assert(
    fc.property(change, ({ field, value, inDomain }) => {
      const names = Object.keys(inDomain ? domain : sound)
      const patch = { [names[field % names.length] ?? '']: value }
      const changed = inDomain ? { ...sound, domains: [{ ...domain, ...patch }] } : { ...sound, ...patch }
      try {
        assert.deepEqual(parseConfig(changed, 'config/1'), changed)
      } catch (error) {
        assert.ok(isFailure(error), String(error))
      }
    }),
    { seed, numRuns: 400 },
  )
})

test('a newer version or an unknown required feature is repo.newer, before anything else', () => {
  const newer = { version: 2, features: { required: [] }, all: 'different' }
  assert.throws(() => parseConfig(newer, 'config/1'), fails('repo.newer'))
  const strange = { ...sound, features: { required: ['sharding'], optional: [] }, recipients: 'elsewhere' }
  assert.throws(() => parseConfig(strange, 'config/1'), /sharding/)
  assert.throws(() => checkFeatures({ version: 1, features: { required: ['x'] } }, 'c'), fails('repo.newer'))
  checkFeatures({ version: 1, features: { required: [] } }, 'c')
})

test('contentFrameBytesMax() is the largest of what a writer may put into one frame', () => {
  const { cdc } = DEFAULT_CHUNKING
  const of = (maxBytes: number, pagesRunBytes: number): number =>
    contentFrameBytesMax({ ...DEFAULT_CHUNKING, cdc: { ...cdc, maxBytes }, pagesRunBytes })
  assert.equal(contentFrameBytesMax(DEFAULT_CHUNKING), 8 * 1024 * 1024)
  assert.equal(of(1_000_000, 2_000_000), 2_000_000)
  assert.equal(of(256, 4096), 320 * 1024, 'small chunks share a frame, whatever their size')
})

test('configNumber() reads only what configName() writes', () => {
  assert.equal(configNumber(configName(12)), 12)
  for (const other of [
    'config/0',
    'config/01',
    'config/x',
    'config/1000001',
    'config/1/2',
    'keys/1',
    'config/',
  ]) {
    assert.equal(configNumber(other), undefined, other)
  }
})
