import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { closeSnapshot, openSnapshot } from '../repo/tree-reader.ts'
import {
  backUp,
  dropRepository,
  folderSource,
  makeRepository,
  snapshotOf,
  type TestRepository,
} from '../../test/harness/engine.ts'
import { findEntries, newSearch, type Search } from './find.ts'

const { signal } = new AbortController()
let repository: TestRepository
let dir = ''
const ids: string[] = []

before(async () => {
  repository = await makeRepository()
  dir = join(repository.folder, 'shop')
  for (const name of ['a.pdf', 'invoices/2026/1.csv', 'invoices/2025/1.csv', '!odd', '[x]']) {
    mkdirSync(join(dir, name, '..'), { recursive: true })
    writeFileSync(join(dir, name), name)
  }
  for (const more of ['', 'b.pdf']) {
    if (more !== '') writeFileSync(join(dir, more), more)
    ids.push((await backUp(repository, folderSource(dir))).snapshot ?? '')
  }
})
after(() => dropRepository(repository))

async function find(search: Search, id: string | undefined): Promise<string[]> {
  const reader = await openSnapshot(repository.access, repository.host, await snapshotOf(repository, id))
  try {
    const found = await findEntries(search, reader, signal)
    return found.map(({ path }) => path.slice(dir.length + 1))
  } finally {
    closeSnapshot(reader)
  }
}

test('findEntries() matches names, paths at any depth, absolute paths', async () => {
  assert.deepEqual(await find(newSearch(['*.pdf']), ids[1]), ['a.pdf', 'b.pdf'])
  assert.deepEqual(await find(newSearch(['2026/*.csv']), ids[1]), ['invoices/2026/1.csv'])
  assert.deepEqual(await find(newSearch(['**/2025/*.csv']), ids[1]), ['invoices/2025/1.csv'])
  assert.deepEqual(await find(newSearch([`${dir}/*.pdf`]), ids[1]), ['a.pdf', 'b.pdf'])
  assert.deepEqual(await find(newSearch(['/a.pdf']), ids[1]), [])
  assert.deepEqual(await find(newSearch(['invoices']), ids[1]), ['invoices'])
})

test('findEntries() takes ! and # for what they are, and a quoted bracket', async () => {
  assert.deepEqual(await find(newSearch(['!odd']), ids[0]), ['!odd'])
  assert.deepEqual(await find(newSearch(['\\[x\\]']), ids[0]), ['[x]'])
})

test('findEntries() gives each snapshot its own, whatever it remembers of the one before', async () => {
  const search = newSearch(['*.pdf', '*.csv'])
  const first = ['a.pdf', 'invoices/2025/1.csv', 'invoices/2026/1.csv']
  assert.deepEqual(await find(search, ids[0]), first)
  const known = search.known.size
  assert.deepEqual(await find(search, ids[1]), ['a.pdf', 'b.pdf', ...first.slice(1)])
  // Only the folders above the new file were looked through: the rest was known.
  assert.ok(search.known.size - known <= dir.split('/').length, `${search.known.size} known, ${known} before`)
})
