/**
 * The promise about old backups: v1 was written once and is read by whatever the code has become since, by our engine
 * and by a reader that was written from docs/format.md alone (README.md).
 */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { putConfig, readConfig } from '../../src/repo/configs.ts'
import { formatKit, parseKit } from '../../src/repo/kit.ts'
import { openStore } from '../../src/storage/open.ts'
import { contentKinds, makeRepository, readManifests } from './engine.ts'
import { manifestOf, type ManifestEntry } from './source-tree.ts'

const READER = join(import.meta.dirname, 'reader.ts')
const V1 = join(import.meta.dirname, 'v1')
const REPOSITORY = join(V1, 'repository')
const KIT = join(V1, 'kit.txt')

interface State {
  readonly id: string
  readonly entries: readonly ManifestEntry[]
}

test('the golden repository v1 is restored by the independent reader', async (t) => {
  const { source, states } = expected()
  const dir = newFolder(t)
  await Promise.all(states.map((state) => assertRestored(dir, REPOSITORY, KIT, source, state)))
})

test('the golden repository v1 is read by our engine', async (t) => {
  const { source, states } = expected()
  const kit = parseKit(fs.readFileSync(KIT), KIT)
  assert.deepEqual(await readManifests(REPOSITORY, kit, newFolder(t), source), states)
})

test('the golden repository holds every kind of content', async (t) => {
  const { source } = expected()
  const kinds = await contentKinds(REPOSITORY, parseKit(fs.readFileSync(KIT), KIT), newFolder(t), source)
  assert.deepEqual(kinds, ['cdc, depth 0', 'cdc, depth 1', 'empty', 'inline', 'pages, depth 0', 'pages, depth 1'])
})

test('a repository written today is restored by the independent reader', async (t) => {
  const dir = newFolder(t)
  const [source, repository, kit] = [join(dir, 'source'), join(dir, 'repository'), join(dir, 'kit')]
  fs.mkdirSync(source)
  const made = await makeRepository(repository, source, join(dir, 'cache'))
  fs.writeFileSync(kit, formatKit(made.kit))
  await Promise.all(made.snapshots.map((state) => assertRestored(dir, repository, kit, source, state)))
})

test('the independent reader refuses a data frame above the bound that the config sets', async (t) => {
  const dir = newFolder(t)
  const repository = join(dir, 'repository')
  fs.cpSync(REPOSITORY, repository, { recursive: true })
  const store = await openStore(pathToFileURL(repository).href)
  const kit = parseKit(fs.readFileSync(KIT), KIT)
  const { config, sha256 } = await readConfig(store, kit)
  const chunking = { ...config.chunking, cdc: { minBytes: 4096, maskBits: 13, maxBytes: 65_536 } }
  assert.ok(kit.authoritySeed)
  assert.ok(await putConfig(store, { ...config, chunking, n: config.n + 1, previous: sha256 }, kit.authoritySeed))
  await store.close()
  const restored = promisify(execFile)(process.execPath, [READER, repository, KIT, '--to', join(dir, 'to')])
  await assert.rejects(restored, /no such frames/)
})

test('the independent reader is short and independent', () => {
  const text = fs.readFileSync(READER, 'utf8')
  const modules = Array.from(text.matchAll(/^import [^\n]* from '([^']+)'$/gm), ([, name]) => name ?? '')
  assert.deepEqual(modules.filter((name) => !name.startsWith('node:')), ['age-encryption'])
  assert.equal(text.match(/\bimport\b/g)?.length, modules.length)
  assert.doesNotMatch(text, /\brequire\b|src\/[a-z]/)
  assert.ok(text.split('\n').length <= 400, 'under 400 lines')
})

function newFolder(t: TestContext): string {
  const dir = fs.mkdtempSync(join(tmpdir(), 'backstock-golden-'))
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }))
  return dir
}

function expected(): { source: string; states: State[] } {
  const manifest = JSON.parse(fs.readFileSync(join(V1, 'manifest.json'), 'utf8')) as {
    source: string
    snapshots: string[]
    entries: { in: number[]; entry: ManifestEntry }[]
  }
  const states = manifest.snapshots.map((id, place) => {
    const held = manifest.entries.filter((line) => line.in.includes(place)).map(({ entry }) => entry)
    return { id, entries: held.sort((a, b) => (a.path < b.path ? -1 : 1)) }
  })
  return { source: manifest.source, states }
}

/** Restores a snapshot with the reader and compares; plain Node sets no xattrs, and times to a microsecond. */
async function assertRestored(
  dir: string, repository: string, kit: string, source: string, state: State,
): Promise<void> {
  const to = join(dir, `restored-${state.id}`)
  await promisify(execFile)(process.execPath, [READER, repository, kit, state.id, '--to', to])
  const restored = manifestOf(join(to, source))
  assert.deepEqual(restored.map(comparable), state.entries.map(comparable))
  for (const [i, { path, mtime }] of state.entries.entries()) {
    const difference = Number(BigInt(mtime) - BigInt(restored[i]?.mtime ?? 0))
    assert.ok(Math.abs(difference) <= 1000, `${path} is ${difference} ns away`)
  }
}

function comparable({ xattrs: _xattrs, mtime: _mtime, ...rest }: ManifestEntry): object {
  return rest
}
