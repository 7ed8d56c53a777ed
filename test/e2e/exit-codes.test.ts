/** What goes wrong on real hosts, told apart by exit status and said in words. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, afterEach, before, test } from 'node:test'
import { asPlainUser } from '../harness/local-place.ts'
import {
  dropHost,
  type Event,
  eventOf,
  eventsOf,
  here,
  makeHost,
  putFile,
  run,
  type ShopHost,
  writeConfig,
} from '../harness/shop-host.ts'
import { growDisk, mountDisk, unmountDisk } from '../harness/small-disk.ts'

const isRoot = process.getuid?.() === 0
let host: ShopHost
let snapshot = ''

before(async () => {
  host = makeHost()
  putFile(host, 'media/a.txt', 'a')
  putFile(host, 'media/sub/b.txt', 'b')
  assert.equal((await here(host, ['init'])).exit, 0)
  snapshot = String(eventOf(await here(host, ['backup', '--json']), 'summary')['snapshot'])
})
after(() => dropHost(host))
afterEach(() => writeConfig(host, {}))

async function code(argv: readonly string[]): Promise<[exit: number, code: unknown, message: string]> {
  const outcome = await here(host, [...argv, '--json'])
  const [error] = eventsOf(outcome).filter((event) => event['type'] === 'error')
  return [outcome.exit, error?.['code'], String(error?.['message'])]
}

async function snapshotCount(): Promise<number> {
  return eventsOf(await here(host, ['snapshots', '--json'])).filter((one) => one['type'] === 'snapshot')
    .length
}

test('10: there is no repository, in whichever way', () => {
  const empty = makeHost()
  try {
    for (const argv of [['snapshots'], ['backup'], ['status'], ['restore', 'media', '--to', 'x']]) {
      const outcome = run(empty, argv)
      assert.equal(outcome.exit, 10, `${argv.join(' ')}: ${outcome.stderr}`)
      assert.match(outcome.stderr, /there is none\n +Run `backstock init` first/)
    }
    mkdirSync(join(empty.dir, 'repo'))
    assert.equal(run(empty, ['snapshots']).exit, 10)
  } finally {
    dropHost(empty)
  }
})

test('22: the store of a repository that this host knows is not there', async () => {
  renameSync(join(host.dir, 'repo'), join(host.dir, 'unmounted'))
  try {
    const [exit, name] = await code(['backup'])
    assert.deepEqual([exit, name], [22, 'storage.offline'])
  } finally {
    renameSync(join(host.dir, 'unmounted'), join(host.dir, 'repo'))
  }
})

test('22: the store may not be written to', async () => {
  const had = await snapshotCount()
  if (isRoot) {
    const repo = join(host.dir, 'repo')
    const mounted = spawnSync('mount', ['--bind', '-o', 'ro', repo, repo]).status === 0
    if (!mounted) return
    try {
      const [exit, name] = await code(['backup'])
      assert.deepEqual([exit, name], [22, 'storage.readonly'])
      assert.equal((await here(host, ['ls', 'latest'])).exit, 0)
    } finally {
      spawnSync('umount', [repo])
    }
  } else {
    chmodSync(join(host.dir, 'repo'), 0o500)
    try {
      assert.equal((await code(['backup']))[0], 22)
    } finally {
      chmodSync(join(host.dir, 'repo'), 0o700)
    }
  }
  assert.equal(await snapshotCount(), had)
})

test('21: the store is full; after making room the next run succeeds', { skip: !isRoot }, async (context) => {
  const small = makeHost({ repository: 'store: disk/repo, identity: identity.age' })
  const disk = join(small.dir, 'disk')
  mkdirSync(disk)
  if (!mountDisk(disk, '3m')) {
    dropHost(small)
    return context.skip('cannot mount a tmpfs here')
  }
  try {
    assert.equal((await here(small, ['init'])).exit, 0)
    putFile(small, 'media/fits', Buffer.alloc(500_000, 1))
    assert.equal((await here(small, ['backup'])).exit, 0)
    const bytes = Buffer.alloc(6_000_000)
    for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(Math.imul(at, 2_654_435_761) >>> 0, at)
    putFile(small, 'media/too-much', bytes)
    const full = await here(small, ['backup', '--json'])
    assert.equal(full.exit, 21, full.stdout)
    const listed = eventsOf(await here(small, ['snapshots', '--json'])).filter(
      (one) => one['type'] === 'snapshot',
    )
    assert.equal(listed.length, 1)
    growDisk(disk, '30m')
    assert.equal((await here(small, ['backup'])).exit, 0)
    assert.equal((await here(small, ['check', '--read-data'])).exit, 0)
  } finally {
    unmountDisk(disk)
    dropHost(small)
  }
  return undefined
})

test('12: a key that is wrong, foreign, cut short, missing or no key at all', async () => {
  const use = (identity: string): void =>
    writeConfig(host, { repository: `store: repo, identity: ${identity}` })
  const kit = readFileSync(join(host.dir, 'identity.age'), 'utf8')
  const other = makeHost()
  try {
    await here(other, ['init'])
    cpSync(join(other.dir, 'identity.age'), join(host.dir, 'foreign.age'))
  } finally {
    dropHost(other)
  }
  const foreign = readFileSync(join(host.dir, 'foreign.age'), 'utf8')
  const repositoryLine = /# repository: .*/.exec(kit)?.[0] ?? ''
  const wrong = foreign.replace(/# repository: .*/, repositoryLine)
  const files: [name: string, content: string, expected: string][] = [
    ['foreign.age', foreign, 'repo.foreign'],
    ['wrong.age', wrong, 'key.wrong|repo.forged'],
    ['cut.age', kit.slice(0, -20), 'key.invalid'],
    ['cut2.age', kit.slice(0, 40), 'key.invalid'],
    ['none.age', 'hello\n', 'key.invalid'],
    ['empty.age', '', 'key.invalid'],
  ]
  for (const [name, content, expected] of files) {
    writeFileSync(join(host.dir, name), content, { mode: 0o600 })
    use(name)
    for (const argv of [['snapshots'], ['backup'], ['restore', 'media', '--to', 'x']]) {
      const [exit, got, message] = await code(argv)
      assert.match(String(got), new RegExp(`^(${expected})$`), `${name} ${argv[0]}: ${message}`)
      if (got !== 'repo.forged') assert.equal(exit, 12, name)
      assert.doesNotMatch(message, /AGE-SECRET-KEY-1[A-Z0-9]/, 'no message quotes a key')
    }
  }
  writeConfig(host, {})
  const added = await here(host, ['key', 'add', 'foo'])
  assert.equal(added.exit, 12)
  assert.match(added.stderr, /not the age1… key of an identity\n {2}Give the public half of an identity/)
  use('absent.age')
  assert.deepEqual((await code(['snapshots'])).slice(0, 2), [12, 'key.missing'])
})

