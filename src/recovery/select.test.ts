import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isExcluded, isSelected, mayHoldSelected, newSelection } from './select.ts'

function selects(globs: string[], path: string): boolean {
  return isSelected(newSelection(globs, []), path, false)
}

test('`isSelected()` matches absolute globs at the root and others at any depth', () => {
  assert.ok(selects([], '/anything'))
  assert.ok(selects(['/'], '/anything'))
  assert.ok(selects(['/srv'], '/srv') && !selects(['/srv'], '/a/srv'))
  assert.ok(selects(['srv'], '/srv') && selects(['srv'], '/a/b/srv') && !selects(['srv'], '/a/srvx'))
  assert.ok(selects(['/srv/'], '/srv'), 'a slash at the end says nothing')
  assert.ok(selects(['/srv/*'], '/srv/.hidden') && !selects(['/srv/*'], '/srv/a/b'))
  assert.ok(selects(['/srv/**'], '/srv/a/.b/c') && !selects(['/srv/**'], '/srv'))
  assert.ok(selects(['/**/c'], '/c') && selects(['/**/c'], '/a/b/c'))
  assert.ok(selects(['a/b'], '/x/a/b') && selects(['a/b'], '/a/b'))
  assert.ok(selects(['/[a-c]?'], '/b\xff') && !selects(['/[a-c]?'], '/d1'))
  assert.ok(!selects(['/srv'], '/SRV'), 'case counts')
})

test('`isSelected()` takes what lies in a selected folder', () => {
  const selection = newSelection(['/srv'], [])
  assert.ok(isSelected(selection, '/srv/a', true))
  assert.ok(!isSelected(selection, '/tmp', false))
})

test('`isSelected()` takes a path plainly too, and bytes as they are shown', () => {
  for (const path of ['/a[1].jpg', '/*', '/!x', '/#x', '/ x ', '/back\\slash', '/{a,b}'])
    assert.ok(selects([path], path), path)
  assert.ok(selects(['/a\\[1].jpg'], '/a[1].jpg') && !selects(['/a\\[1].jpg'], '/a1.jpg'))
  assert.ok(selects(['/caf\\xe9'], '/caf\xe9') && selects(['/*\\xe9'], '/caf\xe9'))
  assert.ok(selects(['/new\\x0aline'], '/new\nline'))
  assert.ok(selects(['/Straße'], Buffer.from('/Straße').toString('latin1')))
  assert.ok(!selects(['/[z-'], '/z'), 'a malformed glob matches only itself')
  assert.ok(selects(['/[z-'], '/[z-'))
})

test('`isSelected()` notes every glob that matches, in a selected folder too', () => {
  const selection = newSelection(['/srv', '/srv/a', '/nowhere'], [])
  isSelected(selection, '/srv', false)
  isSelected(selection, '/srv/a', true)
  assert.deepEqual(
    selection.paths.map((glob) => glob.isMatched),
    [true, true, false],
  )
})

test('`isExcluded()` matches as `isSelected()` does', () => {
  const selection = newSelection([], ['*.tmp', '/srv/cache'])
  assert.ok(isExcluded(selection, '/a/.b/x.tmp') && isExcluded(selection, '/srv/cache'))
  assert.ok(!isExcluded(selection, '/srv/cache2') && !isExcluded(selection, '/a/srv/cache'))
})

test('`mayHoldSelected()` leads to what a glob may match and nowhere else', () => {
  const leads = (glob: string, path: string): boolean => mayHoldSelected(newSelection([glob], []), path)
  assert.ok(leads('/srv/media/logos', '/srv') && leads('/srv/media/logos', '/srv/media'))
  assert.ok(!leads('/srv/media', '/etc') && !leads('/srv/media', '/srv/media/x'))
  assert.ok(leads('/srv/*/logos', '/srv/x') && !leads('/srv/*/logos', '/srv/x/y/z'))
  assert.ok(leads('/srv/**/logos', '/srv/x/y/z') && !leads('/srv/**/logos', '/etc'))
  assert.ok(leads('logos', '/any/where'))
  assert.ok(leads('/a[1]/b', '/a[1]') && leads('/a[1]/b', '/a1'))
  assert.ok(!mayHoldSelected(newSelection([], []), '/srv'), 'no glob leads anywhere: all is selected')
})
