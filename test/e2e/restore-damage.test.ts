/** Restores out of damaged repositories: what is lost is named and left out, all the rest comes back. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { openHostFolder } from '../../src/repo/host-folder.ts'
import type { RestoreSummary } from '../../src/recovery/restore.ts'
import { dropRepository, makeRepository, seeded, testSeed, type TestRepository } from '../harness/engine.ts'
import { backUpShop, lostFiles, makeShop, outermost, type TestShop } from '../harness/lost-files.ts'
import { differences, makeScratch, restoreTo } from '../harness/restores.ts'
import { change, flip, freshCopy, objectsOf, swap } from '../harness/tampering.ts'

let shop: TestShop
let snapshot = ''
let scratch = ''
let whole = ''
let copies = 0

before(async () => {
  shop = await makeShop()
  const ids = await backUpShop(shop, ['full', 'incremental', 'incremental'])
  snapshot = ids.at(-1) ?? ''
  scratch = makeScratch()
  whole = join(scratch, 'whole')
  await restoreTo(shop, snapshot, whole)
  assert.equal(differences(shop.folder, `${whole}${shop.folder}`), '')
})
after(() => {
  dropRepository(shop.repository)
  rmSync(scratch, { recursive: true, force: true })
})

function copyOf(): TestRepository {
  return freshCopy(shop.repository, `copy-${copies++}`)
}

/**
 * Restores, and holds the outcome to what cannot be read by reading everything. Returns how many entries are
 * lost.
 */
async function assertRest(repository: TestRepository, workers: number, what: string): Promise<number> {
  const host = openHostFolder(`${repository.host.path}-oracle`, repository.kit.repository)
  const lost = new Set(
    [...(await lostFiles(repository, { host }))].filter((each) => each.startsWith(snapshot)),
  )
  const expected = outermost(lost).map((each) => each.slice(snapshot.length + 1))
  const to = join(scratch, `to-${copies}`)
  const done = await restoreTo({ repository }, snapshot, to, { workers })
  assert.deepEqual(namedBy(done), expected.map((path) => path.replace(/(?<=.)\/$/, '')).sort(), what)
  assert.deepEqual([done.failed, done.problems], [[], []], what)
  const lack = differences(whole, to, ['--exclude=/.backstock-restore', '--existing', '--omit-dir-times'])
  assert.equal(lack, '', `${what}: what is there is right`)
  const missing = missingIn(to)
  for (const path of missing)
    assert.ok(
      expected.some((each) => path === each || (each.endsWith('/') && path.startsWith(each))),
      `${what}: ${path}`,
    )
  for (const path of expected.filter((each) => !each.endsWith('/')))
    assert.ok(missing.includes(path), `${what}: ${path} was left half-written`)
  await assertResumes(to, expected.length, what)
  rmSync(to, { recursive: true })
  return expected.length
}

/** Without what lies in a folder that is named itself, as the oracle has it. */
function namedBy(done: RestoreSummary): string[] {
  const paths = done.damaged.map(({ path }) => path).sort()
  return paths.filter(
    (path) => !paths.some((other) => other !== path && path.startsWith(other.replace(/\/?$/, '/'))),
  )
}

function missingIn(to: string): string[] {
  const there = new Set(readdirSync(to, { recursive: true, encoding: 'latin1' }))
  return readdirSync(whole, { recursive: true, encoding: 'latin1' })
    .filter((path) => !there.has(path))
    .map((path) => `/${path}`)
}

/** Once the repository is whole again, the same command restores what was left out, and only that. */
async function assertResumes(to: string, lost: number, what: string): Promise<void> {
  const marked = readdirSync(to).includes('.backstock-restore')
  assert.equal(marked, lost > 0, `${what}: marked as unfinished`)
  if (!marked) return
  const done = await restoreTo(shop, snapshot, to)
  assert.deepEqual(namedBy(done), [])
  const top = join('/', shop.folder.split('/')[1] ?? '')
  assert.equal(differences(`${whole}${top}`, `${to}${top}`), '', `${what}: resumed`)
}

test('a pack that is gone, cut, changed or another hurts exactly the files in it', async (t) => {
  const seed = testSeed()
  t.diagnostic(`SEED=${seed}`)
  const random = seeded(seed)
  const packs = [...objectsOf(shop.repository, '/packs/'), ...objectsOf(shop.repository, '/meta/')]
  const pick = (): string => packs[Math.floor(random() * packs.length)] ?? ''
  const damages: ((repository: TestRepository, name: string) => string)[] = [
    (repository, name) => `${repository.disk.delete(name) ? 'deleted' : ''} ${name}`,
    (repository, name) => {
      const at = random()
      change(repository, name, (bytes) => flip(bytes, Math.floor(at * bytes.length)))
      return `a bit at ${at} of ${name}`
    },
    (repository, name) => {
      const to = random()
      change(repository, name, (bytes) => bytes.subarray(0, Math.floor(to * bytes.length)))
      return `cut to ${to} of ${name}`
    },
    (repository, name) => {
      const other = pick()
      swap(repository, name, other)
      return `${name} swapped for ${other}`
    },
  ]
  let lost = 0
  for (let nth = 0; nth < 12; nth++) {
    const repository = copyOf()
    const what = damages[nth % damages.length]!(repository, pick())
    lost += await assertRest(repository, nth % 3 === 0 ? 2 : 0, `SEED=${seed} ${what}`)
  }
  assert.ok(lost > 0)
})

test('each tree pack that is gone costs what lies below it', async () => {
  const trees = objectsOf(shop.repository, '/meta/')
  for (const name of trees.slice(0, 4)) {
    const repository = copyOf()
    repository.disk.delete(name)
    await assertRest(repository, 0, name)
  }
})

test('a pack of another repository is damage, not the end', async () => {
  const foreign = await makeRepository()
  try {
    const repository = copyOf()
    const [pack = ''] = objectsOf(shop.repository, '/packs/')
    const { access } = foreign
    assert.notEqual(access.config.repository, repository.access.config.repository)
    const stranger = await makeShop()
    try {
      await backUpShop(stranger, ['full'])
      const [other = ''] = objectsOf(stranger.repository, '/packs/')
      repository.disk.set(pack, stranger.repository.disk.get(other)!)
      const lost = await assertRest(repository, 0, 'foreign pack')
      assert.ok(lost > 0)
    } finally {
      dropRepository(stranger.repository)
    }
  } finally {
    dropRepository(foreign)
  }
})

test('`--delta` leaves a file alone that it can neither confirm nor write', async () => {
  const repository = copyOf()
  for (const name of objectsOf(repository, '/packs/')) repository.disk.delete(name)
  const to = join(scratch, `to-${copies}`)
  const done = await restoreTo(shop, snapshot, to)
  assert.ok(done.files > 300)
  const contents = (): Buffer[] =>
    ['deep/photo.jpg', 'orders.db'].map((name) => readFileSync(`${to}${shop.folder}/${name}`))
  const before = contents()
  const again = await restoreTo({ repository }, snapshot, to, { delta: true })
  // Whole chunks prove themselves by their hashes; of patched page runs only parts are in the file.
  assert.deepEqual(namedBy(again), [`${shop.folder}/orders.db`])
  assert.ok(again.bytesKept > 500_000)
  assert.deepEqual(contents(), before)
})
