import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import fc from 'fast-check'
import { hideUrlPassword, isSecretKey } from './config-problems.ts'
import { jsonSchemaOfConfig, parseConfig } from './config.ts'

const media = { kind: 'files', paths: ['/srv/media'] }
const repository = { store: 'file:///var/backups/acme', identity: '/etc/backstock/identity.age' }
const sound = { shop: 'acme', repository, sources: { media } }

function problemsOf(data: unknown): string[] {
  const result = parseConfig(data)
  return 'problems' in result ? result.problems.map((problem) => problem.message) : []
}

function withSource(keys: Record<string, unknown>): unknown {
  return { ...sound, sources: { media: { ...media, ...keys } } }
}

test('parseConfig() takes the design’s example and fills in defaults', () => {
  const result = parseConfig({
    ...sound,
    sources: {
      orders: { kind: 'postgres', url: 'postgres://backup@db/orders', logs: 'stream' },
      media: {
        ...media,
        exclude: ['*.tmp'],
        excludeLargerThan: '4GiB',
        pages: [{ glob: '*.ibd', pageSize: '16KiB' }],
      },
    },
    schedule: { full: '0 2 * * 0', differential: '0 2 * * 1-6', incremental: '0 * * * *' },
    retention: { keep: { last: 10, daily: 14, weekly: 8, monthly: 12 }, pitr: '14d' },
  })
  assert.ok('config' in result, JSON.stringify(result))
  const source = result.config.sources['media']
  assert.ok(source?.kind === 'files')
  assert.equal(source.excludeLargerThan, 4 * 1024 ** 3)
  assert.deepEqual(source.pages, [{ glob: '*.ibd', pageSize: 16_384 }])
  assert.equal(source.inode, 'use')
  assert.equal(source.cachedirTag, false)
  assert.equal(result.config.retention?.pitr, 14 * 86_400)
})

test('parseConfig() says what was meant by an unknown key', () => {
  assert.deepEqual(problemsOf(withSource({ exlude: ['x'] })), [
    'there is no key "exlude" in sources.media (did you mean "exclude"?)',
  ])
  assert.deepEqual(problemsOf({ ...sound, schedule: { yearly: '' } }), [
    'there is no key "yearly" in schedule; known: full, differential, incremental',
  ])
})

test('parseConfig() never suggests a key that is already there', () => {
  assert.match(problemsOf(withSource({ path: ['/x'] }))[0] ?? '', /known: kind, paths/)
})

test('parseConfig() finds every problem, each once', () => {
  const problems = problemsOf({
    shop: '',
    repository: { ...repository, uploadLimit: 'fast' },
    sources: { Media: media, other: { kind: 'file' } },
  })
  assert.deepEqual(problems, [
    'shop must not be empty',
    'repository.uploadLimit is "fast"; it must be a rate such as 512KiB/s or 10MiB/s',
    'the name "Media" must be 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit',
    'sources.other.kind is "file"; it must be files, postgres, mariadb, redis, sqlite or command ' +
      '(did you mean "files"?)',
  ])
})

test('parseConfig() says what is missing and what is empty', () => {
  assert.deepEqual(problemsOf(null), ['the configuration is empty; it must be a group of keys'])
  assert.deepEqual(problemsOf({ shop: 'acme', repository }), [
    'sources is missing; it must be a group of keys',
  ])
  assert.deepEqual(problemsOf({ ...sound, sources: {} }), ['sources must hold at least one source'])
  assert.deepEqual(problemsOf(withSource({ paths: [] })), ['sources.media.paths must name at least one path'])
})

test('parseConfig() wants exactly one credential', () => {
  const store = repository.store
  assert.match(problemsOf({ ...sound, repository: { store } })[0] ?? '', /must name a credential/)
  const both = problemsOf({ ...sound, repository: { ...repository, writer: '/w' } })
  assert.match(both[0] ?? '', /^repository.writer must go/)
  const locked = problemsOf({ ...sound, repository: { store, writer: '/w', passphrase: { env: 'P' } } })
  assert.match(locked[0] ?? '', /^repository.passphrase must go/)
})

test('parseConfig() never repeats a secret', () => {
  const secrets: unknown[] = [
    'hunter2',
    'hunter2 hunter2',
    { file: ['hunter2'] },
    ['hunter2'],
    { env: 'A', files: 'hunter2' },
  ]
  for (const passphrase of secrets) {
    const problems = problemsOf({ ...sound, repository: { ...repository, passphrase } })
    assert.ok(problems.length > 0)
    assert.doesNotMatch(problems.join(), /hunter2/)
  }
  assert.doesNotMatch(
    problemsOf({ ...sound, repository: { ...repository, uploadLimit: 'sftp://me:hunter2@host/' } }).join(),
    /hunter2/,
  )
})

test('parseConfig() refuses sizes, page sizes and durations that it would have to guess', () => {
  assert.match(problemsOf(withSource({ excludeLargerThan: '1M' })).join(), /is "1M"; it must be a size/)
  assert.match(problemsOf(withSource({ excludeLargerThan: -1 })).join(), /it must be a size/)
  assert.match(problemsOf(withSource({ pages: [{ glob: '*', pageSize: '12KiB' }] })).join(), /must be 4KiB/)
  assert.match(problemsOf(withSource({ hooks: { timeout: 5 } })).join(), /is 5; it must be a duration/)
})

test('parseConfig() takes hooks as shell text and as a list', () => {
  const result = parseConfig(withSource({ hooks: { before: 'sync', after: ['/bin/echo', 'done'] } }))
  assert.ok('config' in result)
  assert.match(problemsOf(withSource({ hooks: { before: [] } })).join(), /hooks.before/)
})

test('parseConfig() answers any data without throwing', () => {
  fc.assert(
    fc.property(fc.anything({ maxDepth: 4 }), fc.anything({ maxDepth: 4 }), (one, other) => {
      assert.ok('problems' in parseConfig(one))
      assert.ok('problems' in parseConfig({ ...sound, sources: { a: other } }))
      parseConfig({ ...sound, repository: other, schedule: one })
    }),
  )
})

test('isSecretKey() and hideUrlPassword() know secrets', () => {
  for (const key of ['passphrase', 'password', 'db_password', 'secretAccessKey', 'api-key', 'token']) {
    assert.ok(isSecretKey(key), key)
  }
  for (const key of ['paths', 'passive', 'store', 'identity', 'keep']) assert.ok(!isSecretKey(key), key)
  assert.equal(hideUrlPassword('postgres://me:pw@db/x'), 'postgres://me:***@db/x')
  assert.equal(hideUrlPassword('file:///var/backups'), 'file:///var/backups')
})

test('backstock.schema.json is what the schema says', async () => {
  const committed = await readFile(new URL('../../backstock.schema.json', import.meta.url), 'utf8')
  assert.equal(
    committed,
    `${JSON.stringify(jsonSchemaOfConfig(), null, 2)}\n`,
    'run: backstock config schema',
  )
})
