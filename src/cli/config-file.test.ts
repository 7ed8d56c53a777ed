import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../base/failure.ts'
import { checkConfigText, configPlaces, loadConfigFile } from './config-file.ts'

const sound = `shop: acme
repository:
  store: file:///var/backups/acme
  identity: identity.age
sources:
  media: { kind: files, paths: [/srv/media] }
`

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'backstock-config-'))
  t.after(() => rm(path, { recursive: true }))
  return path
}

/** `line:column message` of every problem. */
function problemsOf(text: string): string[] {
  const checked = checkConfigText(text)
  return 'problems' in checked
    ? checked.problems.map((one) => `${one.line}:${one.column} ${one.message}`)
    : []
}

async function failureOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => assert.fail('it was taken'),
    (reason: unknown) => reason,
  )
  assert.ok(isFailure(error))
  return `${error.code}: ${error.message}`
}

test('checkConfigText() points at each error', () => {
  const text = sound
    .replace('media: {', 'media: { exlude: [x],')
    .replace('identity:', 'identity: 5 #')
    .concat('schedule: {full: x}\n')
  assert.deepEqual(problemsOf(text), [
    '4:13 repository.identity is 5; it must be text',
    '6:12 there is no key "exlude" in sources.media (did you mean "exclude"?)',
    '7:18 schedule.full is "x"; it must be a cron line of five fields: ' +
      'minute, hour, day of the month, month, day of the week',
  ])
})

test('checkConfigText() refuses a store that no driver can open, beside all other errors', () => {
  const of = (store: string): string[] =>
    problemsOf(sound.replace('file:///var/backups/acme', store).replace('shop: acme', 'shop: 5'))
  for (const [store, says] of [
    ['s3://key:secret@bucket/x', 'repository.store: Cannot open the store "s3:…": no driver has this scheme'],
    ['file://backups/acme', 'its path is relative or names a host'],
    ['file:///a?b', 'it has a query or fragment'],
    ['/', 'it is the root folder'],
    ['file:backups', 'it must be a URL such as'],
  ] as const) {
    const [first, second, ...others] = of(store)
    assert.match(first ?? '', /^1:7 shop is 5/)
    assert.ok(second?.startsWith('3:10 ') === true && second.includes(says), second)
    if (store !== 'file:backups') assert.deepEqual(others, [])
    assert.ok(!second.includes('secret'))
  }
  for (const store of ['repo', './repo', '/var/backups', 'file:///x'])
    assert.equal(of(store).length, 1, store)
})

test('checkConfigText() shows the line with a caret below what is wrong', () => {
  const checked = checkConfigText(sound.replace('files', 'fils'))
  assert.ok('problems' in checked)
  assert.equal(
    checked.problems[0]?.frame,
    '   6 |   media: { kind: fils, paths: [/srv/media] }\n                        ^^^^',
  )
})

test('checkConfigText() puts the caret right below wide characters', () => {
  const checked = checkConfigText(sound.replace('media: {', '日本: {'))
  assert.ok('problems' in checked)
  assert.match(checked.problems[0]?.frame ?? '', /\n {9}\^\^/)
})

test('checkConfigText() explains what is not YAML', () => {
  const cases: [string, RegExp][] = [
    ['shop: a\n\tx: 1\n', /^2:1 a tab is used to indent/],
    ['shop: a\nshop: b\n', /^2:1 this key stands here twice/],
    ['a: b: c\n', /^1:4 .*stands inside another value/],
    ['a: *x\n', /^1:4 an alias/],
    ['a: 1\n---\nb: 2\n', /^2:1 a second document/],
    ['a: "b\n', /not YAML: Missing closing/],
    ['a: [1\n', /not YAML/],
    ['? [a]\n: 1\n', /must be plain text/],
    ['', /^1:1 the configuration is empty/],
    ['# nothing\n', /the configuration is empty/],
    ['just text', /^1:1 the configuration is "just text"; it must be a group of keys/],
    ['- a\n', /the configuration is a list/],
  ]
  for (const [text, message] of cases) assert.match(problemsOf(text)[0] ?? '', message, JSON.stringify(text))
})

test('checkConfigText() stops at a bomb of aliases and at deep nesting', () => {
  const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x]']
  for (let at = 1; at < 12; at++)
    lines.push(
      `a${at}: &a${at} [${Array(9)
        .fill(`*a${at - 1}`)
        .join(', ')}]`,
    )
  assert.match(problemsOf(lines.join('\n')).join(), /unfold to more than 100/)
  assert.ok(problemsOf(`a: ${'['.repeat(5_000)}`).length > 0)
})

test('checkConfigText() follows aliases to the place of an error', () => {
  const text = `${sound}  logos: *l\n`.replace('media: {', 'media: &l { oneFileSystem: yes,')
  assert.deepEqual(
    problemsOf(text).map((one) => one.slice(0, 4)),
    ['6:30', '6:30'],
  )
})

