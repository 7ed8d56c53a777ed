import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { type OwnPlace, pathsOutside, placesInSource } from './own-places.ts'

const dir = mkdtempSync(join(tmpdir(), 'backstock-places-'))
after(() => rmSync(dir, { recursive: true }))
mkdirSync(join(dir, 'srv/repo/d'), { recursive: true })
mkdirSync(join(dir, 'srv/repository'))
symlinkSync(join(dir, 'srv'), join(dir, 'link'))
const places: OwnPlace[] = [
  { what: 'repository', path: join(dir, 'link/repo') },
  { what: 'cache', path: '/not/made/yet' },
]

test('placesInSource() finds what lies inside, by whichever name', () => {
  const found = (path: string): string[] => placesInSource('media', [path], places).map((place) => place.what)
  assert.deepEqual(found(join(dir, 'srv')), ['repository'])
  assert.deepEqual(found(dir), ['repository'])
  assert.deepEqual(found('/'), ['repository', 'cache'])
  assert.deepEqual(found(join(dir, 'srv/repository')), [], 'a name that begins alike')
  assert.deepEqual(found('/not/made'), ['cache'])
})

test('placesInSource() refuses a source inside', () => {
  for (const path of [join(dir, 'srv/repo'), join(dir, 'link/repo/d'), '/not/made/yet/at/all']) {
    assert.throws(() => placesInSource('media', ['/usr', path], places), { code: 'config.invalid' }, path)
  }
})

test('pathsOutside() leaves out what lies in a place, by both of its names', () => {
  const outside = [join(dir, 'srv/repository/x'), '/not/made', '/']
  const inside = [join(dir, 'srv/repo/d'), join(dir, 'link/repo'), '/not/made/yet/x']
  assert.deepEqual(pathsOutside([...inside, ...outside], places), outside)
  const spelled = [`${dir}/./srv/repo/x`, `/${dir}/link//repo`, `${dir}/srv/./repo/`, '/not/made/yet/']
  assert.deepEqual(pathsOutside(spelled, places), [], 'however it is spelled')
  const unclear = [`${dir}/srv/x/../repo/`]
  assert.deepEqual(pathsOutside(unclear, places), unclear, 'x may be a symlink to another place')
})
