/** Two writers with one source name, revoked writers, stores that hide, lists under configured names. */
import assert from 'node:assert/strict'
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { afterEach, beforeEach, test } from 'node:test'
import {
  dropHost,
  eventOf,
  eventsOf,
  here,
  makeHost,
  putFile,
  type ShopHost,
  writeConfig,
} from '../harness/shop-host.ts'

let host: ShopHost

beforeEach(async () => {
  host = makeHost()
  putFile(host, 'media/good.txt', 'good')
  assert.equal((await here(host, ['init'])).exit, 0)
})
afterEach(() => dropHost(host))

async function ok(...argv: string[]): Promise<string> {
  const outcome = await here(host, argv)
  assert.equal(outcome.exit, 0, outcome.stderr)
  return outcome.stdout
}

async function refused(...argv: string[]): Promise<string> {
  const outcome = await here(host, [...argv, '--json'])
  const error = eventOf(outcome, 'error')
  assert.equal(error['code'], 'usage.invalid')
  return String(error['message'])
}

async function backUp(...argv: string[]): Promise<string> {
  const outcome = await here(host, ['backup', 'media', '--json', ...argv])
  assert.equal(outcome.exit, 0, outcome.stderr)
  return String(eventOf(outcome, 'summary')['snapshot'])
}

/** A second writer, with a later snapshot of a source of the same name. */
async function addThief(name: string, file: string): Promise<string> {
  await ok('key', 'writer', name, '--out', `${name}.json`)
  rmSync(join(host.media, 'good.txt'), { force: true })
  putFile(host, `media/${file}`, 'bad')
  writeConfig(host, { repository: `store: repo, writer: ${name}.json` })
  const id = await backUp()
  writeConfig(host, {})
  return id
}

test('a later snapshot of another writer under the same name is never taken for ours', async () => {
  const good = await backUp()
  const bad = await addThief('web1', 'bad.txt')
  await ok('restore', 'media', '--to', 'out')
  assert.deepEqual(readdirSync(join(host.dir, `out${host.media}`)), ['good.txt'])
  for (const selector of ['media:latest', 'latest'])
    assert.match(await ok('ls', selector, host.media), /good\.txt/)
  assert.match(await ok('ls', 'web1:media:latest', host.media), /bad\.txt/)
  assert.equal(await ok('cat', `media:${bad}`, join(host.media, 'bad.txt')), 'bad')
  await ok('restore', 'web1:media', '--to', 'theirs')
  assert.ok(existsSync(join(host.dir, `theirs${host.media}`, 'bad.txt')))
  const at = new Date(Date.now() + 3_600_000).toISOString()
  await ok('restore', 'media', '--to', 'then', '--at', at)
  assert.ok(existsSync(join(host.dir, `then${host.media}`, 'good.txt')))
  assert.match(await ok('diff', 'media:latest', 'web1:media:latest'), /- .*good\.txt[^]*|\+ .*bad\.txt/)
  assert.match(await ok('snapshots'), new RegExp(`${good} +[^ ]+:media[^]*${bad} +web1:media`))
  assert.match(
    await ok('find', '*.txt', '--source', 'web1:media'),
    new RegExp(`^web1:media:${bad} .*bad.txt\n$`),
  )
  const theirs = eventsOf(await here(host, ['snapshots', 'web1:media', '--json']))
  assert.deepEqual(
    theirs.map((one) => [one['id'], one['writer']]),
    [
      [bad, 'web1'],
      [undefined, undefined],
    ],
  )
  const rows = eventsOf(await here(host, ['status', '--json'])).filter((one) => one['type'] === 'source')
  assert.deepEqual(
    rows.map((one) => [one['source'], one['snapshots']]),
    [
      ['media', 1],
      ['media', 1],
    ],
  )
})

test('a source of several other writers must be named with its writer', async () => {
  await addThief('web1', 'one.txt')
  await addThief('web2', 'two.txt')
  for (const argv of [
    ['restore', 'media', '--to', 'out'],
    ['ls', 'media:latest'],
    ['ls', 'latest'],
  ])
    assert.match(await refused(...argv), /2 writers have it \(.*web\d:media, web\d:media\)/)
  assert.match(await refused('diff', 'media:latest', 'web1:media:latest'), /2 writers/)
  await ok('restore', 'web2:media', '--to', 'out')
  assert.ok(existsSync(join(host.dir, `out${host.media}`, 'two.txt')))
})