test('no error shows a secret', () => {
  const secrets = [
    'passphrase: hunter2',
    'passphrase: "hunter2',
    'passphrase: |\n    hunter2\n    hunter2',
    'passphrase: { value: hunter2, file: x }',
    'passphrase: { file: [hunter2] }'.replace('file', 'files'),
    'passphrase: [hunter2, hunter2]',
    'passphrase: { env: 5 } #\n  password: hunter2',
    'uploadLimit: sftp://me:hunter2@host/x',
    'identity2: { passphrase: hunter2 }, x',
  ]
  for (const secret of secrets) {
    const checked = checkConfigText(sound.replace('  identity:', `  ${secret}\n  identity:`))
    assert.ok('problems' in checked && checked.problems.length > 0, secret)
    assert.doesNotMatch(JSON.stringify(checked.problems), /hunter2/, secret)
  }
})

test('checkConfigText() answers any text without throwing', () => {
  const word = fc.constantFrom(
    'shop',
    'sources',
    ': ',
    '- ',
    '\n',
    '  ',
    '{',
    '}',
    '[',
    ']',
    '&a ',
    '*a ',
    '"',
    "'",
    '|',
    '\t',
    '#',
    '<<',
    'é',
  )
  fc.assert(
    fc.property(fc.array(word, { maxLength: 40 }), (words) => {
      for (const problem of problemsOf(words.join(''))) assert.match(problem, /^[1-9]\d*:[1-9]\d* /)
    }),
    { numRuns: 500 },
  )
})

test('loadConfigFile() makes paths absolute from the folder of the file', async (t) => {
  const dir = await folder(t)
  const file = join(dir, 'acme.yaml')
  await writeFile(
    file,
    sound.replace('file:///var/backups/acme', 'backups').replace('/srv/media', 'media, /srv/media'),
  )
  const { config } = await loadConfigFile('acme.yaml', dir)
  assert.equal(config.repository.identity, join(dir, 'identity.age'))
  assert.equal(config.repository.store, `file://${dir}/backups`)
  const source = config.sources['media']
  assert.ok(source?.kind === 'files')
  assert.deepEqual(source.paths, [join(dir, 'media'), '/srv/media'])
})

test('loadConfigFile() takes a byte order mark and CRLF', async (t) => {
  const dir = await folder(t)
  await writeFile(join(dir, 'backstock.yaml'), `\ufeff${sound.replaceAll('\n', '\r\n')}`)
  assert.equal((await loadConfigFile(undefined, dir)).config.shop, 'acme')
})

test('loadConfigFile() says what is wrong with the file itself', async (t) => {
  const dir = await folder(t)
  await mkdir(join(dir, 'backstock.yaml'))
  await writeFile(join(dir, 'utf16'), Buffer.from(`\ufeff${sound}`, 'utf16le'))
  await writeFile(join(dir, 'zero'), 'a: \0')
  await writeFile(join(dir, 'latin1'), Buffer.from('shop: caf\xe9', 'latin1'))
  await writeFile(join(dir, 'large'), Buffer.alloc(1024 ** 2 + 1, '#'))
  assert.match(await failureOf(loadConfigFile(undefined, dir)), /^config.invalid: .*it is a folder/)
  assert.match(await failureOf(loadConfigFile('utf16', dir)), /it is UTF-16/)
  assert.match(await failureOf(loadConfigFile('zero', dir)), /zero bytes/)
  assert.match(await failureOf(loadConfigFile('latin1', dir)), /not UTF-8/)
  assert.match(await failureOf(loadConfigFile('large', dir)), /1048577 bytes/)
  assert.match(await failureOf(loadConfigFile('zero/x', dir)), /^config.missing: /)
  assert.match(await failureOf(loadConfigFile('none', dir)), /^config.missing: .*there is no ".*none"/)
})

test('loadConfigFile() names every place where it looked', async (t) => {
  const message = await failureOf(loadConfigFile(undefined, await folder(t)))
  for (const place of configPlaces) assert.ok(message.includes(place))
})

test('loadConfigFile() puts all problems into one failure', async (t) => {
  const dir = await folder(t)
  await writeFile(join(dir, 'backstock.yaml'), 'shp: acme\n')
  const message = await failureOf(loadConfigFile(undefined, dir))
  assert.match(message, /4 errors\n\S+backstock\.yaml:1:1: /)
  assert.match(message, /did you mean "shop"\?/)
})

test('loadConfigFile() warns of secrets that everybody may read', async (t) => {
  const dir = await folder(t)
  const file = join(dir, 'backstock.yaml')
  await writeFile(file, sound.replace('kind: files', 'kind: files'), { mode: 0o644 })
  assert.deepEqual((await loadConfigFile(undefined, dir)).warnings, [])
  await writeFile(join(dir, 'identity.age'), 'AGE-SECRET-KEY-1', { mode: 0o600 })
  await chmod(join(dir, 'identity.age'), 0o644)
  await writeFile(file, `${sound}  orders: { kind: postgres, url: 'postgres://me:pw@db/orders' }\n`)
  const { warnings } = await loadConfigFile(undefined, dir)
  assert.equal(warnings.length, 2)
  assert.match(warnings.join(), /identity\.age" holds a secret/)
  await chmod(file, 0o600)
  await chmod(join(dir, 'identity.age'), 0o600)
  assert.deepEqual((await loadConfigFile(undefined, dir)).warnings, [])
})
