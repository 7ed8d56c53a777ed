/** From init to restore as a user does it, by the program itself; every listing in both of its forms. */
import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { folderState } from '../harness/engine.ts'
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
} from '../harness/shop-host.ts'

let host: ShopHost
/** Ids of the full, the incremental and the differential, oldest first. */
const ids: string[] = []
const big = Buffer.alloc(16_000_000)
/** Not UTF-8. */
const oddName = Buffer.from('odd-\xff.txt', 'latin1')

function oddPath(): Buffer {
  return Buffer.concat([Buffer.from(`${host.media}/`), oddName])
}

before(() => {
  host = makeHost()
  for (let at = 0; at + 4 <= big.length; at += 4) big.writeUInt32LE(Math.imul(at, 2_654_435_761) >>> 0, at)
  putFile(host, 'media/big.bin', big)
  putFile(host, 'media/price.csv', 'sku,price\n1,9.99\n')
  putFile(host, 'media/logos/a.png', 'a')
  putFile(host, 'media/logos/b.png', 'b')
  writeFileSync(oddPath(), 'odd')
  symlinkSync('price.csv', join(host.media, 'link'))
  // Old enough that their stamps prove that they are unchanged.
  for (const name of ['big.bin', 'logos/a.png', 'logos/b.png']) utimesSync(join(host.media, name), 1e9, 1e9)
})
after(() => dropHost(host))

function summaryOf(kind: string, ...more: string[]): Event {
  const outcome = run(host, ['backup', '--json', '--kind', kind, ...more])
  assert.equal(outcome.exit, 0, outcome.stderr)
  return eventOf(outcome, 'summary')
}

test('init writes the identity for its owner alone, prints the kit and warns', () => {
  const outcome = run(host, ['init'])
  assert.equal(outcome.exit, 0, outcome.stderr)
  const identity = join(host.dir, 'identity.age')
  assert.equal(statSync(identity).mode & 0o777, 0o600)
  for (const line of readFileSync(identity, 'utf8').trimEnd().split('\n'))
    assert.ok(outcome.stdout.includes(line))
  assert.match(outcome.stderr, /keep a copy of the recovery kit away from this host/)
  const again = run(host, ['init'])
  assert.equal(again.exit, 1)
  assert.match(again.stderr, /there is one already/)
})

test('backup full, incremental and differential store what they say', () => {
  const full = summaryOf('full', '--tag', 'first')
  assert.deepEqual(
    [full['kind'], full['files'], full['filesNew'], full['problems'], full['exit']],
    ['full', 5, 5, 0, 0],
  )
  assert.ok(Number(full['bytesRead']) >= big.length)
  big.fill(1, 1_000_000, 1_000_100)
  putFile(host, 'media/big.bin', big)
  putFile(host, 'media/new.txt', 'new')
  rmSync(join(host.media, 'logos/b.png'))
  const incremental = summaryOf('incremental')
  assert.deepEqual(
    [incremental['kind'], incremental['parent'], incremental['filesNew']],
    ['incremental', full['snapshot'], 1],
  )
  // A chunk has 8 MiB at most.
  assert.ok(Number(incremental['bytesStored']) < 9_000_000, `${String(incremental['bytesStored'])} stored`)
  chmodSync(join(host.media, 'new.txt'), 0o640)
  const differential = summaryOf('differential')
  assert.deepEqual([differential['kind'], differential['parent']], ['differential', full['snapshot']])
  ids.push(String(full['snapshot']), String(incremental['snapshot']), String(differential['snapshot']))
})

test('backup shows people a table', () => {
  const outcome = run(host, ['backup', '--dry-run'])
  assert.equal(outcome.exit, 0)
  assert.match(
    outcome.stdout,
    /^SOURCE +SNAPSHOT +KIND +NEW +CHANGED[^]*media +\(dry run\) +(full|incremental)/,
  )
})

test('snapshots lists them, all or by tag or the latest', async () => {
  const events = eventsOf(run(host, ['snapshots', '--json'])).filter((one) => one['type'] === 'snapshot')
  assert.deepEqual(
    events.map((one) => one['id']),
    ids,
  )
  assert.deepEqual(
    events.map((one) => one['kind']),
    ['full', 'incremental', 'differential'],
  )
  assert.deepEqual(events[0]?.['tags'], ['first'])
  assert.deepEqual(
    events.map((one) => one['packSets']),
    [1, 2, 2],
  )
  const tagged = eventsOf(await here(host, ['snapshots', 'media', '--tag', 'first', '--json']))
  assert.deepEqual(
    tagged.map((one) => one['id']),
    [ids[0], undefined],
  )
  const latest = eventsOf(await here(host, ['snapshots', '--latest', '1', '--json']))
  assert.deepEqual(
    latest.map((one) => one['id']),
    [ids[2], undefined],
  )
  assert.match(
    (await here(host, ['snapshots'])).stdout,
    new RegExp(`^SNAPSHOT[^]*${ids[2]} +media[^]*3 snapshots\n$`),
  )
})