test('what a revoked writer completed later is no restore point, unless its id is named', async () => {
  const early = await addThief('web1', 'early.txt')
  cpSync(join(host.dir, 'repo/config'), join(host.dir, 'config-before'), { recursive: true })
  await ok('key', 'revoke', 'web1')
  cpSync(join(host.dir, 'repo/config'), join(host.dir, 'config-after'), { recursive: true })
  // The thief does not care for the new config: he has the store as it was.
  const thief = { ...host, env: { ...host.env, BACKSTOCK_CACHE_DIR: join(host.dir, 'cache2') } }
  rmSync(join(host.dir, 'repo/config'), { recursive: true })
  cpSync(join(host.dir, 'config-before'), join(host.dir, 'repo/config'), { recursive: true })
  putFile(host, 'media/late.txt', 'late')
  writeConfig(host, { repository: 'store: repo, writer: web1.json' })
  const late = String(eventOf(await here(thief, ['backup', '--json']), 'summary')['snapshot'])
  writeConfig(host, {})
  cpSync(join(host.dir, 'config-after'), join(host.dir, 'repo/config'), { recursive: true })
  const outcome = await here(host, ['ls', 'media:latest', host.media])
  assert.match(outcome.stderr, new RegExp(`${late} does not count: .* after its writer "web1" was revoked`))
  assert.doesNotMatch(outcome.stdout, /late\.txt/)
  const restored = await here(host, ['restore', 'media', '--to', 'out', '--json'])
  assert.equal(eventOf(restored, 'summary')['snapshot'] ?? early, early)
  assert.equal(existsSync(join(host.dir, `out${host.media}`, 'late.txt')), false)
  assert.doesNotMatch(await ok('snapshots'), new RegExp(late))
  const named = await here(host, ['restore', 'media', '--to', 'named', '--snapshot', late])
  assert.equal(named.exit, 0, named.stderr)
  assert.match(named.stderr, /made by a revoked writer/)
  assert.ok(existsSync(join(host.dir, `named${host.media}`, 'late.txt')))
})

test('--stdin and --files-from never become the latest of a configured source', async () => {
  const id = await backUp()
  writeFileSync(join(host.dir, 'list'), 'media/good.txt\n')
  for (const argv of [['media'], [], ['new', 'media']])
    for (const option of [['--stdin'], ['--files-from', 'list'], ['--files-from0', 'list']])
      await refused('backup', ...argv, ...option)
  const listed = await ok('snapshots', '--json')
  assert.equal(listed.match(/"type":"snapshot"/g)?.length, 1)
  await ok('backup', 'picked', '--files-from', 'list')
  assert.equal((await here(host, ['backup', 'dump', '--stdin'], Readable.from([Buffer.from('x')]))).exit, 0)
  const kinds = eventsOf(await here(host, ['snapshots', '--json'])).map((one) => one['sourceKind'])
  assert.deepEqual(kinds, ['files', 'files-list', 'stdin', undefined])
  assert.match(await ok('ls', 'media:latest', host.media), /good/)
  assert.match(await ok('snapshots', 'media'), new RegExp(id))
  assert.doesNotMatch(await ok('status', '--json'), /source\.left/)
})

test('one path that lost all its files is refused though another still has some', async () => {
  writeConfig(host, { sources: '  two: { kind: files, paths: [media, disk] }\n' })
  putFile(host, 'disk/a.jpg', 'a')
  await ok('backup', 'two')
  rmSync(join(host.dir, 'disk/a.jpg'))
  const outcome = await here(host, ['backup', 'two', '--json'])
  assert.equal(outcome.exit, 24)
  assert.equal(eventOf(outcome, 'error')['code'], 'source.emptied')
  assert.match(String(eventOf(outcome, 'error')['message']), /disk/)
  assert.equal((await here(host, ['backup', 'two'])).exit, 24, 'a refused run leaves what is remembered')
  await ok('backup', 'two', '--allow-empty')
  await ok('backup', 'two')
})

test('a backup keeps the evidence that the store hides newer snapshots, until they are back', async () => {
  await backUp()
  const repo = join(host.dir, 'repo')
  cpSync(repo, join(host.dir, 'old'), { recursive: true })
  await backUp()
  cpSync(repo, join(host.dir, 'new'), { recursive: true })
  rmSync(repo, { recursive: true })
  cpSync(join(host.dir, 'old'), repo, { recursive: true })
  for (const round of [1, 2, 3]) {
    const outcome = await here(host, ['backup', 'media', '--json'])
    assert.equal(outcome.exit, 0, outcome.stderr)
    assert.equal((eventOf(outcome, 'summary')['hidden'] as string[]).length, 1, `round ${round}`)
    assert.match(outcome.stderr + outcome.stdout, /than this host has seen/)
    const check = await here(host, ['check', '--json'])
    assert.equal(check.exit, 1)
    assert.match(check.stdout, /stream\.hidden/)
    const status = await here(host, ['status', '--json'])
    assert.equal(status.exit, 1)
    assert.match(status.stdout, /stream\.hidden/)
  }
  assert.match((await here(host, ['backup', 'media'])).stdout, /The store hides snapshots of media/)
  cpSync(join(host.dir, 'new'), repo, { recursive: true })
  const shown = await here(host, ['status', '--json'])
  assert.equal(eventOf(shown, 'summary')['command'], 'status', 'it came to its end')
  assert.doesNotMatch(shown.stdout, /stream\.hidden/)
  const state = readFileSync(
    join(host.dir, 'cache', String(readdirSync(join(host.dir, 'cache'))[0]), 'state.json'),
  )
  assert.match(state.toString(), /missing/)
})

test('junk under a higher config number stops no backup of a host with memory; check finds it', async () => {
  writeFileSync(join(host.dir, 'repo/config/1000000'), 'junk')
  const outcome = await here(host, ['backup', 'media'])
  assert.equal(outcome.exit, 0, outcome.stderr)
  assert.match(outcome.stderr, /config\/1000000.* passed over/)
  const check = await here(host, ['check', '--json'])
  assert.equal(check.exit, 1)
  assert.match(check.stdout, /"config\.corrupt"/)
  rmSync(join(host.dir, 'cache'), { recursive: true })
  assert.equal((await here(host, ['snapshots'])).exit, 23, 'without memory it could be a lost revocation')
})
