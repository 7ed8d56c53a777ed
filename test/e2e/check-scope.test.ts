/** What a check tells when its credential does not reach everything, and when the store does not. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { asPlainUser } from '../harness/local-place.ts'
import {
  dropHost,
  eventOf,
  eventsOf,
  here,
  makeHost,
  packNames,
  putFile,
  type ShopHost,
  writeConfig,
} from '../harness/shop-host.ts'

let host: ShopHost

before(async () => {
  host = makeHost()
  putFile(host, 'media/a', 'a'.repeat(100_000))
  for (const argv of [
    ['init'],
    ['backup'],
    ['key', 'writer', 'web1', '--out', 'web1.json'],
    ['key', 'janitor', 'nightly', '--out', 'janitor.age'],
  ])
    assert.equal((await here(host, argv)).exit, 0, argv.join(' '))
  writeConfig(host, { repository: 'store: repo, writer: web1.json' })
  assert.equal((await here(host, ['backup'])).exit, 0)
  writeConfig(host, {})
})
after(() => dropHost(host))

interface Scope {
  readonly name: string
  readonly examined: string[]
  readonly notExamined: string[]
}

test('a check says what its credential could not examine, and calls none of it proven', async () => {
  const parts = ['signatures', 'index', 'checksums', 'refs', 'trees', 'contents']
  const cases: [repository: string, examined: [own: number, other: number]][] = [
    ['store: repo, writer: web1.json', [3, 1]],
    ['store: repo, identity: janitor.age', [4, 4]],
  ]
  for (const [repository, [own, other]] of cases) {
    writeConfig(host, { repository })
    const { stdout, exit } = await here(host, ['check', '--read-data'])
    assert.equal(exit, 0)
    assert.doesNotMatch(stdout, /proven|No errors\.$/m)
    assert.match(stdout, /compared with checksums only/)
    assert.match(stdout, /Not examined in domain [0-9a-f]{16} \(web1\).*: .*trees, contents of files; only /)
    assert.match(stdout, /No errors in what was examined; whether files can be restored is not known/)
    const summary = eventOf(await here(host, ['check', '--read-data', '--json']), 'summary')
    assert.equal(summary['whole'], false)
    const scope = summary['scope'] as Scope[]
    for (const { name, examined, notExamined } of scope) {
      const count = name === 'web1' ? own : other
      assert.deepEqual([examined, notExamined], [parts.slice(0, count), parts.slice(count)], name)
    }
    assert.match((await here(host, ['status'])).stdout, /Last check: .* \(contents not read\)/)
  }
  writeConfig(host, {})
  const { stdout } = await here(host, ['check', '--read-data'])
  assert.match(stdout, /100 % of .* proven/)
  assert.match(stdout, /^No errors\.$/m)
  assert.equal(eventOf(await here(host, ['check', '--json']), 'summary')['whole'], true)
})

test('22: a check meets an object that the store cannot hand out, and remembers no damage', async () => {
  const repo = join(host.dir, 'repo')
  const [pack = ''] = packNames(host)
  const own = (user: number): void => {
    if (process.getuid?.() === 0) execFileSync('chown', ['-R', String(user), host.dir])
  }
  own(65_534)
  chmodSync(join(repo, pack), 0)
  const outcome = await asPlainUser(() => here(host, ['check', '--json']))
  own(0)
  chmodSync(join(repo, pack), 0o400)
  assert.equal(outcome.exit, 22, outcome.stdout)
  const found = eventsOf(outcome).filter(({ severity }) => severity === 'error')
  assert.deepEqual(
    found.map(({ code, object }) => [code, object]),
    [['object.unreadable', pack]],
  )
  const { errors, unreadable } = eventOf(outcome, 'summary')
  assert.deepEqual([errors, unreadable], [1, 1])
  const status = await here(host, ['status', '--json'])
  assert.equal(status.exit, 1)
  assert.match(status.stdout, /the last check could not read 1 objects/)
  assert.equal((await here(host, ['check', '--read-data'])).exit, 0)
  assert.doesNotMatch((await here(host, ['status'])).stdout, /could not read/)
})

test('a check says that a bundle is damaged, not that its credential lacks keys', async () => {
  const [name = ''] = readdirSync(join(host.dir, 'repo/keys'), { recursive: true, encoding: 'utf8' }).filter(
    (each) => each.endsWith('.age'),
  )
  const folder = join(host.dir, 'repo/keys', dirname(name))
  const copy = join(host.dir, 'bundles')
  cpSync(folder, copy, { recursive: true })
  for (const bundle of readdirSync(folder)) {
    rmSync(join(folder, bundle))
    writeFileSync(join(folder, bundle), 'damaged')
  }
  const { stdout, exit } = await here(host, ['check'])
  assert.equal(exit, 1)
  assert.match(stdout, /Not examined in domain .*, whose bundle of keys is damaged or missing: index runs/)
  assert.match(stdout, /whether files can be restored is not known\.$/m)
  const scope = eventOf(await here(host, ['check', '--json']), 'summary')['scope'] as { why?: string }[]
  assert.deepEqual(scope.map(({ why }) => why).filter(Boolean), ['damaged'])
  rmSync(folder, { recursive: true })
  cpSync(copy, folder, { recursive: true })
  assert.equal((await here(host, ['check'])).exit, 0)
})

test('a lost or damaged config comes back from a copy of the store', async () => {
  const [repo, copy] = [join(host.dir, 'repo/config'), join(host.dir, 'copy')]
  cpSync(repo, copy, { recursive: true })
  const newest = readdirSync(repo).sort().at(-1) ?? ''
  const statusOf = async (): Promise<number> => (await here(host, ['check'])).exit
  assert.equal(await statusOf(), 0)
  rmSync(join(repo, newest))
  assert.equal(await statusOf(), 23, 'an older config is not enough')
  writeFileSync(join(repo, newest), 'damaged')
  assert.equal(await statusOf(), 23)
  rmSync(repo, { recursive: true })
  assert.equal(await statusOf(), 23)
  cpSync(copy, repo, { recursive: true })
  assert.equal(await statusOf(), 0)
})
