import assert from 'node:assert/strict'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { assertFails, assertSameBytes, patternOf } from '../../test/contract/store-asserts.ts'
import { openStore } from './open.ts'

it('`openStore()` opens a folder by its URL, percent-decoded', async (context) => {
  const path = await mkdtemp(join(tmpdir(), 'backstock-open-'))
  context.after(() => rm(path, { recursive: true, force: true }))
  const store = await openStore(`${pathToFileURL(path).href}/a%20b%25/`, { create: true })
  await store.put('x', patternOf(5))
  assert.ok((await stat(join(path, 'a b%'))).isDirectory())
  const again = await openStore(store.workerUrl ?? '')
  assertSameBytes(await again.get('x'), patternOf(5))
  const blocking = await openStore(`file://localhost${path}/a%20b%25`, { blocking: true })
  assertSameBytes(await blocking.get('x'), patternOf(5))
})

it('`openStore()` makes no folder unless told', async () => {
  await assertFails('storage.offline', openStore('file:///nonexistent/backstock'))
})

const REFUSED: readonly (readonly [url: string, says: RegExp])[] = [
  ['', /it is no URL \(write file:\/\/ and an absolute path/],
  ['backups', /it is no URL/],
  ['./backups', /it is no URL/],
  ['/var/backups', /it is no URL \(write file:\/\/\/var\/backups\)/],
  ['file:backups', /its path is relative or names a host/],
  ['file:./backups', /relative/],
  ['file:/var/backups', /three slashes/],
  ['file://backups', /names a host/],
  ['file://host/var/backups', /names a host/],
  ['file:///', /it is the root folder/],
  ['file:///a/..', /it is the root folder/],
  ['file:///a?b', /query or fragment/],
  ['file:///a#b', /query or fragment/],
  ['file:///a%2Fb', /cannot be decoded/],
  ['file:///a%zz', /cannot be decoded/],
  ['file:///a%00b', /zero byte/],
  ['gopher://u:geheim@host/x', /"gopher:…": no driver has this scheme \(known: file:\/\//],
  ['FILE:///a', /it is no URL/],
  ['constructor://x', /no driver has this scheme/],
]

for (const [url, says] of REFUSED) {
  it(`\`openStore()\` refuses ${JSON.stringify(url)}`, async () => {
    await assertFails('config.invalid', openStore(url))
    await assert.rejects(openStore(url), says)
    await assert.rejects(openStore(url), (error: Error) => !error.message.includes('geheim'))
  })
}
