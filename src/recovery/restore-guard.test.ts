import assert from 'node:assert/strict'
import { lstatSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { isFailure } from '../base/failure.ts'
import { packName, runName } from '../repo/names.ts'
import { refuseStoreFolder, storeFolders } from './restore-guard.ts'

const dir = mkdtempSync(join(tmpdir(), 'backstock-guard-'))
after(() => rmSync(dir, { recursive: true }))
const store = join(dir, 'store')
for (const name of [
  packName('0'.repeat(16), 'data', 'ab12'),
  runName('0'.repeat(16), 'set', 1),
  `d/${'0'.repeat(16)}/logs/orders/7-1/${'a'.repeat(16)}/tail/000000000001`,
  'config/1',
]) {
  mkdirSync(join(store, name, '..'), { recursive: true })
  writeFileSync(join(store, name), 'object')
}
mkdirSync(join(dir, 'other/folder'), { recursive: true })
symlinkSync(join(dir, 'other'), join(store, 'link'))
symlinkSync(store, join(dir, 'alias'))

test('`storeFolders()` knows all folders of a store, and none that a link in it leads to', () => {
  const domain = `d/${'0'.repeat(16)}`
  const shipper = `logs/orders/7-1/${'a'.repeat(16)}`
  const logs = ['logs', 'logs/orders', 'logs/orders/7-1', shipper, `${shipper}/tail`]
  const below = ['packs', 'packs/ab', 'index', 'index/set', ...logs].map((name) => `${domain}/${name}`)
  const ids = ['.', 'config', 'd', domain, ...below].map((name) => {
    const { dev, ino } = lstatSync(join(store, name), { bigint: true })
    return `${dev}:${ino}`
  })
  for (const path of [store, join(dir, 'alias')])
    assert.deepEqual([...storeFolders(pathToFileURL(path).href).ids()].sort(), ids.sort())
  assert.equal(storeFolders('memory:').ids().size, 0)
  assert.equal(storeFolders(`file://${dir}/gone`).ids().size, 0)
})

test('`refuseStoreFolder()` refuses a folder of the store wherever it is met, and no other', () => {
  const folders = storeFolders(pathToFileURL(store).href)
  const meet = (name: string): void =>
    refuseStoreFolder(folders, '/to', { path: 'a/b', stats: statSync(join(dir, name), { bigint: true }) })
  for (const name of ['store', 'alias', 'store/config', `store/d/${'0'.repeat(16)}/packs/ab`])
    assert.throws(
      () => meet(name),
      (error) =>
        isFailure(error, 'restore.failed') &&
        error.message.startsWith(`Cannot restore into "/to/a/b": it is a folder of the repository file:`),
    )
  for (const name of ['', 'other', 'other/folder', 'store/link']) meet(name)
})
