import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { applyDay2, undoDay2 } from './day2.ts'
import { createNoise } from './noise.ts'
import { createPage, pageBytes } from './pages.ts'
import { planShop, writeShop } from './shop.ts'

const shopBytes = 8_000_000

test('planShop() gives seven tenths to images, two to text and one to database pages', () => {
  const files = planShop(100_000_000)
  const share = (kinds: string[]) =>
    files.filter((file) => kinds.includes(file.kind)).reduce((sum, file) => sum + file.bytes, 0) / 100_000_000
  assert.ok(Math.abs(share(['image']) - 0.7) < 0.06)
  assert.ok(Math.abs(share(['csv', 'json', 'log']) - 0.2) < 0.01)
  assert.ok(Math.abs(share(['pages']) - 0.1) < 0.01)
})

test('writeShop() writes the same bytes each time, and undoDay2() brings them back', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'bench-shop-'))
  t.after(() => rmSync(root, { recursive: true }))
  const files = planShop(shopBytes)
  await writeShop(root, files)
  const first = digests(root)
  const day = await applyDay2(root, files)
  const second = digests(root)
  await undoDay2(root, day)
  assert.deepEqual(digests(root), first)
  await applyDay2(root, files)
  assert.deepEqual(digests(root), second)

  const changed = [...first].filter(([path, digest]) => second.get(path) !== digest)
  const added = [...second.keys()].filter((path) => !first.has(path))
  assert.equal(changed.length, day.changed.length)
  assert.deepEqual(added.toSorted(), day.added.toSorted())
})

test('createPage() lays rows out as PostgreSQL does', () => {
  const page = createPage(createNoise('page'), 7)
  assert.equal(page.length, pageBytes)
  assert.equal(page.readUInt16LE(18), 0x2004)
  const lower = page.readUInt16LE(12)
  const upper = page.readUInt16LE(14)
  assert.ok(lower > 24 && lower < upper && upper < pageBytes && page.readUInt16LE(16) === pageBytes)
  let end = pageBytes
  for (let at = 24; at < lower; at += 4) {
    const pointer = page.readUInt32LE(at)
    const offset = pointer & 0x7fff
    const length = pointer >>> 17
    assert.equal((pointer >>> 15) & 3, 1)
    assert.ok(offset % 8 === 0 && offset >= upper && offset + length <= end)
    end = offset
  }
  assert.equal(end, upper)
})

function digests(root: string): Map<string, string> {
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const paths = files.map((entry) => join(entry.parentPath, entry.name)).toSorted()
  return new Map(
    paths.map((path) => [
      path.slice(root.length + 1),
      createHash('sha256').update(readFileSync(path)).digest('hex'),
    ]),
  )
}