test('ls shows names that are not UTF-8 so that they can be told, and read back', async () => {
  const plain = run(host, ['ls', 'media:latest', host.media])
  assert.deepEqual(
    plain.stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.slice(host.media.length + 1)),
    ['big.bin', 'link', 'logos/', 'new.txt', 'odd-\\xff.txt', 'price.csv'],
  )
  const entries = eventsOf(run(host, ['ls', 'latest', host.media, '--json'])).filter(
    (one) => one['type'] === 'entry',
  )
  const odd = entries.find((one) => 'pathBytes' in one)
  assert.equal(odd?.['path'], `${host.media}/odd-\\xff.txt`)
  assert.deepEqual(Buffer.from(String(odd['pathBytes']), 'base64'), oddPath())
  assert.equal(entries.filter((one) => 'pathBytes' in one).length, 1)
  const csv = entries.find((one) => one['path'] === `${host.media}/price.csv`)
  assert.deepEqual([csv?.['kind'], csv?.['size'], csv?.['links']], ['file', 17, 1])
  assert.equal(entries.find((one) => one['kind'] === 'symlink')?.['target'], 'price.csv')
  const long = await here(host, ['ls', '-lR', 'latest', host.media])
  assert.match(long.stdout, /^-rw-r----- .* 3 2\d{3}-.*Z .*\/media\/new\.txt$/m)
  assert.match(long.stdout, /^-rw-r--r-- .* 1 2001-09-09T01:46:40Z .*\/media\/logos\/a\.png$/m)
  assert.match(long.stdout, /^lrwxrwxrwx .*\/media\/link -> price\.csv$/m)
  assert.equal((await here(host, ['cat', 'latest', `${host.media}/odd-\\xff.txt`])).stdout, 'odd')
})

test('cat gives the bytes of each snapshot, and ends quietly when nobody reads on', () => {
  assert.ok(run(host, ['cat', ids[2] ?? '', `${host.media}/big.bin`]).bytes.equals(big))
  const first = run(host, ['cat', ids[0] ?? '', `${host.media}/big.bin`]).bytes
  assert.equal(first.length, big.length)
  assert.ok(!first.equals(big))
})

test('find says in which snapshots a name is', async () => {
  const outcome = run(host, ['find', 'b.png', '*.csv', '--json'])
  assert.equal(outcome.exit, 0)
  const entries = eventsOf(outcome).filter((one) => one['type'] === 'entry')
  const of = (name: string): unknown[] =>
    entries.filter((one) => one['path'] === `${host.media}/${name}`).map((one) => one['snapshot'])
  assert.deepEqual(of('logos/b.png'), [ids[0]])
  assert.deepEqual(of('price.csv'), ids)
  assert.match(
    (await here(host, ['find', 'odd*', '--snapshot', 'latest'])).stdout,
    /^media:\S+ .*odd-\\xff\.txt\n$/,
  )
  assert.equal((await here(host, ['find', 'never'])).exit, 1)
})

test('diff tells what changed', async () => {
  const changes = eventsOf(run(host, ['diff', ids[0] ?? '', ids[1] ?? '', '--json']))
  const of = (kind: string): unknown[] =>
    changes
      .filter((one) => one['change'] === kind && String(one['path']).startsWith(`${host.media}/`))
      .map((one) => String(one['path']).slice(host.media.length + 1))
  assert.deepEqual(of('added'), ['new.txt'])
  assert.deepEqual(of('removed'), ['logos/b.png'])
  assert.deepEqual(of('changed'), ['big.bin'])
  assert.equal(changes.at(-1)?.['bytesAdded'], big.length + 3)
  const metadata = await here(host, ['diff', ids[1] ?? '', ids[2] ?? ''])
  assert.match(metadata.stdout, /^m .*\/new\.txt$/m)
})