test('12: an identity locked with a passphrase opens with it alone', async () => {
  const locked = makeHost({
    repository: 'store: repo, identity: id.age, passphrase: { env: BACKSTOCK_PASS }',
  })
  const withPass = (word: string | undefined): ShopHost => ({
    ...locked,
    env: { ...locked.env, BACKSTOCK_PASS: word },
  })
  try {
    const made = await here(withPass('horse'), ['init'])
    assert.equal(made.exit, 0)
    assert.match(readFileSync(join(locked.dir, 'id.age'), 'utf8'), /^-----BEGIN AGE ENCRYPTED FILE-----/)
    assert.match(made.stdout, /^-----BEGIN AGE ENCRYPTED FILE-----\n[^]*-----END AGE ENCRYPTED FILE-----\n/)
    assert.doesNotMatch(made.stdout + made.stderr, /AGE-SECRET-KEY|authority-key|horse/)
    assert.equal((await here(withPass('horse'), ['snapshots'])).exit, 0)
    const wrong = await here(withPass('donkey'), ['snapshots', '--json'])
    assert.deepEqual([wrong.exit, eventOf(wrong, 'error')['code']], [12, 'key.wrong'])
    assert.equal((await here(withPass(undefined), ['snapshots'])).exit, 20)
    writeConfig(locked, { repository: 'store: repo, identity: id.age' })
    const missing = await here(locked, ['snapshots', '--json'])
    assert.deepEqual([missing.exit, eventOf(missing, 'error')['code']], [12, 'key.missing'])
    const passphrase = 'passphrase: { env: BACKSTOCK_PASS }'
    writeConfig(locked, { repository: `store: other, identity: plain.age, ${passphrase}` })
    cpSync(join(host.dir, 'identity.age'), join(locked.dir, 'plain.age'))
    const refused = await here(withPass('horse'), ['init', '--json'])
    assert.deepEqual([refused.exit, eventOf(refused, 'error')['code']], [20, 'config.invalid'])
    assert.match(String(eventOf(refused, 'error')['message']), /plain\.age" is not locked/)
  } finally {
    dropHost(locked)
  }
})

test('12: a writer backs up and lists, and reads nothing; revoked, it does not even write', async () => {
  assert.equal((await here(host, ['key', 'writer', 'web1', '--out', 'web1.json'])).exit, 0)
  writeConfig(host, { repository: 'store: repo, writer: web1.json, cache: web1-cache' })
  assert.equal((await here(host, ['backup', 'media', '--kind', 'full'])).exit, 0)
  assert.equal((await here(host, ['backup', 'media'])).exit, 0)
  assert.equal((await here(host, ['snapshots'])).exit, 0)
  assert.equal((await here(host, ['status'])).exit, 0)
  const newest = eventsOf(await here(host, ['snapshots', '--latest', '1', '--json']))[0]
  const id = String(newest?.['id'])
  for (const argv of [
    ['restore', 'media', '--to', 'stolen', '--snapshot', id],
    ['restore', 'media', '--to', 'stolen', '--snapshot', snapshot],
    ['cat', id, `${host.media}/a.txt`],
    ['ls', id],
    ['find', '*'],
    ['diff', snapshot, id],
    ['key', 'rotate'],
    ['key', 'writer', 'web2', '--out', 'web2.json'],
  ]) {
    const [exit, name, message] = await code(argv)
    assert.deepEqual([exit, name], [12, 'key.role'], `${argv.join(' ')}: ${message}`)
  }
  assert.equal(existsSync(join(host.dir, 'stolen', host.media)), false)
  assert.equal(existsSync(join(host.dir, 'web2.json')), false)
  const credential = readFileSync(join(host.dir, 'web1.json'), 'utf8')
  writeFileSync(join(host.dir, 'web1-cut.json'), credential.slice(0, 300), { mode: 0o600 })
  writeConfig(host, { repository: 'store: repo, writer: web1-cut.json, cache: web1-cache' })
  assert.deepEqual((await code(['backup'])).slice(0, 2), [12, 'key.invalid'])

  writeConfig(host, {})
  assert.equal((await here(host, ['key', 'revoke', 'web1'])).exit, 0)
  const list = eventsOf(await here(host, ['key', 'list', '--json']))
  assert.notEqual(list.find((one) => one['name'] === 'web1')?.['revoked'], null)
  writeConfig(host, { repository: 'store: repo, writer: web1.json, cache: web1-cache' })
  assert.deepEqual((await code(['backup'])).slice(0, 2), [12, 'key.revoked'])
  writeConfig(host, {})
  const what = ['restore', 'media', '--to', 'by-writer', '--snapshot', id]
  assert.equal((await here(host, what)).exit, 0)
})

test('a janitor lists and reads no contents; a revoked one cannot open the repository', async () => {
  assert.equal((await here(host, ['key', 'janitor', 'nightly', '--out', 'nightly.age'])).exit, 0)
  const asJanitor = (): void =>
    writeConfig(host, { repository: 'store: repo, identity: nightly.age, cache: j-cache' })
  asJanitor()
  assert.equal((await here(host, ['snapshots'])).exit, 0)
  for (const argv of [
    ['ls', snapshot],
    ['cat', snapshot, `${host.media}/a.txt`],
    ['key', 'rotate'],
  ]) {
    assert.deepEqual((await code(argv)).slice(0, 2), [12, 'key.role'], argv.join(' '))
  }
  assert.deepEqual((await code(['backup'])).slice(0, 2), [12, 'key.missing'])
  writeConfig(host, {})
  assert.equal((await here(host, ['key', 'revoke', 'nightly'])).exit, 0)
  asJanitor()
  assert.deepEqual((await code(['snapshots'])).slice(0, 2), [12, 'key.wrong'])
})

test('after rotating keys, old and new backups open', async () => {
  assert.equal((await here(host, ['key', 'rotate'])).exit, 0)
  putFile(host, 'media/rotated.txt', 'r')
  assert.equal((await here(host, ['backup'])).exit, 0)
  assert.equal((await here(host, ['cat', 'latest', `${host.media}/rotated.txt`])).stdout, 'r')
  assert.equal((await here(host, ['cat', snapshot, `${host.media}/a.txt`])).stdout, 'a')
  assert.equal((await here(host, ['check', '--read-data'])).exit, 0)
})

test('3: what cannot be read is named, the rest is backed up', async () => {
  putFile(host, 'locked/secret.txt', 's')
  putFile(host, 'locked/open.txt', 'o')
  chmodSync(join(host.dir, 'locked/secret.txt'), 0)
  writeConfig(host, { sources: '  locked: { kind: files, paths: [locked] }\n' })
  const openTo = ['', 'repo', 'cache'].map((name) => join(host.dir, name))
  if (isRoot) for (const path of openTo) spawnSync('chown', ['-R', '65534', path])
  try {
    const outcome = await asPlainUser(() => here(host, ['backup', 'locked', '--json']))
    assert.equal(outcome.exit, 3, outcome.stdout)
    const error = eventOf(outcome, 'error')
    assert.equal((error['facts'] as Event)['path'], join(host.dir, 'locked/secret.txt'))
    assert.equal((error['facts'] as Event)['errno'], 'EACCES')
    assert.equal(eventOf(outcome, 'summary')['partial'], true)
  } finally {
    if (isRoot) for (const path of openTo) spawnSync('chown', ['-R', '0', path])
  }
  assert.match((await here(host, ['status'])).stdout, /the latest snapshot of "locked" had 1 problem/)
})

test('24: a source whose disk is gone; the others are backed up all the same', async () => {
  writeConfig(host, {
    sources: '  gone: { kind: files, paths: [nowhere] }\n  there: { kind: files, paths: [media] }\n',
  })
  const outcome = await here(host, ['backup', '--json'])
  assert.equal(outcome.exit, 24)
  assert.equal(eventOf(outcome, 'error')['code'], 'source.missing')
  const sources = eventOf(outcome, 'summary')['sources'] as Event[]
  assert.deepEqual(
    sources.map((one) => [one['source'], one['exit']]),
    [
      ['media', 0],
      ['gone', 24],
      ['there', 0],
    ],
  )
  writeConfig(host, { media: ', sentinel: .backstock-sentinel' })
  assert.deepEqual((await code(['backup'])).slice(0, 2), [24, 'source.missing'])
  writeConfig(host, { media: ', mountpoint: true' })
  assert.deepEqual((await code(['backup'])).slice(0, 2), [24, 'source.missing'])
})

test('24: a source that has become empty is stored only when told', async () => {
  renameSync(host.media, `${host.media}-away`)
  mkdirSync(host.media)
  const had = await snapshotCount()
  try {
    assert.deepEqual((await code(['backup'])).slice(0, 2), [24, 'source.emptied'])
    assert.equal(await snapshotCount(), had)
    const allowed = await here(host, ['backup', '--allow-empty'])
    assert.equal(allowed.exit, 0)
    assert.match(allowed.stderr, /has shrunk/)
  } finally {
    rmSync(host.media, { recursive: true })
    renameSync(`${host.media}-away`, host.media)
  }
  assert.equal((await here(host, ['backup'])).exit, 0)
})

test('27: a failing hook: before stops the source, after does not take the snapshot away', async () => {
  const hooks = (text: string): void => writeConfig(host, { media: `, hooks: { ${text} }` })
  const had = await snapshotCount()
  hooks(
    `before: "echo from the hook; exit 1", onFailure: "echo $BACKSTOCK_STATUS > ${join(host.dir, 'failed')}"`,
  )
  const stopped = await here(host, ['backup'])
  assert.equal(stopped.exit, 27)
  assert.match(stopped.stderr, /media before: from the hook\n[^]*nothing was backed up/)
  assert.equal(await snapshotCount(), had)
  hooks('before: [/bin/sh, -c, "exit 0"], after: "exit 9"')
  const [exit, name] = await code(['backup'])
  assert.deepEqual([exit, name], [27, 'host.hook'])
  assert.equal(await snapshotCount(), had + 1)
})

test('20: what is typed or written wrong', async () => {
  assert.equal((await here(host, ['backup', 'medla'])).exit, 20)
  assert.equal((await here(host, ['backup', '--kind', 'some'])).exit, 20)
  assert.equal((await here(host, ['cat', 'latest', '/nowhere'])).exit, 20)
  assert.equal((await here(host, ['cat', 'latest', host.media])).exit, 20)
  assert.equal((await here(host, ['ls', '2'])).exit, 20)
  writeConfig(host, { media: ', exlude: [x]' })
  assert.equal((await here(host, ['backup'])).exit, 20)
})

test('20: a source that is neither configured nor stored; the others are listed', async () => {
  for (const argv of [
    ['snapshots', 'nosuch'],
    ['snapshots', 'web9:media'],
    ['status', 'nosuch'],
    ['find', '*', '--source', 'nosuch'],
    ['restore', 'nosuch', '--to', 'x'],
  ]) {
    const [exit, name, message] = await code(argv)
    assert.deepEqual([exit, name], [20, 'usage.invalid'], argv.join(' '))
    assert.match(message, /^Cannot find the source "\S+": neither .* \(known: media, /)
  }
})

test('`status` ends with 1 when a configured source has no snapshot, with 0 when each has one', async () => {
  writeConfig(host, { sources: '  later: { kind: files, paths: [media] }\n' })
  const without = await here(host, ['status', '--json'])
  assert.equal(without.exit, 1)
  const errors = eventsOf(without).filter((event) => event['severity'] === 'error')
  assert.deepEqual(
    errors.map((event) => event['message']),
    ['"later" was never backed up'],
  )
  assert.equal(eventOf(without, 'summary')['errors'], 1)
  assert.equal((await here(host, ['status', 'media'])).exit, 0)
  assert.equal((await here(host, ['backup', 'later'])).exit, 0)
  assert.equal((await here(host, ['status'])).exit, 0)
  // What is stored and not configured may be asked for too.
  writeConfig(host, {})
  assert.equal((await here(host, ['status', 'later'])).exit, 0)
})

test('1: there is no such snapshot', async () => {
  assert.deepEqual((await code(['ls', 'zzz'])).slice(0, 2), [1, 'repo.nosnapshot'])
  assert.deepEqual((await code(['cat', 'shop:latest', '/x'])).slice(0, 2), [1, 'repo.nosnapshot'])
})

test('23: a store that was set back is noticed', async () => {
  const repo = join(host.dir, 'repo')
  const configs = readdirSync(join(repo, 'config'))
  const newest = configs.toSorted((a, b) => Number(a) - Number(b)).at(-1) ?? ''
  renameSync(join(repo, 'config', newest), join(host.dir, 'hidden'))
  try {
    assert.deepEqual((await code(['snapshots'])).slice(0, 2), [23, 'repo.rolledback'])
  } finally {
    renameSync(join(host.dir, 'hidden'), join(repo, 'config', newest))
  }
  const listed = eventsOf(await here(host, ['snapshots', 'media', '--json'])).filter((one) => 'domain' in one)
  const last = listed.findLast((one) => one['domain'] === listed[0]?.['domain'])
  const object = join(repo, 'd', String(last?.['domain']), 'snapshots/media', String(last?.['id']))
  renameSync(object, join(host.dir, 'hidden'))
  try {
    const outcome = await here(host, ['snapshots'])
    assert.match(outcome.stderr, /shows an older state of "media" than this host has seen/)
  } finally {
    renameSync(join(host.dir, 'hidden'), object)
  }
})

test('a dry run stores nothing, runs no hook, and says what would be', async () => {
  writeConfig(host, { media: ', hooks: { before: "touch hook-ran" }' })
  const names = (): string[] =>
    readdirSync(join(host.dir, 'repo'), { recursive: true }).map(String).toSorted()
  const had = names()
  putFile(host, 'media/dry.bin', Buffer.alloc(100_000, 'dry'))
  const outcome = await here(host, ['backup', '--dry-run', '--json', '--kind', 'full'])
  assert.equal(outcome.exit, 0)
  const summary = eventOf(outcome, 'summary')
  assert.equal(summary['dryRun'], true)
  assert.equal('snapshot' in summary, false)
  assert.ok(Number(summary['bytesRead']) >= 100_000)
  assert.deepEqual(names(), had)
  assert.equal(existsSync(join(host.dir, 'hook-ran')), false)
})

test('--stdin stores a program’s output, which comes back by cat', async () => {
  const dump = Buffer.alloc(3_000_000, 'INSERT INTO orders VALUES (1);\n')
  const outcome = run(host, ['backup', 'dumps', '--stdin', '--stdin-filename', 'orders.sql', '--json'], dump)
  assert.equal(outcome.exit, 0, outcome.stderr)
  assert.equal(eventOf(outcome, 'summary')['bytes'], dump.length)
  assert.ok(run(host, ['cat', 'dumps:latest', '/orders.sql']).bytes.equals(dump))
  const plain = await here(host, ['backup', 'dumps', '--stdin'], Readable.from([Buffer.from('x')]))
  assert.equal(plain.exit, 0)
  assert.equal((await here(host, ['ls', 'dumps:latest'])).stdout, '/stdin\n')
  const nothing = run(host, ['backup', 'dumps', '--stdin'])
  assert.equal(nothing.exit, 24)
  assert.match(nothing.stderr, /it gave nothing/)
  assert.equal((await here(host, ['backup', 'dumps', 'media', '--stdin'])).exit, 20)
})

test('--files-from takes exactly what is listed, from files and from stdin', async () => {
  writeFileSync(join(host.dir, 'list'), `media/a.txt\n${host.media}/sub/b.txt\n`)
  assert.equal((await here(host, ['backup', 'picked', '--files-from', 'list', '--tag', 'list'])).exit, 0)
  const files = async (source: string): Promise<string[]> =>
    eventsOf(await here(host, ['ls', '-R', `${source}:latest`, '--json']))
      .filter((one) => one['kind'] === 'file')
      .map((one) => String(one['path']).slice(host.media.length + 1))
  assert.deepEqual(await files('picked'), ['a.txt', 'sub/b.txt'])
  const stdin = Readable.from([Buffer.from('media/a.txt\0')])
  assert.equal((await here(host, ['backup', 'picked', '--files-from0', '-'], stdin)).exit, 0)
  assert.deepEqual(await files('picked'), ['a.txt'])
  assert.equal((await here(host, ['backup', 'media', '--exclude', '*.bin', '--exclude', 'sub'])).exit, 0)
  assert.deepEqual(await files('media'), ['a.txt', 'rotated.txt'])
})

test('an empty list of paths is stored only when told', async () => {
  writeFileSync(join(host.dir, 'nothing'), '\n\n')
  const argv = ['backup', 'listed', '--files-from', 'nothing']
  const [exit, name, message] = await code(argv)
  assert.deepEqual([exit, name], [24, 'source.emptied'])
  assert.match(message, /the list names nothing \(it must name a path to back up\)/)
  assert.equal((await here(host, [...argv, '--allow-empty'])).exit, 0)
  writeFileSync(join(host.dir, 'nothing'), `repo/config/1\n`)
  assert.match((await code(argv))[2], /the list names only what belongs to the repository/)
})

test('the repository and the cache are never part of a backup, and the repository is named', async () => {
  writeConfig(host, { sources: `  all: { kind: files, paths: ['${host.dir}'] }\n` })
  const outcome = await here(host, ['backup', 'all', '--tag', 'all'])
  assert.equal(outcome.exit, 0)
  assert.match(outcome.stderr, /^all: leaves out the repository ".*\/repo", which lies in it$/m)
  const listed = await here(host, ['find', '**/repo/**', '**/cache/**', '--source', 'all'])
  assert.equal(listed.stdout, '')
})

test('a source in the repository, or the repository itself, is refused', async () => {
  symlinkSync(join(host.dir, 'repo'), join(host.dir, 'elsewhere'))
  for (const path of ['repo', 'repo/d', 'elsewhere/config', 'repo/not/there']) {
    writeConfig(host, { sources: `  own: { kind: files, paths: [media, ${path}] }\n` })
    const [exit, name, message] = await code(['backup', 'own'])
    assert.deepEqual([exit, name], [20, 'config.invalid'], path)
    assert.match(message, /its path ".*" lies in the repository ".*\/repo" \(it must lie outside\)/)
  }
})
