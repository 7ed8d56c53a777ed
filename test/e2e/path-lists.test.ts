/** What lists of paths take into a backup: --files-from and --files-from0. */
import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { dropHost, eventsOf, here, makeHost, putFile, type ShopHost } from '../harness/shop-host.ts'

let host: ShopHost

before(async () => {
  host = makeHost()
  putFile(host, 'media/a.txt', 'a')
  putFile(host, 'media/sub/b.txt', 'b')
  assert.equal((await here(host, ['init'])).exit, 0)
})
after(() => dropHost(host))

test('--files-from and --files-from0 are joined, and paths are followed as the system does', async () => {
  const files = async (): Promise<unknown[]> =>
    eventsOf(await here(host, ['ls', '-R', 'joined:latest', host.dir, '--json']))
      .filter(({ kind }) => kind === 'file' || kind === 'symlink')
      .map(({ path }) => String(path).slice(host.dir.length + 1))
  const made = join(host.dir, 'made')
  mkdirSync(made)
  symlinkSync('../media/sub', join(made, 'link'))
  writeFileSync(join(host.dir, 'lines'), 'media/a.txt\nmade/link/../a.txt\n')
  writeFileSync(join(host.dir, 'zeros'), 'media/sub/b.txt\0')
  const lists = ['--files-from', 'lines', '--files-from0', 'zeros']
  assert.equal((await here(host, ['backup', 'joined', ...lists])).exit, 0)
  assert.deepEqual(await files(), ['made/link', 'media/a.txt', 'media/sub/b.txt'])
  // By its text it would be another path, and one of the repository.
  writeFileSync(join(host.dir, 'lines'), 'made/link/../../repo/config/1\nrepo/config/1\n')
  const outcome = await here(host, ['backup', 'joined', ...lists])
  assert.equal(outcome.exit, 3)
  assert.match(outcome.stderr, /leaves out 1 path that belong[^]*never backed up \(the repository/)
  assert.deepEqual(await files(), ['made/link', 'media/sub/b.txt'])
})