test('status tells age, sizes and what should be mended', async () => {
  const events = eventsOf(run(host, ['status', '--json']))
  const source = events.find((one) => one['type'] === 'source')
  assert.equal(source?.['source'], 'media')
  assert.equal(source['snapshots'], 3)
  assert.equal((source['latest'] as Event)['id'], ids[2])
  assert.ok(Number(source['ageSeconds']) < 600)
  const codes = events.flatMap((one) => (one['type'] === 'finding' ? [(one['facts'] as Event)['code']] : []))
  assert.deepEqual(codes, ['key.location', 'store.erasable', 'check.never'])
  assert.equal((await here(host, ['check'])).exit, 0)
  const after = await here(host, ['status'])
  assert.match(after.stdout, /Last check: 2/)
  assert.match(after.stdout, /a stolen writer can destroy/)
  assert.doesNotMatch(after.stdout, /never run/)
})

test('restore brings each of them back, and refuses a folder with something in it', () => {
  const outcome = run(host, ['restore', 'media', '--to', 'back', '--json'])
  assert.equal(outcome.exit, 0, outcome.stderr)
  assert.equal(eventOf(outcome, 'summary')['files'], 5)
  const back = join(host.dir, 'back', host.media)
  const withoutInode = (path: string): [string, unknown][] =>
    [...folderState(path)].map(([name, { inode: _inode, ...state }]) => [name, state])
  assert.deepEqual(withoutInode(back), withoutInode(host.media))
  const again = run(host, ['restore', 'media', '--to', 'back'])
  assert.equal(again.exit, 25)
  assert.match(again.stderr, /it is not empty/)
})

test('restore takes a time, a part, a dry run, a repair in place', async () => {
  const first = eventsOf(await here(host, ['snapshots', '--json'])).find((one) => one['id'] === ids[0])
  const at = String(first?.['completed'])
  const path = ['--path', '**/logos/*.png']
  const part = await here(host, ['restore', 'media', '--to', 'part', '--at', at, ...path])
  assert.equal(part.exit, 0, part.stderr)
  assert.equal(readFileSync(join(host.dir, 'part', host.media, 'logos/b.png'), 'utf8'), 'b')
  assert.equal(existsSync(join(host.dir, 'part', host.media, 'big.bin')), false)
  assert.equal((await here(host, ['restore', 'media', '--to', 'none', '--dry-run'])).exit, 0)
  assert.equal(existsSync(join(host.dir, 'none')), false)
  writeFileSync(join(host.dir, 'back', host.media, 'price.csv'), 'broken')
  const delta = await here(host, ['restore', 'media', '--to', 'back', '--delta', '--json'])
  assert.equal(delta.exit, 0, delta.stderr)
  assert.ok(Number(eventOf(delta, 'summary')['bytesWritten']) < 1000)
  assert.equal(readFileSync(join(host.dir, 'back', host.media, 'price.csv'), 'utf8'), 'sku,price\n1,9.99\n')
  assert.equal((await here(host, ['restore', 'media', '--to', 'x', '--at', '2001-01-01'])).exit, 1)
  assert.equal((await here(host, ['restore', 'media', '--to', 'x', '--lsn', '0/0'])).exit, 20)
})

test('a source that left the configuration can be restored and is told of', async () => {
  mkdirSync(join(host.dir, 'other'))
  putFile(
    host,
    'other.yaml',
    `shop: acme
repository: { store: repo, identity: identity.age }
sources:
  new: { kind: files, paths: [other] }
`,
  )
  const outcome = await here(host, ['-c', 'other.yaml', 'restore', 'media', '--to', 'left'])
  assert.equal(outcome.exit, 0, outcome.stderr)
  assert.match(
    (await here(host, ['-c', 'other.yaml', 'status'])).stdout,
    /"media" is not in the configuration/,
  )
  const typo = await here(host, ['-c', 'other.yaml', 'restore', 'medla', '--to', 'left2'])
  assert.equal(typo.exit, 20)
})

test('check reads all data, and names what damage costs', async () => {
  const sound = run(host, ['check', '--read-data', '--json'])
  assert.equal(sound.exit, 0, sound.stdout)
  assert.equal(eventOf(sound, 'summary')['errors'], 0)
  const domain = String(
    eventsOf(await here(host, ['key', 'list', '--json'])).find((one) => one['kind'] === 'writer')?.['domain'],
  )
  rmSync(join(host.dir, 'repo/d', domain, 'packs'), { recursive: true })
  const hurt = run(host, ['check', '--json'])
  assert.equal(hurt.exit, 1)
  const findings = eventsOf(hurt).filter((one) => one['type'] === 'finding' && one['severity'] === 'error')
  assert.ok(findings.length > 0)
  assert.ok(JSON.stringify(findings).includes(`${host.media}/big.bin`))
  const lost = await here(host, ['restore', 'media', '--to', 'lost', '--json'])
  assert.equal(lost.exit, 1)
  assert.ok(Number(eventOf(lost, 'summary')['damaged']) > 0)
})
