import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { pathBytes } from '../../base/file-entry.ts'
import { listFolder, nameList, takeName } from './names.ts'
import type { NameList } from './names.ts'

let dir: string

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'backstock-names-'))
})

after(() => rmSync(dir, { recursive: true }))

function takeAll(list: NameList): string[] {
  const names: string[] = []
  for (let name = takeName(list); name !== undefined; name = takeName(list)) names.push(name)
  return names
}

test('`listFolder()` gives names in ascending order of bytes and says which watched ones are there', () => {
  const names = ['b', 'a', '\xff', 'B', '.tag', '\xc3\xa9', 'a\n']
  for (const name of names) writeFileSync(pathBytes(`${dir}/${name}`), '')
  const found = new Set<string>()
  assert.deepEqual(takeAll(listFolder(dir, new Set(['.tag', '.none']), found)), [
    '.tag',
    'B',
    'a',
    'a\n',
    'b',
    '\xc3\xa9',
    '\xff',
  ])
  assert.deepEqual([...found], ['.tag'])
})

test("`listFolder()` does not follow a symlink that took the folder's place", () => {
  symlinkSync(dir, join(dir, 'link'))
  assert.throws(() => listFolder(join(dir, 'link'), new Set(), new Set()), /ENOTDIR|ELOOP/)
})

test('`takeName()` merges runs of any lengths', () => {
  const runOf = (names: string[]): NameList['runs'][number] => {
    const [head = '', ...rest] = names
    return { head, bytes: Buffer.from(rest.join('/'), 'latin1'), at: 0 }
  }
  // Heads in ascending order are a heap.
  const runs = [runOf(['a', 'd', 'z']), runOf(['b']), runOf(['c', 'e', 'f', 'g']), runOf(['h', 'i'])]
  assert.deepEqual(takeAll({ names: [], at: 0, runs }), ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'z'])
  assert.deepEqual(takeAll(nameList(['y', 'x'])), ['x', 'y'])
  assert.deepEqual(takeAll(nameList([])), [])
})
