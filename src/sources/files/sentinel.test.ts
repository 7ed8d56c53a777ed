import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import { guardPaths, isMountPoint, judgeShrink } from './sentinel.ts'

let dir: string

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'backstock-sentinel-'))
  mkdirSync(join(dir, 'media'))
})

after(() => rmSync(dir, { recursive: true }))

test('`guardPaths()` passes a path that is as it must be', () => {
  writeFileSync(join(dir, 'media', '.backstock-sentinel'), '')
  assert.deepEqual(
    guardPaths([{ path: `${dir}/media` }, { path: `${dir}/media`, sentinel: '.backstock-sentinel' }]),
    [],
  )
  assert.deepEqual(
    guardPaths([
      { path: '/proc', mountpoint: true },
      { path: '/', mountpoint: true },
    ]),
    [],
  )
})

test('`guardPaths()` fails with source.missing for what is not there or not mounted', () => {
  const cases = [
    [{ path: `${dir}/none` }, /none": it is not there$/],
    [{ path: `${dir}/media`, sentinel: 'other' }, /the file "other" is not in it/],
    [{ path: `${dir}/media`, mountpoint: true }, /it is no mount point/],
  ] as const
  for (const [guard, message] of cases) {
    assert.throws(
      () => guardPaths([guard]),
      (error) => isFailure(error, 'source.missing') && message.test(error.message),
    )
  }
})

test('`guardPaths()` warns of a symlink, of which only the link is stored', () => {
  writeFileSync(join(dir, 'a-file'), '')
  symlinkSync('a-file', join(dir, 'link'))
  assert.deepEqual(guardPaths([{ path: `${dir}/link` }]), [
    `"${dir}/link" is a symbolic link to "a-file": only the link is stored`,
  ])
})

test('`isMountPoint()` tells mount points from folders and files', () => {
  assert.equal(isMountPoint('/'), true)
  assert.equal(isMountPoint('/proc/'), true)
  assert.equal(isMountPoint(`${dir}/media`), false)
  assert.equal(isMountPoint(`${dir}/none`), false)
  assert.equal(isMountPoint('/proc/self/status'), false)
})

test('`judgeShrink()` fails with source.emptied when everything is gone', () => {
  const previous = { files: 500, bytes: 9e9 }
  const refused = (error: unknown): boolean => isFailure(error, 'source.emptied')
  for (const current of [
    { files: 0, bytes: 0 },
    { files: 3, bytes: 0 },
  ]) {
    assert.throws(() => judgeShrink('media', { previous, current }, { allowEmpty: false }), refused)
    assert.equal(judgeShrink('media', { previous, current }, { allowEmpty: true }).kind, 'warning')
  }
})

test('`judgeShrink()` warns when more than half is gone, of files or of bytes', () => {
  const judge = (previous: [number, number] | undefined, current: [number, number]): string =>
    judgeShrink(
      'media',
      {
        previous: previous && { files: previous[0], bytes: previous[1] },
        current: { files: current[0], bytes: current[1] },
      },
      { allowEmpty: false },
    ).kind
  assert.equal(judge([500, 1000], [249, 1000]), 'warning')
  assert.equal(judge([500, 1000], [500, 499]), 'warning')
  assert.equal(judge([500, 1000], [250, 500]), 'fine')
  // A handful of files comes and goes.
  assert.equal(judge([10, 1000], [1, 10]), 'fine')
  assert.equal(judge(undefined, [0, 0]), 'fine')
  assert.equal(judge([0, 0], [0, 0]), 'fine')
  assert.equal(judge([500, 0], [500, 0]), 'fine')
})
