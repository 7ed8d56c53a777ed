import assert from 'node:assert/strict'
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { compareManifests, countFiles, type Manifest, takeManifest } from './manifest.ts'

const { signal } = new AbortController()

/** A folder with a file of two names, a link and a folder, all of one time. */
function sampleFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-manifest-'))
  t.after(() => rmSync(folder, { recursive: true }))
  mkdirSync(join(folder, '茶壶'))
  writeFileSync(join(folder, 'a.csv'), 'one;two\n')
  linkSync(join(folder, 'a.csv'), join(folder, '茶壶/same.csv'))
  writeFileSync(join(folder, 'b.log'), 'line\n')
  symlinkSync('a.csv', join(folder, 'link'))
  settle(folder)
  return folder
}

function settle(folder: string): void {
  for (const name of ['a.csv', 'b.log', '茶壶', '']) utimesSync(join(folder, name), 1e9, 1e9)
  if (existsSync(join(folder, 'link'))) lutimesSync(join(folder, 'link'), 1e9, 1e9)
}

async function differences(
  t: TestContext,
  change: (folder: string) => void,
  extras: 'refused' | 'allowed' = 'refused',
): Promise<string[]> {
  const folder = sampleFolder(t)
  const then: Manifest = await takeManifest(folder, signal)
  change(folder)
  settle(folder)
  return compareManifests(then, await takeManifest(folder, signal), extras)
}

test('compareManifests() finds nothing where nothing changed, and one flipped bit', async (t) => {
  assert.deepEqual(await differences(t, () => undefined), [])
  const flip = (folder: string): void => {
    const bytes = readFileSync(join(folder, 'b.log'))
    bytes[2] = (bytes[2] ?? 0) ^ 1
    writeFileSync(join(folder, 'b.log'), bytes)
  }
  assert.deepEqual(await differences(t, flip), ['"b.log" differs in content'])
})

test('compareManifests() finds size, mode, time, target, and a hard link that became a copy', async (t) => {
  const grow = (folder: string): void => appendFileSync(join(folder, 'b.log'), 'x')
  assert.deepEqual(await differences(t, grow), ['"b.log" differs in size and content'])
  const close = (folder: string): void => chmodSync(join(folder, 'b.log'), 0o600)
  assert.deepEqual(await differences(t, close), ['"b.log" differs in mode'])
  const turn = (folder: string): void => {
    rmSync(join(folder, 'link'))
    symlinkSync('b.log', join(folder, 'link'))
  }
  assert.deepEqual(await differences(t, turn), ['"link" differs in content'])
  const copy = (folder: string): void => {
    copyFileSync(join(folder, 'a.csv'), join(folder, 'copy'))
    renameSync(join(folder, 'copy'), join(folder, '茶壶/same.csv'))
    utimesSync(join(folder, '茶壶/same.csv'), 1e9, 1e9)
  }
  assert.deepEqual(await differences(t, copy), ['"茶壶/same.csv" differs in firstName'])
  const folder = sampleFolder(t)
  const then = await takeManifest(folder, signal)
  utimesSync(join(folder, 'b.log'), 1e9, 1e9 + 1)
  const now = await takeManifest(folder, signal)
  assert.deepEqual(compareManifests(then, now, 'refused'), ['"b.log" differs in mtime'])
})

test('compareManifests() finds what is missing, and what is new unless that is allowed', async (t) => {
  const move = (folder: string): void => renameSync(join(folder, 'link'), join(folder, 'other'))
  assert.deepEqual(await differences(t, move), ['"link" is missing', '"other" was not there'])
  assert.deepEqual(await differences(t, move, 'allowed'), ['"link" is missing'])
})

test('countFiles() counts names and their bytes; takeManifest() ends when it is cancelled', async (t) => {
  const folder = sampleFolder(t)
  const manifest = await takeManifest(folder, signal)
  const bytes = 2 * statSync(join(folder, 'a.csv')).size + statSync(join(folder, 'b.log')).size
  assert.deepEqual(countFiles(manifest), { files: 3, bytes })
  await assert.rejects(takeManifest(folder, AbortSignal.abort()), { name: 'AbortError' })
})
