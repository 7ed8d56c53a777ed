/**
 * Folders, links, pipes and sockets that lie in the store where objects should: each is named, none waited
 * for.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { noise } from '../harness/engine.ts'
import {
  dropHost,
  eventOf,
  eventsOf,
  here,
  makeHost,
  packNames,
  putFile,
  type ShopHost,
} from '../harness/shop-host.ts'

let host: ShopHost
let repo = ''

before(async () => {
  host = makeHost()
  repo = join(host.dir, 'repo')
  putFile(host, 'media/large', noise(3, 200_000))
  putFile(host, 'media/tiny', 'tiny')
  assert.equal((await here(host, ['init'])).exit, 0)
  assert.equal((await here(host, ['backup'])).exit, 0)
})

after(() => {
  dropHost(host)
})

const MAKE: Record<string, (path: string) => void> = {
  folder: (path) => mkdirSync(path),
  pipe: (path) => void execFileSync('mkfifo', [path]),
  link: (path) => symlinkSync(join(host.dir, 'aside'), path),
}

/** Runs `use` while something of that kind lies at the name, in place of the object if there is one. */
async function withStray(name: string, is: string, use: () => Promise<void>): Promise<void> {
  const path = join(repo, name)
  const aside = join(host.dir, 'aside')
  let isMoved = true
  try {
    renameSync(path, aside)
  } catch {
    isMoved = false
  }
  MAKE[is]?.(path)
  try {
    await use()
  } finally {
    rmSync(path, { recursive: true })
    if (isMoved) renameSync(aside, path)
  }
}

/** The status of a check, and code and object of its findings that say what lies there. */
async function checked(name: string, is: string): Promise<{ exit: number; found: string[] }> {
  const outcome = await here(host, ['check', '--json'])
  const names = new RegExp(`\\ba (${is}|link stands)\\b`)
  const found = eventsOf(outcome)
    .filter(({ type, message }) => type === 'finding' && String(message).includes(name))
    .filter(({ message }) => names.test(String(message)))
    .map(({ code, object }) => (typeof object === 'string' ? `${String(code)} ${object}` : String(code)))
  return { exit: outcome.exit, found }
}

test('check and restore agree on what lies in the place of a pack', async () => {
  const [pack = ''] = packNames(host)
  for (const is of ['folder', 'pipe', 'link']) {
    const isLink = is === 'link'
    await withStray(pack, is, async () => {
      const code = isLink ? 'object.unreadable' : 'pack.missing'
      // The only pack of files, but not of its set.
      assert.deepEqual(await checked(pack, is), { exit: isLink ? 22 : 1, found: [`${code} ${pack}`] })
      const restore = await here(host, ['restore', 'media', '--to', `out-${is}`, '--json'])
      assert.equal(restore.exit, isLink ? 22 : 1, restore.stderr)
      const { damaged, unreadable, files } = eventOf(restore, 'summary')
      assert.deepEqual([damaged, unreadable, files], isLink ? [0, 1, 1] : [1, 0, 1])
    })
  }
})

test('check names what lies in the place of a snapshot, of a folder, and where nothing should', async () => {
  const names = readdirSync(repo, { recursive: true, encoding: 'utf8' })
  const snapshot = names.find((name) => /\/snapshots\/media\/./.test(name)) ?? ''
  await withStray(snapshot, 'folder', async () => {
    assert.deepEqual(await checked(snapshot, 'folder'), { exit: 1, found: [`snapshot.corrupt ${snapshot}`] })
  })
  const domain = snapshot.split('/')[1] ?? ''
  const [pack = ''] = packNames(host)
  await withStray(`d/${domain}/packs`, 'link', async () => {
    const { exit, found } = await checked(`d/${domain}/packs`, 'link')
    assert.deepEqual([exit, found.includes(`object.unreadable ${pack}`)], [22, true], found.join())
  })
  for (const name of ['readme', `sessions/${domain}/media/20260301t000000z-00000000`])
    for (const is of ['pipe', 'link']) {
      mkdirSync(join(repo, name, '..'), { recursive: true })
      await withStray(name, is, async () => {
        assert.deepEqual(await checked(name, is), { exit: 0, found: ['object.unknown'] })
      })
    }
})

test('what lies in the place of the next config is named by check and by a change of keys', async () => {
  for (const is of ['folder', 'pipe', 'link'])
    await withStray('config/2', is, async () => {
      const isLink = is === 'link'
      const code = isLink ? 'object.unreadable' : 'config.corrupt'
      assert.deepEqual(await checked('config/2', is), { exit: isLink ? 22 : 1, found: [`${code} config/2`] })
      const change = await here(host, ['key', 'rotate', '--json'])
      assert.equal(change.exit, 23, `${is} ${change.stderr} ${change.stdout}`)
      const [error] = eventsOf(change).filter(({ type }) => type === 'error')
      assert.equal(error?.['code'], 'repo.forged')
      assert.ok(String(error?.['message']).includes(`"config/2", a ${is}, lies`), String(error?.['message']))
    })
  assert.equal((await here(host, ['check'])).exit, 0)
})
